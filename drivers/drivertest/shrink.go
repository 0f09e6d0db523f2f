package drivertest

import (
	"slices"

	"github.com/tortie/tortie/drivers"
)

// shrink returns a State smaller than s for which fails is still true: it takes away one thing after another, the big
// ones first, until nothing can go. It ends when fails says no to everything, so a budget belongs into fails.
func shrink(s *drivers.State, fails func(*drivers.State) bool) *drivers.State {
	for {
		smaller := false
		for c := range smallerStates(s) {
			if fails(c) {
				s, smaller = c, true
				break
			}
		}
		if !smaller {
			return s
		}
	}
}

// smallerStates yields States that have one thing less than s.
func smallerStates(s *drivers.State) func(func(*drivers.State) bool) {
	return func(yield func(*drivers.State) bool) {
		for _, parts := range []func(*drivers.State, func(*drivers.State) bool) bool{
			withoutRest, withoutEndpoints, withoutUnused, withoutLists, withoutRules, withoutClauses, withoutMembers,
		} {
			if !parts(s, yield) {
				return
			}
		}
	}
}

func withoutRest(s *drivers.State, yield func(*drivers.State) bool) bool {
	c := s.Clone()
	clear(c.Peers)
	clear(c.Routes)
	c.Masquerade = drivers.Masquerade{}
	if len(s.Peers)+len(s.Routes)+len(s.Masquerade.From) > 0 && !yield(c) {
		return false
	}
	c = s.Clone()
	c.Node.FailsafeIn, c.Node.FailsafeOut = nil, nil
	return len(s.Node.FailsafeIn)+len(s.Node.FailsafeOut) == 0 || yield(c)
}

func withoutEndpoints(s *drivers.State, yield func(*drivers.State) bool) bool {
	for _, id := range sortedKeys(s.Endpoints) {
		c := s.Clone()
		delete(c.Endpoints, id)
		if !yield(c) {
			return false
		}
	}
	return true
}

// withoutUnused takes out, at once, the policies that no endpoint names and the sets that no policy names.
func withoutUnused(s *drivers.State, yield func(*drivers.State) bool) bool {
	c := s.Clone()
	policies, sets := map[drivers.PolicyID]bool{}, map[drivers.SetID]bool{}
	for _, e := range c.Endpoints {
		for id := range e.PolicyIDs {
			policies[id] = true
		}
	}
	for id, p := range s.Policies {
		if !policies[id] {
			delete(c.Policies, id)
			continue
		}
		for _, r := range slices.Concat(p.In, p.Out) {
			for set := range setRefs(&r) {
				sets[set] = true
			}
		}
	}
	for id := range s.Sets {
		if !sets[id] {
			delete(c.Sets, id)
		}
	}
	return len(c.Policies)+len(c.Sets) == len(s.Policies)+len(s.Sets) || yield(c)
}

// withoutLists takes out a tier list of an endpoint, its profiles, or one policy of a list.
func withoutLists(s *drivers.State, yield func(*drivers.State) bool) bool {
	edit := func(id drivers.EndpointID, change func(*drivers.Endpoint)) bool {
		c := s.Clone()
		e := *s.Endpoints[id]
		change(&e)
		c.Endpoints[id] = &e
		return yield(c)
	}
	for _, id := range sortedKeys(s.Endpoints) {
		e := s.Endpoints[id]
		if len(e.Profiles) > 0 && !edit(id, func(e *drivers.Endpoint) { e.Profiles = nil }) {
			return false
		}
		for _, name := range hostLists {
			l := *listOf(&e.Policy, name)
			if l == nil {
				continue
			}
			if !edit(id, func(e *drivers.Endpoint) { *listOf(&e.Policy, name) = nil }) {
				return false
			}
			for i, t := range l.Tiers {
				for j := range t.Policies {
					shorter := withoutPolicy(l, i, j)
					if !edit(id, func(e *drivers.Endpoint) { *listOf(&e.Policy, name) = shorter }) {
						return false
					}
				}
			}
		}
	}
	return true
}

// withoutPolicy is l without policy j of tier i.
func withoutPolicy(l *drivers.TierList, i, j int) *drivers.TierList {
	c := &drivers.TierList{Tiers: slices.Clone(l.Tiers)}
	t := &c.Tiers[i]
	if t.Policies = slices.Delete(slices.Clone(t.Policies), j, j+1); len(t.Policies) == 0 {
		c.Tiers = slices.Delete(c.Tiers, i, i+1)
	}
	return c
}

// withPolicy yields s with another value of a policy.
func withPolicy(s *drivers.State, p drivers.Policy, yield func(*drivers.State) bool) bool {
	c := s.Clone()
	p.In, p.Out = slices.Clone(p.In), slices.Clone(p.Out)
	p.SetRuleIDs()
	c.Policies[p.ID] = &p
	return yield(c)
}

func withoutRules(s *drivers.State, yield func(*drivers.State) bool) bool {
	for _, id := range sortedKeys(s.Policies) {
		p := *s.Policies[id]
		for _, rules := range []*[]drivers.Rule{&p.In, &p.Out} {
			all := *rules
			for i := range all {
				*rules = slices.Delete(slices.Clone(all), i, i+1)
				if !withPolicy(s, p, yield) {
					return false
				}
			}
			*rules = all
		}
	}
	return true
}

func withoutClauses(s *drivers.State, yield func(*drivers.State) bool) bool {
	for _, id := range sortedKeys(s.Policies) {
		p := *s.Policies[id]
		for _, rules := range []*[]drivers.Rule{&p.In, &p.Out} {
			all := *rules
			for i := range all {
				for _, cl := range clausesOf(&all[i]) {
					*rules = slices.Clone(all)
					cl.drop(&(*rules)[i])
					if !withPolicy(s, p, yield) {
						return false
					}
				}
			}
			*rules = all
		}
	}
	return true
}

func withoutMembers(s *drivers.State, yield func(*drivers.State) bool) bool {
	for _, id := range sortedKeys(s.Sets) {
		for m := range s.Sets[id].All() {
			c := s.Clone()
			c.Sets[id] = s.Sets[id].With(nil, []drivers.Member{m})
			if !yield(c) {
				return false
			}
		}
	}
	return true
}

// clause is one clause of a rule, and how to take it out.
type clause struct {
	name string // "net", "not-icmp", "src port": as coverage counts them
	drop func(*drivers.Rule)
}

// clausesOf are the clauses that are set in a rule. Lists count as one clause.
func clausesOf(r *drivers.Rule) []clause {
	var cs []clause
	add := func(set bool, name string, drop func(*drivers.Rule)) {
		if set {
			cs = append(cs, clause{name, drop})
		}
	}
	m := &r.Match
	add(m.IPVersion != 0, "ip-version", func(r *drivers.Rule) { r.Match.IPVersion = 0 })
	add(m.Proto != nil, "proto", func(r *drivers.Rule) { r.Match.Proto = nil })
	add(m.NotProto != nil, "not-proto", func(r *drivers.Rule) { r.Match.NotProto = nil })
	add(m.ICMP != nil, "icmp", func(r *drivers.Rule) { r.Match.ICMP = nil })
	add(m.NotICMP != nil, "not-icmp", func(r *drivers.Rule) { r.Match.NotICMP = nil })
	add(m.HTTP != nil, "http", func(r *drivers.Rule) { r.Match.HTTP = nil })
	add(len(m.Unsupported) > 0, "unsupported", func(r *drivers.Rule) { r.Match.Unsupported = nil })
	for _, end := range []struct {
		name string
		side func(*drivers.Rule) *drivers.Side
	}{
		{"src ", func(r *drivers.Rule) *drivers.Side { return &r.Match.Src }},
		{"dst ", func(r *drivers.Rule) *drivers.Side { return &r.Match.Dst }},
	} {
		s := end.side(r)
		add(len(s.Nets) > 0, end.name+"net", func(r *drivers.Rule) { end.side(r).Nets = nil })
		add(len(s.NotNets) > 0, end.name+"not-net", func(r *drivers.Rule) { end.side(r).NotNets = nil })
		add(len(s.Sets) > 0, end.name+"set", func(r *drivers.Rule) { end.side(r).Sets = nil })
		add(len(s.NotSets) > 0, end.name+"not-set", func(r *drivers.Rule) { end.side(r).NotSets = nil })
		add(len(s.Ports) > 0, end.name+"port", func(r *drivers.Rule) { end.side(r).Ports = nil })
		add(len(s.NotPorts) > 0, end.name+"not-port", func(r *drivers.Rule) { end.side(r).NotPorts = nil })
		add(len(s.PortSets) > 0, end.name+"named", func(r *drivers.Rule) { end.side(r).PortSets = nil })
		add(len(s.NotPortSets) > 0, end.name+"not-named", func(r *drivers.Rule) { end.side(r).NotPortSets = nil })
		add(len(s.Services) > 0, end.name+"service", func(r *drivers.Rule) { end.side(r).Services = nil })
	}
	return cs
}
