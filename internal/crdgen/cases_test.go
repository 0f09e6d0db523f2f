package crdgen

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/api"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// A testCase is an object of api/testdata/validate; the README there says how they are written.
type testCase struct {
	kind   api.KindInfo
	title  string
	good   bool
	object map[string]any
}

// name is "Tier/good order and action".
func (c testCase) name() string {
	if c.good {
		return c.kind.Kind + "/good " + c.title
	}
	return c.kind.Kind + "/bad " + c.title
}

// testCases returns the good and bad objects of the kinds that are CRDs.
func testCases(t testing.TB) []testCase {
	t.Helper()
	files, err := filepath.Glob("../../api/testdata/validate/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var out []testCase
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var c struct {
			Kind  string           `json:"kind"`
			Base  map[string]any   `json:"base"`
			Cases []map[string]any `json:"cases"`
		}
		if err := yaml.UnmarshalStrict(data, &c); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		k, ok := api.KindByName(c.Kind)
		if !ok {
			t.Fatalf("%s: no kind %s", f, c.Kind)
		}
		if slices.Contains(derived, k.Kind) {
			continue
		}
		c.Base["apiVersion"], c.Base["kind"] = k.APIVersion, k.Kind
		for _, one := range c.Cases {
			out = append(out, readCase(k, c.Base, one))
		}
	}
	return out
}

func readCase(k api.KindInfo, base, one map[string]any) testCase {
	title, good := one["good"].(string)
	if !good {
		title, _ = one["why"].(string)
	}
	patch := map[string]any{}
	for key, v := range one {
		if key != "good" && key != "bad" && key != "why" {
			patch[key] = repeat(v)
		}
	}
	return testCase{kind: k, title: title, good: good, object: merge(base, patch).(map[string]any)}
}

// merge lays what a case says over the base. Lists are replaced, null takes a field away.
func merge(base, with any) any {
	b, ok1 := base.(map[string]any)
	w, ok2 := with.(map[string]any)
	if !ok1 || !ok2 {
		return with
	}
	out := map[string]any{}
	for k, v := range b {
		out[k] = v
	}
	for k, v := range w {
		if v == nil {
			delete(out, k)
			continue
		}
		out[k] = merge(out[k], v)
	}
	return out
}

// repeat replaces {repeat: n, of: x} by n times the text or list x.
func repeat(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = repeat(v[i])
		}
	case map[string]any:
		if n, ok := v["repeat"].(float64); ok {
			if list, ok := v["of"].([]any); ok {
				return slices.Repeat(list, int(n))
			}
			text := func(key string) string {
				s, _ := repeat(v[key]).(string)
				return s
			}
			return text("before") + strings.Repeat(text("of"), int(n)) + text("after")
		}
		for k := range v {
			v[k] = repeat(v[k])
		}
	}
	return v
}

// unstructuredObject reads numbers as the API server does.
type unstructuredObject map[string]any

func (u *unstructuredObject) UnmarshalJSON(b []byte) error {
	return utiljson.Unmarshal(b, (*map[string]any)(u))
}
