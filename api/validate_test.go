package api

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// cases is a file of testdata/validate; testdata/validate/README.md says how to read it.
type cases struct {
	Kind  string           `json:"kind"`
	Base  map[string]any   `json:"base"`
	Cases []map[string]any `json:"cases"`
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

// repeat replaces {repeat: n, of: x} by n times x, so that limits can be written down: x is a text (which may stand
// between before and after) or a list.
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

// complain returns the paths of everything that Decode and Validate find.
func complain(t *testing.T, doc any) (paths []string, all error) {
	t.Helper()
	b, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Decode(b)
	if err != nil {
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			var f *FieldError
			if !errors.As(e, &f) {
				t.Fatal(e)
			}
			paths = append(paths, f.Path)
		}
		return paths, err
	}
	if len(objects) != 1 {
		t.Fatalf("%d objects", len(objects))
	}
	Default(objects[0])
	errs := Validate(objects[0])
	for _, e := range errs {
		paths = append(paths, e.Field)
	}
	return paths, errs.ToAggregate()
}

func TestValidate(t *testing.T) {
	files, err := filepath.Glob("testdata/validate/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	good, bad := 0, 0
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var c cases
		if err := yaml.UnmarshalStrict(data, &c); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		k, ok := KindByName(c.Kind)
		if !ok {
			t.Fatalf("%s: no kind %s", f, c.Kind)
		}
		c.Base["apiVersion"], c.Base["kind"] = k.APIVersion, k.Kind
		for _, one := range c.Cases {
			if _, ok := one["good"]; ok {
				good++
			} else {
				bad++
			}
			t.Run(c.Kind+"/"+title(one), func(t *testing.T) { checkCase(t, c.Base, one) })
		}
	}
	t.Logf("%d good and %d bad objects", good, bad)
	if good < 150 || bad < 300 {
		t.Errorf("%d good and %d bad objects, want at least 150 and 300", good, bad)
	}
}

func title(c map[string]any) string {
	if s, ok := c["good"].(string); ok {
		return "good " + s
	}
	s, _ := c["why"].(string)
	return "bad " + s
}

func checkCase(t *testing.T, base, c map[string]any) {
	patch := map[string]any{}
	for k, v := range c {
		if k != "good" && k != "bad" && k != "why" {
			patch[k] = repeat(v)
		}
	}
	var want []string
	switch b := c["bad"].(type) {
	case string:
		want = []string{b}
	case []any:
		for _, p := range b {
			want = append(want, p.(string))
		}
	case nil:
		if c["good"] == nil {
			t.Fatal("the case is neither good nor bad")
		}
	}
	got, err := complain(t, merge(base, patch))
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("paths (-want +got):\n%s\nerror: %v", diff, err)
	}
}
