package calcgraph

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// hostEndpoint is a HostEndpoint of this node, resolved to interfaces.
type hostEndpoint struct {
	object *api.HostEndpoint
	ifaces []string // sorted
	local  *local   // nil without an interface
	named  []string // profiles that it counts as a user of
}

// hosts resolves the HostEndpoints of this node to interfaces. There are few of both, so that each change of either
// resolves all.
type hosts struct {
	node      string
	prefixes  []string // of workload interfaces
	asHost    bool     // a "*" endpoint also stands for the host as such: workloads' packets to the host ask it
	things    *things
	locals    *locals
	policies  *policies
	endpoints *endpoints
	objects   map[string]*hostEndpoint
	ifaces    []drivers.HostIface
	stale     bool
	conflicts []Problem
	moved     map[*hostEndpoint]struct{} // to be reported
	byLocal   map[*local]*hostEndpoint
}

func newHosts(node string, t *things, ls *locals, ps *policies, es *endpoints) *hosts {
	return &hosts{
		node: node, things: t, locals: ls, policies: ps, endpoints: es,
		objects: map[string]*hostEndpoint{}, moved: map[*hostEndpoint]struct{}{}, byLocal: map[*local]*hostEndpoint{},
	}
}

// configure takes in the settings of the node.
func (hs *hosts) configure(c Config) {
	hs.prefixes, hs.asHost = c.WorkloadPrefixes, c.EndpointToHost == drivers.ToHostReturn
	hs.stale = true
}

// set takes in a HostEndpoint of this node; nil if it is gone or of another one.
func (hs *hosts) set(name string, o *api.HostEndpoint) {
	h := hs.objects[name]
	switch {
	case o == nil && h == nil:
		return
	case o == nil:
		hs.assign(h, nil)
		delete(hs.objects, name)
		delete(hs.moved, h)
	case h == nil:
		hs.objects[name] = &hostEndpoint{object: o}
	default:
		h.object = o
		hs.moved[h] = struct{}{}
	}
	hs.stale = true
}

// inventory takes in the interfaces of the host, and keeps them.
func (hs *hosts) inventory(ifaces []drivers.HostIface) {
	hs.ifaces = ifaces
	hs.stale = true
}

// Claims on an interface, the strongest first.
const (
	byName = iota
	byAddress
	byAll
	noClaim
)

func (hs *hosts) claim(o *api.HostEndpoint, i *drivers.HostIface) int {
	loopback := i.Name == "lo" || slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr().IsLoopback() })
	switch {
	case o.Spec.InterfaceName == drivers.AllHostIfaces:
		if loopback {
			return noClaim
		}
		return byAll
	case o.Spec.InterfaceName != "":
		if o.Spec.InterfaceName == i.Name {
			return byName
		}
		return noClaim
	}
	for _, text := range o.Spec.ExpectedIPs {
		a, err := api.ParseAddr(text)
		if err == nil && slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return byAddress
		}
	}
	return noClaim
}

// resolve gives each interface of the host to the HostEndpoint with the strongest claim: one that names it, then one
// that expects an address of it, then "*"; of equal ones the first by name.
func (hs *hosts) resolve() {
	if moved := hs.endpoints.chained.look(); !hs.stale && !moved {
		hs.rejoin()
		return
	}
	hs.stale, hs.conflicts = false, nil
	names := make([]string, 0, len(hs.objects))
	for n := range hs.objects {
		names = append(names, n)
	}
	slices.Sort(names)
	won := map[string][]string{}
	for i := range hs.ifaces {
		iface := &hs.ifaces[i]
		if slices.ContainsFunc(hs.prefixes, func(p string) bool { return strings.HasPrefix(iface.Name, p) }) || hs.endpoints.chained.has(iface.Name) {
			continue
		}
		best, bestClaim := "", noClaim
		for _, n := range names {
			if c := hs.claim(hs.objects[n].object, iface); c < bestClaim {
				best, bestClaim = n, c
			}
		}
		if bestClaim == noClaim {
			continue
		}
		won[best] = append(won[best], iface.Name)
		for _, n := range names {
			if n != best && hs.claim(hs.objects[n].object, iface) != noClaim {
				hs.conflicts = append(hs.conflicts, Problem{
					Key:    hostKey(n),
					Reason: "interface " + iface.Name + " has HostEndpoint " + best + ", which comes first",
				})
			}
		}
	}
	all := slices.IndexFunc(names, func(n string) bool { return hs.objects[n].object.Spec.InterfaceName == drivers.AllHostIfaces })
	if hs.asHost && all >= 0 {
		won[names[all]] = append(won[names[all]], drivers.AllHostIfaces)
	}
	for _, n := range names {
		slices.Sort(won[n])
		hs.assign(hs.objects[n], slices.Compact(won[n]))
	}
}

func hostKey(name string) api.Key { return api.Key{Kind: "HostEndpoint", Name: name} }

// rejoin finds the things of HostEndpoints that were removed and came back.
func (hs *hosts) rejoin() {
	for h := range hs.moved {
		hs.assign(h, h.ifaces)
	}
}

// assign gives h its interfaces, none if it is to be no endpoint of this node.
func (hs *hosts) assign(h *hostEndpoint, ifaces []string) {
	for _, i := range h.ifaces {
		if !slices.Contains(ifaces, i) {
			hs.endpoints.out.stage(h.id(i), nil)
		}
	}
	if !slices.Equal(h.ifaces, ifaces) {
		hs.moved[h] = struct{}{}
	}
	h.ifaces = ifaces
	id, there := hs.things.find(hostKey(h.object.Name))
	want := len(ifaces) > 0 && there
	if h.local != nil && (!want || h.local.gone || h.local.id != id) {
		delete(hs.byLocal, h.local)
		hs.locals.disown(h.local)
		h.local = nil
	}
	if want && h.local == nil {
		h.local = hs.locals.adopt(id, true)
		hs.byLocal[h.local] = h
		hs.moved[h] = struct{}{}
	}
	var names []string
	if want {
		names = h.object.Spec.Profiles
	}
	for _, n := range names {
		hs.policies.useProfile(n)
	}
	for _, n := range h.named {
		hs.policies.unuseProfile(n)
	}
	h.named = slices.Clone(names)
}

// changed is told of an endpoint with other tier lists.
func (hs *hosts) changed(l *local) {
	if h := hs.byLocal[l]; h != nil {
		hs.moved[h] = struct{}{}
	}
}

// report says which endpoints are different.
func (hs *hosts) report() {
	for h := range hs.moved {
		for _, i := range h.ifaces {
			hs.endpoints.out.stage(h.id(i), h.endpoint(i))
		}
	}
	clear(hs.moved)
}

func (h *hostEndpoint) id(iface string) drivers.EndpointID {
	return drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: h.object.Name, Interface: iface}
}

func (h *hostEndpoint) endpoint(iface string) *drivers.Endpoint {
	return &drivers.Endpoint{
		ID: h.id(iface), Name: h.object.Name, Iface: iface, Policy: h.local.policy, Profiles: profileIDs(h.named),
		Generation: uint64(h.object.Generation),
	}
}

// problems reports HostEndpoints without an interface, and those that lost one to another.
func (hs *hosts) problems() []Problem {
	out := slices.Clone(hs.conflicts)
	for n, h := range hs.objects {
		if len(h.ifaces) == 0 && !slices.ContainsFunc(out, func(p Problem) bool { return p.Key.Name == n }) {
			field := "spec.interfaceName"
			if h.object.Spec.InterfaceName == "" {
				field = "spec.expectedIPs"
			}
			out = append(out, Problem{Key: hostKey(n), Field: field, Reason: "no interface of this host is meant"})
		}
	}
	return out
}
