// Package page writes what a program has measured between two markers of a page of the documentation, and keeps the
// measurements in a JSON file, from which the next run goes on.
package page

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// Section is the part of a page that a command writes.
type Section struct{ Command string }

func (s Section) marks() (begin, end string) {
	return "<!-- begin: " + s.Command + " -->\n", "<!-- end: " + s.Command + " -->"
}

// Splice returns text with what write makes of the section that is there.
func (s Section) Splice(text string, write func(was string) string) (string, error) {
	begin, end := s.marks()
	head, rest, ok := strings.Cut(text, begin)
	was, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("the page has no lines %q and %q to write between", strings.TrimSpace(begin), end)
	}
	return head + begin + write(was) + end + tail, nil
}

// Update has the section of a file be what write makes of it.
func (s Section) Update(file string, write func(was string) string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	spliced, err := s.Splice(string(text), write)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(spliced), 0o644)
}

// Read reads what Write has written; with no such file it is the zero value.
func Read[T any](file string) (*T, error) {
	v := new(T)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	} else if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return v, nil
}

// Write writes v where Read finds it.
func Write(file string, v any) error {
	data, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644)
}
