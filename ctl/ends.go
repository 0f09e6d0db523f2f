package ctl

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// endKind says what an end is.
type endKind uint8

const (
	workloadEnd endKind = iota
	hostEnd
	outsideEnd
)

// end is what a flow begins or ends at: a workload, a node, or an address that is neither.
type end struct {
	kind      endKind
	namespace string
	name      string            // without the namespace, as people know it
	resource  string            // a workload's WorkloadEndpoint
	labels    map[string]string // a workload's own
	effective map[string]string // with those that it inherits: what selectors see
	node      string            // "" = outside
	addrs     [2]netip.Addr     // IPv4 and IPv6; the zero one = none
}

// String gives "shop/web-1", "node n1" or "198.51.100.0/24".
func (e *end) String() string {
	switch e.kind {
	case workloadEnd:
		return e.namespace + "/" + e.name
	case hostEnd:
		return "node " + e.name
	}
	return e.name
}

// id tells ends apart, in all worlds.
func (e *end) id() string {
	if e.kind == workloadEnd {
		return e.namespace + "/" + e.resource
	}
	return e.String()
}

func compareEnds(a, b *end) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.namespace, b.namespace), naturally(a.name, b.name))
}

// naturally compares names so that web-2 comes before web-10.
func naturally(a, b string) int {
	sa, na := cutNumber(a)
	sb, nb := cutNumber(b)
	if sa == sb {
		return cmp.Or(cmp.Compare(len(na), len(nb)), cmp.Compare(na, nb))
	}
	return cmp.Compare(a, b)
}

func cutNumber(s string) (stem, number string) {
	stem = strings.TrimRight(s, "0123456789")
	return stem, s[len(stem):]
}

// setAddr keeps the first address of each family.
func (e *end) setAddr(a netip.Addr) {
	f := 0
	if a.Is6() && !a.Is4In6() {
		f = 1
	}
	if a.IsValid() && !e.addrs[f].IsValid() {
		e.addrs[f] = a.Unmap()
	}
}

// workloads returns the workloads that have an address, and the nodes.
func (w *world) ends() []*end {
	var out []*end
	for key, o := range w.objects {
		e := &end{namespace: key.Namespace, name: key.Name}
		switch o := o.(type) {
		case *api.WorkloadEndpoint:
			e.name, e.resource = w.names[key], key.Name
			e.node, e.labels, e.effective = o.Spec.Node, o.Labels, w.effectiveLabels(o)
			for _, a := range ledgerEntry(key, o).Addrs {
				e.setAddr(a)
			}
		case *api.Node:
			e.kind, e.node, e.labels, e.effective = hostEnd, key.Name, o.Labels, o.Labels
			for _, a := range w.states[key.Name].Node.Addresses {
				e.setAddr(a)
			}
		default:
			continue
		}
		if w.states[e.node] != nil && (e.addrs[0].IsValid() || e.addrs[1].IsValid()) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, compareEnds)
	return out
}

// effectiveLabels are the labels by which selectors know a workload.
func (w *world) effectiveLabels(o *api.WorkloadEndpoint) map[string]string {
	labels := map[string]string{}
	for _, name := range slices.Backward(o.Spec.Profiles) { // of two that apply a label, the first wins
		if p, ok := w.objects[api.Key{Kind: "Profile", Name: name}].(*api.Profile); ok {
			maps.Copy(labels, p.Spec.LabelsToApply)
		}
	}
	maps.Copy(labels, o.Labels)
	labels[api.LabelNamespace] = o.Namespace
	if o.Spec.Orchestrator != "" {
		labels[api.LabelOrchestrator] = o.Spec.Orchestrator
	}
	if o.Spec.ServiceAccountName != "" {
		labels[api.LabelServiceAccount] = o.Spec.ServiceAccountName
	}
	return labels
}

// strangers are addresses that stand for the rest of the world: of documentation first, then some that are in no plan.
var strangers = [2][]netip.Addr{
	{netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("1.1.1.1"), netip.MustParseAddr("9.9.9.9")},
	{netip.MustParseAddr("2001:db8:7777::77"), netip.MustParseAddr("2606:4700:4700::1111"), netip.MustParseAddr("2620:fe::fe")},
}

// outsides returns ends for what is outside of the cluster: the addresses that a person asks for, one for each prefix that
// policy speaks of (at most max; left says how many there are beyond), and one for the rest of the world.
func outsides(worlds []*world, known []*end, asked []netip.Addr, max int) (ends []*end, left int) {
	taken := map[netip.Addr]bool{}
	for _, e := range known {
		taken[e.addrs[0]], taken[e.addrs[1]] = true, true
	}
	for _, a := range asked {
		if !taken[a] {
			e := &end{kind: outsideEnd, name: a.String()}
			e.setAddr(a)
			taken[a] = true
			ends = append(ends, e)
		}
	}
	m := mentioned(worlds, taken)
	var rest end
	for _, candidates := range strangers {
		for _, a := range candidates {
			if !taken[a] && !m.covered(a) {
				rest.setAddr(a)
				break
			}
		}
	}
	if rest.addrs[0].IsValid() || rest.addrs[1].IsValid() {
		rest.kind, rest.name = outsideEnd, "outside"
		ends = append(ends, &rest)
	}
	for _, p := range m.policy {
		a, ok := m.within(p, taken)
		switch {
		case !ok:
		case max <= 0:
			left++
		default:
			max--
			e := &end{kind: outsideEnd, name: p.String()}
			if p.IsSingleIP() {
				e.name = a.String()
			}
			e.setAddr(a)
			taken[a] = true
			ends = append(ends, e)
		}
	}
	return ends, left
}

// prefixes is which prefixes are spoken of.
type prefixes struct {
	policy []netip.Prefix // by policy, without those of everything; sorted
	own    []netip.Prefix // where workloads and nodes are
}

// mentioned gathers the prefixes of rules and sets that are not an end's own address.
func mentioned(worlds []*world, taken map[netip.Addr]bool) prefixes {
	policy, own := map[netip.Prefix]bool{}, map[netip.Prefix]bool{}
	add := func(ps ...netip.Prefix) {
		for _, p := range ps {
			if p.Bits() > 0 && !(p.IsSingleIP() && taken[p.Addr()]) {
				policy[p.Masked()] = true
			}
		}
	}
	for _, w := range worlds {
		seen := map[drivers.SetID]bool{}
		for _, s := range w.states {
			for _, pol := range s.Policies {
				for _, r := range slices.Concat(pol.In, pol.Out) {
					add(r.Match.Src.Nets...)
					add(r.Match.Src.NotNets...)
					add(r.Match.Dst.Nets...)
					add(r.Match.Dst.NotNets...)
				}
			}
			for id, set := range s.Sets {
				if set.Kind() != drivers.SetNet || seen[id] {
					continue
				}
				seen[id] = true
				for m := range set.All() {
					add(m.Prefix)
				}
			}
			for p, r := range s.Routes {
				if r.Kind == drivers.RouteBlackhole || r.Kind == drivers.RouteRemote {
					own[p] = true
				}
			}
			for _, p := range s.Masquerade.Except {
				own[p] = true
			}
		}
	}
	sorted := func(m map[netip.Prefix]bool) []netip.Prefix {
		return slices.SortedFunc(maps.Keys(m), drivers.ComparePrefixes)
	}
	return prefixes{policy: sorted(policy), own: sorted(own)}
}

// covered says whether an address is in any prefix that is spoken of.
func (m prefixes) covered(a netip.Addr) bool {
	in := func(p netip.Prefix) bool { return p.Contains(a) }
	return slices.ContainsFunc(m.policy, in) || slices.ContainsFunc(m.own, in)
}

// within returns an address of p that stands for it: in no narrower prefix that is spoken of, and not the cluster's own.
func (m prefixes) within(p netip.Prefix, taken map[netip.Addr]bool) (netip.Addr, bool) {
	a := p.Addr()
	if !p.IsSingleIP() {
		a = a.Next() // people are used to .1
	}
	const attempts = 256
	for range attempts {
		if !a.IsValid() || !p.Contains(a) {
			return netip.Addr{}, false
		}
		var over netip.Prefix
		for _, q := range slices.Concat(m.policy, m.own) {
			if q.Contains(a) && (q.Bits() > p.Bits() || slices.Contains(m.own, q)) && (!over.IsValid() || q.Bits() < over.Bits()) {
				over = q
			}
		}
		switch {
		case over.IsValid():
			a = lastOf(over).Next()
		case taken[a]:
			a = a.Next()
		default:
			return a, true
		}
	}
	return netip.Addr{}, false
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// parseOutside reads the addresses of --outside.
func parseOutside(texts []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, t := range texts {
		a, err := netip.ParseAddr(t)
		if err != nil {
			return nil, usage("--outside: %w", err)
		}
		out = append(out, a.Unmap())
	}
	return out, nil
}

// leftOut says what outsides left out.
func leftOut(n int) string {
	return fmt.Sprintf("%s that policy speaks of are not tried (--outside ADDRESS tries one)", thousands(n)+" more prefixes")
}
