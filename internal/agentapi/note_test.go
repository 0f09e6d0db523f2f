package agentapi

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestNotes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "notes")
	if ns, err := ReadNotes(dir); err != nil || len(ns) != 0 {
		t.Errorf("no directory: %v, %v", ns, err)
	}
	if there, err := HasNote(dir, "s1", "eth0"); there || err != nil {
		t.Errorf("no directory: %v, %v", there, err)
	}
	if err := RemoveNote(dir, "s1", "eth0"); err != nil {
		t.Errorf("no directory: %v", err)
	}
	want := Note{Sandbox: "s1", Interface: "eth0", Network: "net", Written: time.Unix(1, 0).UTC()}
	var wg sync.WaitGroup // a runtime may ask twice at the same time
	for range 8 {
		wg.Go(func() {
			if err := WriteNote(dir, want); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	ns, err := ReadNotes(dir)
	if d := cmp.Diff([]Note{want}, ns); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	for _, iface := range []string{"eth0", "eth1"} {
		if there, err := HasNote(dir, "s1", iface); there != (iface == "eth0") || err != nil {
			t.Errorf("%s: %v, %v", iface, there, err)
		}
	}
	for range 2 {
		if err := RemoveNote(dir, "s1", "eth0"); err != nil {
			t.Error(err)
		}
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 0 {
		t.Errorf("left: %v, %v", es, err)
	}
}

func TestNoteCantBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteNote(filepath.Join(file, "notes"), Note{Sandbox: "s1", Interface: "eth0"}); err == nil {
		t.Error("no error")
	}
	if err := WriteNote(file, Note{Sandbox: "s1", Interface: "eth0"}); err == nil {
		t.Error("no error")
	}
}

func TestSweepNotes(t *testing.T) {
	dir := t.TempDir()
	old, young := filepath.Join(dir, "1.tmp"), filepath.Join(dir, "2.tmp")
	for _, f := range []string{old, young} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := SweepNotes(dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 || left[0] != young {
		t.Errorf("left: %v", left)
	}
}

// TestUnreadNoteStays: a note that the system won't let be read is not a bad one.
func TestUnreadNoteStays(t *testing.T) {
	dir := t.TempDir()
	want := Note{Sandbox: "s1", Interface: "eth0", Written: time.Unix(1, 0).UTC()}
	if err := WriteNote(dir, want); err != nil {
		t.Fatal(err)
	}
	path := notePath(dir, "s1", "eth0")
	// A link to itself can't be opened, whoever tries.
	if err := errors.Join(os.Rename(path, path+".good"), os.Symlink(path, path)); err != nil {
		t.Fatal(err)
	}
	if ns, err := ReadNotes(dir); err == nil || len(ns) != 0 {
		t.Errorf("%v, %v", ns, err)
	}
	if err := os.Rename(path+".good", path); err != nil {
		t.Fatal(err)
	}
	if ns, err := ReadNotes(dir); err != nil || !cmp.Equal(ns, []Note{want}) {
		t.Errorf("%v, %v", ns, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}
