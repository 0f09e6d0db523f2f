//go:build unix

package durable

import (
	"os"
	"path/filepath"
	"strings"
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

func TestMakeDir(t *testing.T) {
	for _, c := range []struct {
		name  string
		mode  os.FileMode
		owner int
		want  string // in the error; "" = none
	}{
		{"own", 0o700, os.Geteuid(), ""},
		{"for all to read", 0o755, os.Geteuid(), ""},
		{"of a group that may write", 0o770, os.Geteuid(), "may be written to by others"},
		{"for all to write", 0o777, os.Geteuid(), "may be written to by others"},
		{"for all to write, as /tmp", 0o777 | os.ModeSticky, os.Geteuid(), "may be written to by others"},
		{"of somebody else", 0o700, 1234, "belongs to user 1234"},
	} {
		dir := filepath.Join(t.TempDir(), "dir")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, c.owner, -1); err != nil {
			t.Fatalf("this test must run as root: it makes a folder of somebody else: %v", err)
		}
		err := MakeDir(dir, 0o700)
		if (c.want == "") != (err == nil) || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	was := syscall.Umask(0)
	defer syscall.Umask(was)
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := MakeDir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("with an umask of 0: %v, %v", st.Mode(), err)
	}
}
