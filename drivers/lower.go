package drivers

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// Loss is something that a State says and a driver cannot enforce as it stands.
type Loss struct {
	Object ObjectRef
	// Of policies: the rule, its index in its direction as written, and the direction. Else 0, -1, false.
	Rule   RuleID
	Index  int
	In     bool
	Clause string // what cannot be expressed: "dst.notNets", "log", "forward", "IPv6", "encap vxlan"
	Effect string // what becomes of it, in words
}

// Lower rewrites s for a driver that enforces f, so that it never allows more than s does: for each packet that
// Evaluate allows on the result, it allows it on s. A State that needs no rewriting is returned as it is; else unchanged
// values are shared.
//
//   - A rule with a clause that f cannot express, or with Unsupported clauses: Allow and Log are removed, Deny and Pass
//     lose the clause and deny. Named ports beside numbers, and SCTP, are cut out of an Allow where that can be said. An
//     Allow of an Untracked list denies instead (see lowerPolicy).
//   - A workload on a driver without SourceCheck, a host endpoint without HostPolicy, and a host endpoint with a Forward,
//     PreDNAT or Untracked list that f has not: a deny stand-in (Endpoint.StandIn). To enforce that is what every driver
//     must be able to. It has the untracked stage that it stands for, so that a driver without Untracked denies
//     established flows on it too, failsafes and their replies excepted.
//   - A family that f has not: addresses, sources, masquerading of it go, and Allow rules are about the other one.
//   - A route through an encapsulation or of a family that f has not becomes a blackhole: without the route, packets
//     would leave by another, in the clear.
//   - Masquerading, floating addresses and cutting of flows without the feature: dropped. They are no verdict.
//
// A Changes for s holds for the result, but for policies that enter or leave Untracked lists: a Lowerer adds those to it.
func Lower(s *State, f Features) (*State, []Loss) { return NewLowerer(f).Lower(s, nil) }

// Lowerer lowers one State again and again, and remembers what it has done: what is equal by pointer comes back equal by
// pointer. Not safe for concurrent use.
type Lowerer struct {
	f         Features
	in, out   *State // the State of the last call, and what was made of it: in itself if nothing differed
	node      []Loss
	masq      []Loss
	endpoints memo[EndpointID, Endpoint]
	policies  memo[PolicyID, Policy]
	routes    memo[netip.Prefix, Route]
	untracked map[PolicyID]bool // policies of Untracked lists
	losses    []Loss            // of all; nil = to be gathered
}

// NewLowerer returns a Lowerer for a driver with features f.
func NewLowerer(f Features) *Lowerer { return &Lowerer{f: f} }

// memo remembers the values of one kind that came out different, or with losses.
type memo[K comparable, V any] map[K]lowered[V]

type lowered[V any] struct {
	in, out *V
	losses  []Loss
}

// one lowers the value of k and reports whether anything about it may have changed.
func (m memo[K, V]) one(k K, in *V, lower func(*V) (*V, []Loss)) bool {
	was, had := m[k]
	if in == nil {
		delete(m, k)
		return had
	}
	if had && was.in == in {
		return false
	}
	out, losses := lower(in)
	if out == in && len(losses) == 0 {
		delete(m, k)
		return had
	}
	m[k] = lowered[V]{in, out, losses}
	return true
}

// differs reports whether anything in m came out different.
func (m memo[K, V]) differs() bool {
	for _, l := range m {
		if l.in != l.out {
			return true
		}
	}
	return false
}

// put puts the value of k into the result.
func (m memo[K, V]) put(out map[K]*V, k K, in *V) {
	switch l, ok := m[k]; {
	case in == nil:
		delete(out, k)
	case ok:
		out[k] = l.out
	default:
		out[k] = in
	}
}

// Lower is the package's Lower. ch says what may differ from the State of the last call; nil, or another State than last
// time, means everything; policies that came out different without being named in ch are added to it. The result and its
// maps are good until the next call.
func (l *Lowerer) Lower(s *State, ch *Changes) (*State, []Loss) {
	full, hint := ch == nil || l.in != s, ch
	if full {
		ch = allKeys(s, l.in)
	}
	if l.in == nil {
		l.endpoints, l.policies, l.routes = memo[EndpointID, Endpoint]{}, memo[PolicyID, Policy]{}, memo[netip.Prefix, Route]{}
	}
	changed := full
	for id := range ch.Endpoints {
		changed = l.endpoints.one(id, s.Endpoints[id], l.endpoint) || changed
	}
	for id := range l.findUntracked(s, ch) {
		delete(l.policies, id)
		changed, ch.Policies[id] = true, struct{}{}
		if hint != nil {
			hint.Policies[id] = struct{}{}
		}
	}
	for id := range ch.Policies {
		changed = l.policies.one(id, s.Policies[id], func(p *Policy) (*Policy, []Loss) {
			return lowerPolicy(p, l.f, l.untracked[id])
		}) || changed
	}
	for dst := range ch.Routes {
		changed = l.routes.one(dst, s.Routes[dst], l.route) || changed
	}
	node, nodeLosses := l.lowerNode(s.Node)
	masq, masqLosses := l.lowerMasquerade(s.Masquerade)
	if changed || len(nodeLosses) != len(l.node) || len(masqLosses) != len(l.masq) {
		l.losses = nil
	}
	l.node, l.masq = nodeLosses, masqLosses

	was := l.out
	switch {
	case len(l.node)+len(l.masq) == 0 && !l.endpoints.differs() && !l.policies.differs() && !l.routes.differs():
		l.out = s
	case full || was == l.in: // there is no result of its own yet
		l.out = s.Clone()
		ch = allKeys(s, nil)
		fallthrough
	default:
		l.out.Node, l.out.Masquerade = node, masq
		for id := range ch.Endpoints {
			l.endpoints.put(l.out.Endpoints, id, s.Endpoints[id])
		}
		for id := range ch.Policies {
			l.policies.put(l.out.Policies, id, s.Policies[id])
		}
		for dst := range ch.Routes {
			l.routes.put(l.out.Routes, dst, s.Routes[dst])
		}
		share(l.out.Sets, s.Sets, ch.Sets)
		share(l.out.Peers, s.Peers, ch.Peers)
	}
	l.in = s
	return l.out, l.gather()
}

// findUntracked finds the policies of Untracked lists, and returns those that have entered or left them.
func (l *Lowerer) findUntracked(s *State, ch *Changes) map[PolicyID]bool {
	moved := map[PolicyID]bool{}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(ch.Endpoints)), func(id EndpointID) bool { return id.Kind == HostInterface }) {
		return moved
	}
	now := map[PolicyID]bool{}
	for id, e := range s.Endpoints {
		if id.Kind == HostInterface && e != nil {
			for pol := range (&Endpoint{Policy: EndpointPolicy{Untracked: e.Policy.Untracked}}).PolicyIDs {
				now[pol] = true
			}
		}
	}
	for _, ids := range []map[PolicyID]bool{now, l.untracked} {
		for id := range ids {
			if now[id] != l.untracked[id] {
				moved[id] = true
			}
		}
	}
	l.untracked = now
	return moved
}

// allKeys returns a Changes that names everything in s, and in old if there is one.
func allKeys(s, old *State) *Changes {
	ch := NewChanges()
	for _, s := range []*State{s, old} {
		if s == nil {
			continue
		}
		touch(ch.Endpoints, s.Endpoints)
		touch(ch.Policies, s.Policies)
		touch(ch.Routes, s.Routes)
	}
	return ch
}

func touch[K comparable, V any](dst map[K]struct{}, src map[K]V) {
	for k := range src {
		dst[k] = struct{}{}
	}
}

// share makes dst hold what src holds of keys.
func share[K comparable, V, T any](dst, src map[K]*V, keys map[K]T) {
	for k := range keys {
		if v := src[k]; v != nil {
			dst[k] = v
		} else {
			delete(dst, k)
		}
	}
}

// gather returns all losses in the order of their objects.
func (l *Lowerer) gather() []Loss {
	if l.losses != nil {
		return l.losses
	}
	all := append(slices.Clone(l.node), l.masq...)
	for _, e := range l.endpoints {
		all = append(all, e.losses...)
	}
	for _, p := range l.policies {
		all = append(all, p.losses...)
	}
	for _, r := range l.routes {
		all = append(all, r.losses...)
	}
	slices.SortStableFunc(all, func(a, b Loss) int {
		return cmp.Or(cmp.Compare(a.Object.String(), b.Object.String()), cmp.Compare(b2i(a.In), b2i(b.In)),
			cmp.Compare(a.Index, b.Index), cmp.Compare(a.Clause, b.Clause))
	})
	l.losses = all
	return all
}

func b2i(b bool) int {
	if b {
		return 0 // In before Out
	}
	return 1
}

func loss(o ObjectRef, clause, effect string) Loss {
	return Loss{Object: o, Index: -1, Clause: clause, Effect: effect}
}

// hasFamily reports whether the driver has a's family.
func (l *Lowerer) hasFamily(a netip.Addr) bool { return l.f.IPv4 && a.Is4() || l.f.IPv6 && a.Is6() }

func (l *Lowerer) lowerNode(n Node) (Node, []Loss) {
	var losses []Loss
	o := ObjectRef{Kind: ObjNode}
	for _, fam := range []struct {
		name string
		has  bool
	}{{"IPv4", l.f.IPv4}, {"IPv6", l.f.IPv6}} {
		if !fam.has {
			losses = append(losses, loss(o, fam.name, "no policy allows packets of this family"))
		}
	}
	if n.CutEstablished && !l.f.CutFlows {
		n.CutEstablished = false
		losses = append(losses, loss(o, "cutEstablished", "established flows outlive a change of policy"))
	}
	return n, losses
}

func (l *Lowerer) lowerMasquerade(m Masquerade) (Masquerade, []Loss) {
	o := ObjectRef{Kind: ObjMasquerade}
	if len(m.From) > 0 && !l.f.Masquerade {
		return Masquerade{}, []Loss{loss(o, "masquerade", "packets leave with the workload's address")}
	}
	from := keep(m.From, func(p netip.Prefix) bool { return l.hasFamily(p.Addr()) })
	if len(from) == len(m.From) {
		return m, nil
	}
	m.From = from
	return m, []Loss{loss(o, "masquerade", "packets of a missing family leave with the workload's address")}
}

// keep returns those of vs for which ok holds; vs itself if all do.
func keep[T any](vs []T, ok func(T) bool) []T {
	if !slices.ContainsFunc(vs, func(v T) bool { return !ok(v) }) {
		return vs
	}
	var out []T
	for _, v := range vs {
		if ok(v) {
			out = append(out, v)
		}
	}
	return out
}

func (l *Lowerer) endpoint(e *Endpoint) (*Endpoint, []Loss) {
	o := ObjectRef{Kind: ObjEndpoint, Endpoint: e.ID}
	var losses []Loss
	lack := func(has, uses bool, clause string) {
		if uses && !has {
			losses = append(losses, loss(o, clause, "the endpoint is denied: it is on a stand-in"))
		}
	}
	filled := func(ls ...*TierList) bool {
		return slices.ContainsFunc(ls, func(l *TierList) bool { return l != nil && len(l.Tiers) > 0 })
	}
	if e.ID.Kind == Workload {
		lack(l.f.SourceCheck, true, "source check")
	} else {
		p := &e.Policy
		lack(l.f.HostPolicy, true, "host endpoint")
		lack(l.f.Forward, filled(p.Forward.In, p.Forward.Out), "forward")
		lack(l.f.PreDNAT, filled(p.PreDNAT.In), "preDNAT")
		lack(l.f.Untracked, filled(p.Untracked.In, p.Untracked.Out), "untracked")
	}
	if len(losses) > 0 {
		if e.Degraded != "" {
			return e, losses // it is denied already
		}
		return e.StandIn("this driver lacks: " + losses[0].Clause), losses
	}
	var lost []Loss
	if floating := keep(e.Floating, func(f Floating) bool { return l.f.FloatingNAT && l.hasFamily(f.External) }); len(floating) < len(e.Floating) {
		c := *e
		c.Floating, e = floating, &c
		lost = append(lost, loss(o, "floating address", "nobody reaches the workload by it"))
	}
	addrs := keep(e.Addrs, l.hasFamily)
	sources := keep(e.SourcePrefixes, func(p netip.Prefix) bool { return l.hasFamily(p.Addr()) })
	if len(addrs) == len(e.Addrs) && len(sources) == len(e.SourcePrefixes) {
		return e, lost
	}
	c := *e
	c.Addrs, c.SourcePrefixes = addrs, sources
	return &c, append(lost, loss(o, "addresses", "addresses of a family that this driver has not are denied"))
}

func (l *Lowerer) route(r *Route) (*Route, []Loss) {
	if r.Kind == RouteBlackhole {
		return r, nil
	}
	o := ObjectRef{Kind: ObjRoute, Route: r.Dst}
	clause := ""
	switch {
	case !l.hasFamily(r.Dst.Addr()):
		clause = "family"
	case r.Kind == RouteRemote && !l.f.HasEncap(r.Encap):
		clause = "encap " + r.Encap.String()
	default:
		return r, nil
	}
	// Encap stays: Evaluate reads there which tunnels the node means to have.
	c := &Route{Dst: r.Dst, Kind: RouteBlackhole, Encap: r.Encap, Learned: r.Learned}
	return c, []Loss{loss(o, clause, "packets to it go nowhere")}
}
