package calcgraph

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// LedgerEntry is a workload that is plugged in on this node.
type LedgerEntry struct {
	Name  api.Key // of its WorkloadEndpoint; Kind may be empty
	UID   string  // of the pod that it is; "" = of none
	Iface string  // in the host's network namespace
	MAC   drivers.MAC
	Addrs []netip.Addr
	// Chained: somebody else has made the interface, under any name, and leads to it. There is no route of ours.
	Chained bool
	// Closed: why it denies everything, whatever its WorkloadEndpoint says; "" = it does not.
	Closed string
}

// attachment is a ledger entry, joined with its WorkloadEndpoint. It is what an endpoint of kind Workload is made from.
type attachment struct {
	id     drivers.EndpointID
	entry  LedgerEntry
	local  *local                // nil: no WorkloadEndpoint, or one that is not for this sandbox
	object *api.WorkloadEndpoint // of local
	why    string                // no local
	named  []string              // profiles that it counts as a user of
	floats []drivers.Floating    // that it asks for
	dirty  bool
}

// endpoints holds the workloads of this node.
type endpoints struct {
	node     string
	things   *things
	locals   *locals
	policies *policies
	routes   *routes
	ledger   map[drivers.EndpointID]*attachment
	byName   map[api.Key]map[*attachment]struct{}
	chained  chained
	byLocal  map[*local]map[*attachment]struct{}
	objects  map[api.Key]*api.WorkloadEndpoint // of this node, or of a ledger entry's name
	dirty    []*attachment
	spoofing SourceSpoofing
	floating *floating
	out      emitted[drivers.EndpointID, drivers.Endpoint]
}

func newEndpoints(node string, t *things, ls *locals, ps *policies, r *routes) *endpoints {
	es := &endpoints{
		node: node, things: t, locals: ls, policies: ps, routes: r, ledger: map[drivers.EndpointID]*attachment{},
		byName: map[api.Key]map[*attachment]struct{}{}, byLocal: map[*local]map[*attachment]struct{}{},
		objects: map[api.Key]*api.WorkloadEndpoint{}, chained: newChained(), out: newEmitted[drivers.EndpointID](sameEndpoint),
	}
	es.floating = newFloating(es.mark)
	return es
}

func sameEndpoint(a, b *drivers.Endpoint) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Iface == b.Iface && a.MAC == b.MAC && a.Policy == b.Policy &&
		a.Generation == b.Generation && a.Degraded == b.Degraded && slices.Equal(a.Addrs, b.Addrs) &&
		slices.Equal(a.SourcePrefixes, b.SourcePrefixes) && slices.Equal(a.Floating, b.Floating) && slices.Equal(a.Profiles, b.Profiles)
}

// attached takes in a ledger entry, nil if it is gone.
func (es *endpoints) attached(id drivers.EndpointID, e *LedgerEntry) {
	old := es.ledger[id]
	if e == nil {
		if old != nil {
			es.detach(old)
		}
		return
	}
	entry := *e
	entry.Name.Kind = "WorkloadEndpoint"
	entry.Addrs = slices.Clone(e.Addrs)
	slices.SortFunc(entry.Addrs, netip.Addr.Compare)
	entry.Addrs = slices.Compact(entry.Addrs)
	if old != nil {
		if old.entry.Name == entry.Name && old.entry.UID == entry.UID && old.entry.Iface == entry.Iface && old.entry.MAC == entry.MAC && old.entry.Chained == entry.Chained &&
			old.entry.Closed == entry.Closed && slices.Equal(old.entry.Addrs, entry.Addrs) {
			return
		}
		es.detach(old)
	}
	a := &attachment{id: id, entry: entry}
	es.ledger[id] = a
	put(es.byName, entry.Name, a)
	es.lead(a)
	es.floating.own(entry.Addrs, 1)
	es.mark(a)
}

func (es *endpoints) detach(a *attachment) {
	es.part(a)
	delete(es.ledger, a.id)
	take(es.byName, a.entry.Name, a)
	es.leadNoMore(a)
	es.floating.own(a.entry.Addrs, -1)
	es.out.stage(a.id, nil)
}

// set takes in a WorkloadEndpoint of this node; nil if it is gone or of another one.
func (es *endpoints) set(key api.Key, o *api.WorkloadEndpoint) {
	if o == nil {
		delete(es.objects, key)
	} else {
		es.objects[key] = o
	}
	for a := range es.byName[key] {
		es.mark(a)
	}
}

func (es *endpoints) mark(a *attachment) {
	if !a.dirty {
		a.dirty = true
		es.dirty = append(es.dirty, a)
	}
}

// join finds the WorkloadEndpoint of each attachment that may have another one now.
func (es *endpoints) join() {
	for _, a := range es.dirty {
		if es.ledger[a.id] != a {
			continue
		}
		o := es.objects[a.entry.Name]
		id, there := es.things.find(a.entry.Name)
		switch {
		case a.entry.Closed != "":
			a.why, o = a.entry.Closed, nil
		case o == nil && there:
			a.why = "its WorkloadEndpoint is of another node"
		case o == nil:
			a.why = "it has no WorkloadEndpoint"
		case o.Spec.ContainerID != "" && o.Spec.ContainerID != a.id.Sandbox:
			a.why, o = "its WorkloadEndpoint is of another sandbox", nil
		case o.Spec.ContainerID == "" && string(o.UID) != a.entry.UID:
			// One that names no sandbox stands for a pod. The next pod may have its name, and must not lend its labels to the last one's sandbox.
			a.why, o = "its WorkloadEndpoint is of another pod", nil
		}
		if o == nil {
			es.part(a)
			continue
		}
		if a.local == nil || a.local.gone || a.local.id != id {
			es.part(a)
			a.local = es.locals.adopt(id, false)
			put(es.byLocal, a.local, a)
		}
		a.object, a.why = o, ""
		es.use(a, o.Spec.Profiles)
		wanted, _ := es.floating.wanted(a)
		es.floating.claim(a, wanted)
	}
}

// part leaves an attachment without a WorkloadEndpoint.
func (es *endpoints) part(a *attachment) {
	if a.local != nil {
		take(es.byLocal, a.local, a)
		es.locals.disown(a.local)
	}
	es.floating.claim(a, nil)
	a.local, a.object = nil, nil
	es.use(a, nil)
}

// use has the profiles of an attachment counted.
func (es *endpoints) use(a *attachment, names []string) {
	if slices.Equal(a.named, names) {
		return
	}
	for _, n := range names {
		es.policies.useProfile(n)
	}
	for _, n := range a.named {
		es.policies.unuseProfile(n)
	}
	a.named = slices.Clone(names)
}

// changed is told of an endpoint with other tier lists.
func (es *endpoints) changed(l *local) {
	for a := range es.byLocal[l] {
		es.mark(a)
	}
}

// configure takes in the settings of the node.
func (es *endpoints) configure(c Config) {
	if es.spoofing == c.SourceSpoofing && es.floating.enabled == c.FloatingIPs {
		return
	}
	es.spoofing, es.floating.enabled = c.SourceSpoofing, c.FloatingIPs
	for _, a := range es.ledger {
		if a.object != nil && len(a.object.Spec.AllowSpoofedSourcePrefixes)+len(a.object.Spec.IPNATs) > 0 {
			es.mark(a)
		}
	}
}

// problems are workloads that deny everything, and source prefixes and floating addresses that don't count.
func (es *endpoints) problems() []Problem {
	out := es.chained.twice()
	for _, a := range es.ledger {
		if a.why != "" {
			out = append(out, Problem{Key: a.entry.Name, Reason: "workload " + a.id.Sandbox + "/" + a.id.Interface + " denies everything: " + a.why})
		}
		if a.object != nil && len(a.object.Spec.AllowSpoofedSourcePrefixes) > 0 && !es.spoofing.allows(a.object) {
			out = append(out, Problem{Key: a.entry.Name, Field: "spec.allowSpoofedSourcePrefixes",
				Reason: "has no effect: workloadSourceSpoofing of the FelixConfiguration of node " + es.node + " is not Any"})
		}
		out = append(out, es.floating.problems(a, es.node)...)
	}
	return out
}

// report says which endpoints are different.
func (es *endpoints) report(u *drivers.Update) {
	for _, a := range es.dirty {
		a.dirty = false
		if es.ledger[a.id] == a {
			e := a.endpoint(es.spoofing)
			e.Floating = es.floating.given(a)
			es.out.stage(a.id, e)
		}
	}
	clear(es.dirty)
	es.dirty = es.dirty[:0]
	es.out.flush(u.Endpoints)
}

func (a *attachment) endpoint(spoofing SourceSpoofing) *drivers.Endpoint {
	e := &drivers.Endpoint{
		ID: a.id, Name: a.entry.Name.Namespace + "/" + a.entry.Name.Name, Iface: a.entry.Iface, MAC: a.entry.MAC,
		Addrs: a.entry.Addrs, Degraded: a.why,
	}
	if a.local == nil {
		return e // no policy, no profile: denied
	}
	e.Name = a.entry.Name.Namespace + "/" + WorkloadName(a.object)
	e.Policy, e.Profiles, e.Generation = a.local.policy, profileIDs(a.named), uint64(a.object.Generation)
	if !spoofing.allows(a.object) {
		return e
	}
	for _, t := range a.object.Spec.AllowSpoofedSourcePrefixes {
		if p, err := api.ParsePrefix(t); err == nil {
			e.SourcePrefixes = append(e.SourcePrefixes, p)
		}
	}
	e.SourcePrefixes = maximalPrefixes(e.SourcePrefixes)
	return e
}

// WorkloadName is what people call a workload: its pod's or its own name, not that of the resource, which also holds the
// node and the interface. Several workloads of a namespace may have it.
func WorkloadName(w *api.WorkloadEndpoint) string {
	return cmp.Or(w.Spec.Pod, w.Spec.Workload, w.Name)
}

// profileIDs names profiles, each once.
func profileIDs(names []string) []drivers.PolicyID {
	var out []drivers.PolicyID
	for _, n := range names {
		if id := profileID(n); !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

func put[K, V comparable](m map[K]map[V]struct{}, k K, v V) {
	if m[k] == nil {
		m[k] = map[V]struct{}{}
	}
	m[k][v] = struct{}{}
}

func take[K, V comparable](m map[K]map[V]struct{}, k K, v V) {
	delete(m[k], v)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}
