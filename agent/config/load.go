package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/tortie/tortie/internal/bounded"
)

// maxFile bounds the configuration, in bytes.
const maxFile = 1 << 20

// Load reads the file at path over Default, and over that the files path.d/*.yaml in the order of their names: what one of
// them does not say stays as it is, lists are replaced as a whole. A key that it doesn't know is an error. It doesn't
// Validate: flags may still change what the files say.
func Load(path string) (Config, error) {
	files := []string{path}
	more, err := os.ReadDir(path + ".d") // sorted
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	for _, f := range more {
		if filepath.Ext(f.Name()) == ".yaml" {
			files = append(files, filepath.Join(path+".d", f.Name()))
		}
	}
	c := Default()
	for _, f := range files {
		b, err := bounded.ReadFile(f, maxFile)
		if err != nil {
			return Config{}, fmt.Errorf("reading the configuration: %w", err)
		}
		if c, err = parse(c, b); err != nil {
			return Config{}, fmt.Errorf("reading the configuration %s: %w", f, err)
		}
	}
	return c, nil
}

// Parse is Load without files.
func Parse(b []byte) (Config, error) { return parse(Default(), b) }

// parse reads b over c.
func parse(c Config, b []byte) (Config, error) {
	j, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		return c, err
	}
	if string(bytes.TrimSpace(j)) == "null" {
		return c, nil // an empty file
	}
	var keys map[string]any
	if err := json.Unmarshal(j, &keys); err != nil {
		return c, errors.New("want key: value lines")
	}
	if err := unknownKeys("", keys, reflect.TypeOf(c)); err != nil {
		return c, err
	}
	c.Said = slices.Compact(slices.Sorted(slices.Values(append(sortedKeys(keys), c.Said...))))
	d := json.NewDecoder(bytes.NewReader(j))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		var bad *json.UnmarshalTypeError
		if errors.As(err, &bad) {
			return c, fmt.Errorf("%s: a %s doesn't fit here", bad.Field, bad.Value)
		}
		return c, err
	}
	return c, nil
}

// unknownKeys returns an error for each key of m that isn't a field of t.
func unknownKeys(prefix string, m map[string]any, t reflect.Type) error {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "-" {
			fields[name] = t.Field(i).Type
		}
	}
	var errs []error
	for _, k := range sortedKeys(m) {
		ft, ok := fields[k]
		if !ok {
			errs = append(errs, fmt.Errorf("unknown key %s%s%s", prefix, k, didYouMean(k, sortedKeys(fields))))
			continue
		}
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		if sub, ok := m[k].(map[string]any); ok && ft.Kind() == reflect.Struct {
			errs = append(errs, unknownKeys(prefix+k+".", sub, ft))
		}
	}
	return errors.Join(errs...)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// didYouMean names the known key that is nearest to k, if it is near.
func didYouMean(k string, known []string) string {
	best, least := "", len(k)/2+1
	for _, n := range known {
		if d := distance(strings.ToLower(k), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	if best == "" {
		return fmt.Sprintf(" (known: %s)", strings.Join(known, ", "))
	}
	return fmt.Sprintf(", did you mean %s?", best)
}

// distance is how many letters must be put in, taken out or exchanged to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = slices.Min([]int{diagonal, row[j], row[j+1]}) + 1
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
