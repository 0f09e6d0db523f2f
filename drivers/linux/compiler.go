package linux

import (
	"errors"
	"maps"
	"net/netip"

	"github.com/tortie/tortie/drivers"
)

// compiler turns a State into a Program and keeps it up to date: what a Changes names is rendered anew, and what depends
// on that if it looks different to it now. Everything that is rendered is a unit; units refer to each other by need, and
// a unit that nobody needs any more goes, with its chains, sets and elements.
//
//	level 0  set       a model set, per family and flavour; what rules look at in one; constant sets of inline lists
//	      1  policy    a policy's rules of one direction, in one style: as a chain, or taken apart to be merged
//	      2  group     a run of a long tier's policies, merged where they do the same
//	      3  tier      a tier that has Pass rules
//	      4  list      a tier list, or a list of profiles
//	      5  iface     what an interface's endpoints need: sources, and its entries in the stages' maps
//	      6  base      the base chains and what there is one of
//
// Names are functions of content or identity, never of history, so that any path to a State gives one Program.
type compiler struct {
	st      *drivers.State
	prog    Program
	touched map[Key]struct{}

	units    map[string]*unit
	dirty    [levels]map[*unit]struct{}
	policies map[drivers.PolicyID]map[*unit]struct{}
	sets     map[drivers.SetID]*unit
	abouts   map[drivers.SetID]*unit
	users    map[drivers.SetID]map[Key]struct{} // merged sets with the members of a set in them
	exact    map[Key]map[drivers.SetID]*drivers.SetChange
	version  int // of the last analysis that differed
	limits   limits
	counting bool // rules count what they match
	ifaces   map[string]*iface
	where    map[drivers.EndpointID]string
	encaps   map[netip.Prefix]drivers.Encap
	tunnels  map[drivers.Encap]int
	maps     map[Key]elems // contents of the maps that units put elements in; base makes the objects
	lists    map[*drivers.TierList]string
	floating map[drivers.EndpointID][]drivers.Floating
	floaters map[netip.Addr]map[drivers.EndpointID]netip.Addr // by floating address: who has it, for which of its own
	base     *unit
	baseFace string

	poison    map[drivers.ObjectRef]error // what the kernel refused
	hold      map[drivers.ObjectRef]bool  // left out of a trial
	poisoned  bool                        // the last update had any
	badPolicy map[drivers.PolicyID]bool
	failed    map[drivers.ObjectRef]error // cannot be rendered
}

const (
	levelSet = iota
	levelPolicy
	levelGroup
	levelTier
	levelList
	levelIface
	levelBase
	levels
)

// unit is one rendered thing.
type unit struct {
	id      string
	level   int
	build   func(*unit)
	face    string // what those that need it look at: if it changes they are rendered anew
	val     any    // what they look at in full, where a face would be long
	deps    []*unit
	parents map[*unit]int // of those that others need
	keys    map[Key]struct{}
	entries map[Key]elems
	gone    func() // takes it out of an index
}

// iface is the endpoints that claim an interface.
type iface struct {
	unit      *unit
	endpoints map[drivers.EndpointID]*drivers.Endpoint
}

func newCompiler() *compiler {
	c := &compiler{
		prog:     Program{Chains: map[Key]*Chain{}, Sets: map[Key]*SetObject{}},
		touched:  map[Key]struct{}{},
		units:    map[string]*unit{},
		policies: map[drivers.PolicyID]map[*unit]struct{}{},
		sets:     map[drivers.SetID]*unit{},
		abouts:   map[drivers.SetID]*unit{},
		users:    map[drivers.SetID]map[Key]struct{}{},
		limits:   defaultLimits(),
		ifaces:   map[string]*iface{},
		where:    map[drivers.EndpointID]string{},
		encaps:   map[netip.Prefix]drivers.Encap{},
		tunnels:  map[drivers.Encap]int{},
		maps:     map[Key]elems{},
		lists:    map[*drivers.TierList]string{},
		floating: map[drivers.EndpointID][]drivers.Floating{},
		floaters: map[netip.Addr]map[drivers.EndpointID]netip.Addr{},
		poison:   map[drivers.ObjectRef]error{},
		failed:   map[drivers.ObjectRef]error{},
	}
	for i := range c.dirty {
		c.dirty[i] = map[*unit]struct{}{}
	}
	return c
}

// Render gives the whole program of a State.
func Render(s *drivers.State) Program {
	c := newCompiler()
	c.update(s, nil)
	return c.prog
}

// update renders what ch names, or, if it is nil, all of s that is not as it was rendered.
func (c *compiler) update(s *drivers.State, ch *drivers.Changes) {
	c.st = s
	if ch == nil {
		ch = c.everything(s)
	}
	pending := c.touched
	if len(pending) > 0 {
		pending = maps.Clone(pending)
	}
	for id := range ch.Sets {
		c.markSet(id)
	}
	for id := range ch.Policies {
		for u := range c.policies[id] {
			c.mark(u)
		}
	}
	for id := range ch.Endpoints {
		e := s.Endpoints[id]
		c.endpoint(id, e)
		if e == nil {
			c.floats(id, nil)
		} else {
			c.floats(id, e.Floating)
		}
	}
	for dst := range ch.Routes {
		c.route(dst, s.Routes[dst])
	}
	if c.base == nil {
		c.base = &unit{id: "base", level: levelBase, build: c.buildBase}
		ch.Node = true
	}
	if ch.Node {
		for _, u := range c.units {
			if u.level >= levelList {
				c.mark(u)
			}
		}
	}
	if ch.Node || ch.Masquerade || len(ch.Peers) > 0 {
		c.mark(c.base)
	}
	c.markPoisoned()
	c.work()
	c.members(ch, pending)
	c.st = nil
}

func (c *compiler) markSet(id drivers.SetID) {
	for _, u := range []*unit{c.sets[id], c.abouts[id]} {
		if u != nil {
			c.mark(u)
		}
	}
}

// everything names every key of s, and every key that was rendered and is not in s any more.
func (c *compiler) everything(s *drivers.State) *drivers.Changes {
	ch := drivers.NewChanges()
	ch.Node, ch.Masquerade = true, true
	for id := range c.sets {
		ch.Sets[id] = &drivers.SetChange{Full: true}
	}
	for id := range c.abouts {
		ch.Sets[id] = &drivers.SetChange{Full: true}
	}
	for id := range c.policies {
		ch.Policies[id] = struct{}{}
	}
	for id := range c.where {
		ch.Endpoints[id] = struct{}{}
	}
	for id := range s.Endpoints {
		ch.Endpoints[id] = struct{}{}
	}
	for dst := range c.encaps {
		ch.Routes[dst] = struct{}{}
	}
	for dst := range s.Routes {
		ch.Routes[dst] = struct{}{}
	}
	return ch
}

// endpoint takes a new value of an endpoint, nil if it is gone.
func (c *compiler) endpoint(id drivers.EndpointID, e *drivers.Endpoint) {
	if was, ok := c.where[id]; ok && (e == nil || e.Iface != was) {
		i := c.ifaces[was]
		delete(i.endpoints, id)
		delete(c.where, id)
		c.mark(i.unit)
	}
	if e == nil {
		return
	}
	i := c.ifaces[e.Iface]
	if i == nil {
		i = &iface{endpoints: map[drivers.EndpointID]*drivers.Endpoint{}}
		i.unit = &unit{id: "iface " + e.Iface, level: levelIface}
		i.unit.build = func(u *unit) { c.buildIface(u, e.Iface) }
		c.ifaces[e.Iface], c.units[i.unit.id] = i, i.unit
	}
	i.endpoints[id], c.where[id] = e, e.Iface
	c.mark(i.unit)
}

// route counts the encapsulations that routes name: the tunnels that the node has.
func (c *compiler) route(dst netip.Prefix, r *drivers.Route) {
	had := maps.Clone(c.tunnels)
	if e, ok := c.encaps[dst]; ok {
		c.tunnels[e]--
		delete(c.encaps, dst)
	}
	if r != nil && r.Encap != drivers.EncapNone {
		c.tunnels[r.Encap]++
		c.encaps[dst] = r.Encap
	}
	for e := range c.tunnels {
		if (had[e] > 0) != (c.tunnels[e] > 0) && c.base != nil {
			c.mark(c.base)
		}
	}
}

func (c *compiler) mark(u *unit) { c.dirty[u.level][u] = struct{}{} }

// work renders what is marked, lower levels first: a unit's face can only mark higher ones. Before all, interfaces say what
// they need now, so that nothing is rendered for a list that goes: where its policies go with it, it would deny meanwhile,
// and give back what other lists need again at once. What a new list finds that is not up to date marks it later.
func (c *compiler) work() {
	for u := range c.dirty[levelIface] {
		delete(c.dirty[levelIface], u)
		c.rebuild(u)
	}
	for level := range c.dirty {
		for len(c.dirty[level]) > 0 {
			for u := range c.dirty[level] {
				delete(c.dirty[level], u)
				if u == c.base || c.units[u.id] == u {
					c.rebuild(u)
				}
			}
		}
		if level == levelIface {
			if f := c.flags(); f != c.baseFace {
				c.baseFace = f
				c.mark(c.base)
			}
		}
	}
}

// rebuild renders u anew. What it needs now is taken before what it needed is given back, so that nothing that stays
// goes in between.
func (c *compiler) rebuild(u *unit) {
	deps, keys, entries, face := u.deps, u.keys, u.entries, u.face
	u.deps, u.keys, u.entries = nil, map[Key]struct{}{}, nil
	u.build(u)
	for m, es := range entries {
		for k, e := range es {
			if u.entries[m][k] != e {
				c.drop(m, k)
			}
		}
	}
	for m, es := range u.entries {
		for _, e := range es {
			c.put(m, e)
		}
	}
	for k := range keys {
		if _, stays := u.keys[k]; !stays {
			c.remove(k)
		}
	}
	for _, d := range deps {
		c.release(u, d)
	}
	if u.face != face {
		for p := range u.parents {
			c.mark(p)
		}
	}
	if u.level == levelIface && len(c.ifaces[u.id[len("iface "):]].endpoints) == 0 {
		delete(c.ifaces, u.id[len("iface "):])
		delete(c.units, u.id)
	}
}

// need makes parent depend on the unit of this id, which is rendered now if it is new.
func (c *compiler) need(parent *unit, id string, level int, build func(*unit)) *unit {
	u := c.units[id]
	if u == nil {
		u = &unit{id: id, level: level, build: build, parents: map[*unit]int{}}
		c.units[id] = u
		c.rebuild(u)
	} else if _, stale := c.dirty[u.level][u]; stale {
		delete(c.dirty[u.level], u)
		c.rebuild(u)
	}
	u.parents[parent]++
	parent.deps = append(parent.deps, u)
	return u
}

func (c *compiler) release(parent, u *unit) {
	if u.parents[parent]--; u.parents[parent] > 0 {
		return
	}
	delete(u.parents, parent)
	if len(u.parents) > 0 {
		return
	}
	delete(c.units, u.id)
	delete(c.dirty[u.level], u)
	if u.gone != nil {
		u.gone()
	}
	for k := range u.keys {
		c.remove(k)
	}
	for _, d := range u.deps {
		c.release(u, d)
	}
}

// chain puts a chain of u into the program.
func (c *compiler) chain(u *unit, ch *Chain) {
	u.keys[ch.Key] = struct{}{}
	if old := c.prog.Chains[ch.Key]; old == nil || !old.equal(ch) {
		c.prog.Chains[ch.Key] = ch
		c.touched[ch.Key] = struct{}{}
	}
}

// set puts a set of u into the program.
func (c *compiler) set(u *unit, s *SetObject) {
	u.keys[s.Key] = struct{}{}
	c.indexMerged(s.Key, c.prog.Sets[s.Key], s)
	c.prog.Sets[s.Key] = s
	c.touched[s.Key] = struct{}{}
}

func (c *compiler) remove(k Key) {
	c.indexMerged(k, c.prog.Sets[k], nil)
	delete(c.prog.Chains, k)
	delete(c.prog.Sets, k)
	c.touched[k] = struct{}{}
}

// entry says that u wants an element in a shared map.
func (u *unit) entry(m Key, e Elem) {
	if u.entries == nil {
		u.entries = map[Key]elems{}
	}
	if u.entries[m] == nil {
		u.entries[m] = elems{}
	}
	u.entries[m].put(e)
}

func (c *compiler) put(m Key, e Elem) {
	if c.maps[m] == nil {
		c.maps[m] = elems{}
	}
	if c.maps[m][e.Key] != e {
		c.maps[m].put(e)
		c.touched[m] = struct{}{}
	}
}

func (c *compiler) drop(m Key, key string) {
	delete(c.maps[m], key)
	c.touched[m] = struct{}{}
}

// setPoison puts what needs exactly these objects on deny stand-ins; the next update renders it.
func (c *compiler) setPoison(p map[drivers.ObjectRef]error) { c.poison = p }

// setHold leaves exactly these objects out of what the next update renders, each by itself: a trial finds out which of
// them the kernel refuses. It is not for real: what needs them looks as if they were there.
func (c *compiler) setHold(hold map[drivers.ObjectRef]bool) {
	old := c.hold
	c.hold = hold
	for _, m := range []map[drivers.ObjectRef]bool{old, hold} {
		for o := range m {
			if old[o] == hold[o] {
				continue
			}
			switch o.Kind {
			case drivers.ObjPolicy:
				for u := range c.policies[o.Policy] {
					c.mark(u)
				}
			case drivers.ObjSet:
				c.markSet(o.Set)
			case drivers.ObjEndpoint:
				if i := c.ifaces[c.where[o.Endpoint]]; i != nil {
					c.mark(i.unit)
				}
			}
		}
	}
}

// markPoisoned marks every interface while anything is refused, and once more when nothing is any longer: which endpoints
// need a refused object may change with any policy.
func (c *compiler) markPoisoned() {
	if len(c.poison) == 0 && !c.poisoned {
		return
	}
	c.poisoned = len(c.poison) > 0
	c.badPolicy = map[drivers.PolicyID]bool{}
	for _, i := range c.ifaces {
		c.mark(i.unit)
	}
	c.mark(c.base)
}

// effective is e, or its deny stand-in if it needs an object that the kernel refused.
func (c *compiler) effective(e *drivers.Endpoint) *drivers.Endpoint {
	if e == nil || len(c.poison) == 0 {
		return e
	}
	bad := c.poison[refOf(e)] != nil
	for id := range e.PolicyIDs {
		if bad {
			break
		}
		bad = c.isBad(id)
	}
	if bad {
		return e.StandIn("an object that it needs was refused")
	}
	return e
}

// isBad reports whether a policy, or a set that it names, was refused.
func (c *compiler) isBad(id drivers.PolicyID) bool {
	bad, known := c.badPolicy[id]
	if known {
		return bad
	}
	bad = c.poison[drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id}] != nil
	if p := c.st.Policies[id]; p != nil {
		for set := range p.SetIDs {
			bad = bad || c.poison[drivers.ObjectRef{Kind: drivers.ObjSet, Set: set}] != nil
		}
	}
	c.badPolicy[id] = bad
	return bad
}

var errIfName = errors.New("an interface's name has 1 to 15 bytes")
