package selector

import "slices"

// Restriction is what one label must be like for a selector to match: necessary, not sufficient. An index finds
// candidates by it.
type Restriction struct {
	Present bool
	Absent  bool
	// Values are the only values that can match, sorted; nil = any. If not nil, Present holds too.
	Values []string
}

// Impossible says that no label can be like that, so that the selector matches nothing.
func (r Restriction) Impossible() bool {
	return r.Present && r.Absent || r.Values != nil && len(r.Values) == 0
}

// Allows says whether a label with this value (present or not) is within the restriction.
func (r Restriction) Allows(value string, present bool) bool {
	switch {
	case present && r.Absent, !present && r.Present:
		return false
	case r.Values != nil:
		return contains(r.Values, value)
	}
	return true
}

// Restrictions returns, for each label that is restricted, how. Operands of && restrict together, operands of || only
// where all of them do; a ! restricts only if it stands before has().
func (s *Selector) Restrictions() map[string]Restriction { return s.root.restrict() }

func present(label string) map[string]Restriction {
	return map[string]Restriction{label: {Present: true}}
}

func oneOf(label string, values ...string) map[string]Restriction {
	return map[string]Restriction{label: {Present: true, Values: values}}
}

func (All) restrict() map[string]Restriction          { return nil }
func (Global) restrict() map[string]Restriction       { return nil }
func (n Has) restrict() map[string]Restriction        { return present(n.Label) }
func (n Eq) restrict() map[string]Restriction         { return oneOf(n.Label, n.Value) }
func (NotEq) restrict() map[string]Restriction        { return nil }
func (n Contains) restrict() map[string]Restriction   { return present(n.Label) }
func (n StartsWith) restrict() map[string]Restriction { return present(n.Label) }
func (n EndsWith) restrict() map[string]Restriction   { return present(n.Label) }
func (n In) restrict() map[string]Restriction         { return oneOf(n.Label, n.Values...) }
func (NotIn) restrict() map[string]Restriction        { return nil }

func (n Not) restrict() map[string]Restriction {
	if h, ok := n.Of.(Has); ok {
		return map[string]Restriction{h.Label: {Absent: true}}
	}
	return nil
}

func (n And) restrict() map[string]Restriction {
	all := map[string]Restriction{}
	for _, o := range n.Of {
		for label, r := range o.restrict() {
			all[label] = both(all[label], r)
		}
	}
	return all
}

func (n Or) restrict() map[string]Restriction {
	var out map[string]Restriction
	for i, o := range n.Of {
		r := o.restrict()
		switch {
		case i == 0 || impossible(out):
			out = r
		case !impossible(r):
			out = either(out, r)
		}
	}
	return out
}

func impossible(m map[string]Restriction) bool {
	for _, r := range m {
		if r.Impossible() {
			return true
		}
	}
	return false
}

func both(a, b Restriction) Restriction {
	r := Restriction{Present: a.Present || b.Present, Absent: a.Absent || b.Absent}
	switch {
	case a.Values == nil:
		r.Values = b.Values
	case b.Values == nil:
		r.Values = a.Values
	default:
		r.Values = []string{}
		for _, v := range a.Values {
			if contains(b.Values, v) {
				r.Values = append(r.Values, v)
			}
		}
	}
	return r
}

func either(a, b map[string]Restriction) map[string]Restriction {
	out := map[string]Restriction{}
	for label, ra := range a {
		rb, ok := b[label]
		if !ok {
			continue
		}
		r := Restriction{Present: ra.Present && rb.Present, Absent: ra.Absent && rb.Absent}
		if ra.Values != nil && rb.Values != nil {
			r.Values = sortedSet(slices.Concat(ra.Values, rb.Values))
		}
		if r.Present || r.Absent {
			out[label] = r
		}
	}
	return out
}
