package linux

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/tortie/tortie/drivers"
)

// routeMetric is the metric of our routes. It is a number of its own, so that a route of another program to the same
// destination stands beside ours and is never replaced.
const routeMetric = 84

// plannedRoute is what the kernel's main table is to hold for a Route.
type plannedRoute struct {
	dst       netip.Prefix
	iface     string // "" = none, or whichever reaches via
	via       netip.Addr
	blackhole bool
}

// planRoute says what the kernel is to hold for r; false = nothing.
func planRoute(r *drivers.Route) (plannedRoute, bool, error) {
	p := plannedRoute{dst: r.Dst}
	if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() || r.Dst.Addr().Is4In6() {
		return p, false, fmt.Errorf("%s is no destination of a route", r.Dst)
	}
	switch r.Kind {
	case drivers.RouteLocal:
		if r.Iface == "" {
			return p, false, errors.New("a local route needs an interface")
		}
		p.iface = r.Iface
	case drivers.RouteBlackhole:
		// A block of one address needs none: the workload's own route is to the same destination.
		if r.Dst.IsSingleIP() {
			return p, false, nil
		}
		p.blackhole = true
	case drivers.RouteRemote:
		if r.Encap != drivers.EncapNone {
			return p, false, fmt.Errorf("encapsulation %d: %w", r.Encap, drivers.ErrUnsupported)
		}
		if !r.NextHop.IsValid() || r.NextHop.Is4() != r.Dst.Addr().Is4() || r.NextHop.Is4In6() {
			return p, false, fmt.Errorf("next hop %s is of no use to destination %s", r.NextHop, r.Dst)
		}
		p.iface, p.via = r.Iface, r.NextHop
	default:
		return p, false, fmt.Errorf("route kind %d: %w", r.Kind, drivers.ErrUnsupported)
	}
	return p, true, nil
}

// plannedNeigh is a neighbour entry on the node's end of a workload's link.
type plannedNeigh struct {
	iface string
	addr  netip.Addr
	mac   drivers.MAC
}

// planNeighs says which neighbours the node is to know for e: with permanent entries it never asks who has a workload's
// address, and nobody can answer in the workload's place. Without a MAC it has to ask.
func planNeighs(e *drivers.Endpoint) []plannedNeigh {
	if e == nil || e.ID.Kind != drivers.Workload || e.MAC == (drivers.MAC{}) {
		return nil
	}
	ns := make([]plannedNeigh, len(e.Addrs))
	for i, a := range e.Addrs {
		ns[i] = plannedNeigh{e.Iface, a, e.MAC}
	}
	return ns
}
