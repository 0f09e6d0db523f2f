package fake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/drivers"
)

func setRef(id drivers.SetID) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjSet, Set: id}
}

func policyRef(id drivers.PolicyID) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id}
}

func endpointRef(id drivers.EndpointID) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id}
}

func routeRef(p netip.Prefix) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjRoute, Route: p}
}

func peerRef(name string) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjPeer, Peer: name}
}

func routesOf(s *drivers.State) map[netip.Prefix]*drivers.Route { return s.Routes }

// apply is one Apply: additions from what is referred to towards what refers to it, then removals the other way round.
type apply struct {
	w        *World
	features drivers.Features
	want     *drivers.State
	todo     *drivers.Changes
	failed   map[drivers.ObjectRef]error
	bad      map[drivers.PolicyID]error // policies that are not in the World as they should be, or one of whose sets is not
}

// run returns an error only if the Apply was cut short.
func (a *apply) run(ctx context.Context, ch *drivers.Changes) error {
	a.plan(ch)
	for _, step := range []func() error{
		a.node, a.peers, a.routes, a.sets, a.policies, a.endpoints,
		a.dropEndpoints, a.dropPolicies, a.dropSets, a.dropRoutes, a.dropPeers,
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// plan says which keys to look at: those of ch, or all that are wanted or held.
func (a *apply) plan(ch *drivers.Changes) {
	a.todo = drivers.NewChanges()
	held := a.w.State()
	full := ch == nil
	if full {
		ch = drivers.NewChanges()
		ch.Node, ch.Masquerade = true, true
		for _, s := range []*drivers.State{a.want, held} {
			addKeys(ch.Endpoints, s.Endpoints)
			addKeys(ch.Policies, s.Policies)
			addKeys(ch.Routes, s.Routes)
			addKeys(ch.Peers, s.Peers)
			for id := range s.Sets {
				ch.Sets[id] = &drivers.SetChange{Full: true}
			}
		}
	}
	a.todo.Node, a.todo.Masquerade = ch.Node, ch.Masquerade
	a.todo.Sets = ch.Sets
	maps.Copy(a.todo.Endpoints, ch.Endpoints)
	maps.Copy(a.todo.Policies, ch.Policies)
	maps.Copy(a.todo.Routes, ch.Routes)
	maps.Copy(a.todo.Peers, ch.Peers)
	// What an endpoint on a stand-in waited for may be there now.
	for id, e := range held.Endpoints {
		if e.Degraded != "" {
			a.todo.Endpoints[id] = struct{}{}
		}
	}
}

func addKeys[K comparable, V any](dst map[K]struct{}, src map[K]V) {
	for k := range src {
		dst[k] = struct{}{}
	}
}

// result files the error of a write under its object; it returns what ends the Apply.
func (a *apply) result(o drivers.ObjectRef, err error) error {
	var abort abortError
	if errors.As(err, &abort) {
		return abort.err
	}
	if err != nil {
		a.failed[o] = err
	}
	return nil
}

func (a *apply) node() error {
	if a.todo.Node {
		if err := a.result(drivers.ObjectRef{Kind: drivers.ObjNode}, a.w.putNode(a.want.Node)); err != nil {
			return err
		}
	}
	if a.todo.Masquerade {
		return a.result(drivers.ObjectRef{Kind: drivers.ObjMasquerade}, a.w.putMasquerade(a.want.Masquerade))
	}
	return nil
}

func (a *apply) peers() error {
	for _, name := range slices.Sorted(maps.Keys(a.todo.Peers)) {
		if p := a.want.Peers[name]; p != nil {
			if err := a.result(peerRef(name), put(a.w, peerRef(name), peersOf, name, p, nil)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *apply) routes() error {
	for _, dst := range slices.SortedFunc(maps.Keys(a.todo.Routes), drivers.ComparePrefixes) {
		if r := a.want.Routes[dst]; r != nil {
			if err := a.result(routeRef(dst), a.w.putRoute(r, a.features)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *apply) sets() error {
	for _, id := range slices.Sorted(maps.Keys(a.todo.Sets)) {
		set, sc := a.want.Sets[id], a.todo.Sets[id]
		if set == nil {
			continue
		}
		var err error
		if sc.Full {
			err = a.w.putSet(id, set)
		} else {
			err = a.w.changeSet(id, slices.Collect(maps.Keys(sc.Added)), slices.Collect(maps.Keys(sc.Removed)))
		}
		if err := a.result(setRef(id), err); err != nil {
			return err
		}
	}
	return nil
}

// policies writes policies, and finds those that don't hold: a policy that names a set which failed fails through no
// fault of its own, and is not named.
func (a *apply) policies() error {
	a.bad = map[drivers.PolicyID]error{}
	if len(a.failed) > 0 {
		for id, p := range a.want.Policies {
			for set := range p.SetIDs {
				if err := a.failed[setRef(set)]; err != nil {
					a.bad[id] = fmt.Errorf("%s: %w", setRef(set), err)
					break
				}
			}
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(a.todo.Policies), drivers.PolicyID.Compare) {
		p := a.want.Policies[id]
		if p == nil || a.bad[id] != nil {
			continue
		}
		err := a.w.putPolicy(id, p, a.features)
		if aborted := a.result(policyRef(id), err); aborted != nil {
			return aborted
		}
		if err != nil {
			a.bad[id] = err
		}
	}
	return nil
}

// endpoints writes endpoints; those that name a policy which does not hold get a deny stand-in.
func (a *apply) endpoints() error {
	if len(a.bad) > 0 {
		for id, e := range a.want.Endpoints {
			if a.waitsFor(e) != nil {
				a.todo.Endpoints[id] = struct{}{}
			}
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(a.todo.Endpoints), drivers.EndpointID.Compare) {
		if e := a.want.Endpoints[id]; e != nil {
			if err := a.endpoint(id, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *apply) endpoint(id drivers.EndpointID, e *drivers.Endpoint) error {
	own := a.dangles(e) // its own fault, and not that of what it waits for
	reason := own
	if reason == nil {
		reason = a.waitsFor(e)
	}
	if reason == nil {
		own = a.w.putEndpoint(id, e)
		reason = own
	}
	if err := a.result(endpointRef(id), own); err != nil || reason == nil {
		return err
	}
	if errors.Is(own, errForeign) {
		return nil // there is no place for a stand-in
	}
	return a.result(endpointRef(id), a.w.putStandIn(id, e, reason.Error()))
}

// waitsFor returns why a policy that e names does not hold, or nil.
func (a *apply) waitsFor(e *drivers.Endpoint) error {
	for id := range e.PolicyIDs {
		if err := a.bad[id]; err != nil {
			return fmt.Errorf("%s: %w", policyRef(id), err)
		}
	}
	return nil
}

// dangles returns an error if e names a policy that nobody wants: one that the World still holds does not count.
func (a *apply) dangles(e *drivers.Endpoint) error {
	for id := range e.PolicyIDs {
		if a.want.Policies[id] == nil {
			return fmt.Errorf("%s: %w", policyRef(id), fs.ErrNotExist)
		}
	}
	return nil
}

func (a *apply) dropEndpoints() error {
	for _, id := range slices.SortedFunc(maps.Keys(a.todo.Endpoints), drivers.EndpointID.Compare) {
		if a.want.Endpoints[id] == nil {
			if err := a.result(endpointRef(id), remove(a.w, endpointRef(id), endpointsOf, id, nil)); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropPolicies also drops the old version of a policy whose new one was not written: nothing refers to it now, and it
// holds on to sets that may have to go.
func (a *apply) dropPolicies() error {
	for _, id := range slices.SortedFunc(maps.Keys(a.todo.Policies), drivers.PolicyID.Compare) {
		want := a.want.Policies[id]
		stale := a.bad[id] != nil && !same(read(a.w, policiesOf, id), want)
		if want == nil || stale {
			err := a.w.removePolicy(id)
			if a.failed[policyRef(id)] != nil && !errors.As(err, new(abortError)) {
				err = nil // it is named already
			}
			if err := a.result(policyRef(id), err); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *apply) dropSets() error {
	for _, id := range slices.Sorted(maps.Keys(a.todo.Sets)) {
		if a.want.Sets[id] == nil {
			if err := a.result(setRef(id), a.w.removeSet(id)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *apply) dropRoutes() error {
	for _, dst := range slices.SortedFunc(maps.Keys(a.todo.Routes), drivers.ComparePrefixes) {
		if a.want.Routes[dst] == nil {
			if err := a.result(routeRef(dst), remove(a.w, routeRef(dst), routesOf, dst, nil)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *apply) dropPeers() error {
	for _, name := range slices.Sorted(maps.Keys(a.todo.Peers)) {
		if a.want.Peers[name] == nil {
			if err := a.result(peerRef(name), remove(a.w, peerRef(name), peersOf, name, nil)); err != nil {
				return err
			}
		}
	}
	return nil
}
