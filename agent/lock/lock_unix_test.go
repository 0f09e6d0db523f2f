//go:build unix

package lock

import (
	"os"
	"path/filepath"
	"testing"
)

// TestOthersCannotHoldIt: who can't open the file can't lock it. One that an earlier release left is closed too.
func TestOthersCannotHoldIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}
