package drivers

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// without is every feature but those that cut takes away.
func without(cut func(f *Features)) Features {
	f := AllFeatures("test")
	cut(&f)
	return f
}

// TestLowerRules tells for each clause what becomes of a rule that has it, on a driver that has not. A line is the rule
// as written, and the rule as lowered or "-" for none.
func TestLowerRules(t *testing.T) {
	one, six, gre, sctp := uint8(1), uint8(6), uint8(47), uint8(132)
	ports := []PortRange{{80, 80}}
	for _, c := range []struct {
		name  string
		cut   func(f *Features)
		match Match
		// lowered Allow and Deny; a Pass becomes what a Deny becomes
		allow, deny string
	}{
		{"protocol", func(f *Features) { f.AnyProto = false }, Match{Proto: &gre}, "-", "any"},
		{"a common protocol", func(f *Features) { f.AnyProto = false }, Match{Proto: &six}, "", ""},
		{"not protocol", func(f *Features) { f.NotProto = false }, Match{NotProto: &six}, "-", "any"},
		{"not a rare protocol", func(f *Features) { f.AnyProto = false }, Match{NotProto: &gre}, "-", "any"},
		{"icmp", func(f *Features) { f.ICMPType = false }, Match{Proto: &one, ICMP: &ICMP{Type: 8}}, "-", "proto=1"},
		{"not icmp", func(f *Features) { f.NotICMP = false }, Match{Proto: &one, NotICMP: &ICMP{Type: 8}}, "-", "proto=1"},
		{"not nets", func(f *Features) { f.NotNets = false }, Match{Src: Side{NotNets: prefixes("10.0.0.0/8")}, Proto: &six}, "-", "proto=6"},
		{"not sets", func(f *Features) { f.NotSets = false }, Match{Dst: Side{NotSets: []SetID{"n"}, Sets: []SetID{"n"}}}, "-", "dst.sets=n"},
		{"not ports", func(f *Features) { f.NotPorts = false }, Match{Proto: &six, Dst: Side{NotPorts: ports}}, "-", "proto=6"},
		{"named ports", func(f *Features) { f.NamedPorts = false }, Match{Proto: &six, Dst: Side{PortSets: []SetID{"p"}}}, "-", "proto=6"},
		{"named ports beside numbers", func(f *Features) { f.NamedPorts = false }, Match{Proto: &six, Dst: Side{PortSets: []SetID{"p"}, Ports: ports}}, "proto=6 dst.ports=80", "proto=6"},
		{"not named ports", func(f *Features) { f.NamedPorts = false }, Match{Proto: &six, Dst: Side{NotPortSets: []SetID{"p"}, NotPorts: ports}}, "-", "proto=6 !dst.ports=80"},
		{"services", func(f *Features) { f.Services = false }, Match{Dst: Side{Services: []SetID{"p"}}}, "-", "any"},
		{"http", func(f *Features) { f.HTTP = false }, Match{Proto: &six, HTTP: &HTTP{}}, "-", "proto=6"},
		{"unsupported, whatever the features", func(f *Features) {}, Match{Proto: &six, Unsupported: []string{"a", "b"}}, "-", "proto=6"},
		{"ports of SCTP", func(f *Features) { f.SCTP = false }, Match{Proto: &sctp, Dst: Side{Ports: ports}}, "-", "proto=132"},
		{"SCTP without ports", func(f *Features) { f.SCTP = false }, Match{Proto: &sctp}, "", ""},
		{"ports of any protocol", func(f *Features) { f.SCTP = false }, Match{Dst: Side{Ports: ports}}, "!proto=132 dst.ports=80", "any"},
		{"ports of any protocol but SCTP", func(f *Features) { f.SCTP = false }, Match{NotProto: &sctp, Dst: Side{Ports: ports}}, "", ""},
		{"ports of any but another protocol", func(f *Features) { f.SCTP = false }, Match{NotProto: &six, Dst: Side{Ports: ports}}, "-", "!proto=6"},
		{"ports of a protocol that goes", func(f *Features) { f.SCTP, f.AnyProto = false, false }, Match{Proto: &gre, Dst: Side{Ports: ports}}, "-", "any"},
		{"no IPv6", func(f *Features) { f.IPv6 = false }, Match{Proto: &six}, "ipv=4 proto=6", ""},
		{"no IPv4", func(f *Features) { f.IPv4 = false }, Match{Proto: &six}, "ipv=6 proto=6", ""},
		{"IPv6 only", func(f *Features) { f.IPv6 = false }, Match{IPVersion: 6}, "-", ""},
		{"no family", func(f *Features) { f.IPv4, f.IPv6 = false, false }, Match{}, "-", ""},
		{"two clauses", func(f *Features) { f.NotNets, f.ICMPType = false, false }, Match{Proto: &one, ICMP: &ICMP{}, Dst: Side{NotNets: prefixes("10.0.0.0/8")}}, "-", "proto=1"},
	} {
		for _, action := range []Action{Allow, Log, Deny, Pass} {
			t.Run(c.name+", "+action.String(), func(t *testing.T) {
				want, becomes := c.allow, action
				if action == Deny || action == Pass {
					want, becomes = c.deny, Deny
				}
				if want == "" {
					want, becomes = c.match.String(), action
				}
				p := &Policy{ID: allowAll, In: []Rule{{Action: Log}, {ID: 7, Action: action, Match: c.match}}, Out: []Rule{{Action: Allow, Match: Match{IPVersion: 4}}}}
				before := fmt.Sprint(p)
				low, losses := LowerPolicy(p, without(c.cut))
				if fmt.Sprint(p) != before {
					t.Fatal("the policy was changed in place")
				}
				got, act := "-", becomes
				for _, r := range low.In {
					if r.ID == 7 {
						got, act = r.Match.String(), r.Action
					}
				}
				if got != want || act != becomes {
					t.Errorf("%s %s became %s %s, want %s %s", action, c.match, act, got, becomes, want)
				}
				changed := got != c.match.String() || act != action
				losses = keep(losses, func(l Loss) bool { return l.In && l.Index == 1 })
				if !changed && len(losses) > 0 {
					t.Errorf("losses without a change: %+v", losses)
				}
				for _, l := range losses {
					if l.Rule != 7 || l.Clause == "" || l.Effect == "" || l.Object.Policy != p.ID {
						t.Errorf("loss %+v", l)
					}
				}
				if changed && !strings.Contains(c.name, "no ") && len(losses) == 0 {
					t.Error("no loss tells of it")
				}
			})
		}
	}
}

func TestLowerLeavesStagedPoliciesAndLogs(t *testing.T) {
	p := &Policy{Staged: true, In: []Rule{{Action: Allow, Match: Match{Unsupported: []string{"x"}}}}}
	if low, losses := LowerPolicy(p, Features{}); low != p || len(losses) > 0 {
		t.Errorf("a staged policy was lowered: %v %v", low, losses)
	}
	p = &Policy{In: []Rule{{Action: Log}, {Action: Allow}}}
	low, losses := LowerPolicy(p, without(func(f *Features) { f.Log = false }))
	if len(low.In) != 1 || low.In[0].Action != Allow || len(losses) != 1 || losses[0].Clause != "log" {
		t.Errorf("without logs: %v %+v", low, losses)
	}
}

// TestDenyThatCannotBeExpressedDenies: the packets that a Deny is about are denied on every driver.
func TestDenyThatCannotBeExpressedDenies(t *testing.T) {
	denied := rule(Deny, func(m *Match) { m.Src.NotNets = prefixes("10.7.0.0/16") })
	s := testNode(tierOf("b normal in", "t", Deny, denied, rule(Allow)))
	toB := pkt(fromA, fromB, "10.0.0.1", "10.0.0.2")
	fromNet := pkt(eth0, fromB, "10.7.0.1", "10.0.0.2")
	low, losses := Lower(s, without(func(f *Features) { f.NotNets = false }))
	for name, c := range map[string]struct {
		s    *State
		p    Packet
		want Verdict
	}{
		"as written, denied":  {s, toB, deny},
		"as written, allowed": {s, fromNet, allow},
		"lowered, denied":     {low, toB, deny},
		"lowered, denied too": {low, fromNet, deny},
	} {
		if got := Evaluate(c.s, c.p); got.Verdict != c.want {
			t.Errorf("%s: got\n%s", name, got)
		}
	}
	if len(losses) != 2 || losses[0].Clause != "src.notNets" || losses[0].Rule == 0 { // one for each direction
		t.Errorf("losses %+v", losses)
	}
}

// TestLowerObjects is about what is no rule.
func TestLowerObjects(t *testing.T) {
	const self = "172.16.0.1"
	hostStages := []change{tierOf("eth0 normal in", "t", Deny, rule(Allow)), tierOf("eth0 forward in", "t", Deny, rule(Allow)),
		tierOf("eth0 pre-dnat in", "t", Deny, rule(Allow)), tierOf("eth0 untracked in", "u", Deny, rule(Deny, dport(99)))}
	toHost := pkt(eth0, process, world, self)
	for name, c := range map[string]struct {
		cut    func(f *Features)
		node   []change
		packet Packet
		by     Stage
		clause string
	}{
		"host endpoints":         {func(f *Features) { f.HostPolicy = false }, hostStages[:1], toHost, StageHost, "host endpoint"},
		"the host itself":        {func(f *Features) { f.HostPolicy = false }, []change{tierOf("* normal in", "t", Deny, rule(Allow)), func(s *State) { s.Node.EndpointToHost = ToHostReturn }}, pkt(fromA, process, "10.0.0.1", self), StageHost, "host endpoint"},
		"forward":                {func(f *Features) { f.Forward = false }, hostStages[:2], pkt(eth0, fromB, world, "10.0.0.2"), StageForward, "forward"},
		"pre-DNAT":               {func(f *Features) { f.PreDNAT = false }, hostStages[:3], toHost, StagePreDNAT, "preDNAT"},
		"untracked":              {func(f *Features) { f.Untracked = false }, hostStages, toHost, StageUntracked, "untracked"},
		"untracked, established": {func(f *Features) { f.Untracked = false }, hostStages, pkt(eth0, process, world, self, ct(CTEstablished)), StageUntracked, "untracked"},
		"source check":           {func(f *Features) { f.SourceCheck = false }, nil, pkt(fromA, eth1, "10.0.0.1", world), StageEgress, "source check"},
		"IPv6":                   {func(f *Features) { f.IPv6 = false }, nil, pkt(fromA, eth1, "fd00::1", "2001:db8::1"), StageSource, "IPv6"},
		"IPv6, to a workload":    {func(f *Features) { f.IPv6 = false }, nil, pkt(eth0, fromB, "2001:db8::1", "fd00::2"), StageIngress, "IPv6"},
		"IPv4":                   {func(f *Features) { f.IPv4 = false }, nil, pkt(eth0, fromB, world, "10.0.0.2"), StageIngress, "IPv4"},
		"an untracked allow": {func(f *Features) { f.NotNets = false }, []change{tierOf("eth0 untracked in", "u", Deny, rule(Allow, func(m *Match) { m.Src.NotNets = prefixes("10.7.0.0/16") })),
			with("b", func(e *Endpoint) { e.Profiles = nil })}, pkt(eth0, fromB, world, "10.0.0.2", ct(CTEstablished)), StageUntracked, "src.notNets"},
	} {
		t.Run(name, func(t *testing.T) {
			s := testNode(c.node...)
			low, losses := Lower(s, without(c.cut))
			got := Evaluate(low, c.packet)
			if got.Verdict != deny || got.Steps[len(got.Steps)-1].Stage != c.by {
				t.Errorf("want a deny by %s, got\n%s", c.by, got)
			}
			found := false
			for _, l := range losses {
				found = found || l.Clause == c.clause
			}
			if !found {
				t.Errorf("no loss of %q in %+v", c.clause, losses)
			}
			if same, none := Lower(s, AllFeatures("all")); same != s || len(none) > 0 {
				t.Errorf("with all features: %+v", none)
			}
		})
	}
}

func TestLowerRoutesAndNode(t *testing.T) {
	s := testNode(tunnelTo(EncapVXLAN), masquerade("10.0.0.0/8", "10.0.0.0/8"), func(s *State) { s.Node.CutEstablished = true })
	s.Masquerade.From = append(s.Masquerade.From, prefixes("fd00::/8")...)
	low, losses := Lower(s, without(func(f *Features) { f.Encaps, f.Masquerade, f.CutFlows = []Encap{EncapNone}, false, false }))
	for dst, r := range low.Routes {
		if r.Kind != RouteBlackhole || r.NextHop.IsValid() {
			t.Errorf("route to %s: %+v", dst, r)
		}
	}
	var clauses []string
	for _, l := range losses {
		clauses = append(clauses, l.Clause)
	}
	if d := cmp.Diff([]string{"masquerade", "cutEstablished", "encap vxlan"}, clauses); d != "" {
		t.Errorf("losses (-want +got):\n%s", d)
	}
	if len(low.Masquerade.From) > 0 || low.Node.CutEstablished || !s.Node.CutEstablished {
		t.Errorf("lowered node %+v, masquerade %+v", low.Node, low.Masquerade)
	}
	stranger := pkt(eth0, process, world, "172.16.0.1", udp(4789))
	if got := Evaluate(low, stranger); got.Verdict != deny {
		t.Errorf("a stranger's tunnel packet:\n%s", got)
	}
	low, _ = Lower(s, without(func(f *Features) { f.IPv6 = false }))
	if d := cmp.Diff([]string{"10.0.0.0/8"}, []string{fmt.Sprint(low.Masquerade.From[0])}); d != "" || len(low.Masquerade.From) != 1 {
		t.Errorf("masquerade without IPv6: %v", low.Masquerade.From)
	}
}

// TestLowererRemembers walks a State through random changes: the Lowerer with hints says what Lower says, keeps the
// pointers of what has not changed, and names in the hint all that came out different.
func TestLowererRemembers(t *testing.T) {
	seeds := uint64(15)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		g := newGen(seed)
		f := g.features()
		l := NewLowerer(f)
		s := g.state()
		out, _ := l.Lower(s, nil)
		for step := range 30 {
			before := out.Clone()
			ch := NewChanges()
			s.Merge(g.update(s), ch)
			var losses []Loss
			out, losses = l.Lower(s, ch)
			want, wantLosses := Lower(s, f)
			if d := cmp.Diff(want.String(), out.String()); d != "" {
				t.Fatalf("seed %d, step %d (-Lower +Lowerer):\n%s", seed, step, d)
			}
			if d := cmp.Diff(wantLosses, losses, cmp.Comparer(func(a, b ObjectRef) bool { return a == b })); d != "" {
				t.Fatalf("seed %d, step %d, losses (-Lower +Lowerer):\n%s", seed, step, d)
			}
			if (want == s) != (out == s) {
				t.Fatalf("seed %d, step %d: Lower returns its input: %v, the Lowerer: %v", seed, step, want == s, out == s)
			}
			unnamed(t, before.Policies, out.Policies, ch.Policies)
			unnamed(t, before.Endpoints, out.Endpoints, ch.Endpoints)
			unnamed(t, before.Routes, out.Routes, ch.Routes)
			unnamed(t, before.Sets, out.Sets, ch.Sets)
			unnamed(t, before.Peers, out.Peers, ch.Peers)
		}
	}
}

func unnamed[K comparable, V, T any](t *testing.T, before, after map[K]*V, named map[K]T) {
	t.Helper()
	for _, m := range []map[K]*V{before, after} {
		for k := range m {
			if _, ok := named[k]; !ok && before[k] != after[k] {
				t.Fatalf("%v differs and is not named:\n%+v\n%+v", k, before[k], after[k])
			}
		}
	}
}

// update changes a few things of s, and says that it changes more.
func (g gen) update(s *State) *Update {
	u, fresh := NewUpdate(), g.state()
	for id, e := range s.Endpoints {
		switch g.IntN(5) {
		case 0:
			u.Endpoints[id] = fresh.Endpoints[id] // may be nil: gone
		case 1:
			u.Endpoints[id] = e
		}
	}
	for id, e := range fresh.Endpoints {
		if s.Endpoints[id] == nil && g.one(3) {
			u.Endpoints[id] = e
		}
	}
	for id := range s.Policies {
		if g.one(4) {
			u.Policies[id] = fresh.Policies[id]
		}
	}
	for dst, r := range fresh.Routes {
		if g.one(3) {
			u.Routes[dst] = r
		}
	}
	for id, set := range fresh.Sets {
		if g.one(4) {
			u.Sets[id] = SetUpdate{Set: set, Full: true}
		}
	}
	if g.one(3) {
		u.Peers["b"] = nil
	}
	if g.one(3) {
		u.Node, u.Masquerade = &fresh.Node, &fresh.Masquerade
	}
	return u
}

func TestFeaturesAreAllUsed(t *testing.T) {
	// A feature that Lower does not know would be one that no driver can lack.
	s := fullState(t)
	s.Node.WorkloadPrefixes = nil
	icmp := uint8(1)
	extra := []Rule{
		rule(Log), rule(Allow, func(m *Match) { m.Proto, m.ICMP = &icmp, &ICMP{} }),
		rule(Allow, proto(47)), rule(Allow, proto(132), dport(1)),
	}
	s.Policies[allowAll] = &Policy{ID: allowAll, In: extra}
	s.Endpoints[EndpointID{Sandbox: "z"}] = &Endpoint{ID: EndpointID{Sandbox: "z"}}
	delete(s.Policies, PolicyID{Kind: KindNetworkPolicy, Namespace: "ns", Name: "every clause"})
	every := fullState(t).Policies[PolicyID{Kind: KindNetworkPolicy, Namespace: "ns", Name: "every clause"}]
	r := every.In[0]
	r.Match.Unsupported = nil
	s.Policies[every.ID] = &Policy{ID: every.ID, In: []Rule{r}}
	all := AllFeatures("all")
	base, _ := Lower(s, all)
	v := reflect.ValueOf(&all).Elem()
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Name
		if f.Kind() != reflect.Bool || name == "Atomic" {
			continue
		}
		f.SetBool(false)
		low, losses := Lower(s, all)
		f.SetBool(true)
		if low == base || len(losses) == 0 {
			t.Errorf("nothing is lost without %s", name)
		}
	}
}
