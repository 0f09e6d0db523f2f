package calcgraph

import (
	"fmt"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// closePartial returns p as it has to be while some of the sets that it refers to are partial: members of theirs can't be
// read, so that they hold less than they should. An Allow by such a set allows less, which is safe, and so does a Deny of
// all but the set. A rule that is safe only if the set is whole, as a Deny by it, gets an unsupported clause, and loses
// the set: Lower makes it deny whatever else it names. p is not changed; its rules keep their ids.
func closePartial(p *drivers.Policy, held []*set) *drivers.Policy {
	if !slices.ContainsFunc(held, func(st *set) bool { return st.partial > 0 }) {
		return p
	}
	partial := map[drivers.SetID]bool{}
	for _, st := range held {
		if st.partial > 0 {
			partial[st.id] = true
		}
	}
	c := *p
	c.In, c.Out = closeRules("spec.ingress", p.In, partial), closeRules("spec.egress", p.Out, partial)
	return &c
}

func closeRules(path string, rules []drivers.Rule, partial map[drivers.SetID]bool) []drivers.Rule {
	out := slices.Clone(rules)
	for i := range out {
		m := &out[i].Match
		var lost []string
		for side, s := range map[string]*drivers.Side{"source": &m.Src, "destination": &m.Dst} {
			if closeSide(s, out[i].Action, partial) {
				lost = append(lost, fmt.Sprintf("%s[%d].%s: an address of what it selects can't be read", path, i, side))
			}
		}
		if len(lost) > 0 {
			m.Unsupported = slices.Concat(m.Unsupported, lost) // a new slice: the old one is shared
			slices.Sort(m.Unsupported)
		}
	}
	return out
}

// closeSide takes out of a side what its rule's action makes unsafe, and reports whether there was anything.
func closeSide(s *drivers.Side, a drivers.Action, partial map[drivers.SetID]bool) bool {
	isPartial := func(id drivers.SetID) bool { return partial[id] }
	found := false
	drop := func(ids *[]drivers.SetID) {
		if slices.ContainsFunc(*ids, isPartial) {
			found = true
			*ids = slices.DeleteFunc(slices.Clone(*ids), isPartial)
		}
	}
	// A Pass that misses goes on to the rules after it, and one that hits to the next tier: neither is known to be safe.
	if a == drivers.Deny || a == drivers.Pass {
		drop(&s.Sets)
		drop(&s.Services)
		if slices.ContainsFunc(s.PortSets, isPartial) {
			found = true
			s.PortSets, s.Ports = nil, nil // any of them would do: without all of them, every port does
		}
	}
	if a == drivers.Allow || a == drivers.Pass {
		drop(&s.NotSets)
		drop(&s.NotPortSets)
	}
	return found
}
