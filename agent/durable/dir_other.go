//go:build !unix

package durable

import "os"

// private leaves it to the access lists that a folder inherits: its mode says nothing here.
func private(os.FileInfo) error { return nil }
