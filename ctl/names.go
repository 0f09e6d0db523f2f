package ctl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/drivers"
)

// workloadNames gives each workload the name that people know it by, without the namespace: that of the pod or workload if
// no other one of the namespace can be meant by it, or else that of the resource, which holds the node and the
// interface too. Where worlds are compared, a name means the same workload in all of them.
func workloadNames(worlds ...map[api.Key]api.Object) map[api.Key]string {
	type claim struct{ namespace, name string }
	owners, contested := map[claim]api.Key{}, map[claim]bool{}
	short := map[api.Key]string{}
	for _, objects := range worlds {
		for key, o := range objects {
			wep, ok := o.(*api.WorkloadEndpoint)
			if !ok {
				continue
			}
			short[key] = calcgraph.WorkloadName(wep)
			for _, name := range []string{key.Name, short[key]} {
				c := claim{key.Namespace, name}
				if owner, ok := owners[c]; ok && owner != key {
					contested[c] = true
				}
				owners[c] = key
			}
		}
	}
	for key, name := range short {
		if contested[claim{key.Namespace, name}] {
			short[key] = key.Name
		}
	}
	return short
}

// nameAlike gives worlds that are compared the same names of workloads.
func nameAlike(worlds []*world) {
	if len(worlds) < 2 {
		return
	}
	var all []map[api.Key]api.Object
	for _, w := range worlds {
		all = append(all, w.objects)
	}
	names := workloadNames(all...)
	for _, w := range worlds {
		w.names = names
	}
}

// meant is what a person may mean by a name.
type meant struct {
	name  string // in full, for people
	exact bool   // it was written as the resource is called
	addrs []netip.Addr
}

// resolve finds the address that a person means: an address, the name of a workload (namespace/name, or its name alone
// where only one has it), or of a node. like is an address whose family is wanted; the zero one means IPv4 if there is one.
func (w *world) resolve(text string, like netip.Addr) (netip.Addr, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap(), nil
	}
	found := w.meantBy(text)
	if len(found) == 0 {
		found = w.meantHere(text)
	}
	if strings.Contains(text, "/") && slices.ContainsFunc(found, func(m meant) bool { return m.exact }) {
		found = slices.DeleteFunc(found, func(m meant) bool { return !m.exact })
	}
	if len(found) > 1 {
		var names []string
		for _, m := range found {
			names = append(names, m.name)
		}
		slices.Sort(names)
		return netip.Addr{}, usage("%q may be %s: write namespace/name, or an address", text, strings.Join(names, " or "))
	}
	if len(found) == 0 {
		return netip.Addr{}, &ExitCoder{Code: ExitMissing, Err: fmt.Errorf("%q is neither an address nor the name of a workload or node that is known here", text)}
	}
	slices.SortFunc(found[0].addrs, netip.Addr.Compare) // IPv4 first
	for _, a := range found[0].addrs {
		if !like.IsValid() || a.Is4() == like.Is4() {
			return a, nil
		}
	}
	return netip.Addr{}, usage("%s has no address of the family of %s", found[0].name, like)
}

// meantBy looks for a name in the objects.
func (w *world) meantBy(text string) []meant {
	var found []meant
	for key, o := range w.objects {
		switch o := o.(type) {
		case *api.WorkloadEndpoint:
			if name, ok := inNamespace(text, key.Namespace); ok && slices.Contains([]string{key.Name, o.Spec.Pod, o.Spec.Workload}, name) {
				found = append(found, meant{key.String(), name == key.Name, ledgerEntry(key, o).Addrs})
			}
		case *api.Node:
			if text == key.Name {
				m := meant{name: key.String(), exact: true}
				for _, s := range []string{bgp(o).IPv4Address, bgp(o).IPv6Address} {
					if p, err := netip.ParsePrefix(s); err == nil {
						m.addrs = append(m.addrs, p.Addr())
					}
				}
				found = append(found, m)
			}
		}
	}
	return found
}

// meantHere looks for a name in what the agent on this node has: all that there is while the store is away.
func (w *world) meantHere(text string) []meant {
	s := w.states[w.live]
	if s == nil {
		return nil
	}
	var found []meant
	if text == s.Node.Name {
		found = append(found, meant{"Node/" + s.Node.Name, true, slices.Clone(s.Node.Addresses)})
	}
	for id, e := range s.Endpoints {
		key := w.plugged[id]
		ns, short, ok := strings.Cut(e.Name, "/")
		name, in := inNamespace(text, ns)
		if id.Kind != drivers.Workload || !ok || !in || name != short && name != key.Name {
			continue
		}
		m := meant{e.Name, name == key.Name, slices.Clone(e.Addrs)}
		if key.Name != "" {
			m.name = key.String()
		}
		found = append(found, m)
	}
	return found
}

// inNamespace says what a person calls a workload of a namespace, who may have left that out.
func inNamespace(text, namespace string) (name string, ok bool) {
	ns, name, ok := strings.Cut(text, "/")
	if !ok {
		return text, true
	}
	return name, ns == namespace
}

// nameOf gives the name of the workload or node that has an address; "" if none has.
func (w *world) nameOf(a netip.Addr) string {
	s := w.nodeOf(a)
	if s == nil {
		return ""
	}
	for _, e := range s.Endpoints {
		if e.ID.Kind == drivers.Workload && slices.Contains(e.Addrs, a) {
			return w.nameOfEndpoint(s, e)
		}
	}
	return s.Node.Name
}

// nameOfEndpoint is the name that workloadNames gives. While the store is away, names are those that the agent knows.
func (w *world) nameOfEndpoint(s *drivers.State, e *drivers.Endpoint) string {
	for key, name := range w.names {
		if wep, ok := w.objects[key].(*api.WorkloadEndpoint); ok && wep.Spec.Node == s.Node.Name && endpointID(key, wep) == e.ID {
			return key.Namespace + "/" + name
		}
	}
	for _, other := range s.Endpoints {
		if key, ok := w.plugged[e.ID]; ok && other.ID != e.ID && other.Name == e.Name {
			return key.Namespace + "/" + key.Name
		}
	}
	return e.Name
}
