package drivers

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// pathNodes are node n with workload a (10.0.0.1) and node m with workload c (10.0.1.3).
func pathNodes(changes ...change) (n, m *State) {
	n, m = testNode(), testNode()
	n.Node.Name, n.Node.Addresses = "n", addrs("172.16.0.1", "fd10::1")
	m.Node.Name, m.Node.Addresses = "m", addrs("172.16.0.2", "fd10::2")
	delete(n.Endpoints, n.endpoint("b").ID)
	m.Endpoints = map[EndpointID]*Endpoint{}
	m.Endpoints[EndpointID{Sandbox: "b", Interface: "eth0"}] = &Endpoint{ID: EndpointID{Sandbox: "b", Interface: "eth0"}, Name: "ns/c",
		Iface: ifaceB, Addrs: addrs("10.0.1.3", "fd00:1::3"), Profiles: []PolicyID{allowAll}}
	for _, r := range []struct {
		s *State
		r Route
	}{
		{n, Route{Kind: RouteBlackhole, Dst: netip.MustParsePrefix("10.0.0.0/24")}},
		{n, Route{Kind: RouteLocal, Dst: netip.MustParsePrefix("10.0.0.1/32"), Iface: ifaceA}},
		{n, Route{Kind: RouteRemote, Dst: netip.MustParsePrefix("10.0.1.0/24"), NextHop: netip.MustParseAddr("172.16.0.2"), Peer: "m"}},
		{m, Route{Kind: RouteBlackhole, Dst: netip.MustParsePrefix("10.0.1.0/24")}},
		{m, Route{Kind: RouteRemote, Dst: netip.MustParsePrefix("10.0.0.0/24"), NextHop: netip.MustParseAddr("172.16.0.1"), Iface: "vxlan0", Encap: EncapVXLAN, Peer: "n"}},
	} {
		r.s.Routes[r.r.Dst] = &r.r
	}
	for _, c := range changes {
		c(n)
	}
	return n, m
}

func masquerade(from, except string) change {
	return func(s *State) { s.Masquerade = Masquerade{From: prefixes(from), Except: prefixes(except)} }
}

func floatTo(name, external, internal string) change {
	return func(s *State) {
		s.endpoint(name).Floating = []Floating{{netip.MustParseAddr(external), netip.MustParseAddr(internal)}}
	}
}

// TestDestination: a floating address leads to one workload, whatever a State that should not be says.
func TestDestination(t *testing.T) {
	n := testNode(floatTo("b", "192.0.2.7", "10.0.0.2"), floatTo("a", "192.0.2.7", "10.0.0.1"))
	p := Packet{Dst: netip.MustParseAddr("192.0.2.7"), DstPort: 80}
	p.resolve(n)
	if p.Dst != netip.MustParseAddr("10.0.0.1") || p.OrigDst != netip.MustParseAddrPort("192.0.2.7:80") {
		t.Errorf("it goes to %s, from %s", p.Dst, p.OrigDst)
	}
	p = Packet{Dst: netip.MustParseAddr("192.0.2.8")}
	if p.resolve(n); p.Dst != netip.MustParseAddr("192.0.2.8") || p.OrigDst.IsValid() {
		t.Errorf("what floats nowhere goes to %s, from %s", p.Dst, p.OrigDst)
	}
}

func TestPath(t *testing.T) {
	flow := func(src, dst string) Flow5 {
		return Flow5{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: 6, SrcPort: 40000, DstPort: 80, UplinkA: "eth0", UplinkB: "eth0"}
	}
	type end struct {
		from, to Place
		src      string
	}
	onC := Place{PlaceWorkload, ifaceB}
	for _, c := range []struct {
		name    string
		n, m    []change
		flow    Flow5
		single  bool // only one State is known
		want    Verdict
		hops    []end
		leaving string // the source behind the first hop, if another
	}{
		{name: "between nodes", flow: flow("10.0.0.1", "10.0.1.3"), want: allow,
			hops: []end{{fromA, eth0, "10.0.0.1"}, {Place{PlaceHostIface, "vxlan0"}, onC, "10.0.0.1"}}},
		{name: "between nodes, IPv6, without routes", flow: flow("fd00::1", "fd00:1::3"), want: allow,
			hops: []end{{fromA, eth0, "fd00::1"}, {eth0, onC, "fd00::1"}}},
		{name: "denied by the first", n: []change{tierOf("a normal out", "t", Deny)}, flow: flow("10.0.0.1", "10.0.1.3"), want: deny,
			hops: []end{{fromA, eth0, "10.0.0.1"}}},
		{name: "denied by the second", m: []change{func(s *State) { s.endpoint("b").Profiles = nil }}, flow: flow("10.0.0.1", "10.0.1.3"), want: deny,
			hops: []end{{fromA, eth0, "10.0.0.1"}, {Place{PlaceHostIface, "vxlan0"}, onC, "10.0.0.1"}}},
		{name: "masqueraded by the first", n: []change{masquerade("10.0.0.0/8", "10.0.0.0/24")}, flow: flow("10.0.0.1", "10.0.1.3"), want: allow,
			hops: []end{{fromA, eth0, "10.0.0.1"}, {eth0, onC, "172.16.0.1"}}, leaving: "172.16.0.1"},
		{name: "by a floating address, to its node alone", single: true, n: []change{floatTo("a", "192.0.2.7", "10.0.0.1")}, flow: flow(world, "192.0.2.7"), want: allow,
			hops: []end{{eth0, fromA, world}}},
		{name: "by a floating address of the other node", m: []change{floatTo("b", "10.0.1.200", "10.0.1.3")}, flow: flow("10.0.0.1", "10.0.1.200"), want: allow,
			hops: []end{{fromA, eth0, "10.0.0.1"}, {Place{PlaceHostIface, "vxlan0"}, onC, "10.0.0.1"}}},
		{name: "by a floating address, IPv6, denied to the workload's own", single: true, n: []change{floatTo("a", "2001:db8::7", "fd00::1"),
			func(s *State) { s.endpoint("a").Profiles = nil }}, flow: flow("2001:db8::1", "2001:db8::7"), want: deny, hops: []end{{eth0, fromA, "2001:db8::1"}}},
		{name: "to the other node itself", flow: flow("10.0.0.1", "172.16.0.2"), want: allow,
			hops: []end{{fromA, eth0, "10.0.0.1"}, {Place{PlaceHostIface, "vxlan0"}, process, "10.0.0.1"}}},
		{name: "from the node itself", flow: flow("172.16.0.1", "10.0.1.3"), want: allow,
			hops: []end{{process, eth0, "172.16.0.1"}, {eth0, onC, "172.16.0.1"}}},
		{name: "to its own node", n: []change{toHost(ToHostAccept)}, flow: flow("10.0.0.1", "172.16.0.1"), want: allow,
			hops: []end{{fromA, process, "10.0.0.1"}}},
		{name: "to the world", single: true, n: []change{masquerade("10.0.0.0/8", "10.0.0.0/8")}, flow: flow("10.0.0.1", world), want: allow,
			hops: []end{{fromA, eth0, "10.0.0.1"}}, leaving: "172.16.0.1"},
		{name: "from the world", single: true, flow: flow(world, "10.0.0.1"), want: allow, hops: []end{{eth0, fromA, world}}},
		{name: "to an address of its block that nobody has", flow: flow("10.0.0.1", "10.0.0.77"), want: deny,
			hops: []end{{fromA, Place{}, "10.0.0.1"}}},
		{name: "to an address of the other's block that nobody has", flow: flow("10.0.0.1", "10.0.1.77"), want: deny,
			hops: []end{{fromA, eth0, "10.0.0.1"}, {Place{PlaceHostIface, "vxlan0"}, Place{}, "10.0.0.1"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, m := pathNodes(c.n...)
			for _, f := range c.m {
				f(m)
			}
			if c.single {
				m = nil
			}
			got := Path(n, m, c.flow)
			var hops []end
			for _, h := range got.Hops {
				hops = append(hops, end{h.Packet.From, h.Packet.To, h.Packet.Src.String()})
			}
			if d := cmp.Diff(c.hops, hops, cmp.AllowUnexported(end{})); got.Verdict != c.want || d != "" {
				t.Errorf("%s, hops (-want +got):\n%s\n%+v", got.Verdict, d, got)
			}
			if c.leaving == "" {
				c.leaving = c.flow.Src.String()
			}
			if src := got.Hops[0].Src.String(); src != c.leaving {
				t.Errorf("it leaves with source %s, want %s", src, c.leaving)
			}
			if same := Path(n, n, c.flow); len(same.Hops) != 1 {
				t.Errorf("one node, %d hops", len(same.Hops))
			}
		})
	}
}

func TestTranslate(t *testing.T) {
	node := testNode(masquerade("10.0.0.0/8", "10.0.0.0/8"))
	for _, c := range []struct {
		name string
		s    *State
		p    Packet
		want string
	}{
		{"a workload to the world", node, pkt(fromA, eth0, "10.0.0.1", world), "172.16.0.1"},
		{"forwarded for another", node, pkt(eth1, eth0, "10.0.7.1", world), "172.16.0.1"},
		{"to another workload", node, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"), "10.0.0.1"},
		{"to an excluded network", node, pkt(fromA, eth0, "10.0.0.1", "10.9.9.9"), "10.0.0.1"},
		{"from elsewhere", node, pkt(eth1, eth0, "198.51.100.1", world), "198.51.100.1"},
		{"from the host itself", node, pkt(process, eth0, "10.0.0.1", world), "10.0.0.1"},
		{"to the host itself", node, pkt(fromA, process, "10.0.0.1", "172.16.0.1"), "10.0.0.1"},
		{"of the other family", testNode(masquerade("fd00::/16", "fd00::/16")), pkt(fromA, eth0, "fd00::1", "2001:db8::1"), "fd10::1"},
		{"on a node without an address", testNode(masquerade("10.0.0.0/8", "10.0.0.0/8"), func(s *State) { s.Node.Addresses = nil }), pkt(fromA, eth0, "10.0.0.1", world), "10.0.0.1"},
	} {
		got := Translate(c.s, c.p)
		if got.Src.String() != c.want {
			t.Errorf("%s: source %s, want %s", c.name, got.Src, c.want)
		}
		if d := cmp.Diff(c.p, got, cmpopts.IgnoreFields(Packet{}, "Src"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Errorf("%s: more than the source changed:\n%s", c.name, d)
		}
	}
}

func TestRouteIsTheMostSpecific(t *testing.T) {
	s := NewState()
	for _, p := range prefixes("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "fd00::/64", "fd00::1/128") {
		s.Routes[p] = &Route{Dst: p}
	}
	for addr, want := range map[string]string{
		"10.0.0.1": "10.0.0.1/32", "10.0.0.2": "10.0.0.0/24", "10.3.0.1": "10.0.0.0/8", "11.0.0.1": "0.0.0.0/0", "fd00::1": "fd00::1/128", "fd00::2": "fd00::/64",
	} {
		if r := s.Route(netip.MustParseAddr(addr)); r == nil || r.Dst.String() != want {
			t.Errorf("route to %s: %+v, want %s", addr, r, want)
		}
	}
	if r := s.Route(netip.MustParseAddr("fd01::1")); r != nil {
		t.Errorf("a route to fd01::1: %+v", r)
	}
	if r := s.Route(netip.Addr{}); r != nil {
		t.Errorf("a route to no address: %+v", r)
	}
}

// TestPathKeepsTheFlow: what a flow says of its packet is in the packets of all hops.
func TestPathKeepsTheFlow(t *testing.T) {
	n, m := pathNodes()
	f := Flow5{Src: netip.MustParseAddr("::ffff:10.0.0.1"), Dst: netip.MustParseAddr("10.0.1.3"), Proto: 1, SrcPort: 3, DstPort: 4,
		ICMPType: 8, ICMPCode: 9, UplinkA: "eth0", UplinkB: "eth1"}
	got := Path(n, m, f)
	if len(got.Hops) != 2 || got.Hops[0].Node != "n" || got.Hops[1].Node != "m" {
		t.Fatalf("%+v", got)
	}
	for _, h := range got.Hops {
		p := h.Packet
		p.From, p.To = Place{}, Place{}
		want := Packet{Src: netip.MustParseAddr("10.0.0.1"), Dst: f.Dst, Proto: 1, SrcPort: 3, DstPort: 4, ICMPType: 8, ICMPCode: 9}
		if p != want {
			t.Errorf("on %s: %+v, want %+v", h.Node, p, want)
		}
	}
	m.Node.Name = "n"
	if got := Path(n, m, f); len(got.Hops) != 1 {
		t.Errorf("two States of one node: %d hops", len(got.Hops))
	}
}

// TestPathIntoABlackhole says why, and in which step.
func TestPathIntoABlackhole(t *testing.T) {
	n, _ := pathNodes()
	flow := Flow5{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.77"), Proto: 6, UplinkA: "eth0"}
	got := Path(n, nil, flow)
	want := PathTrace{Hops: []Hop{{
		Node: "n", Src: flow.Src, Packet: Packet{From: fromA, Src: flow.Src, Dst: flow.Dst, Proto: 6},
		Trace: Trace{Steps: []Step{{Stage: StageRoute, Index: -1, Outcome: "deny",
			Reason: "blackhole 10.0.0.0/24: no workload has the address, or the route cannot be made"}}},
	}}}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	// A workload in a block that is a blackhole otherwise is no part of it.
	flow.Dst = netip.MustParseAddr("10.0.0.5")
	n.endpoint("a").Addrs = append(n.endpoint("a").Addrs, flow.Dst)
	if got := Path(n, nil, flow); got.Hops[0].Packet.To != fromA {
		t.Errorf("to an address without a route of its own: %+v", got.Hops[0].Packet.To)
	}
	// A blackhole to what is not of this node is the other's to say.
	flow.Src = netip.MustParseAddr(world)
	n.Routes[netip.MustParsePrefix("192.0.2.0/24")] = &Route{Kind: RouteBlackhole, Dst: netip.MustParsePrefix("192.0.2.0/24")}
	if got := Path(n, nil, flow); got.Verdict != deny || got.Hops[0].Trace.Steps[0].Stage != StageInterface {
		t.Errorf("from a blackhole: %+v", got.Hops[0].Trace)
	}
}

// TestLocate says where addresses are.
func TestLocate(t *testing.T) {
	n, _ := pathNodes()
	for _, id := range []string{"y", "x", "z"} {
		n.Endpoints[EndpointID{Sandbox: id}] = &Endpoint{ID: EndpointID{Sandbox: id}, Iface: "tort" + id, Addrs: addrs("10.9.9.9")}
	}
	hep := EndpointID{Kind: HostInterface, Sandbox: "h", Interface: "eth7"}
	n.Endpoints[hep] = &Endpoint{ID: hep, Iface: "eth7", Addrs: addrs("10.9.9.8")}
	n.Endpoints[EndpointID{Sandbox: "nothing"}] = nil
	for i := range 40 { // the one with the smallest id is found among many, in whatever order they come
		id := EndpointID{Sandbox: fmt.Sprint("z", i)}
		n.Endpoints[id] = &Endpoint{ID: id, Iface: "tortz", Addrs: addrs("10.9.9.9")}
	}
	n.Routes[netip.MustParsePrefix("10.8.0.0/16")] = &Route{Dst: netip.MustParsePrefix("10.8.0.0/16"), Kind: RouteLocal, Iface: "torte"}
	n.Routes[netip.MustParsePrefix("10.7.0.0/16")] = &Route{Dst: netip.MustParsePrefix("10.7.0.0/16"), Kind: RouteBlackhole, Iface: "eth3"}
	n.Routes[netip.MustParsePrefix("10.6.0.0/16")] = &Route{Dst: netip.MustParsePrefix("10.6.0.0/16"), Kind: RouteRemote, Iface: "vxlan0"}
	for a, want := range map[string]Place{
		"172.16.0.1": process, "127.0.0.1": process, "::1": process, "::ffff:172.16.0.1": process, "::ffff:10.0.0.1": fromA,
		"10.0.0.1": fromA, "fd00::1": fromA, "10.8.1.1": {PlaceWorkload, "torte"}, "10.7.1.1": {Kind: PlaceUnknown},
		"10.6.1.1": {PlaceHostIface, "vxlan0"}, "10.0.1.9": {PlaceHostIface, "up"}, world: {PlaceHostIface, "up"},
		"10.9.9.9": {PlaceWorkload, "tortx"}, "10.9.9.8": {PlaceHostIface, "up"},
	} {
		for range 8 { // maps have no order
			if got := n.Locate(netip.MustParseAddr(a), "up"); got != want {
				t.Fatalf("%s is at %+v, want %+v", a, got, want)
			}
		}
	}
	if got := n.Locate(netip.Addr{}, "up"); got != (Place{PlaceHostIface, "up"}) {
		t.Errorf("no address is at %+v", got)
	}
	if got := hostPlace(nil, "up"); got != (Place{PlaceHostIface, "up"}) {
		t.Errorf("without a route: %+v", got)
	}
	if got := hostPlace(&Route{Kind: RouteLocal, Iface: "torte"}, "up"); got != (Place{PlaceHostIface, "up"}) {
		t.Errorf("from a local route: %+v", got)
	}
	if r := n.Route(netip.MustParseAddr("::ffff:10.6.0.1")); r == nil || r.Iface != "vxlan0" {
		t.Errorf("route of an address in IPv6 clothes: %+v", r)
	}
	if r := n.Route(netip.Addr{}); r != nil {
		t.Errorf("route of no address: %+v", r)
	}
}
