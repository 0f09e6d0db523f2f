package drivers

import "strings"

// LowerPolicy is Lower for one policy; p itself comes back if it needs no rewriting. Staged policies are never enforced,
// and stay as they are.
func LowerPolicy(p *Policy, f Features) (*Policy, []Loss) { return lowerPolicy(p, f, false) }

// lowerPolicy lowers a policy, untracked if an endpoint has it in an Untracked list. There an Allow is more than an Allow:
// it keeps packets from the flow table, which knows established flows and lets them into workloads. To remove it would
// allow those. So it denies instead, without regard to what cannot be expressed.
func lowerPolicy(p *Policy, f Features, untracked bool) (*Policy, []Loss) {
	if p.Staged {
		return p, nil
	}
	in, inLosses := lowerRules(p, true, f, untracked)
	out, outLosses := lowerRules(p, false, f, untracked)
	if in == nil && out == nil {
		return p, nil
	}
	c := *p
	if in != nil {
		c.In = *in
	}
	if out != nil {
		c.Out = *out
	}
	return &c, append(inLosses, outLosses...)
}

// lowerRules returns nil if all rules stay as they are.
func lowerRules(p *Policy, in bool, f Features, untracked bool) (*[]Rule, []Loss) {
	rules := p.Out
	if in {
		rules = p.In
	}
	var out []Rule
	var losses []Loss
	same := true
	for i := range rules {
		r := lowering{Rule: rules[i], f: f, untracked: untracked}
		r.lower()
		for _, l := range r.lost {
			losses = append(losses, Loss{Object: ObjectRef{Kind: ObjPolicy, Policy: p.ID}, Rule: rules[i].ID, Index: i, In: in,
				Clause: l.clause, Effect: l.effect})
		}
		if r.changed && same {
			same = false
			out = append(make([]Rule, 0, len(rules)), rules[:i]...)
		}
		if !same && !r.gone {
			out = append(out, r.Rule)
			out = append(out, r.more...)
		}
	}
	if same {
		return nil, nil
	}
	return &out, losses
}

// lowering is one rule on its way down. Clauses are replaced in the copy, never changed in place.
type lowering struct {
	Rule
	f             Features
	untracked     bool
	changed, gone bool
	more          []Rule // that follow it
	lost          []lostClause
}

type lostClause struct{ clause, effect string }

// clause is a clause that the driver lacks. cut narrows the rule to what is left without it, or is nil if that is
// nothing: for rules that allow. drop widens the rule: for rules that deny.
type clause struct {
	name string
	cut  func()
	drop func()
}

func (r *lowering) lower() {
	if r.Action == Log && !r.f.Log {
		r.remove("log", "nothing is logged")
		return
	}
	if len(r.Match.Unsupported) == 0 && r.f.everything() {
		return
	}
	lacking := r.lacking()
	readable := r.Match.HTTP == nil && len(r.Match.Unsupported) == 0 // else Evaluate never lets it allow
	switch {
	case r.Action == Log, r.Action == Allow && (!r.untracked || !readable):
		r.narrow(lacking)
		if !r.gone {
			r.families()
		}
	case r.Action == Allow && len(lacking) == 0:
		r.familiesUntracked()
	default:
		for len(lacking) > 0 { // without one clause, another may not be expressible any more
			r.widen(lacking)
			lacking = r.lacking()
		}
	}
}

func (r *lowering) remove(clause, effect string) {
	r.changed, r.gone = true, true
	r.lost = append(r.lost, lostClause{clause, effect})
}

// narrow makes a rule that allows or logs match less.
func (r *lowering) narrow(lacking []clause) {
	effect := "the rule allows nothing"
	if r.Action == Log {
		effect = "the rule logs nothing"
	}
	for _, c := range lacking {
		if c.cut == nil {
			r.remove(c.name, effect)
			continue
		}
		c.cut()
		r.changed = true
		r.lost = append(r.lost, lostClause{c.name, strings.Replace(effect, "nothing", "less", 1)})
	}
}

// widen makes a rule that denies or passes match more, and deny.
func (r *lowering) widen(lacking []clause) {
	effect := "the rule denies without regard to it"
	switch r.Action {
	case Pass:
		effect = "the rule denies instead of passing, without regard to it"
	case Allow:
		effect = "the rule denies instead of allowing, without regard to it"
	}
	for _, c := range lacking {
		r.lost = append(r.lost, lostClause{c.name, effect})
		c.drop()
	}
	r.changed, r.Action = true, Deny
}

// families makes a rule that allows speak only of families that the driver has. Lower tells of it once, not per rule.
func (r *lowering) families() {
	has := map[uint8]bool{4: r.f.IPv4, 6: r.f.IPv6}
	switch {
	case r.f.IPv4 && r.f.IPv6:
	case !r.f.IPv4 && !r.f.IPv6:
		r.changed, r.gone = true, true
	case r.Match.IPVersion == 0 && r.f.IPv4:
		r.changed, r.Match.IPVersion = true, 4
	case r.Match.IPVersion == 0:
		r.changed, r.Match.IPVersion = true, 6
	case !has[r.Match.IPVersion]:
		r.remove("ipVersion", "the rule allows nothing")
	}
}

// familiesUntracked is families for an Allow of an Untracked list: it denies the family that the driver has not.
func (r *lowering) familiesUntracked() {
	lack := Rule{ID: r.ID, Action: Deny, Match: r.Match, Name: r.Name}
	switch {
	case r.f.IPv4 && r.f.IPv6, r.Match.IPVersion == 4 && r.f.IPv4, r.Match.IPVersion == 6 && r.f.IPv6:
		return
	case r.Match.IPVersion != 0 || !r.f.IPv4 && !r.f.IPv6:
		r.changed, r.Action = true, Deny
		r.lost = append(r.lost, lostClause{"ipVersion", "the rule denies instead of allowing"})
		return
	case r.f.IPv4:
		r.Match.IPVersion, lack.Match.IPVersion = 4, 6
	default:
		r.Match.IPVersion, lack.Match.IPVersion = 6, 4
	}
	r.changed, r.more = true, []Rule{lack}
}

// lacking lists the clauses of the rule that the driver cannot express.
func (r *lowering) lacking() []clause {
	var cs []clause
	add := func(lacks bool, name string, drop func()) {
		if lacks {
			cs = append(cs, clause{name: name, drop: drop})
		}
	}
	m, f := &r.Match, &r.f
	add(m.Proto != nil && !f.knows(*m.Proto), "protocol", func() { m.Proto = nil })
	add(m.NotProto != nil && !(f.NotProto && f.knows(*m.NotProto)), "notProtocol", func() { m.NotProto = nil })
	add(m.ICMP != nil && !f.ICMPType, "icmp", func() { m.ICMP = nil })
	add(m.NotICMP != nil && !(f.NotICMP && f.ICMPType), "notICMP", func() { m.NotICMP = nil })
	cs = append(cs, r.sctp()...)
	for _, s := range []struct {
		name string
		*Side
	}{{"src", &m.Src}, {"dst", &m.Dst}} {
		side := s.Side
		add(len(side.NotNets) > 0 && !f.NotNets, s.name+".notNets", func() { side.NotNets = nil })
		add(len(side.NotSets) > 0 && !f.NotSets, s.name+".notSets", func() { side.NotSets = nil })
		add(len(side.NotPorts) > 0 && !f.NotPorts, s.name+".notPorts", func() { side.NotPorts = nil })
		add(len(side.NotPortSets) > 0 && !(f.NotPorts && f.NamedPorts), s.name+".notPorts (named)", func() { side.NotPortSets = nil })
		add(len(side.Services) > 0 && !f.Services, s.name+".services", func() { side.Services = nil })
		if len(side.PortSets) > 0 && !f.NamedPorts {
			// Ports and PortSets are alternatives of one clause: a rule that allows can do without one of them, a
			// rule that denies must lose both.
			c := clause{name: s.name + ".ports (named)", drop: func() { side.Ports, side.PortSets = nil, nil }}
			if len(side.Ports) > 0 {
				c.cut = func() { side.PortSets = nil }
			}
			cs = append(cs, c)
		}
	}
	add(m.HTTP != nil && !f.HTTP, "http", func() { m.HTTP = nil })
	for _, path := range m.Unsupported {
		add(true, path, func() { m.Unsupported = nil })
	}
	return cs
}

// everything reports whether a driver with f can express every rule.
func (f *Features) everything() bool {
	return f.IPv4 && f.IPv6 && f.Log && f.ICMPType && f.NotICMP && f.NotProto && f.NotNets && f.NotPorts && f.NotSets &&
		f.NamedPorts && f.Services && f.HTTP && f.SCTP && f.AnyProto
}

// knows reports whether the driver can match a protocol.
func (f *Features) knows(proto uint8) bool {
	return f.AnyProto || hasPorts(proto) || proto == protoICMP || proto == protoICMPv6
}

// sctp returns a clause if the rule is about ports, maybe of SCTP, and the driver cannot match those. A rule that allows
// can leave SCTP out, if no other protocol is left out already.
func (r *lowering) sctp() []clause {
	m := &r.Match
	maybe := m.Proto == nil && (m.NotProto == nil || *m.NotProto != protoSCTP) || m.Proto != nil && *m.Proto == protoSCTP
	if r.f.SCTP || !maybe || !m.Src.aboutPorts() && !m.Dst.aboutPorts() {
		return nil
	}
	c := clause{name: "ports of SCTP", drop: func() {
		for _, s := range []*Side{&m.Src, &m.Dst} {
			s.Ports, s.PortSets, s.NotPorts, s.NotPortSets, s.Services = nil, nil, nil, nil, nil
		}
	}}
	if m.Proto == nil && m.NotProto == nil && r.f.NotProto {
		c.cut = func() {
			sctp := uint8(protoSCTP)
			m.NotProto = &sctp
		}
	}
	return []clause{c}
}

func (s *Side) aboutPorts() bool {
	return len(s.Ports)+len(s.PortSets)+len(s.NotPorts)+len(s.NotPortSets)+len(s.Services) > 0
}
