package cni

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// netnsFile opens a network namespace that is not the plugin's own.
func netnsFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	typ, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || typ != unix.CLONE_NEWNET {
		return nil, errors.Join(fmt.Errorf("%s is not a network namespace", path), f.Close())
	}
	own, err := sameAsOwn(f)
	if err == nil && own {
		err = fmt.Errorf("%s is the node's own network namespace", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ownNetns reports whether a path leads to the plugin's own network namespace.
func ownNetns(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	own, err := sameAsOwn(f)
	return err == nil && own
}

func sameAsOwn(f *os.File) (bool, error) {
	var a, b unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &a); err != nil {
		return false, err
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &b); err != nil {
		return false, err
	}
	return a.Dev == b.Dev && a.Ino == b.Ino, nil
}
