package calcgraph

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/api/selector"
	"github.com/tortie/tortie/drivers"
)

const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

// ruleReader turns the rules of one policy into the boundary's, and holds the sets that they refer to. What it can't read
// becomes an unsupported clause: the rule then fails closed.
type ruleReader struct {
	sets      *sets
	namespace string // of the policy; "" for global ones and profiles
	held      []*set
	problems  problems
}

// fields is where the reader is, and what it could not read.
type fields struct {
	r    *ruleReader
	m    *drivers.Match
	path string
}

func (f fields) bad(field, format string, args ...any) {
	path := f.path + "." + field
	f.m.Unsupported = append(f.m.Unsupported, path)
	f.r.problems.add(path, format, args...)
}

func (r *ruleReader) rules(path string, in bool, rules []api.Rule) []drivers.Rule {
	if len(rules) == 0 {
		return nil
	}
	out := make([]drivers.Rule, len(rules))
	for i := range rules {
		r.rule(&out[i], fmt.Sprintf("%s[%d]", path, i), in, &rules[i])
	}
	return out
}

func (r *ruleReader) rule(out *drivers.Rule, path string, in bool, rule *api.Rule) {
	m := &out.Match
	f := fields{r, m, path}
	switch rule.Action {
	case api.Allow:
		out.Action = drivers.Allow
	case api.Deny:
		out.Action = drivers.Deny
	case api.Pass:
		out.Action = drivers.Pass
	case api.Log:
		out.Action = drivers.Log
	default:
		f.bad("action", "%q is none of Allow, Deny, Pass, Log", rule.Action)
	}
	if rule.Metadata != nil {
		out.Name = rule.Metadata.Annotations["name"]
	}
	f.protocols(rule)
	f.side(&m.Src, "source", &rule.Source, rule)
	f.side(&m.Dst, "destination", &rule.Destination, rule)
	f.family()
	f.services(in, rule)
	if rule.HTTP != nil {
		m.HTTP = &drivers.HTTP{Methods: slices.Clone(rule.HTTP.Methods)}
		for _, p := range rule.HTTP.Paths {
			m.HTTP.Paths = append(m.HTTP.Paths, drivers.HTTPPath{Exact: p.Exact, Prefix: p.Prefix})
		}
	}
	for _, u := range rule.Unreadable {
		m.Unsupported = append(m.Unsupported, u)
		r.problems.add(u, "the field could not be read; the rule allows nothing by it")
	}
	slices.Sort(m.Unsupported)
	m.Unsupported = slices.Compact(m.Unsupported)
}

func (f fields) protocols(rule *api.Rule) {
	m := f.m
	if v := rule.IPVersion; v != nil {
		if *v == 4 || *v == 6 {
			m.IPVersion = uint8(*v)
		} else {
			f.bad("ipVersion", "%d is neither 4 nor 6", *v)
		}
	}
	m.Proto = f.protocol("protocol", rule.Protocol)
	m.NotProto = f.protocol("notProtocol", rule.NotProtocol)
	m.ICMP = f.icmp("icmp", rule.ICMP)
	m.NotICMP = f.icmp("notICMP", rule.NotICMP)
	if m.ICMP != nil && (m.Proto == nil || *m.Proto != protoICMP && *m.Proto != protoICMPv6) {
		f.bad("icmp", "needs protocol ICMP or ICMPv6")
	}
}

// family narrows a rule to the family of its notNets: "not from 10.0.0.0/8" speaks of IPv4 packets only, as users of this
// API expect, though every IPv6 packet is outside that net too. A side with nets of both families speaks of both.
func (f fields) family() {
	for _, nets := range [][]netip.Prefix{f.m.Src.NotNets, f.m.Dst.NotNets} {
		v4 := slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Addr().Is4() })
		v6 := slices.ContainsFunc(nets, func(n netip.Prefix) bool { return n.Addr().Is6() })
		if v4 == v6 {
			continue
		}
		v := uint8(6)
		if v4 {
			v = 4
		}
		if f.m.IPVersion != 0 && f.m.IPVersion != v {
			f.bad("notNets", "%s is of another family than the rest of the rule", nets[0])
			return
		}
		f.m.IPVersion = v
	}
}

func (f fields) protocol(field string, p *api.Protocol) *uint8 {
	if p == nil {
		return nil
	}
	n, ok := p.Num()
	if !ok {
		f.bad(field, "protocol %q is not known", p.String())
		return nil
	}
	return &n
}

func (f fields) icmp(field string, i *api.ICMPFields) *drivers.ICMP {
	if i == nil || i.Type == nil && i.Code == nil {
		return nil // the protocol says it all
	}
	if i.Type == nil || *i.Type < 0 || *i.Type > 255 {
		f.bad(field+".type", "is not between 0 and 255")
		return nil
	}
	out := &drivers.ICMP{Type: uint8(*i.Type)}
	if i.Code != nil {
		if *i.Code < 0 || *i.Code > 255 {
			f.bad(field+".code", "is not between 0 and 255")
			return nil
		}
		code := uint8(*i.Code)
		out.Code = &code
	}
	return out
}

func (f fields) side(out *drivers.Side, name string, e *api.EntityRule, rule *api.Rule) {
	out.Nets = f.nets(name+".nets", e.Nets)
	out.NotNets = f.nets(name+".notNets", e.NotNets)
	sel, err := api.EntitySelector(f.r.namespace, e)
	if err != nil {
		f.bad(name, "%v", err)
		return
	}
	if sel != nil {
		out.Sets = append(out.Sets, f.r.hold(f.r.sets.addresses(sel)))
	}
	if e.NotSelector != "" {
		if not, err := parsePlain(e.NotSelector); err != nil {
			f.bad(name+".notSelector", "%v", err)
		} else {
			out.NotSets = append(out.NotSets, f.r.hold(f.r.sets.addresses(not)))
		}
	}
	if e.NodeSelector != "" {
		if nodes, err := parsePlain(e.NodeSelector); err != nil {
			f.bad(name+".nodeSelector", "%v", err)
		} else {
			out.Sets = append(out.Sets, f.r.hold(f.r.sets.ofNodes(nodes)))
		}
	}
	out.Ports, out.PortSets = f.ports(name+".ports", e.Ports, sel, rule)
	out.NotPorts, out.NotPortSets = f.ports(name+".notPorts", e.NotPorts, sel, rule)
}

// parsePlain reads a selector in which global() has no meaning.
func parsePlain(text string) (*selector.Selector, error) {
	s, err := selector.Parse(text)
	if err != nil {
		return nil, err
	}
	selector.Walk(s.Root(), func(n selector.Node) {
		if _, ok := n.(selector.Global); ok {
			err = fmt.Errorf("global() has no meaning here")
		}
	})
	return s, err
}

func (r *ruleReader) hold(st *set) drivers.SetID {
	r.held = append(r.held, st)
	return st.id
}

func (f fields) nets(field string, texts []string) []netip.Prefix {
	var out []netip.Prefix
	for i, t := range texts {
		p, err := api.ParsePrefix(t)
		if err != nil {
			f.bad(fmt.Sprintf("%s[%d]", field, i), "%v", err)
			continue
		}
		out = append(out, p)
	}
	return maximalPrefixes(out)
}

// maximalPrefixes returns ps sorted, without those that lie within another.
func maximalPrefixes(ps []netip.Prefix) []netip.Prefix {
	ms := make([]member, len(ps))
	for i, p := range ps {
		ms[i] = prefixMember(p)
	}
	var out []netip.Prefix
	var top member
	for _, m := range canonical(ms) {
		if len(out) == 0 || !top.contains(m) {
			top = m
			out = append(out, m.prefix())
		}
	}
	return out
}

// ports reads numbers and names. A name means the ports of that name of what sel (nil = everything) selects.
func (f fields) ports(field string, ports []api.Port, sel *selector.Selector, rule *api.Rule) (ranges []drivers.PortRange, named []drivers.SetID) {
	if len(ports) == 0 {
		return nil, nil
	}
	var proto uint8
	switch p := f.m.Proto; {
	case p == nil && slices.ContainsFunc(ports, func(p api.Port) bool { return p.Name == "" }):
		if rule.Protocol == nil {
			f.bad(field, "ports that are numbers need a protocol")
		}
	case p != nil && *p != protoTCP && *p != protoUDP && *p != protoSCTP:
		f.bad(field, "protocol %s has no ports", rule.Protocol)
	case p != nil:
		proto = *p
	}
	for i, p := range ports {
		if p.Name == "" {
			if p.Last < p.First {
				f.bad(fmt.Sprintf("%s[%d]", field, i), "the range ends before it begins")
				continue
			}
			ranges = append(ranges, drivers.PortRange{First: p.First, Last: p.Last})
			continue
		}
		if sel == nil {
			sel = everything
		}
		named = append(named, f.r.hold(f.r.sets.namedPorts(sel, p.Name, proto)))
	}
	slices.Sort(named)
	return mergeRanges(ranges), slices.Compact(named)
}

var everything = mustParse("all()")

func mustParse(text string) *selector.Selector {
	s, err := selector.Parse(text)
	if err != nil {
		panic(err)
	}
	return s
}

// mergeRanges sorts ranges and joins those that touch.
func mergeRanges(rs []drivers.PortRange) []drivers.PortRange {
	slices.SortFunc(rs, func(a, b drivers.PortRange) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	out := rs[:0]
	for _, r := range rs {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// services reads the services of a rule. Where traffic goes to, a service's ports count; where it comes from, only its
// addresses.
func (f fields) services(in bool, rule *api.Rule) {
	from, to := rule.Source.Services, rule.Destination.Services
	if from != nil && in {
		if ns, ok := f.service("source.services", from); ok {
			st := f.r.sets.ofService(ns, from.Name, drivers.SetNet)
			f.m.Src.Sets = append(f.m.Src.Sets, f.r.hold(st))
		}
	}
	if to != nil && !in {
		if ns, ok := f.service("destination.services", to); ok {
			st := f.r.sets.ofService(ns, to.Name, drivers.SetPort)
			f.m.Dst.Services = append(f.m.Dst.Services, f.r.hold(st))
		}
	}
	if from != nil && !in {
		f.bad("source.services", "can't be in an egress rule")
	}
	if to != nil && in {
		f.bad("destination.services", "can't be in an ingress rule")
	}
}

func (f fields) service(field string, s *api.ServiceMatch) (namespace string, ok bool) {
	namespace = cmp.Or(s.Namespace, f.r.namespace)
	switch {
	case s.Name == "":
		f.bad(field+".name", "is missing")
	case namespace == "":
		f.bad(field+".namespace", "is missing, and the policy has none")
	default:
		return namespace, true
	}
	return "", false
}
