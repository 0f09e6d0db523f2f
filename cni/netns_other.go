//go:build !linux

package cni

import (
	"fmt"
	"os"
	"runtime"
)

func netnsFile(path string) (*os.File, error) {
	return nil, fmt.Errorf("%s: this plugin knows no network namespaces on %s", path, runtime.GOOS)
}

func ownNetns(string) bool { return false }
