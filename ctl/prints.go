package ctl

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// prints tells which ends of a world policy can tell apart: two ends with the same print are treated alike, wherever the
// routes to them are alike. A print is made of everything that Evaluate looks at: the tier lists and profiles of the
// endpoint, the sets and prefixes that its addresses are in, and the settings and host endpoints of its node.
type prints struct {
	w        *world
	addrs    []netip.Addr            // of ends and nodes, sorted
	tokens   map[netip.Addr][]uint64 // what each is in
	policies map[drivers.PolicyID]*drivers.Policy
	nodes    map[string]string // print of each node
	lists    map[*drivers.TierList]string
}

func newPrints(w *world, ends []*end) *prints {
	p := &prints{w: w, tokens: map[netip.Addr][]uint64{}, policies: map[drivers.PolicyID]*drivers.Policy{}, nodes: map[string]string{}, lists: map[*drivers.TierList]string{}}
	for _, e := range ends {
		for _, a := range e.addrs {
			if e != nil && a.IsValid() {
				p.tokens[a] = nil
			}
		}
	}
	for _, s := range w.states {
		maps.Copy(p.policies, s.Policies)
		for _, a := range s.Node.Addresses {
			p.tokens[a.Unmap()] = nil
		}
	}
	p.addrs = slices.SortedFunc(maps.Keys(p.tokens), netip.Addr.Compare)
	p.readSets()
	p.readPrefixes()
	for name, s := range w.states {
		p.nodes[name] = p.node(s)
	}
	return p
}

// mark gives a token to every address of a prefix.
func (p *prints) mark(prefix netip.Prefix, token uint64) {
	if prefix.IsSingleIP() {
		if ts, ok := p.tokens[prefix.Addr()]; ok {
			p.tokens[prefix.Addr()] = append(ts, token)
		}
		return
	}
	i, _ := slices.BinarySearchFunc(p.addrs, prefix.Masked().Addr(), netip.Addr.Compare)
	for ; i < len(p.addrs) && prefix.Contains(p.addrs[i]); i++ {
		p.tokens[p.addrs[i]] = append(p.tokens[p.addrs[i]], token)
	}
}

// readSets marks the members of each set. Sets of the same id are equal on all nodes: they follow from the objects.
func (p *prints) readSets() {
	sets := map[drivers.SetID]*drivers.Set{}
	for _, s := range p.w.states {
		maps.Copy(sets, s.Sets)
	}
	for _, id := range slices.Sorted(maps.Keys(sets)) {
		for m := range sets[id].All() {
			p.mark(m.Prefix, token("set", string(id), m.Proto, m.Port))
		}
	}
}

// token is the same in every world for the same thing, so that prints of two worlds can be compared.
func token(what, name string, proto uint8, port uint16) uint64 {
	h := fnv.New64a()
	h.Write(fmt.Appendf(nil, "%s\n%s\n%d\n%d", what, name, proto, port))
	return h.Sum64()
}

// readPrefixes marks the addresses in the prefixes of rules, failsafes and masquerading.
func (p *prints) readPrefixes() {
	all := map[netip.Prefix]bool{}
	add := func(lists ...[]netip.Prefix) {
		for _, l := range lists {
			for _, q := range l {
				all[q] = true
			}
		}
	}
	for _, s := range p.w.states {
		add(s.Masquerade.From, s.Masquerade.Except)
		for _, pol := range s.Policies {
			for _, r := range slices.Concat(pol.In, pol.Out) {
				add(r.Match.Src.Nets, r.Match.Src.NotNets, r.Match.Dst.Nets, r.Match.Dst.NotNets)
			}
		}
		for _, f := range slices.Concat(s.Node.FailsafeIn, s.Node.FailsafeOut) {
			if f.Net.IsValid() {
				all[f.Net] = true
			}
		}
	}
	for _, q := range slices.SortedFunc(maps.Keys(all), drivers.ComparePrefixes) {
		p.mark(q, token("prefix", q.String(), 0, 0))
	}
}

func (p *prints) list(l *drivers.TierList) string {
	if l == nil {
		return ""
	}
	text, ok := p.lists[l]
	if !ok {
		var b strings.Builder
		for _, t := range l.Tiers {
			fmt.Fprintf(&b, "%q %d;", t.Name, t.Default)
			for _, id := range t.Policies {
				b.WriteString(p.policy(id))
			}
		}
		text = b.String()
		p.lists[l] = text
	}
	return text
}

// policy is a policy's name and the content of its rules.
func (p *prints) policy(id drivers.PolicyID) string {
	pol := p.policies[id]
	if pol == nil {
		return id.String() + " missing;"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %v", id, pol.Staged)
	for _, rules := range [][]drivers.Rule{pol.In, pol.Out} {
		for _, r := range rules {
			fmt.Fprintf(&b, " %x", uint64(r.ID))
		}
		b.WriteString(";")
	}
	return b.String()
}

func (p *prints) endpoint(e *drivers.Endpoint) string {
	if e == nil {
		return "none"
	}
	d := e.Policy
	texts := []string{fmt.Sprint(e.Degraded, e.SourcePrefixes)}
	for _, id := range e.Profiles {
		texts = append(texts, p.policy(id))
	}
	for _, l := range []*drivers.TierList{d.Normal.In, d.Normal.Out, d.Forward.In, d.Forward.Out, d.PreDNAT.In, d.Untracked.In, d.Untracked.Out} {
		texts = append(texts, p.list(l))
	}
	return strings.Join(texts, "|")
}

func (p *prints) node(s *drivers.State) string {
	n := s.Node
	texts := []string{fmt.Sprint(n.EndpointToHost, n.ServiceNAT, n.AllowEncapFromWorkloads, n.VXLANPort, n.FailsafeIn, n.FailsafeOut, s.Masquerade)}
	for _, e := range s.Endpoints {
		if e.ID.Kind == drivers.HostInterface {
			texts = append(texts, e.Iface+"|"+p.endpoint(e))
		}
	}
	slices.Sort(texts[1:])
	for _, a := range n.Addresses {
		texts = append(texts, fmt.Sprint(a.Is4(), p.tokens[a.Unmap()]))
	}
	return strings.Join(texts, "\n")
}

// of is the print of one end; nil has one too.
func (p *prints) of(e *end, ep *drivers.Endpoint) string {
	if e == nil {
		return "absent"
	}
	b := fmt.Appendf(nil, "%d\n%s\n%s\n", e.kind, p.endpoint(ep), p.nodes[e.node])
	for _, a := range e.addrs {
		b = fmt.Appendf(b, "%v\n", a.IsValid())
		for _, t := range p.tokens[a] {
			b = binary.BigEndian.AppendUint64(b, t)
		}
		b = append(b, '\n')
	}
	return string(b)
}

// sight is what one node's routing says of an address.
type sight struct {
	kind   drivers.RouteKind
	encap  drivers.Encap
	iface  string // of a remote route
	routed bool
	local  bool // a workload here has it
	self   bool // it is the node's own
}

// sights looks addresses up in a State, quicker than its own search by knowing which lengths there are.
type sights struct {
	s     *drivers.State
	bits  [2][]int
	local map[netip.Addr]bool
}

func newSights(s *drivers.State) *sights {
	v := &sights{s: s, local: map[netip.Addr]bool{}}
	for dst := range s.Routes {
		f := 0
		if dst.Addr().Is6() {
			f = 1
		}
		if !slices.Contains(v.bits[f], dst.Bits()) {
			v.bits[f] = append(v.bits[f], dst.Bits())
		}
	}
	for f := range v.bits {
		slices.SortFunc(v.bits[f], func(a, b int) int { return cmp.Compare(b, a) })
	}
	for _, e := range s.Endpoints {
		if e.ID.Kind == drivers.Workload {
			for _, a := range e.Addrs {
				v.local[a.Unmap()] = true
			}
		}
	}
	return v
}

func (v *sights) of(a netip.Addr) sight {
	out := sight{}
	if !a.IsValid() {
		return out
	}
	out.local, out.self = v.local[a], slices.Contains(v.s.Node.Addresses, a)
	f := 0
	if a.Is6() {
		f = 1
	}
	for _, bits := range v.bits[f] {
		p, err := a.Prefix(bits)
		if err != nil {
			continue
		}
		if r := v.s.Routes[p]; r != nil {
			out.routed, out.kind, out.encap = true, r.Kind, r.Encap
			if r.Kind == drivers.RouteRemote {
				out.iface = r.Iface
			}
			return out
		}
	}
	return out
}
