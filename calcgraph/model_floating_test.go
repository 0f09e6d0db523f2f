package calcgraph

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// floating is what a workload of this node gets of the floating addresses that it asks for.
func (m *model) floating(id drivers.EndpointID, l *LedgerEntry, o *api.WorkloadEndpoint) []drivers.Floating {
	if !m.c.FloatingIPs {
		return nil
	}
	var out []drivers.Floating
	for external, internal := range m.asks(l, o) {
		if m.taken(external) || slices.ContainsFunc(m.rivals(external), func(r rival) bool { return r.before(rival{id, l, o}) }) {
			continue
		}
		out = append(out, drivers.Floating{External: external, Internal: internal})
	}
	slices.SortFunc(out, func(a, b drivers.Floating) int { return a.External.Compare(b.External) })
	return out
}

// asks is what is asked for, with what it stands for.
func (m *model) asks(l *LedgerEntry, o *api.WorkloadEndpoint) map[netip.Addr]netip.Addr {
	out := map[netip.Addr]netip.Addr{}
	own := slices.SortedFunc(slices.Values(l.Addrs), netip.Addr.Compare)
	for _, n := range o.Spec.IPNATs {
		external, err := netip.ParseAddr(n.ExternalIP)
		if _, twice := out[external]; err != nil || twice {
			continue
		}
		for _, a := range own {
			if a.Is4() == external.Is4() && (n.InternalIP == "" || n.InternalIP == a.String()) {
				out[external] = a
				break
			}
		}
	}
	return out
}

// taken says whether an address is the host's or a workload's own.
func (m *model) taken(a netip.Addr) bool {
	for _, l := range m.ledger {
		if slices.Contains(l.Addrs, a) {
			return true
		}
	}
	for _, i := range m.ifaces {
		for _, p := range i.Addrs {
			if p.Addr() == a {
				return true
			}
		}
	}
	return slices.Contains(m.s.Node.Addresses, a)
}

type rival struct {
	id drivers.EndpointID
	l  *LedgerEntry
	o  *api.WorkloadEndpoint
}

func (r rival) before(o rival) bool {
	if t, u := r.o.CreationTimestamp.Time, o.o.CreationTimestamp.Time; !t.Equal(u) {
		return t.Before(u)
	}
	if r.l.Name != o.l.Name {
		return strings.Join([]string{r.l.Name.Namespace, r.l.Name.Name}, "\x00") < strings.Join([]string{o.l.Name.Namespace, o.l.Name.Name}, "\x00")
	}
	return r.id.Compare(o.id) < 0
}

// rivals are those who ask for an address.
func (m *model) rivals(external netip.Addr) []rival {
	var out []rival
	for id, l := range m.ledger {
		o, ok := object[*api.WorkloadEndpoint](m, "WorkloadEndpoint", l.Name.Namespace, l.Name.Name)
		if !ok || o.Spec.Node != m.c.NodeName || o.Spec.ContainerID != "" && o.Spec.ContainerID != id.Sandbox || o.Spec.ContainerID == "" && string(o.UID) != l.UID {
			continue
		}
		if _, asks := m.asks(l, o)[external]; asks {
			out = append(out, rival{id, l, o})
		}
	}
	return out
}
