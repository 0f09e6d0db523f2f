package drivertest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// build makes a State of what has been defined. Every reference must resolve.
func (b *builder) build() (*drivers.State, error) {
	s := b.state.Clone()
	for id, d := range b.members {
		s.Sets[id] = drivers.NewSet(d.kind, d.members...)
	}
	for _, p := range b.policies {
		c := *p
		s.Policies[p.ID] = &c
		for _, r := range slices.Concat(p.In, p.Out) {
			if err := b.refs(&r); err != nil {
				return nil, fmt.Errorf("policy %s: %w", p.ID, err)
			}
		}
	}
	lists := map[string]*drivers.TierList{} // interned, as the graph does it
	for id, d := range b.ends {
		ep := d.ep
		for name, refs := range d.lists {
			l, err := b.list(refs, lists)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", ep.Name, name, err)
			}
			*listOf(&ep.Policy, name) = l
		}
		for _, name := range d.profiles {
			p := b.policies["profile:"+name]
			if p == nil {
				return nil, fmt.Errorf("%s: there is no profile %s", ep.Name, name)
			}
			ep.Profiles = append(ep.Profiles, p.ID)
		}
		s.Endpoints[id] = &ep
	}
	return s, nil
}

// refs checks that the sets of a rule are there and of the right kind.
func (b *builder) refs(r *drivers.Rule) error {
	for id, kind := range setRefs(r) {
		d := b.members[id]
		if d == nil || d.kind != kind {
			return fmt.Errorf("there is no set %s, or it is of the other kind", id)
		}
	}
	return nil
}

// setRefs are the sets that a rule names, and what they must be.
func setRefs(r *drivers.Rule) map[drivers.SetID]drivers.SetKind {
	m := map[drivers.SetID]drivers.SetKind{}
	for _, s := range []*drivers.Side{&r.Match.Src, &r.Match.Dst} {
		for _, id := range slices.Concat(s.PortSets, s.NotPortSets, s.Services) {
			m[id] = drivers.SetPort
		}
		for _, id := range slices.Concat(s.Sets, s.NotSets) {
			m[id] = drivers.SetNet
		}
	}
	return m
}

// list makes the tier list of some policies: tiers in the order of their definition, policies in the order written.
func (b *builder) list(refs []string, interned map[string]*drivers.TierList) (*drivers.TierList, error) {
	key := strings.Join(refs, ",")
	if l := interned[key]; l != nil {
		return l, nil
	}
	for _, ref := range refs {
		if p := b.policies[ref]; p == nil || p.ID.Kind == drivers.KindProfile {
			return nil, fmt.Errorf("there is no policy %s", ref)
		}
	}
	l := &drivers.TierList{}
	for _, t := range b.tiers {
		t.Staged, t.Policies = true, nil
		for _, ref := range refs {
			if p := b.policies[ref]; p.Tier == t.Name {
				t.Policies = append(t.Policies, p.ID)
				t.Staged = t.Staged && p.Staged
			}
		}
		if len(t.Policies) > 0 {
			l.Tiers = append(l.Tiers, t)
		}
	}
	interned[key] = l
	return l, nil
}

// listOf finds the list of an endpoint that the DSL calls name.
func listOf(p *drivers.EndpointPolicy, name string) **drivers.TierList {
	switch name {
	case "in":
		return &p.Normal.In
	case "out":
		return &p.Normal.Out
	case "forward-in":
		return &p.Forward.In
	case "forward-out":
		return &p.Forward.Out
	case "pre-dnat":
		return &p.PreDNAT.In
	case "untracked-in":
		return &p.Untracked.In
	case "untracked-out":
		return &p.Untracked.Out
	}
	panic("drivertest: no list is called " + name)
}
