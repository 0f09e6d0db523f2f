package linux

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
)

const (
	l4ICMP   = 1
	l4IPIP   = 4
	l4TCP    = 6
	l4UDP    = 17
	l4IPv6   = 41
	l4ICMPv6 = 58
	l4SCTP   = 132

	nfprotoIPv4, nfprotoIPv6 = 2, 10 // of a netfilter hook
)

func hasPorts(proto uint8) bool { return proto == l4TCP || proto == l4UDP || proto == l4SCTP }

func match(f Field, op Op, lo string) Match { return Match{Fields: []Field{f}, Op: op, Lo: lo} }

func in(set string, fs ...Field) Match    { return Match{Fields: fs, Op: OpIn, Set: set} }
func notIn(set string, fs ...Field) Match { return Match{Fields: fs, Op: OpNotIn, Set: set} }

func isProto(p uint8) Match  { return match(FL4Proto, OpEq, string([]byte{p})) }
func notProto(p uint8) Match { return match(FL4Proto, OpNe, string([]byte{p})) }

func isFamily(v6 bool) Match {
	if v6 {
		return match(FNFProto, OpEq, string([]byte{nfprotoIPv6}))
	}
	return match(FNFProto, OpEq, string([]byte{nfprotoIPv4}))
}

// clauses builds the matches of one rule for one family. Each entry of alts is a list of matches; the rule matches if one
// of them does. No entries: it matches nothing.
type clauses struct {
	v6      bool
	special bool // something in it holds for this family only
	alts    [][]Match
}

// and adds ms to every alternative.
func (c *clauses) and(ms ...Match) {
	for i := range c.alts {
		c.alts[i] = append(slices.Clip(c.alts[i]), ms...)
	}
}

// or adds each of options in turn to every alternative.
func (c *clauses) or(options [][]Match) {
	var alts [][]Match
	for _, a := range c.alts {
		for _, o := range options {
			alts = append(alts, append(slices.Clip(a), o...))
		}
	}
	c.alts = alts
}

func (c *clauses) never() { c.alts = nil }

func (c *clauses) icmpProto() uint8 {
	if c.v6 {
		return l4ICMPv6
	}
	return l4ICMP
}

// matcher renders the clauses of a policy's rules; what it needs is put on behalf of unit.
type matcher struct {
	c    *compiler
	unit *unit
	orig bool // destinations are those before DNAT
}

// rule gives the lists of matches with which the kernel finds r's packets: at most one per family, unless it has
// alternatives that one list cannot express. A list without family holds for both.
func (m *matcher) rule(r *drivers.Match) [][]Match {
	v4, v6 := m.family(r, false), m.family(r, true)
	if !v4.special && !v6.special {
		return v4.alts
	}
	return slices.Concat(v4.withFamily(), v6.withFamily())
}

func (c *clauses) withFamily() [][]Match {
	for i := range c.alts {
		c.alts[i] = append([]Match{isFamily(c.v6)}, c.alts[i]...)
	}
	return c.alts
}

func (m *matcher) family(r *drivers.Match, v6 bool) *clauses {
	c := &clauses{v6: v6, alts: [][]Match{nil}}
	if r.IPVersion != 0 {
		c.special = true
		if (r.IPVersion == 6) != v6 {
			c.never()
			return c
		}
	}
	if r.Proto != nil {
		c.and(isProto(*r.Proto))
	}
	if r.NotProto != nil {
		c.and(notProto(*r.NotProto))
	}
	c.icmp(r)
	ports := m.ports(c, r)
	m.side(c, &r.Src, false, ports)
	m.side(c, &r.Dst, true, ports)
	return c
}

// icmp adds ICMP and NotICMP, which are about this family's ICMP only.
func (c *clauses) icmp(r *drivers.Match) {
	proto := c.icmpProto()
	other := r.Proto != nil && *r.Proto != proto
	if r.ICMP != nil {
		c.special = true
		if other {
			c.never()
			return
		}
		if r.Proto == nil {
			c.and(isProto(proto))
		}
		c.and(icmpMatch(r.ICMP, OpEq))
	}
	if r.NotICMP != nil {
		c.special = true
		differs := icmpMatch(r.NotICMP, OpNe)
		switch {
		case other:
		case r.Proto != nil:
			c.and(differs)
		default:
			c.or([][]Match{{notProto(proto)}, {isProto(proto), differs}})
		}
	}
}

func icmpMatch(i *drivers.ICMP, op Op) Match {
	if i.Code != nil {
		return match(FICMP, op, string([]byte{i.Type, *i.Code}))
	}
	return match(FICMPType, op, string([]byte{i.Type}))
}

// ports adds what makes sure that there are ports where clauses speak of them, and reports whether those clauses are to
// be added. Without ports a positive clause fails and a negated one holds.
func (m *matcher) ports(c *clauses, r *drivers.Match) bool {
	positive := len(r.Src.Ports)+len(r.Src.PortSets)+len(r.Src.Services)+
		len(r.Dst.Ports)+len(r.Dst.PortSets)+len(r.Dst.Services) > 0
	negative := len(r.Src.NotPorts)+len(r.Src.NotPortSets)+len(r.Dst.NotPorts)+len(r.Dst.NotPortSets) > 0
	switch {
	case !positive && !negative:
		return false
	case r.Proto != nil && hasPorts(*r.Proto):
		return true
	case r.Proto != nil:
		if positive {
			c.never()
		}
		return false
	case positive:
		c.and(in(setPorts, FL4Proto))
		return true
	}
	// Negated clauses only: a packet without ports is an alternative of its own; what is added to it later about ports
	// is left out by side, which knows it by its first match.
	c.or([][]Match{{notIn(setPorts, FL4Proto)}, {in(setPorts, FL4Proto)}})
	return true
}

// portless reports whether a list of matches is the alternative for packets without ports.
func portless(ms []Match) bool {
	return slices.ContainsFunc(ms, func(x Match) bool { return x.Op == OpNotIn && x.Set == setPorts })
}

// end is the fields of one end of a packet.
type end struct{ addr, port Field }

func (m *matcher) end(dst, v6 bool) end {
	switch {
	case dst && m.orig && v6:
		return end{FOrigDst6, FOrigDport}
	case dst && m.orig:
		return end{FOrigDst4, FOrigDport}
	case dst && v6:
		return end{FDst6, FDport}
	case dst:
		return end{FDst4, FDport}
	case v6:
		return end{FSrc6, FSport}
	}
	return end{FSrc4, FSport}
}

func (m *matcher) side(c *clauses, s *drivers.Side, dst, ports bool) {
	at := m.end(dst, c.v6)
	if ports {
		m.sidePorts(c, s, at)
	}
	if len(s.Nets) > 0 {
		m.nets(c, at, s.Nets, false)
	}
	if len(s.NotNets) > 0 {
		m.nets(c, at, s.NotNets, true)
	}
	for _, id := range s.Sets {
		c.special = true
		if name := m.c.setName(id, c.v6); name != "" {
			c.and(in(name, at.addr))
		} else {
			c.never()
		}
	}
	for _, id := range s.NotSets {
		c.special = true
		if name := m.c.setName(id, c.v6); name != "" {
			c.and(notIn(name, at.addr))
		}
	}
}

// sidePorts adds the clauses that speak of ports to the alternatives that have any.
func (m *matcher) sidePorts(c *clauses, s *drivers.Side, at end) {
	var without, with [][]Match
	for _, a := range c.alts {
		if portless(a) {
			without = append(without, a)
		} else {
			with = append(with, a)
		}
	}
	c.alts = with
	for _, id := range s.Services {
		c.special = true
		if name := m.c.setName(id, c.v6); name != "" {
			c.and(in(name, at.addr, FL4Proto, at.port))
		} else {
			c.never()
		}
	}
	if len(s.Ports)+len(s.PortSets) > 0 {
		c.or(m.anyPort(c, s, at))
	}
	if ranges := mergePorts(s.NotPorts); len(ranges) > 0 {
		c.and(m.portMatch(ranges, at.port, true))
	}
	for _, id := range s.NotPortSets {
		c.special = true
		if name := m.c.setName(id, c.v6); name != "" {
			c.and(notIn(name, at.addr, FL4Proto, at.port))
		}
	}
	c.alts = append(c.alts, without...)
}

// anyPort is the alternatives of the positive port clause: a number in Ports, or a member of one of PortSets.
func (m *matcher) anyPort(c *clauses, s *drivers.Side, at end) [][]Match {
	var options [][]Match
	if ranges := mergePorts(s.Ports); len(ranges) > 0 {
		options = append(options, []Match{m.portMatch(ranges, at.port, false)})
	}
	for _, id := range s.PortSets {
		c.special = true
		if name := m.c.setName(id, c.v6); name != "" {
			options = append(options, []Match{in(name, at.addr, FL4Proto, at.port)})
		}
	}
	return options
}

func (m *matcher) portMatch(ranges []drivers.PortRange, f Field, not bool) Match {
	if len(ranges) > 1 {
		name := m.c.constPorts(m.unit, ranges)
		if not {
			return notIn(name, f)
		}
		return in(name, f)
	}
	r := ranges[0]
	switch {
	case r.First == r.Last && not:
		return match(f, OpNe, bytes16(r.First))
	case r.First == r.Last:
		return match(f, OpEq, bytes16(r.First))
	}
	x := Match{Fields: []Field{f}, Op: OpRange, Lo: bytes16(r.First), Hi: bytes16(r.Last)}
	if not {
		x.Op = OpNotRange
	}
	return x
}

func bytes16(n uint16) string { return string([]byte{byte(n >> 8), byte(n)}) }

// mergePorts sorts ranges and joins those that touch; empty ones go.
func mergePorts(rs []drivers.PortRange) []drivers.PortRange {
	rs = slices.DeleteFunc(slices.Clone(rs), func(r drivers.PortRange) bool { return r.First > r.Last })
	slices.SortFunc(rs, func(a, b drivers.PortRange) int { return int(a.First) - int(b.First) })
	var out []drivers.PortRange
	for _, r := range rs {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

func (m *matcher) nets(c *clauses, at end, nets []netip.Prefix, not bool) {
	c.special = true
	var mine []drivers.Member
	for _, p := range nets {
		if p.IsValid() && p.Addr().Is6() == c.v6 {
			mine = append(mine, drivers.NetMember(p))
		}
	}
	if len(mine) == 0 {
		if !not {
			c.never()
		}
		return
	}
	set := drivers.NewSet(drivers.SetNet, mine...)
	if set.Len() > 1 {
		name := m.c.constNets(m.unit, set, c.v6)
		if not {
			c.and(notIn(name, at.addr))
		} else {
			c.and(in(name, at.addr))
		}
		return
	}
	for x := range set.All() {
		switch {
		case x.Prefix.Bits() == 0 && not:
			c.never()
		case x.Prefix.Bits() == 0:
		case not:
			c.and(prefixMatch(at.addr, x.Prefix, OpNotPrefix))
		default:
			c.and(prefixMatch(at.addr, x.Prefix, OpPrefix))
		}
	}
}

func prefixMatch(f Field, p netip.Prefix, op Op) Match {
	return Match{Fields: []Field{f}, Op: op, Lo: string(p.Masked().Addr().AsSlice()), Bits: p.Bits()}
}

// netmask has the first of 8*n bits set.
func netmask(bits, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = ^byte(0xff >> max(0, min(8, bits-8*i)))
	}
	return b
}

// lastAddr is the last address of a prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		b[i] |= 0xff >> max(0, min(8, p.Bits()-8*i))
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// shorten cuts s to what the kernel keeps beside an object.
func shorten(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 120 {
		return s[:117] + "..."
	}
	return s
}
