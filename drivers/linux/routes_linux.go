package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/linuxnet"
)

// routes keeps the kernel's routes and neighbours as a State says. It knows its own in the kernel by their protocol, and
// touches nothing else. apply is called by one goroutine.
type routes struct {
	net   *linuxnet.Conn
	log   *slog.Logger
	kick  func()
	write func(what string) error // asked before each write; an error refuses it

	stopWatch context.CancelFunc // nil = not watching
	watchDone chan struct{}

	neighs map[drivers.EndpointID][]linuxnet.Neigh // ours, in the kernel

	mu sync.Mutex // guards what follows: the watcher changes it while apply runs
	routesHeld
}

// newRoutes returns a reconciler that writes to net. kick says that routes moved under it; it never blocks. write is
// asked before each write to the kernel and may refuse it; nil = all may be written.
func newRoutes(net *linuxnet.Conn, log *slog.Logger, kick func(), write func(what string) error) *routes {
	if write == nil {
		write = func(string) error { return nil }
	}
	r := &routes{net: net, log: log, kick: kick, write: write, neighs: map[drivers.EndpointID][]linuxnet.Neigh{}}
	r.reset()
	return r
}

// close ends the watch. Routes stay.
func (r *routes) close() {
	if r.stopWatch != nil {
		r.stopWatch()
		<-r.watchDone
		r.stopWatch = nil
	}
}

// apply makes the kernel hold the routes of want, and the neighbours of its workloads. ch says where to look; nil = read
// back, repair and sweep. It returns the objects that failed; the others are done.
func (r *routes) apply(ctx context.Context, want *drivers.State, ch *drivers.Changes) map[drivers.ObjectRef]error {
	p := &routesPass{routes: r, want: want, failed: map[drivers.ObjectRef]error{}, links: map[string]linuxnet.Link{}}
	if ch == nil {
		p.full(ctx)
	} else {
		p.some(ctx, ch)
	}
	return p.failed
}

// routesPass is one apply.
type routesPass struct {
	*routes
	want     *drivers.State
	failed   map[drivers.ObjectRef]error
	links    map[string]linuxnet.Link // by name
	allLinks bool                     // links holds all there are
	forward  [2]bool                  // this pass has met routes of IPv4, IPv6
}

func routeRef(dst netip.Prefix) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjRoute, Route: dst}
}

func (p *routesPass) nodeFailed(err error) {
	if err != nil {
		p.failed[drivers.ObjectRef{Kind: drivers.ObjNode}] = err
	}
}

// full reads the kernel and makes it right.
func (p *routesPass) full(ctx context.Context) {
	extra, err := p.readBack()
	if err != nil {
		p.nodeFailed(err)
		return
	}
	for _, k := range extra {
		p.unwanted(k)
	}
	for _, wanted := range []bool{false, true} {
		for dst := range p.destinations() {
			if err := ctx.Err(); err != nil {
				p.nodeFailed(err)
				return
			}
			if (p.want.Routes[dst] != nil) == wanted {
				p.route(dst)
			}
		}
	}
	p.nodeFailed(p.forwarding())
	p.allNeighs()
}

// readBack learns what the kernel holds. It returns routes that are ours and can't be wanted.
func (p *routesPass) readBack() ([]linuxnet.Route, error) {
	p.mu.Lock()
	p.reset()
	p.reading = true
	p.mu.Unlock()
	// Before the reading, so that nothing moves unseen between the two.
	if err := p.watch(); err != nil {
		return nil, err
	}
	links, err := p.net.Links()
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		p.links[l.Name], names[l.Index] = l, l.Name
	}
	p.allLinks = true
	inKernel, err := p.net.Routes(RouteProtocol)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reading = false
	var extra []linuxnet.Route
	for _, k := range inKernel {
		if _, two := p.have[k.Dst]; two || k.Metric != routeMetric {
			extra = append(extra, k)
		} else {
			p.have[k.Dst] = heldRoute{k, names[k.Link]}
		}
	}
	return extra, nil
}

// destinations are those that the kernel holds and those that it is to hold.
func (p *routesPass) destinations() map[netip.Prefix]struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[netip.Prefix]struct{}, len(p.have)+len(p.want.Routes))
	for dst := range p.have {
		out[dst] = struct{}{}
	}
	for dst := range p.want.Routes {
		out[dst] = struct{}{}
	}
	return out
}

// some looks at what changed.
func (p *routesPass) some(ctx context.Context, ch *drivers.Changes) {
	touched, endpoints := p.takeDirty()
	for dst := range ch.Routes {
		touched[dst] = struct{}{}
	}
	for id := range ch.Endpoints {
		endpoints[id] = struct{}{}
	}
	// What goes makes room for what comes.
	for _, gone := range []bool{true, false} {
		for dst := range touched {
			if err := ctx.Err(); err != nil {
				p.failed[routeRef(dst)] = err
			} else if (p.want.Routes[dst] == nil) == gone {
				p.route(dst)
			}
		}
	}
	p.nodeFailed(p.forwarding())
	p.someNeighs(endpoints)
}

// route makes the kernel hold what want says of one destination.
func (p *routesPass) route(dst netip.Prefix) {
	if err := p.tryRoute(dst); err != nil {
		p.failed[routeRef(dst)] = err
	}
}

func (p *routesPass) tryRoute(dst netip.Prefix) error {
	old, had := p.held(dst)
	k, wanted, err := p.kernelRoute(p.want.Routes[dst])
	if err != nil || !wanted {
		// With an error: what is there for the destination is wrong by now.
		if had {
			err = errors.Join(err, p.remove(old.Route))
		}
		return err
	}
	if dst.Addr().Is4() {
		p.forward[0] = true
	} else {
		p.forward[1] = true
	}
	if had && old.Route == k.Route {
		return nil
	}
	if err := p.write("route " + dst.String()); err != nil {
		return err
	}
	p.hold(k)
	if !had {
		err = p.add(k.Route)
	} else if err = p.net.ReplaceRoute(k.Route); err != nil {
		// The old one is still there, and wrong.
		err = errors.Join(err, p.remove(old.Route))
	}
	if err == nil {
		return nil
	}
	p.drop(dst)
	return err
}

// add adds a route where none is known.
func (p *routesPass) add(k linuxnet.Route) error {
	err := p.net.AddRoute(k)
	if !errors.Is(err, os.ErrExist) {
		return err
	}
	// The watcher may have heard late of a loss that has been mended since.
	ours, lerr := p.net.Routes(RouteProtocol)
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	for _, o := range ours {
		if o.Dst == k.Dst && o.Metric == k.Metric {
			return p.net.ReplaceRoute(k)
		}
	}
	return fmt.Errorf("%w: another program has one with our metric %d", err, routeMetric)
}

// kernelRoute is r in the kernel's words; false = the kernel is to hold nothing for it.
func (p *routesPass) kernelRoute(r *drivers.Route) (heldRoute, bool, error) {
	if r == nil {
		return heldRoute{}, false, nil
	}
	plan, ok, err := planRoute(r)
	if err != nil || !ok {
		return heldRoute{}, false, err
	}
	k := heldRoute{iface: plan.iface, Route: linuxnet.Route{
		Dst: plan.dst, Via: plan.via, Blackhole: plan.blackhole, Metric: routeMetric, Protocol: RouteProtocol,
	}}
	switch {
	case plan.iface != "":
		l, err := p.link(plan.iface)
		if err == nil && !l.Up {
			p.waitFor(plan.iface)
			err = fmt.Errorf("interface %s is down", plan.iface)
		}
		if err != nil {
			return k, false, err
		}
		k.Link = l.Index
	case plan.via.IsValid():
		if k.Link, err = p.net.OnLink(plan.via); err != nil {
			return k, false, err
		}
		if l, err := p.net.LinkByIndex(k.Link); err == nil {
			k.iface = l.Name
		}
	}
	if plan.dst.Addr().Is4() && !plan.via.IsValid() && !plan.blackhole {
		k.Scope = linuxnet.ScopeLink
	}
	return k, true, nil
}

// link finds an interface; one that is missing is waited for.
func (p *routesPass) link(name string) (linuxnet.Link, error) {
	if l, ok := p.links[name]; ok {
		return l, nil
	}
	if !p.allLinks {
		// From here on the watcher kicks when it comes: it may come between the look and the note.
		p.waitFor(name)
		l, err := p.net.Link(name)
		if err != nil {
			return l, err
		}
		p.stopWaiting(name)
		p.links[name] = l
		return l, nil
	}
	p.waitFor(name)
	return linuxnet.Link{}, fmt.Errorf("interface %s: %w", name, os.ErrNotExist)
}

// unwanted removes a route; a failure is the destination's.
func (p *routesPass) unwanted(k linuxnet.Route) {
	if err := p.remove(k); err != nil {
		p.failed[routeRef(k.Dst)] = err
	}
}

func (p *routesPass) remove(k linuxnet.Route) error {
	if err := p.write("route " + k.Dst.String()); err != nil {
		return err
	}
	if err := p.net.DeleteRoute(k); err != nil {
		return err
	}
	if old, had := p.held(k.Dst); had && old.Route == k {
		p.drop(k.Dst)
	}
	return nil
}

// forwarding turns the node into a router, for the families that it has routes of.
func (p *routesPass) forwarding() error {
	for i, s := range []linuxnet.Sysctl{{Path: "ipv4/ip_forward", Value: "1"}, {Path: "ipv6/conf/all/forwarding", Value: "1"}} {
		if !p.forward[i] {
			continue
		}
		diff, err := p.net.DiffSysctls([]linuxnet.Sysctl{s})
		if err != nil {
			return err
		}
		if len(diff) == 0 {
			continue
		}
		if err := p.write("sysctl " + s.Path); err != nil {
			return err
		}
		if i == 1 {
			if err := p.keepRouterAdverts(); err != nil {
				return err
			}
		}
		if err := p.net.SetSysctls([]linuxnet.Sysctl{s}); err != nil {
			return err
		}
	}
	return nil
}

// keepRouterAdverts lets the node's own interfaces go on taking router advertisements. A router ignores them where
// accept_ra is 1: a host that has its default route from one would lose it some time after forwarding is turned on.
func (p *routesPass) keepRouterAdverts() error {
	links, err := p.net.Links()
	if err != nil {
		return err
	}
	for _, l := range links {
		if p.isWorkload(l.Name) || l.Name == "lo" {
			continue
		}
		path := "ipv6/conf/" + l.Name + "/accept_ra"
		if v, err := p.net.Sysctl(path); err != nil || v != "1" {
			continue // an interface may go at any time, or have no IPv6
		}
		if err := p.net.SetSysctls([]linuxnet.Sysctl{{Path: path, Value: "2"}}); err != nil {
			return err
		}
	}
	return nil
}

func (p *routesPass) isWorkload(iface string) bool {
	for _, prefix := range p.want.Node.WorkloadPrefixes {
		if strings.HasPrefix(iface, prefix) {
			return true
		}
	}
	return false
}
