package calcgraph

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// floating is who asks for which floating address on this node. An address that several ask for is the oldest one's, and one
// that is the host's or a workload's own is nobody's: packets for those must not be led astray.
type floating struct {
	enabled bool
	claims  map[netip.Addr]map[*attachment]struct{}
	host    map[netip.Addr]bool // addresses of the host
	owned   map[netip.Addr]int  // how many workloads have an address
	mark    func(*attachment)
}

func newFloating(mark func(*attachment)) *floating {
	return &floating{claims: map[netip.Addr]map[*attachment]struct{}{}, owned: map[netip.Addr]int{}, mark: mark}
}

// wanted reads what an attachment with a WorkloadEndpoint asks for.
func (f *floating) wanted(a *attachment) (out []drivers.Floating, bad []string) {
	if !f.enabled {
		return nil, nil
	}
	for _, n := range a.object.Spec.IPNATs {
		external, err := api.ParseAddr(n.ExternalIP)
		if err != nil {
			bad = append(bad, err.Error())
			continue
		}
		i := slices.IndexFunc(a.entry.Addrs, func(own netip.Addr) bool {
			return own.Is4() == external.Is4() && (n.InternalIP == "" || n.InternalIP == own.String())
		})
		switch {
		case i < 0:
			bad = append(bad, "the workload has no address that "+n.ExternalIP+" can stand for")
		case slices.ContainsFunc(out, func(o drivers.Floating) bool { return o.External == external }):
		default:
			out = append(out, drivers.Floating{External: external, Internal: a.entry.Addrs[i]})
		}
	}
	slices.SortFunc(out, func(x, y drivers.Floating) int { return x.External.Compare(y.External) })
	return out, bad
}

// claim takes in what an attachment asks for.
func (f *floating) claim(a *attachment, now []drivers.Floating) {
	if slices.Equal(a.floats, now) {
		return
	}
	for _, old := range a.floats {
		take(f.claims, old.External, a)
		f.moved(old.External)
	}
	a.floats = now
	for _, n := range now {
		f.moved(n.External)
		put(f.claims, n.External, a)
	}
}

// moved has those who ask for an address looked at again.
func (f *floating) moved(external netip.Addr) {
	for a := range f.claims[external] {
		f.mark(a)
	}
}

// own says that one more, or with -1 one less, workload has these addresses of its own.
func (f *floating) own(addrs []netip.Addr, more int) {
	for _, a := range addrs {
		if f.owned[a] += more; f.owned[a] == 0 {
			delete(f.owned, a)
		}
		f.moved(a)
	}
}

// setHost says what addresses the host has.
func (f *floating) setHost(addrs map[netip.Addr]bool) {
	if maps.Equal(f.host, addrs) {
		return
	}
	f.host = addrs
	for external := range f.claims {
		f.moved(external)
	}
}

// refused says why an attachment does not get an address that it asks for; "" if it does.
func (f *floating) refused(a *attachment, external netip.Addr) string {
	switch {
	case f.host[external]:
		return "is an address of the host"
	case f.owned[external] > 0:
		return "is a workload's own address"
	}
	for o := range f.claims[external] {
		if o != a && o.before(a) {
			return "is that of " + o.entry.Name.Namespace + "/" + WorkloadName(o.object)
		}
	}
	return ""
}

// before is the order of those who ask for the same: the oldest is the first.
func (a *attachment) before(b *attachment) bool {
	return cmp.Or(a.object.CreationTimestamp.Compare(b.object.CreationTimestamp.Time), compareKeys(a.entry.Name, b.entry.Name), a.id.Compare(b.id)) < 0
}

// given is the floating addresses that an attachment gets.
func (f *floating) given(a *attachment) []drivers.Floating {
	var out []drivers.Floating
	for _, w := range a.floats {
		if f.refused(a, w.External) == "" {
			out = append(out, w)
		}
	}
	return out
}

func (f *floating) problems(a *attachment, node string) []Problem {
	if a.object == nil || len(a.object.Spec.IPNATs) == 0 {
		return nil
	}
	problem := func(reason string) Problem { return Problem{Key: a.entry.Name, Field: "spec.ipNATs", Reason: reason} }
	if !f.enabled {
		return []Problem{problem("has no effect: floatingIPs of the FelixConfiguration of node " + node + " is not Enabled")}
	}
	var out []Problem
	_, bad := f.wanted(a)
	for _, b := range bad {
		out = append(out, problem(b))
	}
	for _, w := range a.floats {
		if why := f.refused(a, w.External); why != "" {
			out = append(out, problem("floating address "+w.External.String()+" "+why))
		}
	}
	return out
}

// hostAddresses are all addresses that the host is known to have.
func (g *Graph) hostAddresses() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, a := range g.ownAddresses() {
		out[a] = true
	}
	for _, i := range g.settings.ifaces {
		for _, p := range i.Addrs {
			out[p.Addr().Unmap().WithZone("")] = true
		}
	}
	return out
}
