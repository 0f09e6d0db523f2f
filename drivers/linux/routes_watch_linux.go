package linux

import (
	"context"
	"net/netip"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/linuxnet"
)

// routesHeld is what apply and the watcher share, under routes.mu.
type routesHeld struct {
	have    map[netip.Prefix]heldRoute // ours, in the kernel
	reading bool                       // have is being filled from the kernel
	waiting map[string]struct{}        // interfaces that were missing or down
	dirty   map[netip.Prefix]struct{}  // to be looked at by the next apply, whatever its hint says
	gone    map[int]struct{}           // interfaces that went: neighbours on them are gone
}

type heldRoute struct {
	linuxnet.Route
	iface string
}

func (h *routesHeld) reset() {
	*h = routesHeld{
		have: map[netip.Prefix]heldRoute{}, waiting: map[string]struct{}{}, dirty: map[netip.Prefix]struct{}{},
		gone: map[int]struct{}{},
	}
}

// lose takes note of a route that went without our doing.
func (h *routesHeld) lose(k heldRoute) {
	delete(h.have, k.Dst)
	h.dirty[k.Dst] = struct{}{}
	if k.iface != "" {
		h.waiting[k.iface] = struct{}{}
	}
}

// watch starts the watcher unless it runs.
func (r *routes) watch() error {
	if r.stopWatch != nil {
		select {
		case <-r.watchDone:
			r.close()
		default:
			return nil
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, err := r.net.Watch(ctx, r.event)
	if err != nil {
		cancel()
		return err
	}
	r.stopWatch, r.watchDone = cancel, make(chan struct{})
	go func() {
		defer close(r.watchDone)
		if err := <-ended; err != nil {
			// The Apply that the kick brings about starts another one.
			r.log.Error("watch of routes ended", "error", err)
			r.kick()
		}
	}()
	return nil
}

// event takes note of what moved. It kicks only for what an Apply can mend: a nil hint costs a whole read-back.
func (r *routes) event(e linuxnet.Event) {
	kick := false
	switch e.Kind {
	case linuxnet.LostEvent:
		kick = true
	case linuxnet.RouteEvent:
		kick = r.routeEvent(e)
	case linuxnet.LinkEvent:
		kick = r.linkEvent(e)
	}
	if kick {
		r.kick()
	}
}

func (r *routes) routeEvent(e linuxnet.Event) bool {
	if e.Own {
		return false
	}
	r.mu.Lock()
	k, ours := r.have[e.Dst]
	reading := r.reading
	// Ours goes, or another program's stands in its place.
	lost := e.Metric == routeMetric && e.Gone == (e.Protocol == RouteProtocol)
	if lost && ours {
		r.lose(k)
	}
	r.mu.Unlock()
	switch {
	case !lost || !ours && !reading:
		return false
	case !ours || k.Link == 0:
		return true
	}
	// The routes of a workload that ends go with its interface. There is nothing to mend before it comes again.
	l, err := r.net.LinkByIndex(k.Link)
	return err == nil && l.Up
}

func (r *routes) linkEvent(e linuxnet.Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !e.Gone && e.Link.Up {
		_, awaited := r.waiting[e.Link.Name]
		delete(r.waiting, e.Link.Name)
		return awaited
	}
	// The kernel says nothing of the IPv4 routes that go with an interface.
	for _, k := range r.have {
		if k.Link == e.Link.Index {
			r.lose(k)
		}
	}
	r.gone[e.Link.Index] = struct{}{}
	return false
}

// takeDirty returns, and forgets, what is to be looked at besides what the hint names.
func (r *routes) takeDirty() (map[netip.Prefix]struct{}, map[drivers.EndpointID]struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	dsts, endpoints := r.dirty, map[drivers.EndpointID]struct{}{}
	for id, ns := range r.neighs {
		for _, n := range ns {
			if _, gone := r.gone[n.Link]; gone {
				endpoints[id] = struct{}{}
			}
		}
	}
	for id := range endpoints {
		delete(r.neighs, id)
	}
	r.dirty, r.gone = map[netip.Prefix]struct{}{}, map[int]struct{}{}
	return dsts, endpoints
}

func (r *routes) held(dst netip.Prefix) (heldRoute, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.have[dst]
	return k, ok
}

func (r *routes) hold(k heldRoute) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.have[k.Dst] = k
}

func (r *routes) drop(dst netip.Prefix) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.have, dst)
}

func (r *routes) waitFor(iface string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[iface] = struct{}{}
}

func (r *routes) stopWaiting(iface string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, iface)
}
