package durable

import (
	"fmt"
	"os"
)

// MakeDir makes the folder dir, and those above it, unless it is there. One that others than this user and root may
// write to is an error: they could take files away, or put their own in place of them.
func MakeDir(dir string, mode os.FileMode) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if err := private(st); err != nil {
		return fmt.Errorf("%s %w: give it to this user, and nobody else the right to write to it", dir, err)
	}
	return nil
}
