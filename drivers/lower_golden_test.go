package drivers

import (
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// lossyState has something for every feature to be missed at, in both families and in every list.
func lossyState(t *testing.T) *State {
	s := fullState(t)
	icmp, gre, sctp, udp, tcp := uint8(1), uint8(47), uint8(132), uint8(17), uint8(6)
	ports, named := []PortRange{{80, 80}}, []SetID{"n:port"}
	match := func(f func(m *Match)) func(*Match) { return f }
	clauses := []func(*Match){
		match(func(m *Match) {}), match(func(m *Match) { m.IPVersion = 4 }), match(func(m *Match) { m.IPVersion = 6 }),
		proto(gre), match(func(m *Match) { m.NotProto = &gre }), match(func(m *Match) { m.NotProto = &sctp }),
		match(func(m *Match) { m.Proto, m.ICMP = &icmp, &ICMP{Type: 8} }),
		match(func(m *Match) { m.Proto, m.NotICMP = &icmp, &ICMP{Type: 8} }),
		match(func(m *Match) { m.Src.NotNets = prefixes("10.0.0.0/8"); m.Dst.NotNets = prefixes("fd00::/8") }),
		match(func(m *Match) { m.Src.NotSets, m.Dst.NotSets = []SetID{"s:net"}, []SetID{"s:net"} }),
		match(func(m *Match) { m.Proto, m.Dst.NotPorts, m.Dst.NotPortSets = &tcp, ports, named }),
		match(func(m *Match) { m.Proto, m.Src.NotPortSets = &udp, named }),
		match(func(m *Match) { m.Dst.PortSets = named }), match(func(m *Match) { m.Dst.Ports, m.Dst.PortSets = ports, named }),
		match(func(m *Match) { m.Dst.Services = named }), match(func(m *Match) { m.Proto, m.Src.Services = &sctp, named }),
		match(func(m *Match) { m.Dst.Ports = ports }), match(func(m *Match) { m.Src.Ports, m.NotProto = ports, &udp }),
		proto(58), match(func(m *Match) { m.Proto, m.Dst.Ports, m.Dst.NotPorts = &sctp, ports, ports }),
		match(func(m *Match) { m.Proto, m.Dst.Ports, m.Dst.NotPortSets = &sctp, ports, named }),
		match(func(m *Match) { m.Proto, m.Dst.Ports = &sctp, ports }), match(func(m *Match) { m.NotProto, m.Dst.Ports = &sctp, ports }),
		match(func(m *Match) { m.HTTP = &HTTP{Methods: []string{"GET"}} }),
		match(func(m *Match) { m.Unsupported = []string{"a", "b"} }),
		match(func(m *Match) { m.HTTP, m.Unsupported = &HTTP{}, []string{"a"} }),
	}
	var rules []Rule
	for _, a := range []Action{Allow, Deny, Pass, Log} {
		for _, c := range clauses {
			r := rule(a, c)
			r.Name = "named"
			rules = append(rules, r)
		}
	}
	tierOf("a normal out", "u", Deny, rules...)(s)
	tierOf("eth0 untracked in", "v", Deny, rules...)(s)
	tierOf("eth1 untracked out", "w", Deny, rules[:4]...)(s)
	for id, p := range s.Policies {
		switch {
		case strings.HasPrefix(id.Name, "u of"):
			p.In = nil
		case strings.HasPrefix(id.Name, "v of"):
			p.Out = nil
		}
	}
	tierOf("eth2 forward out", "x", Deny, rule(Allow))(s)
	tierOf("eth3 pre-dnat in", "y", Deny, rule(Allow))(s)
	tierOf("eth4 normal in", "z", Deny, rule(Allow))(s)
	e := s.endpoint("eth5")
	e.Policy.Forward.In, e.Policy.PreDNAT.In, e.Policy.Untracked.Out = &TierList{}, &TierList{}, &TierList{} // no stages
	s.endpoint("eth6").Degraded = "broken"
	b := s.endpoint("b")
	b.SourcePrefixes = prefixes("10.6.0.0/16", "fd06::/16")
	for i, r := range []Route{
		{Kind: RouteRemote, Encap: EncapIPIP}, {Kind: RouteRemote, Encap: EncapWireGuard, Learned: true},
		{Kind: RouteRemote, NextHop: netip.MustParseAddr(peerAddr)}, {Kind: RouteLocal, Iface: ifaceA, Encap: EncapVXLAN}, {Kind: RouteBlackhole, Encap: EncapIPIP},
	} {
		r4, r6 := r, r
		r4.Dst = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 50, byte(i), 0}), 24)
		r6.Dst = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x50, 15: byte(i)}), 128)
		s.Routes[r4.Dst], s.Routes[r6.Dst] = &r4, &r6
	}
	s.Masquerade = Masquerade{From: prefixes("10.0.0.0/8", "fd00::/8"), Except: prefixes("10.0.0.0/8", "fd00::/8")}
	return s
}

// TestLowerGolden shows what a driver that lacks something loses: every loss, and every line of the State that is another.
func TestLowerGolden(t *testing.T) {
	var b strings.Builder
	s := lossyState(t)
	always, base := map[Loss]bool{}, s
	show := func(name string, f Features) *State {
		low, losses := Lower(s, f)
		fmt.Fprintf(&b, "== %s\n", name)
		for _, l := range losses {
			if always[l] && name != "everything" {
				continue
			}
			always[l] = always[l] || name == "nothing"
			where := ""
			if l.Index != -1 || l.In {
				where = fmt.Sprintf(" rule %d, in: %t, has id: %t", l.Index, l.In, l.Rule != 0)
			}
			fmt.Fprintf(&b, "%s%s: %s: %s\n", l.Object, where, l.Clause, l.Effect)
		}
		showDiff(&b, lines(base), lines(low))
		return low
	}
	all := AllFeatures("test")
	base = show("nothing", all)
	v := reflect.ValueOf(&all).Elem()
	for i := range v.NumField() {
		if f, name := v.Field(i), v.Type().Field(i).Name; f.Kind() == reflect.Bool && name != "Atomic" {
			f.SetBool(false)
			show(name, all)
			f.SetBool(true)
		}
	}
	for _, c := range []struct {
		name string
		cut  func(f *Features)
	}{
		{"IPv4, IPv6", func(f *Features) { f.IPv4, f.IPv6 = false, false }},
		{"SCTP, NotProto", func(f *Features) { f.SCTP, f.NotProto = false, false }},
		{"SCTP, AnyProto, ICMPType", func(f *Features) { f.SCTP, f.AnyProto, f.ICMPType = false, false, false }},
		{"NotPorts, NamedPorts, NotNets", func(f *Features) { f.NotPorts, f.NamedPorts, f.NotNets = false, false, false }},
		{"all encapsulations", func(f *Features) { f.Encaps = []Encap{EncapNone} }},
		{"everything", func(f *Features) { *f = Features{} }},
	} {
		show(c.name, without(c.cut))
	}
	golden(t, "lower.golden", b.String())
}

var ruleText = regexp.MustCompile(`^  (in|out) \d+ (.*) #[0-9a-f]+$`)

// lines are those of a State's dump, rules without their index and id.
func lines(s *State) []string {
	ls := strings.Split(s.String(), "\n")
	for i, l := range ls {
		if m := ruleText.FindStringSubmatch(l); m != nil {
			ls[i] = "  " + m[1] + " " + m[2]
		}
	}
	return ls
}

// showDiff writes the lines that are in one of two texts only, in the order of the texts.
func showDiff(b *strings.Builder, old, now []string) {
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(old) > 0 && len(now) > 0 && old[0] == now[0]:
			old, now = old[1:], now[1:]
		case len(now) == 0 || len(old) > 0 && !slices.Contains(now[:min(len(now), 40)], old[0]):
			fmt.Fprintf(b, "- %s\n", old[0])
			old = old[1:]
		default:
			fmt.Fprintf(b, "+ %s\n", now[0])
			now = now[1:]
		}
	}
}

// TestLowererWithoutHint: a State that a Lowerer has not seen, or no hint, means that everything may differ.
func TestLowererWithoutHint(t *testing.T) {
	f := without(func(f *Features) { f.NotNets = false })
	l := NewLowerer(f)
	one := testNode(tierOf("b normal in", "t", Deny, rule(Allow)))
	two := testNode(tierOf("b normal in", "t", Deny, rule(Allow, func(m *Match) { m.Src.NotNets = prefixes("10.0.0.0/8") })))
	check := func(what string, s *State, ch *Changes) *State {
		t.Helper()
		low, losses := l.Lower(s, ch)
		want, wantLosses := Lower(s, f)
		if low.String() != want.String() || len(losses) != len(wantLosses) {
			t.Errorf("%s: %d losses, want %d; got\n%s", what, len(losses), len(wantLosses), low)
		}
		return low
	}
	check("the first", one, nil)
	check("another State with an empty hint", two, NewChanges())
	low := check("and back", one, NewChanges())
	if low != one {
		t.Error("a State that needs no rewriting is not returned as it is")
	}
	for id, p := range two.Policies {
		one.Policies[id] = p
	}
	check("the same State without a hint", one, nil)
	first, again := check("again", one, nil), check("again", one, nil)
	for id, p := range first.Policies {
		if again.Policies[id] != p {
			t.Errorf("policy %s is made anew without need", id)
		}
	}
	ch := NewChanges()
	for id := range one.Policies {
		delete(one.Policies, id)
		ch.Policies[id] = struct{}{}
	}
	check("all policies gone", one, ch)
	one.Node.CutEstablished = true
	l = NewLowerer(without(func(f *Features) { f.NotNets, f.CutFlows, f.Masquerade = false, false, false }))
	f = l.f
	check("without cutting", one, nil)
	ch = NewChanges()
	one.Node.CutEstablished, ch.Node = false, true
	check("cutting is not wanted any more", one, ch)
	ch = NewChanges()
	one.Masquerade.From, ch.Masquerade = prefixes("10.0.0.0/8"), true
	check("masquerading is", one, ch)
}

// TestLowerTellsOfNothing: what is not wanted cannot be lost.
func TestLowerTellsOfNothing(t *testing.T) {
	f := without(func(f *Features) { f.CutFlows, f.Masquerade = false, false })
	if low, losses := Lower(testNode(), f); len(losses) > 0 {
		t.Errorf("%+v\n%s", losses, low)
	}
	s := testNode(masquerade("10.0.0.0/8", "10.0.0.0/8"), func(s *State) { s.Node.CutEstablished = true })
	low, losses := Lower(s, f)
	if len(losses) != 2 || low.Node.CutEstablished || len(low.Masquerade.From) > 0 {
		t.Errorf("both are wanted: %+v\n%s", losses, low)
	}
	if !s.Node.CutEstablished || len(s.Masquerade.From) == 0 {
		t.Error("the State itself has changed")
	}
	if all := AllFeatures("x"); all.Driver != "x" || !all.Atomic {
		t.Errorf("all features: %+v", all)
	}
}

// TestLowerOneFamilyOfSources: sources of a family that the driver lacks go, also of an endpoint whose addresses stay.
func TestLowerOneFamilyOfSources(t *testing.T) {
	s := testNode(with("a", func(e *Endpoint) { e.Addrs, e.SourcePrefixes = addrs("10.0.0.1"), prefixes("10.5.0.0/16", "fd05::/16") }))
	low, _ := Lower(s, without(func(f *Features) { f.IPv6 = false }))
	if e := low.endpoint("a"); len(e.SourcePrefixes) != 1 || len(e.Addrs) != 1 {
		t.Errorf("%+v", e)
	}
}

// TestLowerUntrackedIsOfHosts: a list that a workload cannot have does not make its policy an untracked one.
func TestLowerUntrackedIsOfHosts(t *testing.T) {
	lossy := rule(Allow, func(m *Match) { m.Src.NotNets = prefixes("10.0.0.0/8") })
	s := testNode(tierOf("a untracked in", "t", Deny, lossy), host("eth0"))
	s.Endpoints[EndpointID{Kind: HostInterface, Sandbox: "gone"}] = nil
	low, _ := Lower(s, without(func(f *Features) { f.NotNets = false }))
	for id, p := range low.Policies {
		if id != allowAll && len(p.In)+len(p.Out) > 0 {
			t.Errorf("policy %s: %+v", id, p)
		}
	}
}

// TestLowererNamesWhatItMoves: a policy that enters an Untracked list is lowered anew, and named to the driver.
func TestLowererNamesWhatItMoves(t *testing.T) {
	lossy := rule(Allow, func(m *Match) { m.Src.NotNets = prefixes("10.0.0.0/8") })
	s := testNode(tierOf("eth0 normal in", "t", Deny, lossy))
	l := NewLowerer(without(func(f *Features) { f.NotNets = false }))
	l.Lower(s, nil)
	e := *s.endpoint("eth0")
	list := e.Policy.Normal.In
	for i, in := range []*TierList{list, nil, list} {
		c := e
		if c.Policy.Untracked.In = in; i == 2 {
			s = s.Clone() // another State: everything may differ, and the hint is the caller's all the same
		}
		s.Endpoints[e.ID] = &c
		ch := NewChanges()
		ch.Endpoints[e.ID] = struct{}{}
		low, _ := l.Lower(s, ch)
		id := list.Tiers[0].Policies[0]
		if _, named := ch.Policies[id]; !named {
			t.Error("the policy is not named")
		}
		want, _ := Lower(s, l.f)
		if low.String() != want.String() {
			t.Errorf("untracked: %t\n%s", in != nil, low)
		}
	}
}

// TestLowererSharesSetsAndPeers: what is not lowered follows the State, by a hint or because another State came; the State
// itself stays as it is.
func TestLowererSharesSetsAndPeers(t *testing.T) {
	lossy := rule(Allow, func(m *Match) { m.Src.NotNets = prefixes("10.0.0.0/8") })
	f := without(func(f *Features) { f.NotNets = false })
	l := NewLowerer(f)
	s := testNode(tierOf("b normal in", "t", Deny, lossy))
	s.Sets["stays"], s.Sets["goes"] = NewSet(SetNet), NewSet(SetPort)
	l.Lower(s, nil)
	ch := NewChanges()
	s.Sets["comes"], s.Peers["comes"] = NewSet(SetNet, member(t, "10.0.0.1")), &Peer{Name: "comes"}
	delete(s.Sets, "goes")
	delete(s.Peers, "m")
	for _, id := range []SetID{"comes", "goes"} {
		ch.Sets[id] = &SetChange{Full: true}
	}
	ch.Peers["comes"], ch.Peers["m"] = struct{}{}, struct{}{}
	before := s.String()
	low, _ := l.Lower(s, ch)
	if want, _ := Lower(s, f); low.String() != want.String() || s.String() != before {
		t.Errorf("by a hint:\n%s", low)
	}
	other := testNode(tierOf("a normal in", "other", Deny, lossy))
	other.Sets["another"], other.Peers["another"] = NewSet(SetNet), &Peer{Name: "another"}
	low, losses := l.Lower(other, NewChanges())
	if want, wantLosses := Lower(other, f); low.String() != want.String() || len(losses) != len(wantLosses) {
		t.Errorf("another State: %d losses, want %d\n%s", len(losses), len(wantLosses), low)
	}
}
