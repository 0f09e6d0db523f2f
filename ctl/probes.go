package ctl

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// Protocols by number.
const (
	protoICMP   = 1
	protoIPIP   = 4
	protoTCP    = 6
	protoUDP    = 17
	protoIPv6   = 41
	protoICMPv6 = 58
	protoSCTP   = 132
)

// sourcePort is where the flows come from that are tried.
const sourcePort = 40000

// probe is a kind of packet. No policy treats two packets of one kind differently: ports are taken together between the
// limits that policies, named ports and failsafes draw, and everything that nothing mentions is one kind.
type probe struct {
	family      int    // 0 = IPv4, 1 = IPv6
	proto       uint8  // of the packet that is tried
	first, last uint16 // ports
	icmpType    uint8
	icmpCode    uint8
	anyCode     bool // stands for the codes that nothing mentions
	rest        bool // stands for what nothing mentions: of its protocol, or with otherProto for all other protocols
	otherProto  bool
}

func ported(proto uint8) bool { return proto == protoTCP || proto == protoUDP || proto == protoSCTP }

// probing gathers what policies tell apart.
type probing struct {
	ranges map[uint8]map[drivers.PortRange]bool // by protocol
	protos map[uint8]bool
	icmp   [2]map[[2]int]bool // by family: type and code, -1 = any
}

// probesOf returns the kinds of packets that the policies of some worlds tell apart, sorted.
func probesOf(worlds []*world) []probe {
	g := probing{ranges: map[uint8]map[drivers.PortRange]bool{}, protos: map[uint8]bool{}}
	g.icmp = [2]map[[2]int]bool{{}, {}}
	for _, w := range worlds {
		for _, s := range w.states {
			g.state(s)
		}
	}
	return g.probes()
}

func (g *probing) add(proto uint8, r drivers.PortRange) {
	g.protos[proto] = true
	if g.ranges[proto] == nil {
		g.ranges[proto] = map[drivers.PortRange]bool{}
	}
	g.ranges[proto][r] = true
}

func (g *probing) state(s *drivers.State) {
	for _, p := range s.Policies {
		for _, r := range slices.Concat(p.In, p.Out) {
			g.rule(&r.Match)
		}
	}
	for _, set := range s.Sets {
		if set.Kind() == drivers.SetPort {
			for m := range set.All() {
				g.add(m.Proto, drivers.PortRange{First: m.Port, Last: m.Port})
			}
		}
	}
	for _, e := range s.Endpoints {
		if e.ID.Kind == drivers.HostInterface {
			for _, f := range slices.Concat(s.Node.FailsafeIn, s.Node.FailsafeOut) {
				if ported(f.Proto) {
					g.add(f.Proto, drivers.PortRange{First: f.Port, Last: f.Port})
				}
			}
			break
		}
	}
}

func (g *probing) rule(m *drivers.Match) {
	protos := []uint8{protoTCP, protoUDP, protoSCTP}
	for _, p := range []*uint8{m.Proto, m.NotProto} {
		if p != nil {
			g.protos[*p] = true
		}
	}
	if m.Proto != nil {
		protos = []uint8{*m.Proto}
	}
	for _, r := range slices.Concat(m.Dst.Ports, m.Dst.NotPorts) {
		for _, p := range protos {
			g.add(p, r)
		}
	}
	for _, i := range []*drivers.ICMP{m.ICMP, m.NotICMP} {
		if i == nil {
			continue
		}
		code := -1
		if i.Code != nil {
			code = int(*i.Code)
		}
		for f := range g.icmp {
			if m.Proto == nil || *m.Proto == icmpOf(f) {
				g.icmp[f][[2]int{int(i.Type), code}] = true
			}
		}
	}
}

func icmpOf(family int) uint8 {
	if family == 1 {
		return protoICMPv6
	}
	return protoICMP
}

func (g *probing) probes() []probe {
	var out []probe
	for f := range 2 {
		for _, p := range []uint8{protoTCP, protoUDP, protoSCTP} {
			if p == protoSCTP && !g.protos[p] {
				continue // it is among the other protocols
			}
			for _, r := range g.ports(p) {
				r.family, r.proto = f, p
				out = append(out, r)
			}
		}
		out = append(out, g.icmpProbes(f)...)
		named := map[uint8]bool{protoTCP: true, protoUDP: true, protoICMP: true, protoICMPv6: true, protoIPIP: true, protoIPv6: true}
		for _, p := range slices.Sorted(maps.Keys(g.protos)) {
			if !named[p] && p != protoSCTP {
				out = append(out, probe{family: f, proto: p, rest: true})
			}
			named[p] = true
		}
		for p := uint8(253); p > 0; p-- {
			if !named[p] {
				out = append(out, probe{family: f, proto: p, rest: true, otherProto: true})
				break
			}
		}
	}
	return out
}

// ports cuts the ports of a protocol where a range begins or ends.
func (g *probing) ports(proto uint8) []probe {
	cuts := map[int]bool{0: true}
	for r := range g.ranges[proto] {
		cuts[int(r.First)], cuts[int(r.Last)+1] = true, true
	}
	starts := slices.Sorted(maps.Keys(cuts))
	var out []probe
	rest := -1
	for i, from := range starts {
		to := 65535
		if i+1 < len(starts) {
			to = starts[i+1] - 1
		}
		if from > to {
			continue
		}
		in := func(r drivers.PortRange) bool { return int(r.First) <= from && from <= int(r.Last) }
		if slices.ContainsFunc(slices.Collect(maps.Keys(g.ranges[proto])), in) {
			out = append(out, probe{first: uint16(from), last: uint16(to)})
			continue
		}
		// Of what nothing mentions, the last and a port that means no tunnel.
		if rest = to; proto == protoUDP && to == 4789 && from < to {
			rest--
		}
	}
	if rest >= 0 {
		out = append(out, probe{first: uint16(rest), last: uint16(rest), rest: true})
	}
	return out
}

// icmpProbes are the types and codes that rules name, and one that stands for the others: the echo request if none
// names that.
func (g *probing) icmpProbes(family int) []probe {
	names := g.icmp[family]
	types := map[int]bool{}
	var out []probe
	for _, tc := range slices.SortedFunc(maps.Keys(names), func(a, b [2]int) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) }) {
		if tc[1] >= 0 {
			out = append(out, probe{family: family, proto: icmpOf(family), icmpType: uint8(tc[0]), icmpCode: uint8(tc[1])})
		}
		if types[tc[0]] {
			continue
		}
		types[tc[0]] = true
		for code := range 256 {
			if !names[[2]int{tc[0], code}] {
				out = append(out, probe{family: family, proto: icmpOf(family), icmpType: uint8(tc[0]), icmpCode: uint8(code), anyCode: true})
				break
			}
		}
	}
	candidates := []int{8, 13, 17, 42, 200, 201, 202}
	if family == 1 {
		candidates = []int{128, 144, 150, 200, 201, 202, 203}
	}
	for _, t := range candidates {
		if !types[t] {
			return append(out, probe{family: family, proto: icmpOf(family), icmpType: uint8(t), rest: true})
		}
	}
	return out
}

// flow is a flow of this kind.
func (p probe) flow(src, dst *end) drivers.Flow5 {
	f := drivers.Flow5{Src: src.addrs[p.family], Dst: dst.addrs[p.family], Proto: p.proto, ICMPType: p.icmpType, ICMPCode: p.icmpCode}
	if ported(p.proto) {
		f.SrcPort, f.DstPort = sourcePort, p.first
	}
	return f
}

// phrase says in words which kinds of packets are in a set: "tcp 80, 443; icmp", "everything", "all but tcp 22".
// tried are those that were asked about; only families of those are spoken of.
func phrase(probes []probe, in, tried []bool) string {
	var words [2]string
	families := 0
	for f := range words {
		any, ask := false, false
		for i, p := range probes {
			any = any || p.family == f && in[i]
			ask = ask || p.family == f && tried[i]
		}
		if ask {
			families++
		}
		if any {
			words[f] = phraseFamily(probes, in, tried, f)
		}
	}
	switch plain := strings.ReplaceAll(words[1], "icmpv6", "icmp"); {
	case words[0] == plain || families < 2:
		return cmp.Or(words[0], words[1])
	case words[1] == "":
		return words[0] + " (IPv4 only)"
	case words[0] == "":
		return words[1] + " (IPv6 only)"
	}
	return "IPv4: " + words[0] + " / IPv6: " + words[1]
}

func phraseFamily(probes []probe, in, tried []bool, family int) string {
	type group struct{ in, out []probe }
	groups := map[uint8]*group{} // by protocol; 0 = the others
	var order []uint8
	for i, p := range probes {
		if p.family != family || !tried[i] {
			continue
		}
		key := p.proto
		if p.otherProto {
			key = 0
		}
		g := groups[key]
		if g == nil {
			g = &group{}
			groups[key] = g
			order = append(order, key)
		}
		if in[i] {
			g.in = append(g.in, p)
		} else {
			g.out = append(g.out, p)
		}
	}
	var some, lacking []string
	for _, key := range order {
		g := groups[key]
		if len(g.in) > 0 {
			some = append(some, phraseProto(key, g.in, g.out))
		}
		if len(g.out) > 0 {
			lacking = append(lacking, phraseProto(key, g.out, g.in))
		}
	}
	others := groups[0]
	switch {
	case len(lacking) == 0 && others != nil:
		return "everything"
	case others != nil && len(others.in) > 0 && len(others.out) == 0 && len(lacking) <= 3:
		return "all but " + strings.Join(lacking, "; ")
	}
	return strings.Join(some, "; ")
}

// phraseProto says which packets of one protocol are in, given which are not.
func phraseProto(proto uint8, in, out []probe) string {
	name := map[uint8]string{protoTCP: "tcp", protoUDP: "udp", protoSCTP: "sctp", protoICMP: "icmp", protoICMPv6: "icmpv6", 0: "other protocols"}[proto]
	if name == "" {
		name = "protocol " + strconv.Itoa(int(proto))
	}
	if len(out) == 0 {
		return name
	}
	if slices.ContainsFunc(in, func(p probe) bool { return p.rest }) {
		return name + " except " + strings.Join(details(out), ", ")
	}
	return name + " " + strings.Join(details(in), ", ")
}

// details names ports and types; neighbouring ranges are joined.
func details(ps []probe) []string {
	var out []string
	for i := 0; i < len(ps); i++ {
		p := ps[i]
		if !ported(p.proto) {
			s := strconv.Itoa(int(p.icmpType))
			if !p.anyCode {
				s += "/" + strconv.Itoa(int(p.icmpCode))
			}
			if p.anyCode && p.icmpType == map[bool]uint8{true: 128, false: 8}[p.proto == protoICMPv6] {
				s = "echo"
			}
			out = append(out, s)
			continue
		}
		for i+1 < len(ps) && !ps[i+1].rest && !p.rest && int(ps[i+1].first) == int(p.last)+1 {
			p.last = ps[i+1].last
			i++
		}
		if p.first == p.last {
			out = append(out, strconv.Itoa(int(p.first)))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", p.first, p.last))
		}
	}
	return out
}
