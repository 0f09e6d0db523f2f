//go:build unix

package durable

import (
	"fmt"
	"os"
	"syscall"
)

// private says why a folder is open to others.
func private(st os.FileInfo) error {
	if m := st.Mode().Perm(); m&0o022 != 0 {
		return fmt.Errorf("may be written to by others (its mode is %v)", m)
	}
	if s, ok := st.Sys().(*syscall.Stat_t); ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("belongs to user %d", s.Uid)
	}
	return nil
}
