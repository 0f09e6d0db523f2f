package drivertest

import (
	"context"
	"reflect"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// shrinkTries bounds how often a script is played to make it smaller.
const shrinkTries = 500

// shrink returns scenes smaller than these that still show something: it leaves out scenes, then one thing after another
// of all States at once, then of each State, until nothing can go.
func (r *runner) shrink(ctx context.Context, scenes []Scene) []Scene {
	tries := shrinkTries
	fails := func(try []Scene) bool {
		tries--
		return tries >= 0 && playable(try) && valid(try) && r.fails(ctx, try)
	}
	for {
		smaller := false
		for try := range smallerScripts(scenes) {
			if fails(try) {
				scenes, smaller = try, true
				break
			}
		}
		if !smaller {
			return scenes
		}
	}
}

// valid reports whether every packet can be sent under its State.
func valid(scenes []Scene) bool {
	for _, sc := range scenes {
		for _, l := range sc.Lines {
			for _, p := range l.Probes {
				if CheckProbe(sc.State, p) != nil {
					return false
				}
			}
		}
	}
	return true
}

// smallerScripts yields scripts that have one thing less.
func smallerScripts(scenes []Scene) func(func([]Scene) bool) {
	return func(yield func([]Scene) bool) {
		for i := range len(scenes) - 1 {
			if !yield(slices.Delete(slices.Clone(scenes), i, i+1)) {
				return
			}
		}
		for i := range scenes {
			for j := range scenes[i].Before {
				c := slices.Clone(scenes)
				c[i].Before = slices.Delete(slices.Clone(c[i].Before), j, j+1)
				c[i].Kept = c[i].Kept && len(c[i].Before) > 0
				if !yield(c) {
					return
				}
			}
		}
		if len(scenes) > 1 {
			for op := range jointly(scenes) {
				if c, ok := edited(scenes, func(int) bool { return true }, op); ok && !yield(c) {
					return
				}
			}
		}
		seen := map[*drivers.State]bool{}
		for i := range scenes {
			s := scenes[i].State
			if seen[s] {
				continue
			}
			seen[s] = true
			for small := range smallerStates(s) {
				c, _ := edited(scenes, func(j int) bool { return scenes[j].State == s }, func(*drivers.State) *drivers.State { return small })
				if !yield(c) {
					return
				}
			}
		}
	}
}

// edited makes scenes whose States are changed; scenes that shared a State still do. It reports whether any has changed.
func edited(scenes []Scene, which func(int) bool, change func(*drivers.State) *drivers.State) ([]Scene, bool) {
	c, any := slices.Clone(scenes), false
	made := map[*drivers.State]*drivers.State{}
	for i := range c {
		s := c[i].State
		if !which(i) {
			continue
		}
		if made[s] == nil {
			made[s] = change(s)
		}
		if made[s] == s {
			continue
		}
		any = true
		c[i].State = made[s]
		var ps []Probe
		for _, l := range c[i].Lines {
			ps = append(ps, l.Probes...)
		}
		c[i].Lines = sceneOf(c[i].State, ps...).Lines // the verdict may be another one
	}
	return c, any
}

// jointly yields changes that take one thing out of every State that has it.
func jointly(scenes []Scene) func(func(func(*drivers.State) *drivers.State) bool) {
	return func(yield func(func(*drivers.State) *drivers.State) bool) {
		endpoints, policies, sets := map[drivers.EndpointID]bool{}, map[drivers.PolicyID]bool{}, map[drivers.SetID]bool{}
		for _, sc := range scenes {
			for id := range sc.State.Endpoints {
				endpoints[id] = true
			}
			for id := range sc.State.Policies {
				policies[id] = true
			}
			for id := range sc.State.Sets {
				sets[id] = true
			}
		}
		if !yield(func(s *drivers.State) *drivers.State { return firstOf(s, withoutRest) }) {
			return
		}
		for _, id := range sortedKeys(endpoints) {
			if !yield(func(s *drivers.State) *drivers.State { return withoutEndpoint(s, id) }) {
				return
			}
		}
		if !yield(func(s *drivers.State) *drivers.State { return firstOf(s, withoutUnused) }) {
			return
		}
		for _, id := range sortedKeys(policies) {
			for _, op := range []func(*drivers.State, drivers.PolicyID) *drivers.State{withoutPolicyOf, withoutRulesOf} {
				if !yield(func(s *drivers.State) *drivers.State { return op(s, id) }) {
					return
				}
			}
		}
		for _, id := range sortedKeys(sets) {
			for _, op := range []func(*drivers.State, drivers.SetID) *drivers.State{withoutSet, withEmptySet} {
				if !yield(func(s *drivers.State) *drivers.State { return op(s, id) }) {
					return
				}
			}
		}
	}
}

// firstOf is the first State that parts yields, or s.
func firstOf(s *drivers.State, parts func(*drivers.State, func(*drivers.State) bool) bool) *drivers.State {
	got := s
	parts(s, func(c *drivers.State) bool {
		got = c
		return false
	})
	return got
}

func withoutEndpoint(s *drivers.State, id drivers.EndpointID) *drivers.State {
	if s.Endpoints[id] == nil {
		return s
	}
	c := s.Clone()
	delete(c.Endpoints, id)
	return c
}

// withoutPolicyOf takes out a policy that no endpoint names.
func withoutPolicyOf(s *drivers.State, id drivers.PolicyID) *drivers.State {
	if s.Policies[id] == nil {
		return s
	}
	for _, e := range s.Endpoints {
		for used := range e.PolicyIDs {
			if used == id {
				return s
			}
		}
	}
	c := s.Clone()
	delete(c.Policies, id)
	return c
}

// withoutSet takes out a set that no policy names.
func withoutSet(s *drivers.State, id drivers.SetID) *drivers.State {
	if s.Sets[id] == nil {
		return s
	}
	for _, p := range s.Policies {
		for used := range p.SetIDs {
			if used == id {
				return s
			}
		}
	}
	c := s.Clone()
	delete(c.Sets, id)
	return c
}

func withoutRulesOf(s *drivers.State, id drivers.PolicyID) *drivers.State {
	p := s.Policies[id]
	if p == nil || len(p.In)+len(p.Out) == 0 {
		return s
	}
	c, empty := s.Clone(), *p
	empty.In, empty.Out = nil, nil
	c.Policies[id] = &empty
	return c
}

func withEmptySet(s *drivers.State, id drivers.SetID) *drivers.State {
	if set := s.Sets[id]; set == nil || set.Len() == 0 {
		return s
	}
	c := s.Clone()
	c.Sets[id] = drivers.NewSet(s.Sets[id].Kind())
	return c
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
	c.Node = baseNode()
	return reflect.DeepEqual(c.Node, s.Node) || yield(c)
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
