// Package cases reads the good and bad objects of api/testdata/validate, for those who judge them by a schema.
package cases

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"
)

// A Case is an object; the README beside them says how they are written.
type Case struct {
	Kind   api.KindInfo
	Title  string
	Good   bool
	Object map[string]any // as an API server reads it: whole numbers are int64
}

// Name is "Tier/good order and action".
func (c Case) Name() string {
	if c.Good {
		return c.Kind.Kind + "/good " + c.Title
	}
	return c.Kind.Kind + "/bad " + c.Title
}

// Read returns the cases in the files of a folder.
func Read(dir string) ([]Case, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("looking for cases: %w", err)
	}
	var out []Case
	for _, f := range files {
		read, err := readFile(f)
		if err != nil {
			return nil, fmt.Errorf("reading the cases of %s: %w", f, err)
		}
		out = append(out, read...)
	}
	return out, nil
}

func readFile(path string) ([]Case, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var c struct {
		Kind  string           `json:"kind"`
		Base  map[string]any   `json:"base"`
		Cases []map[string]any `json:"cases"`
	}
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return nil, err
	}
	k, ok := api.KindByName(c.Kind)
	if !ok {
		return nil, fmt.Errorf("there is no kind %s", c.Kind)
	}
	c.Base["apiVersion"], c.Base["kind"] = k.APIVersion, k.Kind
	var out []Case
	for _, one := range c.Cases {
		read, err := readCase(k, c.Base, one)
		if err != nil {
			return nil, err
		}
		out = append(out, read)
	}
	return out, nil
}

func readCase(k api.KindInfo, base, one map[string]any) (Case, error) {
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
	c := Case{Kind: k, Title: title, Good: good}
	b, err := json.Marshal(merge(base, patch))
	if err != nil {
		return c, err
	}
	return c, utiljson.Unmarshal(b, &c.Object)
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
