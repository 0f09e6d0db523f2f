// Command tortie-cni is the CNI plugin. Package cni says how it is configured.
package main

import (
	"os"

	"github.com/tortie/tortie/cni"
)

// version is set by the linker.
var version = "unknown"

func main() { os.Exit(cni.Main("CNI plugin tortie-cni " + version)) }
