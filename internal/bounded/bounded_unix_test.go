//go:build unix

package bounded_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tortie/tortie/internal/bounded"
)

// TestReadFileNeverWaits: a pipe that nobody writes to, and a device without an end.
func TestReadFileNeverWaits(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/zero"} {
		if _, err := bounded.ReadFile(path, 10); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
