package agentapi

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzNote: whatever is in a note's file, it is about the attachment that its name says, or set aside.
func FuzzNote(f *testing.F) {
	f.Add([]byte(`{"sandbox":"a","interface":"eth0","written":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"sandbox":"b","interface":"eth0"}`))
	f.Add([]byte(`{"sandbox":"a","interface":"eth0","Sandbox":"b"}`))
	f.Add([]byte(`[]`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := notePath(dir, "a", "eth0")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		notes, err := ReadNotes(dir)
		bad, globErr := filepath.Glob(filepath.Join(dir, "*"+badSuffix))
		if globErr != nil {
			t.Fatal(globErr)
		}
		for _, b := range bad {
			os.Remove(b)
		}
		switch {
		case err == nil && len(bad) == 0 && len(notes) == 1 && notes[0].Sandbox == "a" && notes[0].Interface == "eth0":
		case err != nil && len(bad) == 1 && len(notes) == 0:
		default:
			t.Fatalf("%q: notes %v, set aside %v, %v", b, notes, bad, err)
		}
	})
}
