package calcgraph

import (
	"slices"
	"strings"

	"github.com/tortie/tortie/api/selector"
)

type op uint8

const (
	opAll op = iota
	opHas
	opEq
	opNotEq
	opIn
	opNotIn
	opContains
	opStarts
	opEnds
	opNot
	opAnd
	opOr
)

// expr is a selector with its labels interned. It holds every key and pair that it names.
type expr struct {
	op    op
	key   uint32
	pair  uint32   // opEq, opNotEq
	pairs []uint32 // opIn, opNotIn; sorted
	text  string   // opContains, opStarts, opEnds
	of    []expr   // opNot, opAnd, opOr
}

// compile interns a selector.
func compile(s *labels, n selector.Node) expr {
	switch n := n.(type) {
	case selector.Has:
		return expr{op: opHas, key: s.holdKey(n.Label)}
	case selector.Eq:
		return compilePair(s, opEq, n.Label, n.Value)
	case selector.NotEq:
		return compilePair(s, opNotEq, n.Label, n.Value)
	case selector.In:
		return compileIn(s, opIn, n.Label, n.Values)
	case selector.NotIn:
		return compileIn(s, opNotIn, n.Label, n.Values)
	case selector.Contains:
		return expr{op: opContains, key: s.holdKey(n.Label), text: n.Value}
	case selector.StartsWith:
		return expr{op: opStarts, key: s.holdKey(n.Label), text: n.Value}
	case selector.EndsWith:
		return expr{op: opEnds, key: s.holdKey(n.Label), text: n.Value}
	case selector.Not:
		return expr{op: opNot, of: []expr{compile(s, n.Of)}}
	case selector.And:
		return expr{op: opAnd, of: compileList(s, n.Of)}
	case selector.Or:
		return expr{op: opOr, of: compileList(s, n.Of)}
	}
	return expr{op: opAll} // All and Global
}

func compilePair(s *labels, o op, name, value string) expr {
	l := s.hold(name, value)
	s.holdKey(name)
	return expr{op: o, key: l.key, pair: l.pair}
}

func compileIn(s *labels, o op, name string, values []string) expr {
	e := expr{op: o, key: s.holdKey(name)}
	for _, v := range values {
		e.pairs = append(e.pairs, s.hold(name, v).pair)
	}
	slices.Sort(e.pairs)
	return e
}

func compileList(s *labels, ns []selector.Node) []expr {
	es := make([]expr, len(ns))
	for i, n := range ns {
		es[i] = compile(s, n)
	}
	return es
}

// walk calls fn for e and every expr below it.
func (e *expr) walk(fn func(*expr)) {
	fn(e)
	for i := range e.of {
		e.of[i].walk(fn)
	}
}

// release lets go of what compile held.
func (e *expr) release(s *labels) {
	e.walk(func(e *expr) {
		for _, p := range e.pairs {
			s.drop(label{e.key, p})
		}
		if e.pair != 0 {
			s.drop(label{e.key, e.pair})
		}
		if e.key != 0 {
			s.dropKey(e.key)
		}
	})
}

// match reports whether a thing with these labels is selected.
func (e *expr) match(s *labels, ls []label) bool {
	switch e.op {
	case opHas:
		return get(ls, e.key) != 0
	case opEq:
		return get(ls, e.key) == e.pair
	case opNotEq:
		return get(ls, e.key) != e.pair
	case opIn:
		return e.in(ls)
	case opNotIn:
		return !e.in(ls)
	case opContains, opStarts, opEnds:
		p := get(ls, e.key)
		return p != 0 && e.matchText(s.value(p))
	case opNot:
		return !e.of[0].match(s, ls)
	case opAnd:
		for i := range e.of {
			if !e.of[i].match(s, ls) {
				return false
			}
		}
		return true
	case opOr:
		for i := range e.of {
			if e.of[i].match(s, ls) {
				return true
			}
		}
		return false
	}
	return true
}

func (e *expr) in(ls []label) bool {
	_, ok := slices.BinarySearch(e.pairs, get(ls, e.key))
	return ok
}

func (e *expr) matchText(v string) bool {
	switch e.op {
	case opContains:
		return strings.Contains(v, e.text)
	case opStarts:
		return strings.HasPrefix(v, e.text)
	}
	return strings.HasSuffix(v, e.text)
}
