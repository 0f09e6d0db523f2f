package drivers

// standInList is the list of a stage that denies: a tier without policies, of an endpoint that is Degraded.
var standInList = &TierList{Tiers: []TierPolicies{{Name: "stand-in"}}}

// StandIn returns a copy of e that is on a deny stand-in: it refers to no policy, and Evaluate denies at each of its
// stages. A host endpoint has an untracked or pre-DNAT stage only if e has one; where it has an untracked one, that
// denies established flows as well, as the policy itself might. Failsafes and link traffic pass, as always.
func (e *Endpoint) StandIn(reason string) *Endpoint {
	c := *e
	c.Degraded, c.Profiles, c.Policy = reason, nil, EndpointPolicy{}
	for _, l := range []struct{ from, to **TierList }{
		{&e.Policy.PreDNAT.In, &c.Policy.PreDNAT.In},
		{&e.Policy.Untracked.In, &c.Policy.Untracked.In},
		{&e.Policy.Untracked.Out, &c.Policy.Untracked.Out},
	} {
		if *l.from != nil && len((*l.from).Tiers) > 0 {
			*l.to = standInList
		}
	}
	return &c
}

// PolicyIDs yields every policy and profile that e names, some more than once.
func (e *Endpoint) PolicyIDs(yield func(PolicyID) bool) {
	for _, d := range []Directions{e.Policy.Normal, e.Policy.Forward, e.Policy.PreDNAT, e.Policy.Untracked} {
		for _, l := range []*TierList{d.In, d.Out} {
			if l == nil {
				continue
			}
			for _, t := range l.Tiers {
				for _, id := range t.Policies {
					if !yield(id) {
						return
					}
				}
			}
		}
	}
	for _, id := range e.Profiles {
		if !yield(id) {
			return
		}
	}
}

// SetIDs yields every set that the rules of p name and the kind that it must have, some more than once.
func (p *Policy) SetIDs(yield func(SetID, SetKind) bool) {
	for _, rules := range [][]Rule{p.In, p.Out} {
		for i := range rules {
			m := &rules[i].Match
			for _, s := range []*Side{&m.Src, &m.Dst} {
				for _, ids := range []struct {
					kind SetKind
					ids  []SetID
				}{{SetNet, s.Sets}, {SetNet, s.NotSets}, {SetPort, s.PortSets}, {SetPort, s.NotPortSets}, {SetPort, s.Services}} {
					for _, id := range ids.ids {
						if !yield(id, ids.kind) {
							return
						}
					}
				}
			}
		}
	}
}
