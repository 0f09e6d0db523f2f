package drivertest

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// probes makes n probes under s. Candidates are packets that some rule speaks of, or just miss it; of these it keeps as
// many that are allowed as not, as far as there are any.
func (g *gen) probes(s *drivers.State, n int) []Probe {
	ev := drivers.NewEvaluator(s)
	rules := rulesOf(s)
	var kept []Probe
	allowed := 0
	for tries := 0; len(kept) < n && tries < 60*n; tries++ {
		p := g.probe(s, rules)
		if CheckProbe(s, p) != nil {
			continue
		}
		v, _ := ev.Verdict(p.Packet)
		ok := v == drivers.VerdictAllow
		if late := tries > 30*n; !late && (ok && allowed >= (n+1)/2 || !ok && len(kept)-allowed >= (n+1)/2) {
			continue
		}
		g.ports.assign(&p)
		kept = append(kept, p)
		if ok {
			allowed++
		}
	}
	return kept
}

// rulesOf are the rules that the endpoint of each interface uses, in a fixed order.
func rulesOf(s *drivers.State) map[string][]*drivers.Rule {
	rules := map[string][]*drivers.Rule{}
	for _, id := range sortedKeys(s.Endpoints) {
		e := s.Endpoints[id]
		for pid := range e.PolicyIDs {
			p := s.Policies[pid]
			for i := range p.In {
				rules[e.Iface] = append(rules[e.Iface], &p.In[i])
			}
			for i := range p.Out {
				rules[e.Iface] = append(rules[e.Iface], &p.Out[i])
			}
		}
	}
	return rules
}

// probe makes one candidate; CheckProbe may not like it.
func (g *gen) probe(s *drivers.State, rules map[string][]*drivers.Rule) Probe {
	from, to := g.site(), g.site()
	var m drivers.Match
	early, atService := g.beforeDNAT(s)
	if atService = atService && g.chance(12); atService {
		from, m = early.from, pick(g, early.rules).Match
	} else if rs := rules[pick(g, []string{from.Place.Iface, to.Place.Iface})]; len(rs) > 0 && g.chance(80) {
		m = pick(g, rs).Match
	}
	p := Probe{}
	pk := &p.Packet
	pk.From, pk.To = placeOf(s, from), placeOf(s, to)
	v6 := g.chance(50)
	if m.IPVersion != 0 && g.chance(85) {
		v6 = m.IPVersion == 6
	}
	pk.Src, pk.Dst = g.addr(s, from, v6, &m.Src), g.addr(s, to, v6, &m.Dst)
	if to.Name == "host" && g.chance(70) {
		pk.Dst = ownAddr(to, from, v6, false)
	}
	if from.Name == "host" && g.chance(70) {
		pk.Src = ownAddr(from, to, v6, false)
	}
	g.proto(s, pk, &m, v6)
	if g.ct(&p); atService {
		p = newFlow(p)
	}
	p.Extended = v6 && !p.Fragmented && g.chance(6)
	g.failsafePort(s, pk)
	if pk.From.Kind == drivers.PlaceWorkload || pk.From.Kind == drivers.PlaceUnknown {
		pk.SrcMAC = from.MAC
		g.spoof(pk)
	}
	g.translate(s, pk, &m, atService)
	return p
}

// earlyPolicy is what is asked about packets from a site before they are translated.
type earlyPolicy struct {
	from  Site
	rules []*drivers.Rule
}

// beforeDNAT picks a host interface with pre-DNAT policy, if there is one.
func (g *gen) beforeDNAT(s *drivers.State) (earlyPolicy, bool) {
	var all []earlyPolicy
	for _, site := range sites {
		e := s.Endpoints[hostID(site.Place.Iface)]
		if site.Place.Kind != drivers.PlaceHostIface || e == nil || e.Policy.PreDNAT.In == nil {
			continue
		}
		x := earlyPolicy{from: site}
		for id := range (&drivers.Endpoint{Policy: drivers.EndpointPolicy{PreDNAT: e.Policy.PreDNAT}}).PolicyIDs {
			for i := range s.Policies[id].In {
				x.rules = append(x.rules, &s.Policies[id].In[i])
			}
		}
		if len(x.rules) > 0 {
			all = append(all, x)
		}
	}
	if len(all) == 0 {
		return earlyPolicy{}, false
	}
	return pick(g, all), true
}

// newFlow makes p one that can be translated.
func newFlow(p Probe) Probe {
	p.Reply, p.MidStream, p.Fragmented = false, false, false
	pk := &p.Packet
	if pk.CT = drivers.CTNew; pk.Proto != protoTCP && pk.Proto != protoUDP {
		pk.Proto, pk.ICMPType, pk.ICMPCode, pk.DstPort = protoTCP, 0, 0, 80
	}
	return p
}

// failsafePort aims what the host itself receives or sends at a failsafe, sometimes.
func (g *gen) failsafePort(s *drivers.State, pk *drivers.Packet) {
	fs := s.Node.FailsafeIn
	if pk.From.Kind == drivers.PlaceProcess {
		fs = s.Node.FailsafeOut
	}
	host := pk.From.Kind == drivers.PlaceProcess || pk.To.Kind == drivers.PlaceProcess
	if host && hasPorts(pk.Proto) && len(fs) > 0 && g.chance(25) {
		pk.DstPort = pick(g, fs).Port
	}
}

// translate makes p a packet to a service, sometimes: more often where pre-DNAT policy looks at where it was sent to.
func (g *gen) translate(s *drivers.State, pk *drivers.Packet, m *drivers.Match, always bool) {
	e := s.Endpoints[hostID(pk.From.Iface)]
	percent := 8
	switch {
	case always:
		percent = 100
	case e != nil && e.Policy.PreDNAT.In != nil:
		percent = 60
	}
	if pk.CT != drivers.CTNew || pk.Proto != protoTCP && pk.Proto != protoUDP || !g.chance(percent) {
		return
	}
	if e := s.Endpoints[workloadID(strings.TrimPrefix(pk.To.Iface, "tort"))]; e != nil && g.chance(50) {
		for _, f := range e.Floating {
			if f.External.Is6() == pk.Src.Is6() {
				pk.Dst, pk.OrigDst = f.Internal, netip.AddrPortFrom(f.External, pk.DstPort)
				return
			}
		}
	}
	as := addrs("10.96.0.1", "10.96.7.7", "172.20.0.1", "172.21.0.1")
	if pk.Src.Is6() {
		as = addrs("fd96::1", "fd96::77", "fd20::1", "fd21::1")
	}
	at := pick(g, as)
	for range 4 { // rather one that the rule speaks of
		if always && !inAny(m.Dst.Nets, at) && !g.inAnySet(s, m.Dst.Sets, at) {
			at = pick(g, as)
		}
	}
	pk.OrigDst = netip.AddrPortFrom(at, g.port(s, &m.Dst, at, pk.Proto))
}

func (g *gen) inAnySet(s *drivers.State, ids []drivers.SetID, a netip.Addr) bool {
	return slices.ContainsFunc(ids, func(id drivers.SetID) bool { return s.Sets[id].Contains(a) })
}

// site is a random place; Unknown ones are rare, since there is one verdict only.
func (g *gen) site() Site {
	for {
		if s := pick(g, sites); s.Name != "x" || g.chance(10) {
			return s
		}
	}
}

// addr is an address of a site, one that a rule's side speaks of if that can be had.
func (g *gen) addr(s *drivers.State, site Site, v6 bool, side *drivers.Side) netip.Addr {
	a := site.Addr(v6)
	for range 6 {
		a = g.anyAddr(site, v6)
		if len(side.Nets) > 0 && !inAny(side.Nets, a) || inAny(side.NotNets, a) {
			continue
		}
		in := true
		for _, id := range side.Sets {
			in = in && s.Sets[id].Contains(a)
		}
		for _, id := range side.NotSets {
			in = in && !s.Sets[id].Contains(a)
		}
		if in {
			return a
		}
	}
	return a
}

// anyAddr is an address of a site: its own, one of addrPool, or one at the edge of a prefix of netPool.
func (g *gen) anyAddr(site Site, v6 bool) netip.Addr {
	for range 12 {
		a := site.Addr(v6)
		switch g.IntN(3) {
		case 0:
			a = pick(g, addrPool)
		case 1:
			p := pick(g, netPool)
			a = pick(g, []netip.Addr{p.Addr(), p.Addr().Prev(), lastOf(p), lastOf(p).Next()})
		}
		if a.IsValid() && a.Is6() == v6 && site.Owns(a) {
			return a
		}
	}
	return site.Addr(v6)
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// proto gives the packet a protocol, and ports or ICMP types, by m or near it.
func (g *gen) proto(s *drivers.State, pk *drivers.Packet, m *drivers.Match, v6 bool) {
	pk.Proto = pick(g, []uint8{protoTCP, protoTCP, protoTCP, protoUDP, protoUDP, protoSCTP, protoICMP, protoICMP, protoUDPLite, protoTest, protoGRE})
	if m.Proto != nil && g.chance(85) {
		pk.Proto = *m.Proto
	}
	if len(m.Dst.Ports)+len(m.Dst.PortSets) > 0 && m.Proto == nil && g.chance(80) {
		pk.Proto = pick(g, []uint8{protoTCP, protoUDP, protoSCTP})
	}
	if pk.Proto == protoICMP && v6 {
		pk.Proto = protoICMPv6
	}
	switch {
	case isICMP(pk.Proto):
		pk.ICMPType = pick(g, icmpOpens[pk.Proto])
		if m.ICMP != nil && g.chance(80) {
			pk.ICMPType = m.ICMP.Type
		}
		if pk.ICMPCode = pick(g, []uint8{0, 0, 0, 1}); m.ICMP != nil && m.ICMP.Code != nil && g.chance(80) {
			pk.ICMPCode = *m.ICMP.Code
		}
	case hasPorts(pk.Proto):
		pk.DstPort = g.port(s, &m.Dst, pk.Dst, pk.Proto)
		if src := &m.Src; len(src.Ports)+len(src.PortSets)+len(src.NotPorts)+len(src.NotPortSets)+len(src.Services) > 0 {
			pk.SrcPort = g.port(s, src, pk.Src, pk.Proto)
		}
	}
}

// port is a port that a side speaks of, or one beside it.
func (g *gen) port(s *drivers.State, side *drivers.Side, a netip.Addr, proto uint8) uint16 {
	var at []uint16
	for _, r := range slices.Concat(side.Ports, side.NotPorts) {
		at = append(at, r.First, r.Last, r.First-1, r.Last+1, r.First+(r.Last-r.First)/2)
	}
	for _, id := range slices.Concat(side.PortSets, side.NotPortSets, side.Services) {
		for m := range s.Sets[id].All() {
			if m.Prefix.Addr() == a || m.Proto == proto && g.chance(20) {
				at = append(at, m.Port)
			}
		}
	}
	if len(at) == 0 || g.chance(15) {
		at = portPool
	}
	return max(1, pick(g, at))
}

// ct gives the packet a state of the flow table, and its type if it is ICMP.
func (g *gen) ct(p *Probe) {
	pk := &p.Packet
	n := g.IntN(100)
	switch {
	case n < 68:
		pk.CT = drivers.CTNew
		p.MidStream = pk.Proto == protoTCP && g.chance(15)
		p.Fragmented = !p.MidStream && g.chance(5)
	case n < 79:
		pk.CT, p.Reply = drivers.CTEstablished, g.chance(50)
		if isICMP(pk.Proto) {
			pk.ICMPType, pk.ICMPCode = echo[pk.Proto][map[bool]int{false: 0, true: 1}[p.Reply]], 0
		}
	case n < 84:
		pk.CT = drivers.CTRelated
		if pk.Proto, pk.SrcPort, pk.DstPort = protoICMP, 0, 0; pk.Src.Is6() {
			pk.Proto = protoICMPv6
		}
		pk.ICMPType, pk.ICMPCode = pick(g, []uint8{3, 11}), pick(g, []uint8{0, 1})
		if pk.Proto == protoICMPv6 {
			pk.ICMPType = pick(g, []uint8{1, 3})
		}
	case n < 90:
		pk.CT = drivers.CTInvalid
		if isICMP(pk.Proto) {
			pk.ICMPType, pk.ICMPCode = echo[pk.Proto][1], 0
		}
	default:
		pk.CT = drivers.CTUntracked
	}
}

// spoof lets a workload lie about its source, sometimes.
func (g *gen) spoof(pk *drivers.Packet) {
	switch g.IntN(40) {
	case 0:
		pk.SrcMAC[5] ^= 0x80
	case 1, 2:
		if a := pick(g, addrPool); a.Is6() == pk.Src.Is6() {
			pk.Src = a
		}
	}
}
