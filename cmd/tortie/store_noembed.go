//go:build noembed

package main

import "github.com/spf13/cobra"

const hasStore = false

func storeCommands() []*cobra.Command { return nil }
