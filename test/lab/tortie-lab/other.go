//go:build !linux

// Command tortie-lab brings up nodes as network namespaces, which only Linux has.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "tortie-lab needs Linux: its nodes are network namespaces")
	os.Exit(1)
}
