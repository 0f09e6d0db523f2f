package linux

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/linuxnet"
)

func endpointRef(id drivers.EndpointID) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id}
}

// neighKey is what the kernel tells entries apart by.
type neighKey struct {
	link int
	addr netip.Addr
}

func keyOf(n linuxnet.Neigh) neighKey { return neighKey{n.Link, n.Addr} }

// allNeighs reads the kernel's permanent neighbours and makes them right for every endpoint.
func (p *routesPass) allNeighs() {
	inKernel, err := p.net.Neighs(0)
	if err != nil {
		p.nodeFailed(err)
		return
	}
	have, wanted := map[neighKey]linuxnet.Neigh{}, map[neighKey]bool{}
	for _, n := range inKernel {
		have[keyOf(n)] = n
	}
	clear(p.neighs)
	for id, e := range p.want.Endpoints {
		for _, n := range p.endpointWants(e) {
			wanted[keyOf(n)] = true
			// What another program made, and is right, is left to it.
			if k, ok := have[keyOf(n)]; ok && k.MAC == n.MAC {
				if k.Protocol == RouteProtocol {
					p.neighs[id] = append(p.neighs[id], n)
				}
				continue
			}
			p.setNeigh(id, n)
		}
	}
	for k, n := range have {
		if n.Protocol == RouteProtocol && !wanted[k] {
			p.nodeFailed(p.removeNeigh(n))
		}
	}
}

// someNeighs makes the neighbours of some endpoints right. An address may move from one of them to another.
func (p *routesPass) someNeighs(ids map[drivers.EndpointID]struct{}) {
	wants, wanted := map[drivers.EndpointID][]linuxnet.Neigh{}, map[neighKey]bool{}
	for id := range ids {
		wants[id] = p.endpointWants(p.want.Endpoints[id])
		for _, n := range wants[id] {
			wanted[keyOf(n)] = true
		}
	}
	for id := range ids {
		var kept []linuxnet.Neigh
		for _, n := range p.neighs[id] {
			if slices.Contains(wants[id], n) {
				kept = append(kept, n)
				continue
			}
			if wanted[keyOf(n)] {
				continue // about to be replaced
			}
			if err := p.removeNeigh(n); err != nil {
				p.failed[endpointRef(id)] = err
				kept = append(kept, n)
			}
		}
		if p.neighs[id] = kept; len(kept) == 0 {
			delete(p.neighs, id)
		}
	}
	for id, ns := range wants {
		for _, n := range ns {
			if !slices.Contains(p.neighs[id], n) {
				p.setNeigh(id, n)
			}
		}
	}
}

// endpointWants is the neighbours of an endpoint in the kernel's words; none while its interface is missing, which its
// route says.
func (p *routesPass) endpointWants(e *drivers.Endpoint) []linuxnet.Neigh {
	plan := planNeighs(e)
	if len(plan) == 0 {
		return nil
	}
	l, err := p.link(e.Iface)
	if err != nil {
		return nil
	}
	out := make([]linuxnet.Neigh, len(plan))
	for i, n := range plan {
		out[i] = linuxnet.Neigh{Link: l.Index, Addr: n.addr, MAC: n.mac, Protocol: RouteProtocol}
	}
	return out
}

func (p *routesPass) setNeigh(id drivers.EndpointID, n linuxnet.Neigh) {
	err := p.write("neighbour " + n.Addr.String())
	if err == nil {
		err = p.net.SetNeigh(n)
	}
	if err != nil {
		p.failed[endpointRef(id)] = fmt.Errorf("interface %d: %w", n.Link, err)
		return
	}
	p.neighs[id] = append(p.neighs[id], n)
}

func (p *routesPass) removeNeigh(n linuxnet.Neigh) error {
	if err := p.write("neighbour " + n.Addr.String()); err != nil {
		return err
	}
	return p.net.DeleteNeigh(n)
}
