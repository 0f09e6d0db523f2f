package bounded_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tortie/tortie/internal/bounded"
)

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := bounded.ReadFile(path, 100); err != nil || len(b) != 100 {
		t.Errorf("as large as it may be: %d bytes, %v", len(b), err)
	}
	if _, err := bounded.ReadFile(path, 99); !errors.Is(err, bounded.ErrTooLarge) || !strings.Contains(err.Error(), path) {
		t.Errorf("larger: %v", err)
	}
	if _, err := bounded.ReadFile(path+"x", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if _, err := bounded.ReadFile(t.TempDir(), 1); err == nil {
		t.Error("a folder was read")
	}
}
