//go:build unix

package durable

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestLinksAreNotWrittenThrough: somebody has put links and a pipe where files are going to be.
func TestLinksAreNotWrittenThrough(t *testing.T) {
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"a symbolic link":    func(p string) error { return os.Symlink(victim, p) },
		"a hard link":        func(p string) error { return os.Link(victim, p) },
		"a link to nowhere":  func(p string) error { return os.Symlink(victim+".new", p) },
		"a pipe":             func(p string) error { return syscall.Mkfifo(p, 0o666) },
		"a file of everyone": func(p string) error { return os.WriteFile(p, []byte("x"), 0o666) },
	} {
		for _, suffix := range []string{"", tempSuffix} {
			path := filepath.Join(t.TempDir(), "file")
			if err := plant(path + suffix); err != nil {
				t.Fatal(err)
			}
			if err := (Writer{}).WriteFile(path, []byte("data")); err != nil {
				t.Fatalf("%s at %q: %v", name, suffix, err)
			}
			st, err := os.Lstat(path)
			if err != nil || !st.Mode().IsRegular() || st.Mode().Perm() != 0o600 {
				t.Errorf("%s at %q: %v, %v", name, suffix, st, err)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != "data" {
				t.Errorf("%s at %q: %q, %v", name, suffix, b, err)
			}
		}
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
		t.Errorf("the victim holds %q, %v", b, err)
	}
	if _, err := os.Lstat(victim + ".new"); err == nil {
		t.Error("a file was made at the end of a link")
	}
}
