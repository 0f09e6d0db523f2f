//go:build !linux

// Command tortie-kubebench measures Tortie on a real Kubernetes cluster, whose nodes only Linux can have.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "tortie-kubebench needs Linux: its nodes are namespaces")
	os.Exit(1)
}
