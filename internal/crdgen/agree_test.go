package crdgen

import (
	"testing"

	"encoding/json"

	"github.com/tortie/tortie/api"
)

// servers makes a server for every kind.
func servers(t testing.TB) map[string]*server {
	t.Helper()
	out := map[string]*server{}
	files := generated(t)
	for _, k := range Kinds() {
		out[k.Kind] = newServer(t, files[FileName(k)])
	}
	return out
}

// plain gives what an API server reads from JSON: whole numbers are int64.
func plain(t testing.TB, object map[string]any) map[string]any {
	t.Helper()
	b, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var u unstructuredObject
	if err := u.UnmarshalJSON(b); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestAgreement(t *testing.T) {
	all := servers(t)
	good, bad := 0, 0
	left := map[string]bool{}
	for name := range differing() {
		left[name] = true
	}
	for _, c := range testCases(t) {
		if c.good {
			good++
		} else {
			bad++
		}
		t.Run(c.name(), func(t *testing.T) {
			_, err := all[c.kind.Kind].create(t.Context(), plain(t, c.object))
			_, differs := differing()[c.name()]
			delete(left, c.name())
			switch {
			case c.good && err != nil:
				t.Errorf("is good and is refused: %v", err)
			case !c.good && err == nil && !differs:
				t.Errorf("is bad and is accepted: %v", c.object)
			case differs && err != nil:
				t.Errorf("is listed as a difference and is refused: %v", err)
			}
		})
	}
	for name := range left {
		t.Errorf("%s is listed as a difference and is no case", name)
	}
	t.Logf("%d good and %d bad objects, %d listed differences", good, bad, len(differing()))
	if good < 150 || bad < 500 {
		t.Error("these are too few")
	}
	_ = api.Kinds
}
