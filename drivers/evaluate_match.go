package drivers

import "net/netip"

// matching is whether a rule matches a packet.
type matching uint8

const (
	matchNo         matching = iota
	matchYes                 // every clause holds
	matchUnreadable          // every clause that can be judged holds, but there are others (unsupported, or HTTP)
	matchUnresolved          // it names a set that is missing or of the wrong kind: nothing can be said of it
)

func hasPorts(proto uint8) bool { return proto == protoTCP || proto == protoUDP || proto == protoSCTP }

// match judges r's clauses. A negated clause holds exactly if its positive form does not: NotPorts holds for a packet
// without ports, and NotNets of one family for every packet of the other.
func (w *walk) match(r *Rule, p Packet) matching {
	m := &r.Match
	if !w.resolves(&m.Src) || !w.resolves(&m.Dst) {
		return matchUnresolved
	}
	if m.IPVersion != 0 && (m.IPVersion == 4) != p.Src.Is4() {
		return matchNo
	}
	if m.Proto != nil && *m.Proto != p.Proto || m.NotProto != nil && *m.NotProto == p.Proto {
		return matchNo
	}
	if m.ICMP != nil && !m.ICMP.matches(p) || m.NotICMP != nil && m.NotICMP.matches(p) {
		return matchNo
	}
	if !w.side(&m.Src, p.Src, p.Proto, p.SrcPort) || !w.side(&m.Dst, p.Dst, p.Proto, p.DstPort) {
		return matchNo
	}
	if m.HTTP != nil || len(m.Unsupported) > 0 {
		return matchUnreadable
	}
	return matchYes
}

// resolves reports whether every set that s names is there and of the right kind.
func (w *walk) resolves(s *Side) bool {
	return w.haveAll(s.Sets, SetNet) && w.haveAll(s.NotSets, SetNet) && w.haveAll(s.PortSets, SetPort) &&
		w.haveAll(s.NotPortSets, SetPort) && w.haveAll(s.Services, SetPort)
}

func (w *walk) haveAll(ids []SetID, kind SetKind) bool {
	for _, id := range ids {
		if set := w.s.Sets[id]; set == nil || set.Kind() != kind {
			return false
		}
	}
	return true
}

// matches reports whether p is ICMP (of IPv4) or ICMPv6 (of IPv6) with i's type, and its code if i has one. Which of the
// two protocols is Match.Proto's to say.
func (i *ICMP) matches(p Packet) bool {
	is := p.Proto == protoICMP && p.Src.Is4() || p.Proto == protoICMPv6 && p.Src.Is6()
	return is && p.ICMPType == i.Type && (i.Code == nil || *i.Code == p.ICMPCode)
}

// side judges the clauses about one end of a packet.
func (w *walk) side(s *Side, a netip.Addr, proto uint8, port uint16) bool {
	if len(s.Nets) > 0 && !inAny(s.Nets, a) || inAny(s.NotNets, a) {
		return false
	}
	for _, id := range s.Sets {
		if !w.s.Sets[id].Contains(a) {
			return false
		}
	}
	for _, id := range s.NotSets {
		if w.s.Sets[id].Contains(a) {
			return false
		}
	}
	for _, id := range s.Services {
		if !hasPorts(proto) || !w.s.Sets[id].ContainsPort(a, proto, port) {
			return false
		}
	}
	if len(s.Ports)+len(s.PortSets) > 0 && !w.anyPort(s.Ports, s.PortSets, a, proto, port) {
		return false
	}
	return !w.anyPort(s.NotPorts, s.NotPortSets, a, proto, port)
}

// anyPort reports whether the port is in one of the ranges, or (address, protocol, port) in one of the sets.
func (w *walk) anyPort(ranges []PortRange, sets []SetID, a netip.Addr, proto uint8, port uint16) bool {
	if !hasPorts(proto) {
		return false
	}
	for _, r := range ranges {
		if r.First <= port && port <= r.Last {
			return true
		}
	}
	for _, id := range sets {
		if w.s.Sets[id].ContainsPort(a, proto, port) {
			return true
		}
	}
	return false
}
