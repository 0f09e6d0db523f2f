package page

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestSplice(t *testing.T) {
	s := Section{Command: "make it"}
	const text = "above\n<!-- begin: make it -->\nold\n<!-- end: make it -->\nbelow\n"
	got, err := s.Splice(text, func(was string) string { return was + "new\n" })
	if want := strings.Replace(text, "old\n", "old\nnew\n", 1); err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	for _, bad := range []string{"", "<!-- begin: make it -->\n", "<!-- end: make it -->\n<!-- begin: make it -->\n", strings.ReplaceAll(text, "make it", "make more")} {
		if got, err := s.Splice(bad, func(string) string { return "" }); err == nil || !strings.Contains(err.Error(), "begin: make it") {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
}

func TestReadWrite(t *testing.T) {
	type report struct{ Rows []int }
	file := filepath.Join(t.TempDir(), "r.json")
	if r, err := Read[report](file); err != nil || r == nil || r.Rows != nil {
		t.Errorf("no file: %+v, %v", r, err)
	}
	if err := Write(file, report{Rows: []int{1, 2}}); err != nil {
		t.Fatal(err)
	}
	if r, err := Read[report](file); err != nil || len(r.Rows) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := Write(file, "not a report"); err != nil {
		t.Fatal(err)
	}
	if _, err := Read[report](file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("another file: %v", err)
	}
}
