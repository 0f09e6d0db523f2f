package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/tortie/tortie/internal/bounded"
)

// maxFile bounds the configuration, in bytes.
const maxFile = 1 << 20

// Load reads the file at path over Default. A key that it doesn't know is an error. It doesn't Validate: flags may
// still change what the file says.
func Load(path string) (Config, error) {
	b, err := bounded.ReadFile(path, maxFile)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration %s: %w", path, err)
	}
	return c, nil
}

// Parse is Load without a file.
func Parse(b []byte) (Config, error) {
	c := Default()
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
	c.Said = sortedKeys(keys)
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
