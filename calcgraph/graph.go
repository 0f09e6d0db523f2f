package calcgraph

import (
	"net/netip"
	"reflect"
	"slices"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// Graph turns the content of the agent's inputs into a drivers.State, change by change. What it says is a function of
// what the inputs hold at the time of Flush, whatever way they came to hold it. It is not safe for concurrent use, and
// keeps the objects that it is given: they must not be changed.
type Graph struct {
	settings  *settings
	labels    *labels
	groups    *groups
	things    *things
	nodes     *things // nodes alone
	services  *services
	sets      *sets
	locals    *locals
	policies  *policies
	endpoints *endpoints
	hosts     *hosts
	routes    *routes

	bad        map[api.Key][]Problem // what is wrong with an object by itself
	node       *drivers.Node         // as said last
	masquerade *drivers.Masquerade
	departed   []netip.Addr // since the last call of Departed
}

// New returns a graph with empty inputs.
func New(c Config) *Graph {
	g := &Graph{settings: newSettings(c), labels: newLabels(), bad: map[api.Key][]Problem{}}
	g.groups = newGroups(g.labels)
	g.things = newThings(g.labels, g.groups)
	g.services = newServices()
	g.nodes = newThings(g.labels, g.groups)
	g.sets = newSets(g.labels, g.things, g.nodes, g.services)
	g.nodes.moved = g.sets.nodes.apply
	g.policies = newPolicies(g.labels, g.things, g.sets)
	g.locals = newLocals(g.things, g.policies.index)
	g.policies.locals = g.locals
	g.routes = newRoutes(c.NodeName, g.things.names)
	g.routes.ranges = c.NodeRanges
	g.endpoints = newEndpoints(c.NodeName, g.things, g.locals, g.policies, g.routes)
	g.hosts = newHosts(c.NodeName, g.things, g.locals, g.policies, g.endpoints)
	g.hosts.configure(g.settings.now)
	g.endpoints.configure(g.settings.now)
	g.things.moved = g.moved
	return g
}

// moved brings the change of a thing to the sets, and to policy if it is an endpoint of this node.
func (g *Graph) moved(c *change) {
	g.sets.index.apply(c)
	g.depart(c)
	if l := g.things.all[c.id].local; l != nil {
		g.locals.moved(c, l)
	}
}

// Kinds are the kinds of objects that a Graph knows.
func Kinds() []string {
	var known []string
	g := New(Config{})
	for _, k := range api.Kinds() {
		if _, ok := g.take(api.Key{Kind: k.Kind}, nil); ok {
			known = append(known, k.Kind)
		}
	}
	return known
}

// Update says what the value of a resource is now; nil if there is none. Objects of kinds that the graph doesn't know
// are ignored.
func (g *Graph) Update(key api.Key, o api.Object) {
	if o != nil && reflect.ValueOf(o).IsNil() {
		o = nil
	}
	if bad, _ := g.take(key, o); len(bad) > 0 {
		g.bad[key] = bad
	} else {
		delete(g.bad, key)
	}
}

// take has a resource's value go where it belongs, and tells what is wrong with it; known is false of a kind that belongs
// nowhere.
func (g *Graph) take(key api.Key, o api.Object) (bad []Problem, known bool) {
	switch key.Kind {
	case "Tier":
		bad = g.policies.tiers.set(key, as[*api.Tier](o))
	case "NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy":
		bad = g.policies.set(key, o)
	case "Profile":
		g.setProfile(key, as[*api.Profile](o))
	case "NetworkSet", "GlobalNetworkSet":
		bad = g.setNetworkSet(key, o)
	case "WorkloadEndpoint":
		bad = g.setWorkload(key, as[*api.WorkloadEndpoint](o))
	case "HostEndpoint":
		bad = g.setHost(key, as[*api.HostEndpoint](o))
	case "Node":
		bad = g.setNode(key, as[*api.Node](o))
	case "FelixConfiguration":
		g.settings.set(key.Name, as[*api.FelixConfiguration](o))
	case "IPPool":
		bad = g.routes.setPool(key, as[*api.IPPool](o))
	case "BlockAffinity":
		bad = g.routes.setBlock(key, as[*api.BlockAffinity](o))
	case "EndpointSlice":
		bad = g.services.set(key, as[*api.EndpointSlice](o))
	default:
		return nil, false
	}
	return bad, true
}

// as returns o as a T, nil if it is none.
func as[T api.Object](o api.Object) T {
	t, _ := o.(T)
	return t
}

// Attached says what the ledger holds of a workload; nil if it is not plugged in.
func (g *Graph) Attached(id drivers.EndpointID, e *LedgerEntry) { g.endpoints.attached(id, e) }

// Host says what interfaces the host has.
func (g *Graph) Host(ifaces []drivers.HostIface) {
	ifaces = slices.Clone(ifaces)
	g.hosts.inventory(ifaces)
	g.settings.setHost(ifaces)
}

// ownAddresses returns the addresses that the Node resource gives this node.
func (g *Graph) ownAddresses() []netip.Addr {
	if n := g.routes.nodes[g.settings.base.NodeName]; n != nil {
		return n.addresses()
	}
	return nil
}

// Learned says what route BGP has learned to a destination; nil if there is none.
func (g *Graph) Learned(dst netip.Prefix, r *drivers.Route) { g.routes.learn(dst, r) }

// Flush returns what is different since the last Flush. Every reference in the State that it leads to resolves there.
func (g *Graph) Flush() *drivers.Update {
	u := drivers.NewUpdate()
	configured := g.settings.resolve()
	if configured {
		g.hosts.configure(g.settings.now)
		g.endpoints.configure(g.settings.now)
	}
	g.endpoints.floating.setHost(g.hostAddresses())
	g.things.relabel(func(diff []labelDiff) bool { return g.sets.index.cares(diff) || g.policies.index.cares(diff) })
	g.endpoints.join()
	g.hosts.resolve()
	g.policies.flush()
	g.sets.flush(u)
	g.policies.report(u)
	g.locals.flush(g.policies.ranked, func(l *local) {
		g.endpoints.changed(l)
		g.hosts.changed(l)
	})
	g.hosts.report()
	g.endpoints.report(u)
	g.routes.flush(u)
	g.flushNode(u, configured)
	g.things.flushed()
	g.nodes.flushed()
	return u
}

// flushNode reports the node; configured says that its settings are different.
func (g *Graph) flushNode(u *drivers.Update, configured bool) {
	addrs, c := g.ownAddresses(), g.settings.now
	if g.node == nil || configured || !slices.Equal(g.node.Addresses, addrs) {
		g.node = c.node(addrs)
		u.Node = g.node
	}
	if g.masquerade == nil || g.routes.poolsChanged {
		g.routes.poolsChanged = false
		m := g.routes.pools.masquerade(c.NATExclusions)
		if g.masquerade == nil || !sameMasquerade(g.masquerade, m) {
			g.masquerade = m
			u.Masquerade = m
		}
	}
}

// Settings is what FelixConfigurations say to this node, as of the last Flush: what is not about the State is for others to
// follow. It is another pointer if it is something else.
func (g *Graph) Settings() *api.NodeSettings { return g.settings.said }

// Problems returns the objects that are ignored, or taken less of than they say, in order.
func (g *Graph) Problems() []Problem {
	var out []Problem
	for _, ps := range g.bad {
		out = append(out, ps...)
	}
	for _, p := range g.policies.profiles {
		out = append(out, p.bad...)
	}
	for key, p := range g.policies.byKey {
		if p.active {
			out = append(out, p.problems...)
		}
		if !p.tier.exists {
			out = append(out, Problem{Key: key, Field: "spec.tier", Reason: "tier " + p.tier.name + " is missing; the policy comes after all others and the tier ends in Deny"})
		}
	}
	out = append(out, g.endpoints.problems()...)
	out = append(out, g.settings.bad...)
	out = append(out, g.hosts.problems()...)
	out = append(out, g.routes.problems()...)
	return sortProblems(out)
}
