package selector

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
)

// Selector is a parsed selector. It is immutable and safe for concurrent use.
type Selector struct {
	root Node
	text string
	id   string
}

// Labels are what a selector is matched against.
type Labels interface {
	// Get returns the value of a label; ok is false if there is no such label.
	Get(name string) (value string, ok bool)
}

// Map is Labels in a map.
type Map map[string]string

// Get returns the value of a label.
func (m Map) Get(name string) (string, bool) {
	v, ok := m[name]
	return v, ok
}

// New makes a selector of nodes. It refuses what Parse could not read back: names that are no identifiers, values that
// hold both kinds of quote, And and Or of fewer than two, and nesting above MaxDepth. In and NotIn need not be sorted.
func New(root Node) (*Selector, error) {
	root = Rewrite(root, normalise)
	if err := check(root, 0); err != nil {
		return nil, err
	}
	return build(root), nil
}

func build(root Node) *Selector {
	text := string(root.print(nil, true))
	sum := sha256.Sum224([]byte("s:" + text))
	return &Selector{root: root, text: text, id: "s:" + base64.RawURLEncoding.EncodeToString(sum[:])}
}

// Matches says whether an endpoint with these labels is selected. It allocates nothing.
func (s *Selector) Matches(l Labels) bool { return s.root.Matches(l) }

// String returns the canonical form: selectors that differ only in spelling have the same one.
func (s *Selector) String() string { return s.text }

// ID is a short name for the canonical form, the same in every process and release.
func (s *Selector) ID() string { return s.id }

// Root returns the syntax tree. It must not be changed.
func (s *Selector) Root() Node { return s.root }

// Mentions returns the names of the labels that the outcome can depend on, sorted, each once.
func (s *Selector) Mentions() []string {
	var names []string
	Walk(s.root, func(n Node) {
		if name, ok := labelOf(n); ok {
			names = append(names, name)
		}
	})
	slices.Sort(names)
	return slices.Compact(names)
}
