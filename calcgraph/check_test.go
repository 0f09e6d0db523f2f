package calcgraph

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// checked is a graph beside the world that it has been told of, with the State that its Updates lead to.
type checked struct {
	t     testing.TB
	c     Config
	g     *Graph
	w     *world
	state *drivers.State
}

func newChecked(t testing.TB) *checked {
	c := Default("me")
	return &checked{t: t, c: c, g: New(c), w: newWorld(), state: drivers.NewState()}
}

func (c *checked) set(o api.Object) {
	key := api.KeyOf(o)
	c.w.objects[key] = o
	c.g.Update(key, o)
}

func (c *checked) remove(key api.Key) {
	delete(c.w.objects, key)
	c.g.Update(key, nil)
}

func (c *checked) attach(id drivers.EndpointID, e *LedgerEntry) {
	if e == nil {
		delete(c.w.ledger, id)
	} else {
		c.w.ledger[id] = e
	}
	c.g.Attached(id, e)
}

func (c *checked) host(ifaces []drivers.HostIface) {
	c.w.ifaces = ifaces
	c.g.Host(ifaces)
}

func (c *checked) learn(dst netip.Prefix, r *drivers.Route) {
	if r == nil {
		delete(c.w.learned, dst)
	} else {
		c.w.learned[dst] = r
	}
	c.g.Learned(dst, r)
}

// flush merges an Update into the State, and checks everything about the Update and the State that does not depend on
// the content of the world.
func (c *checked) flush() {
	c.t.Helper()
	u := c.g.Flush()
	for id, su := range u.Sets {
		if err := checkSetUpdate(c.state.Sets[id], su); err != nil {
			c.t.Fatalf("update of set %s: %v", id, err)
		}
	}
	if err := checkNews(c.state, u); err != nil {
		c.t.Fatal(err)
	}
	c.state.Merge(u, nil)
	if err := checkState(c.state); err != nil {
		c.t.Fatalf("%v\n%s", err, c.state)
	}
	if again := c.g.Flush(); !again.Empty() {
		c.t.Fatalf("a second Flush says something: %+v", again)
	}
}

// checkSetUpdate makes sure that a delta is exact.
func checkSetUpdate(old *drivers.Set, su drivers.SetUpdate) error {
	switch {
	case su.Set == nil && old == nil:
		return fmt.Errorf("a set goes that was not there")
	case su.Set == nil:
		return nil
	case old == nil && !su.Full:
		return fmt.Errorf("a new set is not full")
	case old == nil || su.Full:
		return nil
	case len(su.Added)+len(su.Removed) == 0:
		return fmt.Errorf("a delta without members")
	}
	for _, m := range su.Added {
		if old.Has(m) || !su.Set.Has(m) || slices.Contains(su.Removed, m) {
			return fmt.Errorf("%v was not added", m)
		}
	}
	for _, m := range su.Removed {
		if !old.Has(m) || su.Set.Has(m) {
			return fmt.Errorf("%v was not removed", m)
		}
	}
	if old.Len()+len(su.Added)-len(su.Removed) != su.Set.Len() {
		return fmt.Errorf("%d members, +%d -%d, but then %d", old.Len(), len(su.Added), len(su.Removed), su.Set.Len())
	}
	return nil
}

// checkNews makes sure that an Update tells nothing that the State holds already.
func checkNews(s *drivers.State, u *drivers.Update) error {
	for id, e := range u.Endpoints {
		if reflect.DeepEqual(s.Endpoints[id], e) {
			return fmt.Errorf("endpoint %v is no news", id)
		}
	}
	for id, p := range u.Policies {
		if reflect.DeepEqual(s.Policies[id], p) {
			return fmt.Errorf("policy %v is no news", id)
		}
	}
	for dst, r := range u.Routes {
		if reflect.DeepEqual(s.Routes[dst], r) {
			return fmt.Errorf("route %v is no news", dst)
		}
	}
	for n, p := range u.Peers {
		if reflect.DeepEqual(s.Peers[n], p) {
			return fmt.Errorf("peer %v is no news", n)
		}
	}
	return nil
}

// checkState makes sure that every reference resolves inside s, that nothing is there without being referred to, that
// equal tier lists are one, and that no prefix of a set lies within another.
func checkState(s *drivers.State) error {
	usedPolicies, usedSets := map[drivers.PolicyID]bool{}, map[drivers.SetID]bool{}
	lists := map[string]*drivers.TierList{}
	for id, e := range s.Endpoints {
		if e.ID != id {
			return fmt.Errorf("endpoint %v says that it is %v", id, e.ID)
		}
		for _, p := range e.Profiles {
			usedPolicies[p] = true
		}
		for _, tl := range listsOf(e.Policy) {
			if tl == nil {
				continue
			}
			text := fmt.Sprintf("%+v", *tl)
			if other := lists[text]; other != nil && other != tl {
				return fmt.Errorf("tier list %s is there twice", text)
			}
			lists[text] = tl
			for _, t := range tl.Tiers {
				for _, p := range t.Policies {
					usedPolicies[p] = true
				}
			}
		}
	}
	for id := range usedPolicies {
		if s.Policies[id] == nil {
			return fmt.Errorf("policy %v is missing", id)
		}
	}
	for id, p := range s.Policies {
		if !usedPolicies[id] {
			return fmt.Errorf("policy %v is in no list", id)
		}
		for _, r := range slices.Concat(p.In, p.Out) {
			for _, side := range []drivers.Side{r.Match.Src, r.Match.Dst} {
				for _, st := range slices.Concat(side.Sets, side.NotSets, side.PortSets, side.NotPortSets, side.Services) {
					usedSets[st] = true
				}
			}
		}
	}
	return checkSetsAndRoutes(s, usedSets)
}

func checkSetsAndRoutes(s *drivers.State, usedSets map[drivers.SetID]bool) error {
	for id := range usedSets {
		if s.Sets[id] == nil {
			return fmt.Errorf("set %v is missing", id)
		}
	}
	closed := false // rules have lost sets because they are partial
	for _, p := range s.Policies {
		for _, r := range slices.Concat(p.In, p.Out) {
			closed = closed || slices.ContainsFunc(r.Match.Unsupported, func(u string) bool { return strings.Contains(u, "selects can't be read") })
		}
	}
	for id, st := range s.Sets {
		if !usedSets[id] && !closed {
			return fmt.Errorf("set %v is in no rule", id)
		}
		if st.Kind() != drivers.SetNet {
			continue
		}
		var last drivers.Member
		for m := range st.All() {
			if last.Prefix.IsValid() && last.Prefix.Overlaps(m.Prefix) {
				return fmt.Errorf("set %v holds %v and %v", id, last, m)
			}
			last = m
		}
	}
	for dst, r := range s.Routes {
		if r.Dst != dst || dst != dst.Masked() {
			return fmt.Errorf("route %v says that it is to %v", dst, r.Dst)
		}
		if r.Peer != "" && s.Peers[r.Peer] == nil {
			return fmt.Errorf("route %v has peer %s, which is missing", dst, r.Peer)
		}
	}
	return nil
}

// clear takes everything away and makes sure that the graph keeps nothing of it.
func (c *checked) clear() {
	c.t.Helper()
	for key := range c.w.objects {
		c.remove(key)
	}
	for id := range c.w.ledger {
		c.attach(id, nil)
	}
	for dst := range c.w.learned {
		c.learn(dst, nil)
	}
	c.host(nil)
	c.flush()
	if got, want := c.state.String(), newWorld().state(c.c).String(); got != want {
		c.t.Fatalf("after everything was removed:\n%s", got)
	}
	if left := c.g.leftovers(); len(left) > 0 {
		c.t.Fatalf("after everything was removed the graph keeps %v", left)
	}
}

// leftovers returns what an empty graph should not hold.
func (g *Graph) leftovers() map[string]int {
	builtin := len(api.BuiltinTiers())
	sizes := map[string]int{
		"label keys": len(g.labels.keys), "label pairs": len(g.labels.pairs),
		"groups": len(g.groups.byKey), "profiles' labels": len(g.groups.profiles), "dirty groups": len(g.groups.dirty),
		"things": len(g.things.ids), "port lists": len(g.things.ports.byKey),
		"numbers of things": len(g.things.all) - len(g.things.free), "freed things": len(g.things.freed),
		"numbers of nodes": len(g.nodes.all) - len(g.nodes.free), "freed nodes": len(g.nodes.freed),
		"services": len(g.services.byName), "slices": len(g.services.slices),
		"sets": len(g.sets.byID), "fresh sets": len(g.sets.fresh), "idle sets": len(g.sets.idle), "touched sets": len(g.sets.touched),
		"locals": len(g.locals.all), "dirty locals": len(g.locals.dirty),
		"tier lists": len(g.locals.lists.byList) + len(g.locals.lists.byHash),
		"policies":   len(g.policies.byKey) + len(g.policies.byID) + len(g.policies.ranked) + len(g.policies.entered) + len(g.policies.fresh) + len(g.policies.dirty),
		"profiles":   len(g.policies.profiles), "tiers": len(g.policies.tiers.byName) - builtin,
		"problems": len(g.bad),
		"ledger":   len(g.endpoints.ledger) + len(g.endpoints.byName) + len(g.endpoints.byLocal) + len(g.endpoints.objects) + len(g.endpoints.dirty),
		"hosts":    len(g.hosts.objects) + len(g.hosts.byLocal) + len(g.hosts.moved) + len(g.hosts.conflicts),
		"nodes":    len(g.routes.nodes), "pools": len(g.routes.pools), "names": len(g.routes.names.numbers),
		"blocks": len(g.routes.blocks.byKey) + len(g.routes.blocks.byPrefix) + len(g.routes.blocks.byNode) +
			len(g.routes.blocks.lengths[0]) + len(g.routes.blocks.lengths[1]),
		"addresses": g.routes.remote.n + len(g.routes.remote.chunks) + len(g.routes.local),
		"routes":    len(g.routes.learned) + len(g.routes.learnedOf) + len(g.routes.borrowed) + len(g.routes.borrowers) + len(g.routes.dirty),
		"said": len(g.endpoints.out.now) + len(g.policies.out.now) + len(g.routes.out.now) + len(g.routes.peers.now) +
			len(g.endpoints.out.staged) + len(g.policies.out.staged) + len(g.routes.out.staged) + len(g.routes.peers.staged),
	}
	indexSizes(sizes, "index of all", g.sets.index)
	indexSizes(sizes, "index of nodes", g.sets.nodes)
	indexSizes(sizes, "index of locals", g.policies.index)
	for k, n := range sizes {
		if n == 0 {
			delete(sizes, k)
		}
	}
	return sizes
}

func indexSizes[T any](sizes map[string]int, name string, ix *index[T]) {
	sizes[name+": selectors"] = len(ix.sels) + len(ix.byID) - len(ix.freeIDs)
	sizes[name+": residual"] = len(ix.residual.places)
	sizes[name+": things"] = ix.all.len()
	for _, e := range ix.keys {
		if e != nil {
			sizes[name+": keys"]++
		}
	}
}
