//go:build e2e

package admission

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/tortie/tortie/api/crdgen"
	"github.com/tortie/tortie/api/crdgen/cases"
)

// repaired are what the API server mends by itself: it takes the namespace of a request's path, or none.
var repaired = []string{"no namespace", "a namespace"}

// agreement: the API server takes every good object of the table, and no bad one but those of crdgen.Differences that no
// admission policy refuses.
func (s *server) agreement(t *testing.T) {
	all, err := cases.Read("../../../api/testdata/validate")
	if err != nil {
		t.Fatal(err)
	}
	differ := map[string]bool{}
	for _, d := range crdgen.Differences() {
		for _, c := range d.Cases {
			differ[c] = !d.Policy
		}
	}
	crds := map[string]bool{}
	for _, k := range crdgen.Kinds() {
		crds[k.Kind] = true
	}
	good, bad := 0, 0
	for _, c := range all {
		if !crds[c.Kind.Kind] {
			continue
		}
		if c.Good {
			good++
		} else {
			bad++
		}
		code, a := s.dryRun(t, c)
		switch accepted := code < 300; {
		case code == 0 || code >= 500:
			t.Errorf("%s: %d %s", c.Name(), code, a.text)
		case c.Good && !accepted:
			t.Errorf("%s is refused: %d %s", c.Name(), code, a.text)
		case !c.Good && accepted && !differ[c.Name()] && !contains(repaired, c.Title):
			t.Errorf("%s is accepted", c.Name())
		case !c.Good && !accepted && (differ[c.Name()] || contains(repaired, c.Title)):
			t.Errorf("%s is said to be accepted, and is refused: %s", c.Name(), a.message())
		}
	}
	t.Logf("%d good and %d bad objects", good, bad)
	if good < 200 || bad < 650 {
		t.Error("these are too few")
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func (s *server) dryRun(t *testing.T, c cases.Case) (int, answer) {
	t.Helper()
	meta, _ := c.Object["metadata"].(map[string]any)
	ns, _ := meta["namespace"].(string)
	if !c.Kind.Namespaced {
		ns = ""
	} else if ns == "" {
		ns = "prod"
	}
	return s.do(t, admin, http.MethodPost, in(url.PathEscape(ns), c.Kind.Plural)+"?dryRun=All&fieldValidation=Strict", c.Object)
}
