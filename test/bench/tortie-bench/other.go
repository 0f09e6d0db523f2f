//go:build !linux

// Command tortie-bench measures Tortie in network namespaces, which only Linux has.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "tortie-bench needs Linux: its nodes are network namespaces")
	os.Exit(1)
}
