package drivers

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The words of dumps, traces and encodings, in the order of the constants.
var (
	actionWords = []string{Deny: "deny", Allow: "allow", Pass: "pass", Log: "log"}
	setWords    = []string{SetNet: "net", SetPort: "port"}
	encapWords  = []string{EncapNone: "none", EncapIPIP: "ipip", EncapVXLAN: "vxlan", EncapWireGuard: "wireguard"}
	routeWords  = []string{RouteLocal: "local", RouteRemote: "remote", RouteBlackhole: "blackhole"}
	toHostWords = []string{ToHostDrop: "drop", ToHostAccept: "accept", ToHostReturn: "return"}
	natWords    = []string{ServiceNATForeign: "foreign", ServiceNATOwn: "own"}
	epKindWords = []string{Workload: "workload", HostInterface: "host"}
	placeWords  = []string{PlaceUnknown: "unknown", PlaceWorkload: "workload", PlaceHostIface: "iface", PlaceProcess: "process"}
	ctWords     = []string{CTNew: "new", CTEstablished: "established", CTRelated: "related", CTInvalid: "invalid", CTUntracked: "untracked"}
	verdicts    = []string{VerdictDeny: "deny", VerdictAllow: "allow"}
)

func word(words []string, n uint8) string {
	if int(n) < len(words) {
		return words[n]
	}
	return strconv.Itoa(int(n))
}

func (a Action) String() string         { return word(actionWords, uint8(a)) }
func (k SetKind) String() string        { return word(setWords, uint8(k)) }
func (e Encap) String() string          { return word(encapWords, uint8(e)) }
func (k RouteKind) String() string      { return word(routeWords, uint8(k)) }
func (e EndpointToHost) String() string { return word(toHostWords, uint8(e)) }
func (n ServiceNAT) String() string     { return word(natWords, uint8(n)) }
func (k EndpointKind) String() string   { return word(epKindWords, uint8(k)) }
func (k PlaceKind) String() string      { return word(placeWords, uint8(k)) }
func (c CTState) String() string        { return word(ctWords, uint8(c)) }
func (v Verdict) String() string        { return word(verdicts, uint8(v)) }

// String gives six groups of two hexadecimal digits.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// String gives "process", or the kind and the interface.
func (p Place) String() string {
	if p.Kind == PlaceProcess {
		return p.Kind.String()
	}
	return p.Kind.String() + " " + p.Iface
}

// String gives "proto:port", and the remote prefix if there is one.
func (f Failsafe) String() string {
	s := strconv.Itoa(int(f.Proto)) + ":" + strconv.Itoa(int(f.Port))
	if f.Net.IsValid() {
		s += " " + f.Net.String()
	}
	return s
}

// String gives "80" or "80-90".
func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

// String gives the type, and the code if there is one: "8" or "3/1".
func (i ICMP) String() string {
	if i.Code == nil {
		return strconv.Itoa(int(i.Type))
	}
	return strconv.Itoa(int(i.Type)) + "/" + strconv.Itoa(int(*i.Code))
}

// String gives 16 hexadecimal digits.
func (r RuleID) String() string { return fmt.Sprintf("%016x", uint64(r)) }

// String gives the action and the clauses in one line; a negated clause begins with "!".
func (r Rule) String() string {
	words := append([]string{r.Action.String()}, r.Match.words()...)
	if r.Name != "" {
		words = append(words, "name="+quoted(r.Name))
	}
	if r.ID != 0 {
		words = append(words, "#"+r.ID.String())
	}
	return strings.Join(words, " ")
}

// String gives the clauses in one line; "any" if there is none.
func (m Match) String() string {
	if words := m.words(); len(words) > 0 {
		return strings.Join(words, " ")
	}
	return "any"
}

func (m *Match) words() []string {
	var ws []string
	add := func(w string) {
		if w != "" {
			ws = append(ws, w)
		}
	}
	add(number("ipv", int(m.IPVersion)))
	if m.Proto != nil {
		add("proto=" + strconv.Itoa(int(*m.Proto)))
	}
	if m.NotProto != nil {
		add("!proto=" + strconv.Itoa(int(*m.NotProto)))
	}
	if m.ICMP != nil {
		add("icmp=" + m.ICMP.String())
	}
	if m.NotICMP != nil {
		add("!icmp=" + m.NotICMP.String())
	}
	for _, s := range []struct {
		name string
		*Side
	}{{"src", &m.Src}, {"dst", &m.Dst}} {
		add(list(s.name+".nets", s.Nets))
		add(list("!"+s.name+".nets", s.NotNets))
		add(list(s.name+".sets", s.Sets))
		add(list("!"+s.name+".sets", s.NotSets))
		add(list(s.name+".ports", s.Ports))
		add(list(s.name+".port-sets", s.PortSets))
		add(list("!"+s.name+".ports", s.NotPorts))
		add(list("!"+s.name+".port-sets", s.NotPortSets))
		add(list(s.name+".services", s.Services))
	}
	if m.HTTP != nil {
		add("http")
		add(list("methods", m.HTTP.Methods))
		for _, p := range m.HTTP.Paths {
			add(text("path", p.Exact))
			add(text("path-prefix", p.Prefix))
		}
	}
	add(list("unsupported", m.Unsupported))
	return ws
}

// ComparePrefixes orders prefixes by family, address and length.
func ComparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// String tells the packet in one line: "tcp 10.0.0.1:1000 -> 10.0.0.2:80, workload a to iface eth0, new".
func (p Packet) String() string {
	name := map[uint8]string{protoTCP: "tcp", protoUDP: "udp", protoSCTP: "sctp", protoICMP: "icmp", protoICMPv6: "icmpv6"}[p.Proto]
	switch {
	case p.ARP:
		name = "arp"
	case name == "":
		name = "proto " + strconv.Itoa(int(p.Proto))
	}
	src, dst := p.Src.String(), p.Dst.String()
	if hasPorts(p.Proto) && !p.ARP {
		src, dst = netip.AddrPortFrom(p.Src, p.SrcPort).String(), netip.AddrPortFrom(p.Dst, p.DstPort).String()
	}
	if !p.ARP && (p.Proto == protoICMP || p.Proto == protoICMPv6) {
		name += fmt.Sprintf(" %d/%d", p.ICMPType, p.ICMPCode)
	}
	s := fmt.Sprintf("%s %s -> %s, %s to %s, %s", name, src, dst, p.From, p.To, p.CT)
	if p.OrigDst.IsValid() {
		s += ", sent to " + p.OrigDst.String()
	}
	return s
}

// String tells the step in one line.
func (s Step) String() string {
	dir := ""
	if s.Endpoint != "" {
		dir = "out"
		if s.In {
			dir = "in"
		}
	}
	rule := ""
	if s.Index >= 0 {
		rule = "rule " + strconv.Itoa(s.Index)
	}
	policy := ""
	if s.Policy != (PolicyID{}) {
		policy = s.Policy.String()
	}
	words := []string{string(s.Stage) + ":"}
	for _, w := range []string{dir, s.Endpoint, text("tier", s.Tier), policy, rule, onOff("(staged)", s.Staged), s.Outcome} {
		if w != "" {
			words = append(words, w)
		}
	}
	line := strings.Join(words, " ")
	if s.Reason != "" {
		line += " (" + s.Reason + ")"
	}
	return line
}

// String gives the steps, one in a line, and the verdict.
func (t Trace) String() string {
	var b strings.Builder
	for _, s := range t.Steps {
		b.WriteString(s.String())
		b.WriteByte('\n')
	}
	b.WriteString(t.Verdict.String())
	if t.NoTrack {
		b.WriteString(", not tracked")
	}
	b.WriteByte('\n')
	return b.String()
}
