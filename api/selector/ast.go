package selector

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Node is a part of a selector: one of the types of this file.
type Node interface {
	Matches(Labels) bool
	// print appends the canonical form. And and Or stand in parentheses unless they are the root.
	print(b []byte, root bool) []byte
	// restrict returns what labels must be like for the node to match.
	restrict() map[string]Restriction
}

type (
	// All is all(): it matches everything.
	All struct{}
	// Global is global(). It matches everything, and has a meaning only as the whole of a rule's namespaceSelector.
	Global struct{}
	// Has is has(Label).
	Has struct{ Label string }
	// Eq is Label == Value.
	Eq struct{ Label, Value string }
	// NotEq is Label != Value. It matches where the label is absent.
	NotEq struct{ Label, Value string }
	// Contains is Label contains Value.
	Contains struct{ Label, Value string }
	// StartsWith is Label starts with Value.
	StartsWith struct{ Label, Value string }
	// EndsWith is Label ends with Value.
	EndsWith struct{ Label, Value string }
	// In is Label in {Values}. Values are sorted, each once.
	In struct {
		Label  string
		Values []string
	}
	// NotIn is Label not in {Values}. It matches where the label is absent. Values are sorted, each once.
	NotIn struct {
		Label  string
		Values []string
	}
	// Not is !Of.
	Not struct{ Of Node }
	// And matches if each of Of does. There are at least two.
	And struct{ Of []Node }
	// Or matches if one of Of does. There are at least two.
	Or struct{ Of []Node }
)

func (All) Matches(Labels) bool    { return true }
func (Global) Matches(Labels) bool { return true }

func (n Has) Matches(l Labels) bool {
	_, ok := l.Get(n.Label)
	return ok
}

func (n Eq) Matches(l Labels) bool {
	v, ok := l.Get(n.Label)
	return ok && v == n.Value
}

func (n NotEq) Matches(l Labels) bool {
	v, ok := l.Get(n.Label)
	return !ok || v != n.Value
}

func (n Contains) Matches(l Labels) bool {
	v, ok := l.Get(n.Label)
	return ok && strings.Contains(v, n.Value)
}

func (n StartsWith) Matches(l Labels) bool {
	v, ok := l.Get(n.Label)
	return ok && strings.HasPrefix(v, n.Value)
}

func (n EndsWith) Matches(l Labels) bool {
	v, ok := l.Get(n.Label)
	return ok && strings.HasSuffix(v, n.Value)
}

func (n In) Matches(l Labels) bool {
	v, ok := l.Get(n.Label)
	return ok && contains(n.Values, v)
}

func (n NotIn) Matches(l Labels) bool {
	v, ok := l.Get(n.Label)
	return !ok || !contains(n.Values, v)
}

func (n Not) Matches(l Labels) bool { return !n.Of.Matches(l) }

func (n And) Matches(l Labels) bool {
	for _, o := range n.Of {
		if !o.Matches(l) {
			return false
		}
	}
	return true
}

func (n Or) Matches(l Labels) bool {
	for _, o := range n.Of {
		if o.Matches(l) {
			return true
		}
	}
	return false
}

func contains(sorted []string, v string) bool {
	_, ok := slices.BinarySearch(sorted, v)
	return ok
}

func (All) print(b []byte, _ bool) []byte    { return append(b, "all()"...) }
func (Global) print(b []byte, _ bool) []byte { return append(b, "global()"...) }
func (n Has) print(b []byte, _ bool) []byte {
	return append(append(append(b, "has("...), n.Label...), ')')
}
func (n Eq) print(b []byte, _ bool) []byte { return printOp(b, n.Label, " == ", n.Value) }
func (n NotEq) print(b []byte, _ bool) []byte {
	return printOp(b, n.Label, " != ", n.Value)
}
func (n Contains) print(b []byte, _ bool) []byte {
	return printOp(b, n.Label, " contains ", n.Value)
}
func (n StartsWith) print(b []byte, _ bool) []byte {
	return printOp(b, n.Label, " starts with ", n.Value)
}
func (n EndsWith) print(b []byte, _ bool) []byte {
	return printOp(b, n.Label, " ends with ", n.Value)
}
func (n In) print(b []byte, _ bool) []byte     { return printSet(b, n.Label, " in {", n.Values) }
func (n NotIn) print(b []byte, _ bool) []byte  { return printSet(b, n.Label, " not in {", n.Values) }
func (n Not) print(b []byte, _ bool) []byte    { return n.Of.print(append(b, '!'), false) }
func (n And) print(b []byte, root bool) []byte { return printList(b, " && ", n.Of, root) }
func (n Or) print(b []byte, root bool) []byte  { return printList(b, " || ", n.Of, root) }

func printOp(b []byte, label, op, value string) []byte {
	return printString(append(append(b, label...), op...), value)
}

func printSet(b []byte, label, op string, values []string) []byte {
	b = append(append(b, label...), op...)
	for i, v := range values {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = printString(b, v)
	}
	return append(b, '}')
}

func printList(b []byte, op string, nodes []Node, root bool) []byte {
	if !root {
		b = append(b, '(')
	}
	for i, n := range nodes {
		if i > 0 {
			b = append(b, op...)
		}
		b = n.print(b, false)
	}
	if !root {
		b = append(b, ')')
	}
	return b
}

func printString(b []byte, v string) []byte {
	q := byte('"')
	if strings.Contains(v, `"`) {
		q = '\''
	}
	return append(append(append(b, q), v...), q)
}

// labelOf returns the label that n compares, if it compares one.
func labelOf(n Node) (string, bool) {
	switch n := n.(type) {
	case Has:
		return n.Label, true
	case Eq:
		return n.Label, true
	case NotEq:
		return n.Label, true
	case Contains:
		return n.Label, true
	case StartsWith:
		return n.Label, true
	case EndsWith:
		return n.Label, true
	case In:
		return n.Label, true
	case NotIn:
		return n.Label, true
	}
	return "", false
}

// Walk calls f for n and every node below it, parents first.
func Walk(n Node, f func(Node)) {
	f(n)
	switch n := n.(type) {
	case Not:
		Walk(n.Of, f)
	case And:
		for _, o := range n.Of {
			Walk(o, f)
		}
	case Or:
		for _, o := range n.Of {
			Walk(o, f)
		}
	}
}

// Rewrite returns a copy of n in which each leaf (a node that is not Not, And or Or) is replaced by leaf of it.
func Rewrite(n Node, leaf func(Node) Node) Node {
	switch n := n.(type) {
	case Not:
		return Not{Of: Rewrite(n.Of, leaf)}
	case And:
		return And{Of: rewriteList(n.Of, leaf)}
	case Or:
		return Or{Of: rewriteList(n.Of, leaf)}
	}
	return leaf(n)
}

func rewriteList(nodes []Node, leaf func(Node) Node) []Node {
	out := make([]Node, len(nodes))
	for i, n := range nodes {
		out[i] = Rewrite(n, leaf)
	}
	return out
}

// Relabel returns a copy of n in which each label name is replaced by name of it.
func Relabel(n Node, name func(string) string) Node {
	return Rewrite(n, func(n Node) Node {
		switch n := n.(type) {
		case Has:
			return Has{name(n.Label)}
		case Eq:
			return Eq{name(n.Label), n.Value}
		case NotEq:
			return NotEq{name(n.Label), n.Value}
		case Contains:
			return Contains{name(n.Label), n.Value}
		case StartsWith:
			return StartsWith{name(n.Label), n.Value}
		case EndsWith:
			return EndsWith{name(n.Label), n.Value}
		case In:
			return In{name(n.Label), n.Values}
		case NotIn:
			return NotIn{name(n.Label), n.Values}
		}
		return n
	})
}

func normalise(n Node) Node {
	switch n := n.(type) {
	case In:
		return In{n.Label, sortedSet(n.Values)}
	case NotIn:
		return NotIn{n.Label, sortedSet(n.Values)}
	}
	return n
}

// sortedSet returns values sorted, each once, and never nil.
func sortedSet(values []string) []string {
	values = append([]string{}, values...)
	slices.Sort(values)
	return slices.Compact(values)
}

// check reports the first reason why Parse could not read n's canonical form back as n.
func check(n Node, depth int) error {
	if depth > MaxDepth {
		return fmt.Errorf("selector is nested more than %d deep", MaxDepth)
	}
	if label, ok := labelOf(n); ok {
		if err := checkIdent(label); err != nil {
			return err
		}
	}
	switch n := n.(type) {
	case nil:
		return errors.New("selector has a missing node")
	case Eq:
		return checkValues(n.Value)
	case NotEq:
		return checkValues(n.Value)
	case Contains:
		return checkValues(n.Value)
	case StartsWith:
		return checkValues(n.Value)
	case EndsWith:
		return checkValues(n.Value)
	case In:
		return checkValues(n.Values...)
	case NotIn:
		return checkValues(n.Values...)
	case Not:
		if _, ok := n.Of.(Not); ok {
			return errors.New("selector negates a negation")
		}
		return check(n.Of, depth+1)
	case And:
		return checkList(n.Of, depth)
	case Or:
		return checkList(n.Of, depth)
	}
	return nil
}

func checkList(nodes []Node, depth int) error {
	if len(nodes) < 2 {
		return errors.New("selector has an && or || of fewer than two")
	}
	for _, n := range nodes {
		if err := check(n, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func checkIdent(s string) error {
	if len(s) == 0 || len(s) > MaxIdent {
		return fmt.Errorf("label name %.20q has %d characters, not 1 to %d", s, len(s), MaxIdent)
	}
	for i := range len(s) {
		if !isIdent(s[i]) {
			return fmt.Errorf("label name %q holds %q", s, s[i])
		}
	}
	return nil
}

func checkValues(values ...string) error {
	for _, v := range values {
		if strings.Contains(v, `"`) && strings.Contains(v, `'`) {
			return fmt.Errorf("value %q holds both kinds of quote, which a selector can't say", v)
		}
	}
	return nil
}
