package drivers

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// gen makes random States, Features and Packets out of few names, addresses and ports, so that they meet often.
type gen struct{ *rand.Rand }

func newGen(seed uint64) gen { return gen{rand.New(rand.NewPCG(seed, 7))} }

func (g gen) one(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g gen, vs ...T) T { return vs[g.IntN(len(vs))] }

var (
	genAddrs = addrs("10.0.0.1", "10.0.0.2", "10.0.1.3", "192.168.0.9", "172.16.0.1", "172.16.0.2",
		"fd00::1", "fd00::2", "fd00:1::3", "2001:db8::9", "fd10::1", "fd10::2")
	genNets = prefixes("10.0.0.0/24", "10.0.0.0/8", "10.0.0.1/32", "192.168.0.0/16", "0.0.0.0/0",
		"fd00::/64", "fd00::/16", "fd00::1/128", "2001:db8::/32", "::/0")
	genSets     = []SetID{"n1", "n2", "n3"}
	genPortSets = []SetID{"p1", "p2"}
	genIfaces   = []string{"tort1", "tort2", "eth0", "eth1", "eth9", "tort9"}
)

func addrs(ss ...string) []netip.Addr {
	var as []netip.Addr
	for _, s := range ss {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

func prefixes(ss ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// some returns up to n of vs.
func some[T any](g gen, n int, vs []T) []T {
	var out []T
	for range g.IntN(n + 1) {
		out = append(out, pick(g, vs...))
	}
	return out
}

func (g gen) addr() netip.Addr { return pick(g, genAddrs...) }
func (g gen) proto() uint8     { return pick[uint8](g, 6, 6, 17, 132, 1, 58, 47, 4) }
func (g gen) port() uint16     { return pick[uint16](g, 0, 22, 80, 81, 4789) }

func (g gen) state() *State {
	s := NewState()
	s.Node = Node{
		Name: "a", Addresses: addrs("172.16.0.1", "fd10::1"), WorkloadPrefixes: []string{"tort"},
		FailsafeIn:     []Failsafe{{Proto: 6, Port: 22}, {Proto: 17, Port: 81, Net: netip.MustParsePrefix("172.16.0.0/24")}},
		FailsafeOut:    []Failsafe{{Proto: 6, Port: 81}},
		EndpointToHost: pick(g, ToHostDrop, ToHostAccept, ToHostReturn), AllowEncapFromWorkloads: g.one(4), CutEstablished: g.one(3),
	}
	for _, id := range genSets {
		var ms []Member
		for _, n := range some(g, 3, genNets) {
			ms = append(ms, NetMember(n))
		}
		s.Sets[id] = NewSet(SetNet, ms...)
	}
	for _, id := range genPortSets {
		var ms []Member
		for range g.IntN(4) {
			ms = append(ms, PortMember(g.addr(), pick[uint8](g, 6, 17, 132), g.port()))
		}
		s.Sets[id] = NewSet(SetPort, ms...)
	}
	for i := range 6 {
		id := PolicyID{Kind: KindGlobalNetworkPolicy, Name: fmt.Sprint("pol", i)}
		s.Policies[id] = g.policy(id, i == 5)
	}
	for i := range 2 {
		id := PolicyID{Kind: KindProfile, Name: fmt.Sprint("prof", i)}
		s.Policies[id] = g.policy(id, false)
	}
	for i, name := range []string{"tort1", "tort2"} {
		e := &Endpoint{
			ID: EndpointID{Sandbox: name, Interface: "eth0"}, Name: "ns/" + name, Iface: name, MAC: MAC{2, 0, 0, 0, 0, byte(i)},
			Addrs: []netip.Addr{genAddrs[i], genAddrs[i+6]}, SourcePrefixes: some(g, 1, genNets),
			Floating: []Floating{{genAddrs[i], genAddrs[i]}},
			Policy:   EndpointPolicy{Normal: g.lists()}, Profiles: g.profiles(),
		}
		if g.one(20) {
			e.Degraded = "broken"
		}
		s.Endpoints[e.ID] = e
	}
	for _, name := range []string{"eth0", "eth1", AllHostIfaces} {
		if g.one(4) {
			continue
		}
		e := &Endpoint{ID: EndpointID{Kind: HostInterface, Sandbox: "h", Interface: name}, Name: name, Iface: name, Profiles: g.profiles()}
		e.Policy = EndpointPolicy{Normal: g.lists(), Forward: g.lists(), PreDNAT: Directions{In: g.list()}, Untracked: g.lists()}
		if g.one(20) {
			e.Degraded = "broken"
		}
		s.Endpoints[e.ID] = e
	}
	for _, p := range genNets {
		if g.one(4) {
			s.Routes[p] = &Route{Dst: p, Kind: RouteRemote, Encap: Encap(g.IntN(4)), Peer: "b"}
		}
	}
	s.Peers["b"] = &Peer{Name: "b", Addrs: addrs("172.16.0.2", "fd10::2")}
	s.Masquerade = Masquerade{From: some(g, 2, genNets), Except: some(g, 1, genNets)}
	return s
}

func (g gen) profiles() []PolicyID {
	var ids []PolicyID
	for range g.IntN(3) {
		ids = append(ids, PolicyID{Kind: KindProfile, Name: fmt.Sprint("prof", g.IntN(2))})
	}
	return ids
}

func (g gen) lists() Directions { return Directions{In: g.list(), Out: g.list()} }

func (g gen) list() *TierList {
	if g.one(3) {
		return nil
	}
	l := &TierList{}
	for i := range g.IntN(3) {
		t := TierPolicies{Name: fmt.Sprint("tier", i), Default: pick(g, Deny, Pass)}
		for range g.IntN(3) {
			t.Policies = append(t.Policies, PolicyID{Kind: KindGlobalNetworkPolicy, Name: fmt.Sprint("pol", g.IntN(6))})
		}
		l.Tiers = append(l.Tiers, t)
	}
	return l
}

func (g gen) policy(id PolicyID, staged bool) *Policy {
	p := &Policy{ID: id, Tier: "default", Staged: staged}
	for _, rules := range []*[]Rule{&p.In, &p.Out} {
		for range g.IntN(4) {
			*rules = append(*rules, g.rule())
		}
	}
	p.SetRuleIDs()
	return p
}

func (g gen) rule() Rule {
	r := Rule{Action: pick(g, Allow, Allow, Allow, Deny, Pass, Log)}
	m := &r.Match
	if g.one(5) {
		m.IPVersion = pick[uint8](g, 4, 6)
	}
	proto := g.proto()
	switch g.IntN(6) {
	case 0, 1:
		m.Proto = &proto
	case 2:
		m.NotProto = &proto
	}
	for _, icmp := range []**ICMP{&m.ICMP, &m.NotICMP} {
		if g.one(8) {
			code := uint8(g.IntN(2))
			*icmp = &ICMP{Type: pick[uint8](g, 8, 128, 135)}
			if g.one(2) {
				(*icmp).Code = &code
			}
		}
	}
	for _, s := range []*Side{&m.Src, &m.Dst} {
		if g.one(2) {
			g.side(s)
		}
	}
	if g.one(20) {
		m.HTTP = &HTTP{Methods: []string{"GET"}}
	}
	if g.one(20) {
		m.Unsupported = []string{"destination.domains"}
	}
	return r
}

func (g gen) side(s *Side) {
	for _, fill := range []func(){
		func() { s.Nets = some(g, 2, genNets) },
		func() { s.NotNets = some(g, 2, genNets) },
		func() { s.Sets = some(g, 2, genSets) },
		func() { s.NotSets = some(g, 2, genSets) },
		func() { s.Ports = append(s.Ports, PortRange{80, 81}) },
		func() { s.PortSets = some(g, 1, genPortSets) },
		func() { s.NotPorts = append(s.NotPorts, PortRange{81, 90}) },
		func() { s.NotPortSets = some(g, 1, genPortSets) },
		func() { s.Services = some(g, 1, genPortSets) },
	} {
		if g.one(6) {
			fill()
		}
	}
}

// features takes some features away.
func (g gen) features() Features {
	f := AllFeatures("cut")
	often := 2 + g.IntN(12)
	for _, b := range []*bool{
		&f.IPv4, &f.IPv6, &f.HostPolicy, &f.Forward, &f.PreDNAT, &f.Untracked, &f.Log, &f.ICMPType, &f.NotICMP, &f.NotProto,
		&f.NotNets, &f.NotPorts, &f.NotSets, &f.NamedPorts, &f.Services, &f.HTTP, &f.SCTP, &f.AnyProto, &f.SourceCheck,
		&f.Masquerade, &f.FloatingNAT, &f.CutFlows,
	} {
		*b = !g.one(often)
	}
	f.Encaps = slices.DeleteFunc(f.Encaps, func(Encap) bool { return g.one(often) })
	return f
}

func (g gen) place() Place {
	switch g.IntN(8) {
	case 0:
		return Place{Kind: PlaceProcess}
	case 1:
		return Place{Kind: PlaceHostIface, Iface: pick(g, genIfaces...)}
	case 2, 3:
		return Place{Kind: PlaceHostIface, Iface: pick(g, "eth0", "eth1")}
	case 4:
		return Place{Kind: PlaceKind(g.IntN(4)), Iface: pick(g, genIfaces...)}
	}
	return Place{Kind: PlaceWorkload, Iface: pick(g, "tort1", "tort2")}
}

func (g gen) packet(s *State) Packet {
	p := Packet{
		From: g.place(), To: g.place(), Src: g.addr(), Dst: g.addr(), Proto: g.proto(), SrcPort: g.port(), DstPort: g.port(),
		ICMPType: pick[uint8](g, 8, 128, 135, 136), ICMPCode: uint8(g.IntN(2)), CT: CTState(g.IntN(5)),
		HopLimit: pick[uint8](g, 64, 255), ARP: g.one(30),
	}
	if g.one(2) {
		p.CT = CTNew
	}
	for p.Src.Is4() != p.Dst.Is4() {
		p.Dst = g.addr()
	}
	for _, e := range s.Endpoints {
		if e != nil && e.ID.Kind == Workload && e.Iface == p.From.Iface && !g.one(8) {
			p.Src = e.Addrs[0]
			if p.Dst.Is6() {
				p.Src = e.Addrs[1]
			}
		}
	}
	if g.one(4) {
		p.OrigDst = netip.AddrPortFrom(g.addr(), g.port())
	}
	if g.one(20) {
		p.Src = netip.MustParseAddr("fe80::5")
	}
	if g.one(10) {
		p.SrcMAC = MAC{2, 0, 0, 0, 0, byte(g.IntN(2))}
	}
	return p
}
