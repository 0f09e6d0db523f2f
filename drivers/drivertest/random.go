package drivertest

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// Random returns a State made of the seed alone, and probes aimed at the boundaries of what it allows, about half of
// which it does. Every probe has its source port and has been through CheckProbe.
func Random(seed uint64) (*drivers.State, []Probe) {
	g := newGen(seed)
	s := g.state()
	return s, g.probes(s, probesPerState)
}

// probesPerState is how many packets go at one random State.
const probesPerState = 60

// gen makes random States and packets.
type gen struct {
	*rand.Rand
	ports batcher
}

func newGen(seed uint64) *gen {
	return &gen{Rand: rand.New(rand.NewPCG(seed, 0x746f72746965))}
}

// chance is true in percent cases of a hundred.
func (g *gen) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *gen, xs []T) T { return xs[g.IntN(len(xs))] }

// some returns up to n of xs, each at most once, in random order.
func some[T any](g *gen, n int, xs []T) []T {
	if n = min(g.IntN(n+1), len(xs)); n == 0 {
		return nil
	}
	var out []T
	for _, i := range g.Perm(len(xs))[:n] {
		out = append(out, xs[i])
	}
	return out
}

// What States are made of. The numbers are small so that rules, sets and packets meet.
var (
	portPool = []uint16{1, 22, 53, 80, 81, 443, 1023, 1024, 5060, 8000, 8079, 8080, 8081, 30080, 65535}
	netPool  = prefixes(
		"0.0.0.0/1", "10.0.0.0/8", "10.65.0.0/24", "10.65.0.0/30", "10.65.0.2/31", "10.66.0.0/16", "10.66.1.0/25",
		"10.20.0.0/16", "10.20.0.0/17", "10.20.7.0/24", "10.20.7.128/25", "10.21.0.0/16", "10.21.255.0/24", "10.65.4.0/24",
		"172.16.0.0/12", "172.20.0.0/24", "10.96.0.0/16",
		"fd00::/8", "fd65::/64", "fd65::/126", "fd65::2/127", "fd66::/32", "fd66:0:0:1::/65", "fd00:20::/32", "fd00:20::/33",
		"fd00:20:7::/48", "fd00:20:7:8000::/49", "fd00:21::/32", "fd00:21:ffff::/48", "fd65:0:0:4::/64", "fd20::/64", "fd96::/64",
		"::/1",
	)
	addrPool = addrs(
		"10.65.0.1", "10.65.0.2", "10.65.0.3", "10.66.1.1", "10.66.2.127", "10.20.7.1", "10.20.7.128", "10.20.8.0", "10.21.255.9",
		"172.20.0.1", "172.20.0.2", "172.21.0.2", "10.65.4.7", "10.96.0.1", "172.22.0.2", "fd65::1", "fd65::2", "fd65::3",
		"fd66:0:0:1::1", "fd66:0:0:2::7f", "fd00:20:7::1", "fd00:20:7:8000::", "fd00:20:8::", "fd00:21:ffff::9", "fd20::1",
		"fd20::2", "fd21::2", "fd65:0:0:4::7", "fd96::1", "fd22::2",
	)
	netSets  = []drivers.SetID{"s:1", "s:2", "s:3", "s:4", "s:5"}
	portSets = []drivers.SetID{"n:1", "n:2", "n:3"}
	profiles = []string{"profile:open", "profile:p1", "profile:p2"}
	tierPool = []drivers.TierPolicies{
		{Name: "first", Default: drivers.Pass, Order: 100},
		{Name: "second", Default: drivers.Deny, Order: 200},
		{Name: "third", Default: drivers.Pass, Order: 300},
		{Name: "default", Default: drivers.Deny, Order: 400},
	}
	// policyPool and the tier of each never change, so that any list of any State resolves in any other.
	policyPool = []struct{ ref, tier string }{
		{"f1", "first"}, {"ns/f2", "first"}, {"staged:f3", "first"}, {"s1", "second"}, {"k8s:ns/s2", "second"}, {"k8s:t1", "third"},
		{"t2", "third"}, {"staged:ns/t3", "third"}, {"d1", "default"}, {"ns/d2", "default"}, {"d3", "default"}, {"staged-k8s:ns/d4", "default"},
	}
)

func (g *gen) state() *drivers.State {
	s := drivers.NewState()
	for _, id := range netSets {
		s.Sets[id] = g.netSet()
	}
	for _, id := range portSets {
		s.Sets[id] = g.portSet()
	}
	for i := range policyPool {
		g.putPolicy(s, i)
	}
	for _, ref := range profiles {
		id, _ := parsePolicyRef(ref)
		p := &drivers.Policy{ID: id, In: g.rules(true, 2), Out: g.rules(false, 2)}
		if ref == "profile:open" {
			p.In, p.Out = []drivers.Rule{{Action: drivers.Allow}}, []drivers.Rule{{Action: drivers.Allow}}
		}
		p.SetRuleIDs()
		s.Policies[id] = p
	}
	for _, site := range sites {
		if site.Place.Kind == drivers.PlaceWorkload || site.Place.Kind == drivers.PlaceHostIface {
			g.putEndpoint(s, site)
		}
	}
	s.Node = g.node()
	if g.chance(40) {
		g.putHost(s, drivers.AllHostIfaces)
	}
	g.rest(s)
	return s
}

func (g *gen) netSet() *drivers.Set {
	var ms []drivers.Member
	for _, p := range some(g, 5, netPool[2:len(netPool)-1]) {
		ms = append(ms, drivers.NetMember(p))
	}
	for _, a := range some(g, 8, addrPool) {
		ms = append(ms, drivers.AddrMember(a))
	}
	if g.chance(15) {
		ms = append(ms, drivers.NetMember(pick(g, netPool)))
	}
	return drivers.NewSet(drivers.SetNet, ms...)
}

func (g *gen) portSet() *drivers.Set {
	var ms []drivers.Member
	for range g.IntN(14) {
		ms = append(ms, drivers.PortMember(pick(g, addrPool), pick(g, []uint8{protoTCP, protoTCP, protoUDP, protoSCTP}), pick(g, portPool)))
	}
	return drivers.NewSet(drivers.SetPort, ms...)
}

func (g *gen) putPolicy(s *drivers.State, i int) {
	def := policyPool[i]
	id, _ := parsePolicyRef(def.ref)
	p := &drivers.Policy{ID: id, Tier: def.tier, Staged: isStaged(id), In: g.rules(true, 4), Out: g.rules(false, 4)}
	p.SetRuleIDs()
	s.Policies[id] = p
}

func isStaged(id drivers.PolicyID) bool {
	return id.Kind == drivers.KindStagedGlobalNetworkPolicy || id.Kind == drivers.KindStagedNetworkPolicy ||
		id.Kind == drivers.KindStagedKubernetesPolicy
}

func (g *gen) rules(in bool, n int) []drivers.Rule {
	var rs []drivers.Rule
	for range g.IntN(n + 1) {
		rs = append(rs, g.rule(in))
	}
	return rs
}

var actionPool = []drivers.Action{
	drivers.Allow, drivers.Allow, drivers.Allow, drivers.Allow, drivers.Allow, drivers.Deny, drivers.Deny, drivers.Pass, drivers.Pass,
	drivers.Log,
}

// rule makes a rule with few clauses as a rule, and now and then with many.
func (g *gen) rule(in bool) drivers.Rule {
	r := drivers.Rule{Action: pick(g, actionPool)}
	m := &r.Match
	busy := 1
	if g.chance(15) {
		busy = 2
	}
	if g.chance(10 * busy) {
		m.IPVersion = pick(g, []uint8{4, 6})
	}
	if g.chance(40) {
		p := pick(g, []uint8{protoTCP, protoTCP, protoTCP, protoUDP, protoUDP, protoSCTP, protoICMP, protoICMPv6, protoUDPLite, protoGRE, protoTest})
		m.Proto = &p
	}
	if g.chance(7 * busy) {
		p := pick(g, []uint8{protoTCP, protoUDP, protoICMP, protoICMPv6, protoSCTP, protoTest})
		m.NotProto = &p
	}
	if m.Proto != nil && isICMP(*m.Proto) || g.chance(2) {
		m.ICMP, m.NotICMP = g.icmpClause(60), g.icmpClause(20)
	} else if g.chance(3 * busy) {
		m.NotICMP = g.icmpClause(100)
	}
	g.side(&m.Src, busy, in)
	g.side(&m.Dst, busy, !in)
	if g.chance(2) && r.Action == drivers.Allow {
		m.HTTP = &drivers.HTTP{Methods: []string{"GET"}}
	}
	if g.chance(1) {
		m.Unsupported = []string{"spec.new"}
	}
	return r
}

func (g *gen) icmpClause(percent int) *drivers.ICMP {
	if !g.chance(percent) {
		return nil
	}
	i := &drivers.ICMP{Type: pick(g, []uint8{8, 8, 0, 3, 13, 128, 128, 129, 1, 139})}
	if g.chance(50) {
		code := pick(g, []uint8{0, 0, 1})
		i.Code = &code
	}
	return i
}

// side fills in the clauses of one end; far is the end away from the endpoint, which rules speak of more.
func (g *gen) side(s *drivers.Side, busy int, far bool) {
	often := 5 * busy
	if far {
		often = 9 * busy
	}
	if g.chance(often) {
		s.Nets = g.nets()
	}
	if g.chance(often / 2) {
		s.NotNets = g.nets()
	}
	if g.chance(2 * often) {
		s.Sets = some(g, 2, netSets)
	}
	if g.chance(often) {
		s.NotSets = some(g, 2, netSets)
	}
	if g.chance(2 * often) {
		s.Ports = g.portRanges()
	}
	if g.chance(often) {
		s.PortSets = some(g, 2, portSets)
	}
	if g.chance(often / 2) {
		s.NotPorts = g.portRanges()
	}
	if g.chance(often / 2) {
		s.NotPortSets = some(g, 2, portSets)
	}
	if g.chance(often / 2) {
		s.Services = some(g, 1, portSets)
	}
}

// nets gives prefixes of one family as a rule, as the API demands, and sometimes of both.
func (g *gen) nets() []netip.Prefix {
	both, v6 := g.chance(15), g.chance(50)
	var ps []netip.Prefix
	for _, p := range some(g, 6, netPool) {
		if both || p.Addr().Is6() == v6 {
			ps = append(ps, p)
		}
	}
	if g.chance(30) {
		a := pick(g, addrPool)
		if both || a.Is6() == v6 {
			ps = append(ps, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return ps
}

func (g *gen) portRanges() []drivers.PortRange {
	var rs []drivers.PortRange
	for range 1 + g.IntN(3) {
		r := drivers.PortRange{First: pick(g, portPool)}
		if r.Last = r.First; g.chance(40) {
			r.Last = max(r.First, pick(g, portPool))
		}
		if r.First < freePortFirst && r.Last >= freePortFirst {
			r.Last = 65535 // the free ports are not told apart
		}
		rs = append(rs, r)
	}
	return rs
}

// tierList makes a list of some policies; nil now and then.
func (g *gen) tierList() *drivers.TierList {
	if g.chance(20) {
		return nil
	}
	l := &drivers.TierList{}
	for _, t := range tierPool {
		t.Staged = true
		for _, i := range g.Perm(len(policyPool)) {
			def := policyPool[i]
			if def.tier != t.Name || g.chance(50) {
				continue
			}
			id, _ := parsePolicyRef(def.ref)
			t.Policies = append(t.Policies, id)
			t.Staged = t.Staged && isStaged(id)
		}
		if len(t.Policies) > 0 {
			l.Tiers = append(l.Tiers, t)
		}
	}
	return l
}

func (g *gen) profiles() []drivers.PolicyID {
	refs := some(g, 2, profiles)
	if g.chance(40) {
		refs = []string{"profile:open"}
	}
	var ids []drivers.PolicyID
	for _, ref := range refs {
		id, _ := parsePolicyRef(ref)
		ids = append(ids, id)
	}
	return ids
}

// putEndpoint puts a new value of the endpoint of a site into s, or takes it out.
func (g *gen) putEndpoint(s *drivers.State, site Site) {
	if site.Place.Kind == drivers.PlaceHostIface {
		g.putHost(s, site.Place.Iface)
		return
	}
	id := workloadID(site.Name)
	if delete(s.Endpoints, id); g.chance(7) {
		return
	}
	e := &drivers.Endpoint{
		ID: id, Name: "default/" + site.Name, Iface: site.Place.Iface, MAC: site.MAC, Addrs: site.Addrs, Profiles: g.profiles(),
		Policy: drivers.EndpointPolicy{Normal: drivers.Directions{In: g.tierList(), Out: g.tierList()}},
	}
	if g.chance(10) {
		e.MAC = drivers.MAC{}
	}
	if g.chance(30) {
		e.SourcePrefixes = slices.Clone(site.Ranges[:1+g.IntN(2)])
	}
	g.float(s, e, site)
	if g.chance(2) {
		e.Degraded = "by-the-generator"
	}
	s.Endpoints[id] = e
}

// float gives an endpoint floating addresses that no other one of s has, sometimes.
func (g *gen) float(s *drivers.State, e *drivers.Endpoint, site Site) {
	for _, a := range addrs("10.97.0.1", "10.97.0.2", "fd97::1", "fd97::2") {
		if g.chance(25) && s.Destination(a) == a {
			e.Floating = append(e.Floating, drivers.Floating{External: a, Internal: site.Addr(a.Is6())})
		}
	}
}

func (g *gen) putHost(s *drivers.State, iface string) {
	id := hostID(iface)
	if delete(s.Endpoints, id); g.chance(40) {
		return
	}
	e := &drivers.Endpoint{ID: id, Name: "host-" + iface, Iface: iface, Profiles: g.profiles()}
	for i, name := range hostLists {
		if iface != drivers.AllHostIfaces && g.chance([]int{60, 60, 35, 35, 25, 12, 12}[i]) {
			*listOf(&e.Policy, name) = g.tierList()
		}
	}
	if iface == drivers.AllHostIfaces {
		e.Policy.Normal.In = g.tierList()
	}
	s.Endpoints[id] = e
}

func (g *gen) node() drivers.Node {
	n := baseNode()
	n.EndpointToHost = pick(g, []drivers.EndpointToHost{drivers.ToHostDrop, drivers.ToHostAccept, drivers.ToHostReturn})
	for range g.IntN(3) {
		n.FailsafeIn = append(n.FailsafeIn, g.failsafe())
		n.FailsafeOut = append(n.FailsafeOut, g.failsafe())
	}
	n.AllowEncapFromWorkloads = g.chance(30)
	if g.chance(20) {
		n.VXLANPort = 8080
	}
	return n
}

func (g *gen) failsafe() drivers.Failsafe {
	f := drivers.Failsafe{Proto: pick(g, []uint8{protoTCP, protoTCP, protoUDP}), Port: pick(g, portPool)}
	if g.chance(30) {
		f.Net = pick(g, netPool)
	}
	return f
}

// rest makes what is about other nodes and the world beyond: peers, tunnels, masquerading.
func (g *gen) rest(s *drivers.State) {
	s.Masquerade = drivers.Masquerade{}
	if g.chance(40) {
		s.Masquerade = drivers.Masquerade{
			From:   prefixes("10.65.0.0/16", "fd65::/32"),
			Except: prefixes("10.20.7.0/24", "10.65.0.0/16", "fd00:20:7::/48", "fd65::/32"),
		}
	}
	clear(s.Peers)
	clear(s.Routes)
	if !g.chance(40) {
		return
	}
	s.Peers["n2"] = &drivers.Peer{
		Name: "n2", Addrs: addrs("172.20.0.2", "fd20::2"), VTEPMAC: mac(0x77), VTEPAddrs: addrs("10.68.9.0", "fd68::9"),
	}
	for _, v6 := range []int{0, 1} {
		dst := prefixes("10.68.0.0/26", "fd68::/122")[v6]
		s.Routes[dst] = &drivers.Route{
			Dst: dst, Kind: drivers.RouteRemote, NextHop: s.Peers["n2"].Addrs[v6], Peer: "n2",
			Encap: pick(g, []drivers.Encap{drivers.EncapNone, drivers.EncapIPIP, drivers.EncapVXLAN}),
		}
		if v6 == 1 && s.Routes[dst].Encap == drivers.EncapIPIP {
			s.Routes[dst].Encap = drivers.EncapNone // there is none of IPv6
		}
	}
}

// mutate returns a State that differs from s in a few objects.
func (g *gen) mutate(s *drivers.State) *drivers.State {
	s = s.Clone()
	for range 1 + g.IntN(4) {
		switch g.IntN(10) {
		case 0, 1, 2:
			g.mutateSet(s)
		case 3, 4:
			g.putPolicy(s, g.IntN(len(policyPool)))
		case 5, 6:
			g.putEndpoint(s, sites[g.IntN(3)])
		case 7:
			g.putHost(s, pick(g, []string{"eth0", "eth1", TunnelIface, drivers.AllHostIfaces}))
		case 8:
			s.Node = g.node()
		default:
			g.rest(s)
		}
	}
	return s
}

// mutateSet lets a set grow, shrink, become empty, or be another.
func (g *gen) mutateSet(s *drivers.State) {
	if g.chance(40) {
		s.Sets[pick(g, portSets)] = g.portSet()
		return
	}
	id := pick(g, netSets)
	ms := slices.Collect(s.Sets[id].All())
	switch g.IntN(5) {
	case 0:
		ms = nil
	case 1:
		ms = append(ms, drivers.NetMember(pick(g, netPool))) // may cover what is there
	case 2:
		ms = append(ms, drivers.AddrMember(pick(g, addrPool)))
	case 3:
		if len(ms) > 0 {
			i := g.IntN(len(ms))
			ms = slices.Delete(ms, i, i+1)
		}
	default:
		s.Sets[id] = g.netSet()
		return
	}
	s.Sets[id] = drivers.NewSet(drivers.SetNet, ms...)
}
