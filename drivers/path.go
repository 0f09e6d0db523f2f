package drivers

import (
	"net/netip"
	"slices"
)

// StageRoute is a decision of routing, on a Path.
const StageRoute Stage = "route"

// Flow5 is a new flow, as its first packet leaves its source.
type Flow5 struct {
	Src, Dst         netip.Addr
	Proto            uint8
	SrcPort, DstPort uint16 // of TCP, UDP and SCTP
	ICMPType         uint8  // of ICMP and ICMPv6
	ICMPCode         uint8

	// UplinkA and UplinkB name the host interfaces by which the two nodes reach one another and the rest of the world,
	// where a route names none. "" is an interface without a host endpoint.
	UplinkA, UplinkB string
}

// PathTrace is what happens to a flow on its way: one hop for each node. It is allowed if every hop allows it.
type PathTrace struct {
	Verdict Verdict
	Hops    []Hop
}

// Hop is one node's part of a path.
type Hop struct {
	Node   string
	Packet Packet // as policy sees it on this node
	Trace  Trace
	Src    netip.Addr // as the packet leaves the node: another than Packet.Src if the node masquerades it
}

// Path follows a flow from node a to node b: Translate and Evaluate on each, and all must allow. A flow that ends on a,
// and one whose other end is no node that we know (b is nil), has one hop; so has one that only comes in on a.
func Path(a, b *State, flow Flow5) PathTrace {
	flow.Src, flow.Dst = plain(flow.Src), plain(flow.Dst)
	p := Packet{
		From: a.Locate(flow.Src, flow.UplinkA), Src: flow.Src, Dst: flow.Dst,
		Proto: flow.Proto, SrcPort: flow.SrcPort, DstPort: flow.DstPort, ICMPType: flow.ICMPType, ICMPCode: flow.ICMPCode,
	}
	p.resolve(a)
	p.To = a.Locate(p.Dst, flow.UplinkA)
	t := PathTrace{Hops: []Hop{hop(a, p)}}
	first := &t.Hops[0]
	last := b == nil || b == a || b.Node.Name == a.Node.Name || p.To.Kind != PlaceHostIface
	if first.Trace.Verdict == VerdictAllow && !last {
		p.Src = first.Src
		p.From = hostPlace(b.Route(p.Src), flow.UplinkB)
		p.resolve(b)
		p.To = b.Locate(p.Dst, flow.UplinkB)
		t.Hops = append(t.Hops, hop(b, p))
	}
	t.Verdict = t.Hops[len(t.Hops)-1].Trace.Verdict
	return t
}

// resolve sends a packet for a floating address to the workload's own.
func (p *Packet) resolve(s *State) {
	if dst := s.Destination(p.Dst); dst != p.Dst {
		p.OrigDst, p.Dst = netip.AddrPortFrom(p.Dst, p.DstPort), dst
	}
}

// Destination is where on this node a packet for an address goes: to the workload's own address if it is a floating one.
func (s *State) Destination(a netip.Addr) netip.Addr {
	a = plain(a)
	var holder *Endpoint
	for _, e := range s.Endpoints {
		if e != nil && e.floats(a).IsValid() && (holder == nil || e.ID.Compare(holder.ID) < 0) {
			holder = e
		}
	}
	if holder == nil {
		return a
	}
	return plain(holder.floats(a))
}

// floats is the address that a floating one stands for; invalid if it is none of e's.
func (e *Endpoint) floats(a netip.Addr) netip.Addr {
	for _, f := range e.Floating {
		if plain(f.External) == a {
			return f.Internal
		}
	}
	return netip.Addr{}
}

func hop(s *State, p Packet) Hop {
	h := Hop{Node: s.Node.Name, Packet: p, Src: p.Src}
	if r := s.Route(p.Dst); r != nil && r.Kind == RouteBlackhole && p.To.Kind == PlaceUnknown {
		h.Trace.Steps = []Step{{Stage: StageRoute, Index: -1, Outcome: "deny",
			Reason: "blackhole " + r.Dst.String() + ": no workload has the address, or the route cannot be made"}}
		return h
	}
	h.Trace = Evaluate(s, p)
	if h.Trace.Verdict == VerdictAllow {
		h.Src = Translate(s, p).Src
	}
	return h
}

// Translate returns p as it leaves the node: with the node's address as its source if the node masquerades it. The source
// port may become another, which nobody can predict. Where the node has no address of the family, nothing is masqueraded.
func Translate(s *State, p Packet) Packet {
	m := &s.Masquerade
	src, dst := plain(p.Src), plain(p.Dst)
	forwarded := p.From.Kind == PlaceWorkload || p.From.Kind == PlaceHostIface
	if p.ARP || !forwarded || p.To.Kind != PlaceHostIface || !inAny(m.From, src) || inAny(m.Except, dst) {
		return p
	}
	if i := slices.IndexFunc(s.Node.Addresses, func(a netip.Addr) bool { return plain(a).Is4() == src.Is4() }); i >= 0 {
		p.Src = plain(s.Node.Addresses[i])
	}
	return p
}

// Locate says where on this node a packet from or to an address comes from or goes to: the workload that has it, the
// node itself, or a host interface: that of the route to it, else uplink. An address in a blackhole is nowhere.
func (s *State) Locate(a netip.Addr, uplink string) Place {
	a = plain(a)
	if hasAddr(s.Node.Addresses, a) || a.IsLoopback() {
		return Place{Kind: PlaceProcess}
	}
	r := s.Route(a)
	if r != nil && r.Kind == RouteLocal {
		return Place{Kind: PlaceWorkload, Iface: r.Iface}
	}
	if e := s.workloadWith(a); e != nil {
		return Place{Kind: PlaceWorkload, Iface: e.Iface}
	}
	return hostPlace(r, uplink)
}

// workloadWith returns the workload that has an address, of several the one with the smallest id.
func (s *State) workloadWith(a netip.Addr) *Endpoint {
	var found *Endpoint
	for _, e := range s.Endpoints {
		if e != nil && e.ID.Kind == Workload && hasAddr(e.Addrs, a) && (found == nil || e.ID.Compare(found.ID) < 0) {
			found = e
		}
	}
	return found
}

func hostPlace(r *Route, uplink string) Place {
	switch {
	case r != nil && r.Kind == RouteBlackhole:
		return Place{Kind: PlaceUnknown}
	case r != nil && r.Kind == RouteRemote && r.Iface != "":
		return Place{Kind: PlaceHostIface, Iface: r.Iface}
	}
	return Place{Kind: PlaceHostIface, Iface: uplink}
}

// Route returns the most specific route to an address, or nil.
func (s *State) Route(a netip.Addr) *Route {
	a = plain(a)
	if !a.IsValid() {
		return nil
	}
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, err := a.Prefix(bits)
		if err != nil {
			return nil
		}
		if r := s.Routes[p]; r != nil {
			return r
		}
	}
	return nil
}
