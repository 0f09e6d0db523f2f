package drivers

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestEdges are packets and States at the edge of what makes sense.
func TestEdges(t *testing.T) {
	const self = "172.16.0.1"
	lists := func(e *Endpoint) {
		e.Policy.PreDNAT.In = &TierList{Tiers: []TierPolicies{{Name: "t", Policies: []PolicyID{{Name: "gone"}}}}}
		e.Policy.Untracked = Directions{In: e.Policy.PreDNAT.In, Out: e.Policy.PreDNAT.In}
	}
	ipipNode := []change{tunnelTo(EncapIPIP), toHost(ToHostAccept), func(s *State) { s.Node.AllowEncapFromWorkloads = true }}
	noPeer := func(s *State) { s.Peers["gone"] = nil }
	emptyEarly := func(s *State) {
		e := s.endpoint("eth0")
		e.Degraded = "broken"
		e.Policy.Untracked.In, e.Policy.PreDNAT.In = &TierList{}, &TierList{}
	}
	withFailsafe := func(f Failsafe) change {
		return func(s *State) {
			s.Node.FailsafeIn = []Failsafe{f}
			s.endpoint("eth0").Profiles = nil
		}
	}
	noSrc := func(p *Packet) { p.Src = netip.Addr{} }
	noDst := func(p *Packet) { p.Dst = netip.Addr{} }
	link := func(p *Packet) { p.ICMPType, p.HopLimit = 135, 255 }
	runCases(t, []evalCase{
		{"no source, IPv6", nil, pkt(eth0, fromB, "2001:db8::1", "fd00::2", noSrc), deny, StageInterface, "one family"},
		{"no destination, IPv6", nil, pkt(eth0, fromB, "2001:db8::1", "fd00::2", noDst), deny, StageInterface, "one family"},
		{"neither", nil, pkt(eth0, fromB, "2001:db8::1", "fd00::2", noSrc, noDst), deny, StageInterface, "one family"},
		{"IPv4 in IPv6 clothes, before DNAT", []change{tierOf("eth0 pre-dnat in", "t", Deny, rule(Deny, dstNet("10.96.0.0/16")))},
			pkt(eth0, fromB, world, "10.0.0.2", sentTo("[::ffff:10.96.0.1]:80")), deny, StagePreDNAT, "rule 0"},
		{"ARP with a protocol that means nothing", nil, pkt(fromA, process, "10.0.0.1", "169.254.1.1", arp, func(p *Packet) { p.Proto = 4 }), allow, StageLink, ""},
		{"a workload's tunnel to its host is no outer packet", ipipNode, pkt(fromA, process, "10.0.0.1", self, ipProto(4)), allow, StageToHost, "accept"},
		{"nor is the host's to its workload", ipipNode, pkt(process, fromA, self, "10.0.0.1", ipProto(4)), allow, StageIngress, "own host"},
		{"a peer that is not there", []change{tunnelTo(EncapIPIP), noPeer, func(s *State) { delete(s.Peers, "m") }}, pkt(eth0, process, peerAddr, self, ipProto(4)), deny, StageSource, "no peer"},
		{"what looks like discovery and is UDP", []change{toHost(ToHostDrop)}, pkt(fromA, process, "fd00::1", "fd10::1", udp(9), link), deny, StageToHost, "drop"},
		{"what looks like discovery and is IPv4", []change{toHost(ToHostDrop)}, pkt(fromA, process, "10.0.0.1", self, ipProto(58), link), deny, StageToHost, "drop"},
		{"discovery of the host to itself", nil, pkt(process, process, "fd10::1", "fd10::1", icmpv6(135, 255)), allow, StageHost, "itself"},
		{"the host to itself", nil, pkt(process, process, self, self), allow, StageHost, "itself"},
		{"ARP in another's name about an own address", nil, pkt(fromA, process, "10.0.0.9", "10.0.0.1", arp), deny, StageSource, "not the workload's"},
		{"ARP in nobody's name about an own address", nil, pkt(fromA, process, "0.0.0.0", "10.0.0.1", arp), allow, StageLink, ""},
		{"ARP that is forwarded to a workload", nil, pkt(eth0, fromB, world, "10.0.0.2", arp), deny, StageLink, ""},
		{"a workload has no early stages, sending", []change{with("a", lists)}, pkt(fromA, eth0, "10.0.0.1", world), allow, StageEgress, ""},
		{"nor when its host sends to it", []change{with("a", lists)}, pkt(process, fromA, self, "10.0.0.1"), allow, StageIngress, ""},
		{"an early list without tiers is no stage, also of a degraded endpoint", []change{emptyEarly}, pkt(eth0, fromB, world, "10.0.0.2"), deny, StageForward, "degraded"},
		{"a failsafe of a protocol without ports", []change{withFailsafe(Failsafe{Proto: 1, Port: 7})}, pkt(eth0, process, world, self, ipProto(1)), allow, StageFailsafe, ""},
		{"a failsafe of another protocol", []change{withFailsafe(Failsafe{Proto: 1, Port: 7})}, pkt(eth0, process, world, self, ipProto(2)), deny, StageHost, ""},
		{"an untracked allow skips pre-DNAT, which would deny", []change{tierOf("eth0 untracked in", "u", Deny, rule(Allow)), tierOf("eth0 pre-dnat in", "p", Deny, rule(Deny))},
			pkt(eth0, process, world, self), allow, StageHost, "allowed before"},
		{"a pre-DNAT allow is tracked", []change{tierOf("eth0 pre-dnat in", "p", Deny, rule(Allow))}, pkt(eth0, process, world, self), allow, StageHost, "allowed before"},
		{"a new flow from a failsafe's port is no answer", []change{failsafes, tierOf("eth0 normal in", "t", Deny)},
			pkt(eth0, process, world, self, udp(40000), func(p *Packet) { p.SrcPort = 53 }), deny, StageHost, "end of tier"},
		{"a log that nothing follows", []change{tierOf("b normal in", "t", Pass, rule(Log))}, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"), allow, StageIngress, "Profile/allow"},
		{"an empty tier leaves no trace", []change{with("b", func(e *Endpoint) {
			e.Policy.Normal.In = &TierList{Tiers: []TierPolicies{{Name: "empty", Default: Deny}}}
		})}, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"), allow, StageIngress, "Profile/allow"},
		{"of two staged policies the first decides", []change{
			tierOf("b normal in", "staged", Deny, rule(Deny)), tierOf("b normal in", "staged too", Deny, rule(Allow, dport(81))), sameTier,
		}, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"), allow, StageIngress, "Profile/allow"},
		{"a tier's end that passes, of staged policies", []change{tierOf("b normal in", "staged", Pass, rule(Allow, dport(81)))},
			pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"), allow, StageIngress, "Profile/allow"},
	})
}

// sameTier makes one tier of b's.
func sameTier(s *State) {
	l := s.endpoint("b").Policy.Normal.In
	for _, t := range l.Tiers[1:] {
		l.Tiers[0].Policies = append(l.Tiers[0].Policies, t.Policies...)
	}
	l.Tiers = l.Tiers[:1]
}

// TestTwiceClaimed: an interface with two workloads stays unknown, whatever else claims it and in whatever order.
func TestTwiceClaimed(t *testing.T) {
	s := testNode(host(ifaceA))
	id := EndpointID{Sandbox: "second", Interface: "eth0"}
	s.Endpoints[id] = &Endpoint{ID: id, Name: "ns/second", Iface: ifaceA, Profiles: []PolicyID{allowAll}}
	for range 40 { // maps have no order
		if v, _ := NewEvaluator(s).Verdict(pkt(fromA, fromB, "10.0.0.1", "10.0.0.2")); v != deny {
			t.Fatal("an interface that two workloads claim is trusted")
		}
	}
}

// TestRoutesThatMakeNoSense: routes that are nil, or through what nobody knows, harm nothing.
func TestRoutesThatMakeNoSense(t *testing.T) {
	s := testNode()
	for i, r := range []*Route{nil, {Kind: RouteRemote, Encap: EncapWireGuard + 1}, {Kind: RouteRemote, Encap: 200}} {
		s.Routes[netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, byte(i)}), 24)] = r
	}
	p := pkt(eth0, process, world, "172.16.0.1", ipProto(4))
	if a, b := Evaluate(s, p), NewEvaluator(s).Evaluate(p); a.Verdict != allow || cmp.Diff(a, b) != "" {
		t.Errorf("Evaluate:\n%s\nan Evaluator:\n%s", a, b)
	}
}

// TestVerdictAllocatesNothing is what makes it fit for previews of many packets.
func TestVerdictAllocatesNothing(t *testing.T) {
	s := testNode(tierOf("b normal in", "staged", Deny, rule(Deny)), tierOf("b normal in", "t", Deny, rule(Log), rule(Allow)))
	ev, p := NewEvaluator(s), pkt(fromA, fromB, "10.0.0.1", "10.0.0.2")
	if n := testing.AllocsPerRun(20, func() { ev.Verdict(p) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestEveryMissingSetDenies: a rule that names a set which is not there, or of the other kind, in whatever clause.
func TestEveryMissingSetDenies(t *testing.T) {
	toB := pkt(fromA, fromB, "10.0.0.1", "10.0.0.2")
	for name, clause := range map[string]func(s *Side) *[]SetID{
		"sets": func(s *Side) *[]SetID { return &s.Sets }, "not sets": func(s *Side) *[]SetID { return &s.NotSets },
		"port sets": func(s *Side) *[]SetID { return &s.PortSets }, "not port sets": func(s *Side) *[]SetID { return &s.NotPortSets },
		"services": func(s *Side) *[]SetID { return &s.Services },
	} {
		for _, dst := range []bool{false, true} {
			r := rule(Allow)
			side := &r.Match.Src
			if dst {
				side = &r.Match.Dst
			}
			*clause(side) = []SetID{"x"}
			s := testNode(tierOf("b normal in", "t", Pass, r))
			wrong := SetPort
			if name != "sets" && name != "not sets" {
				wrong = SetNet
			}
			for _, set := range []*Set{nil, NewSet(wrong)} {
				if s.Sets["x"] = set; set == nil {
					delete(s.Sets, "x")
				}
				if got := Evaluate(s, toB); got.Verdict != deny {
					t.Errorf("%s, destination: %t, set %v:\n%s", name, dst, set, got)
				}
			}
		}
	}
}

// TestServicesNeedPorts: a member of a protocol without ports matches nothing.
func TestServicesNeedPorts(t *testing.T) {
	r := rule(Allow, func(m *Match) { m.Dst.Services = []SetID{"x"} })
	s := testNode(tierOf("b normal in", "t", Deny, r))
	s.Sets["x"] = NewSet(SetPort, PortMember(netip.MustParseAddr("10.0.0.2"), 1, 0), PortMember(netip.MustParseAddr("10.0.0.2"), 6, 80))
	for proto, want := range map[uint8]Verdict{1: deny, 6: allow} {
		p := pkt(fromA, fromB, "10.0.0.1", "10.0.0.2")
		if p.Proto = proto; proto == 1 {
			p.SrcPort, p.DstPort = 0, 0
		}
		if got := Evaluate(s, p); got.Verdict != want {
			t.Errorf("protocol %d:\n%s", proto, got)
		}
	}
}

// TestNames: every policy of an endpoint and every set of a policy is named, and whoever looks may stop at any.
func TestNames(t *testing.T) {
	list := func(name string) *TierList {
		return &TierList{Tiers: []TierPolicies{{Policies: []PolicyID{{Name: name}}}, {Policies: []PolicyID{{Name: name + "'"}}}}}
	}
	e := &Endpoint{Profiles: []PolicyID{{Name: "i"}, {Name: "j"}}, Policy: EndpointPolicy{
		Normal: Directions{list("a"), list("b")}, Forward: Directions{list("c"), list("d")}, PreDNAT: Directions{In: list("e")},
		Untracked: Directions{list("g"), list("h")},
	}}
	policies := func(n int) string {
		var s string
		for id := range e.PolicyIDs {
			if s += id.Name; n > 0 && len(s) >= n {
				break
			}
		}
		return s
	}
	const all = "aa'bb'cc'dd'ee'gg'hh'ij"
	if got := policies(0); got != all {
		t.Errorf("policies %s, want %s", got, all)
	}
	side := func(x string) Side {
		return Side{Sets: []SetID{SetID(x + "1")}, NotSets: []SetID{SetID(x + "2")}, PortSets: []SetID{SetID(x + "3")},
			NotPortSets: []SetID{SetID(x + "4")}, Services: []SetID{SetID(x + "5")}}
	}
	p := &Policy{In: []Rule{{}, {Match: Match{Src: side("a"), Dst: side("b")}}}, Out: []Rule{{Match: Match{Src: side("c")}}, {Match: Match{Dst: side("d")}}}}
	sets := func(n int) string {
		var s string
		for id, kind := range p.SetIDs {
			if (kind == SetPort) != (id[1] >= '3') {
				t.Errorf("%s is of kind %v", id, kind)
			}
			if s += string(id); n > 0 && len(s) >= n {
				break
			}
		}
		return s
	}
	const allSets = "a1a2a3a4a5b1b2b3b4b5c1c2c3c4c5d1d2d3d4d5"
	if got := sets(0); got != allSets {
		t.Errorf("sets %s, want %s", got, allSets)
	}
	for n := range len(all) {
		if got := policies(n + 1); len(got) > n+2 {
			t.Errorf("asked to stop after %d: %s", n+1, got)
		}
	}
	for n := 2; n <= len(allSets); n += 2 {
		if got := sets(n); got != allSets[:n] {
			t.Errorf("asked to stop after %d: %s", n, got)
		}
	}
}

// TestStandInHasTheStagesOf is about which lists a stand-in has.
func TestStandInHasTheStagesOf(t *testing.T) {
	empty, full := &TierList{}, &TierList{Tiers: []TierPolicies{{Name: "t"}}}
	e := &Endpoint{Name: "e", Profiles: []PolicyID{allowAll}, Policy: EndpointPolicy{
		Normal: Directions{full, full}, PreDNAT: Directions{In: full}, Untracked: Directions{In: empty, Out: full},
	}}
	c := e.StandIn("why")
	if c.Degraded != "why" || c.Profiles != nil || c.Policy.Normal != (Directions{}) || c.Policy.Forward != (Directions{}) {
		t.Errorf("%+v", c)
	}
	if c.Policy.PreDNAT.In != standInList || c.Policy.Untracked.In != nil || c.Policy.Untracked.Out != standInList {
		t.Errorf("early stages %+v %+v", c.Policy.PreDNAT, c.Policy.Untracked)
	}
	if e.Degraded != "" || !slices.Equal(e.Profiles, []PolicyID{allowAll}) {
		t.Error("the endpoint itself has changed")
	}
	if c := (&Endpoint{}).StandIn("why"); c.Policy != (EndpointPolicy{}) {
		t.Errorf("of an endpoint without lists: %+v", c.Policy)
	}
}
