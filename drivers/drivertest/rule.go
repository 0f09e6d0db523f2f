package drivertest

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tortie/tortie/drivers"
)

var actions = map[string]drivers.Action{
	"allow": drivers.Allow, "deny": drivers.Deny, "pass": drivers.Pass, "log": drivers.Log,
}

// parseRule reads "allow tcp from set=s:web to port=80,8000-8080": an action, clauses of the packet, clauses of its ends.
func parseRule(text string) (drivers.Rule, error) {
	words := strings.Fields(text)
	r := drivers.Rule{}
	a, ok := actions[words[0]]
	if !ok {
		return r, fmt.Errorf("%q is not an action", words[0])
	}
	r.Action = a
	var side *drivers.Side
	for _, w := range words[1:] {
		var err error
		key, val, isPair := strings.Cut(w, "=")
		switch {
		case w == "from":
			side = &r.Match.Src
		case w == "to":
			side = &r.Match.Dst
		case side != nil && isPair:
			err = parseSideClause(side, key, val)
		case isPair:
			err = parseClause(&r, key, val)
		default:
			err = parseWord(&r.Match, w)
		}
		if err != nil {
			return r, err
		}
	}
	return r, nil
}

func parseWord(m *drivers.Match, w string) error {
	n, isProto := protoNames[w]
	switch {
	case w == "v4":
		m.IPVersion = 4
	case w == "v6":
		m.IPVersion = 6
	case isProto:
		m.Proto = &n
	default:
		return fmt.Errorf("%q is not a clause", w)
	}
	return nil
}

// parseClause reads a clause that is about no end of the packet.
func parseClause(r *drivers.Rule, key, val string) error {
	m := &r.Match
	var err error
	switch key {
	case "proto":
		m.Proto, err = parseProto(val)
	case "not-proto":
		m.NotProto, err = parseProto(val)
	case "icmp":
		m.ICMP, err = parseICMP(val)
	case "not-icmp":
		m.NotICMP, err = parseICMP(val)
	case "http":
		m.HTTP = parseHTTP(val)
	case "unsupported":
		m.Unsupported = strings.Split(val, ",")
	case "name":
		r.Name = val
	default:
		err = fmt.Errorf("%q is not a clause; clauses of an end follow 'from' or 'to'", key)
	}
	return err
}

func parseSideClause(s *drivers.Side, key, val string) error {
	var err error
	switch key {
	case "net":
		s.Nets, err = parsePrefixes(val)
	case "not-net":
		s.NotNets, err = parsePrefixes(val)
	case "set":
		s.Sets = setIDs(val)
	case "not-set":
		s.NotSets = setIDs(val)
	case "port":
		s.Ports, err = parsePorts(val)
	case "not-port":
		s.NotPorts, err = parsePorts(val)
	case "named":
		s.PortSets = setIDs(val)
	case "not-named":
		s.NotPortSets = setIDs(val)
	case "service":
		s.Services = setIDs(val)
	default:
		err = fmt.Errorf("%q is not a clause of an end", key)
	}
	return err
}

func parseProto(s string) (*uint8, error) {
	if n, ok := protoNames[s]; ok {
		return &n, nil
	}
	n, err := parseUint8(s)
	if err != nil {
		return nil, fmt.Errorf("%q is neither a protocol's name nor its number", s)
	}
	return &n, nil
}

func parseUint8(s string) (uint8, error) {
	n, err := strconv.ParseUint(s, 10, 8)
	return uint8(n), err
}

// parseICMP reads "8" or "8/0".
func parseICMP(s string) (*drivers.ICMP, error) {
	t, c, hasCode := strings.Cut(s, "/")
	typ, err := parseUint8(t)
	if err != nil {
		return nil, fmt.Errorf("%q is not TYPE or TYPE/CODE", s)
	}
	i := &drivers.ICMP{Type: typ}
	if hasCode {
		code, err := parseUint8(c)
		if err != nil {
			return nil, fmt.Errorf("%q is not TYPE or TYPE/CODE", s)
		}
		i.Code = &code
	}
	return i, nil
}

// parseHTTP reads "GET,/exact,/prefix*".
func parseHTTP(s string) *drivers.HTTP {
	h := &drivers.HTTP{}
	for _, w := range strings.Split(s, ",") {
		switch {
		case strings.HasSuffix(w, "*"):
			h.Paths = append(h.Paths, drivers.HTTPPath{Prefix: strings.TrimSuffix(w, "*")})
		case strings.HasPrefix(w, "/"):
			h.Paths = append(h.Paths, drivers.HTTPPath{Exact: w})
		default:
			h.Methods = append(h.Methods, w)
		}
	}
	return h
}

// parsePrefix reads a prefix or an address, masked.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is neither a prefix nor an address", s)
	}
	return p.Masked(), nil
}

func parsePrefixes(s string) ([]netip.Prefix, error) {
	var ps []netip.Prefix
	for _, w := range strings.Split(s, ",") {
		p, err := parsePrefix(w)
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	return ps, nil
}

func parseAddrs(s string) ([]netip.Addr, error) {
	var as []netip.Addr
	for _, w := range strings.Split(s, ",") {
		a, err := netip.ParseAddr(w)
		if err != nil {
			return nil, fmt.Errorf("%q is not an address", w)
		}
		as = append(as, a)
	}
	return as, nil
}

func parsePorts(s string) ([]drivers.PortRange, error) {
	var rs []drivers.PortRange
	for _, w := range strings.Split(s, ",") {
		lo, hi, isRange := strings.Cut(w, "-")
		if !isRange {
			hi = lo
		}
		first, err1 := parsePort(lo)
		last, err2 := parsePort(hi)
		if err1 != nil || err2 != nil || first > last {
			return nil, fmt.Errorf("%q is neither a port nor FIRST-LAST", w)
		}
		rs = append(rs, drivers.PortRange{First: first, Last: last})
	}
	return rs, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a port", s)
	}
	return uint16(n), nil
}

func setIDs(s string) []drivers.SetID {
	var ids []drivers.SetID
	for _, w := range strings.Split(s, ",") {
		ids = append(ids, drivers.SetID(w))
	}
	return ids
}

// ruleText writes what parseRule reads.
func ruleText(r *drivers.Rule) string {
	var ws []string
	for name, a := range actions {
		if a == r.Action {
			ws = append(ws, name)
		}
	}
	add := func(key, val string) {
		if val != "" {
			ws = append(ws, key+"="+val)
		}
	}
	m := &r.Match
	if m.IPVersion != 0 {
		ws = append(ws, fmt.Sprintf("v%d", m.IPVersion))
	}
	add("proto", protoText(m.Proto))
	add("not-proto", protoText(m.NotProto))
	add("icmp", icmpText(m.ICMP))
	add("not-icmp", icmpText(m.NotICMP))
	add("http", httpText(m.HTTP))
	add("unsupported", strings.Join(m.Unsupported, ","))
	add("name", r.Name)
	if cs := sideText(&m.Src); cs != "" {
		ws = append(ws, "from", cs)
	}
	if cs := sideText(&m.Dst); cs != "" {
		ws = append(ws, "to", cs)
	}
	return strings.Join(ws, " ")
}

func sideText(s *drivers.Side) string {
	var ws []string
	add := func(key, val string) {
		if val != "" {
			ws = append(ws, key+"="+val)
		}
	}
	add("net", list(s.Nets, prefixText))
	add("not-net", list(s.NotNets, prefixText))
	id := func(id drivers.SetID) string { return string(id) }
	add("set", list(s.Sets, id))
	add("not-set", list(s.NotSets, id))
	add("port", list(s.Ports, portText))
	add("not-port", list(s.NotPorts, portText))
	add("named", list(s.PortSets, id))
	add("not-named", list(s.NotPortSets, id))
	add("service", list(s.Services, id))
	return strings.Join(ws, " ")
}

func list[T any](xs []T, text func(T) string) string {
	ws := make([]string, len(xs))
	for i, x := range xs {
		ws[i] = text(x)
	}
	return strings.Join(ws, ",")
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func portText(r drivers.PortRange) string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

func protoText(p *uint8) string {
	if p == nil {
		return ""
	}
	for name, n := range protoNames {
		if n == *p {
			return name
		}
	}
	return strconv.Itoa(int(*p))
}

func icmpText(i *drivers.ICMP) string {
	switch {
	case i == nil:
		return ""
	case i.Code == nil:
		return strconv.Itoa(int(i.Type))
	}
	return fmt.Sprintf("%d/%d", i.Type, *i.Code)
}

func httpText(h *drivers.HTTP) string {
	if h == nil {
		return ""
	}
	ws := append([]string(nil), h.Methods...)
	for _, p := range h.Paths {
		if p.Prefix != "" {
			ws = append(ws, p.Prefix+"*")
		} else {
			ws = append(ws, p.Exact)
		}
	}
	return strings.Join(ws, ",")
}
