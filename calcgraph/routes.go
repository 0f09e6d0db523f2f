package calcgraph

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// remoteAddr is an address of a workload of another node.
type remoteAddr struct {
	hi, lo uint64
	node   uint32 // number of its name
	thing  uint32
}

func compareRemote(a, b remoteAddr) int {
	return cmp.Or(cmpMember(member{a.hi, a.lo, 0}, member{b.hi, b.lo, 0}), cmp.Compare(a.node, b.node), cmp.Compare(a.thing, b.thing))
}

// routes decides where this node's packets to workloads go. A destination's route is made anew when one of the things
// that it depends on has changed.
type routes struct {
	self    string
	ranges  bool // those of nodes count as blocks
	nodes   map[string]*node
	pools   pools
	blocks  *blocks
	names   *names // of nodes, for remote
	remote  sorted[remoteAddr]
	foreign map[uint32][]netip.Addr // of things: in a pool, and somebody else's to route
	local   map[netip.Addr]map[*attachment]struct{}
	learned map[netip.Prefix]*drivers.Route

	// Which destinations depend on which node: single addresses that it borrowed, and routes that BGP has learned of it.
	borrowed  map[netip.Prefix]string
	borrowers map[string]map[netip.Prefix]struct{}
	learnedOf map[string]map[netip.Prefix]struct{}

	dirty        map[netip.Prefix]struct{}
	all          bool // every route is dirty
	poolsChanged bool
	out          emitted[netip.Prefix, drivers.Route]
	peers        emitted[string, drivers.Peer]
}

func newRoutes(self string, n *names) *routes {
	return &routes{
		self: self, nodes: map[string]*node{}, pools: pools{}, blocks: newBlocks(), names: n,
		remote: sorted[remoteAddr]{cmp: compareRemote}, foreign: map[uint32][]netip.Addr{}, local: map[netip.Addr]map[*attachment]struct{}{},
		learned: map[netip.Prefix]*drivers.Route{}, borrowed: map[netip.Prefix]string{},
		borrowers: map[string]map[netip.Prefix]struct{}{}, learnedOf: map[string]map[netip.Prefix]struct{}{},
		dirty: map[netip.Prefix]struct{}{},
		out:   newEmitted[netip.Prefix](func(a, b *drivers.Route) bool { return *a == *b }), peers: newEmitted[string](samePeer),
	}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func (r *routes) mark(p netip.Prefix) { r.dirty[p] = struct{}{} }

func (r *routes) addLocal(addr netip.Addr, a *attachment) {
	put(r.local, addr, a)
	r.mark(single(addr))
}

func (r *routes) removeLocal(addr netip.Addr, a *attachment) {
	take(r.local, addr, a)
	r.mark(single(addr))
}

// addRemote and removeRemote take in the addresses of a workload of another node.
func (r *routes) addRemote(thing, node uint32, nets []member) {
	for _, m := range nets {
		if !m.wide() {
			r.remote.insert(remoteAddr{m.hi, m.lo, node, thing})
			r.markRemote(m)
		}
	}
}

func (r *routes) removeRemote(thing, node uint32, nets []member) {
	for _, m := range nets {
		if !m.wide() {
			r.remote.remove(remoteAddr{m.hi, m.lo, node, thing})
			r.markRemote(m)
		}
	}
}

// setForeign takes in which addresses of a workload its pool did not give.
func (r *routes) setForeign(thing uint32, texts []string) {
	var now []netip.Addr
	for _, t := range texts {
		if p, err := api.ParsePrefix(t); err == nil {
			now = append(now, p.Addr())
		}
	}
	old := r.foreign[thing]
	if slices.Equal(old, now) {
		return
	}
	if r.foreign[thing] = now; len(now) == 0 {
		delete(r.foreign, thing)
	}
	for _, a := range slices.Concat(old, now) {
		r.mark(single(a))
	}
}

// markRemote marks an address if it has a route or may need one. Most need none: they are in a block of their node.
func (r *routes) markRemote(m member) {
	if len(r.pools) == 0 && len(r.blocks.byKey) == 0 && len(r.out.now) == 0 {
		return // and when the first pool or block comes, it marks them all
	}
	p := single(m.addr())
	if r.out.now[p] != nil || r.borrowed[p] != "" || r.borrower(p.Addr()) != "" {
		r.mark(p)
	}
}

// borrower returns the node of a remote workload that has address a without it being in a block of that node, or "". Of
// several the first by name counts. An address outside every pool and block is somebody else's to route, and so is one
// outside every block that no pool gave.
func (r *routes) borrower(a netip.Addr) string {
	block := r.blocks.of(a)
	if p := r.pools.of(a); block == nil && (p == nil || p.others) {
		return ""
	}
	m := addrMember(a)
	first := ""
	for ra := range r.remote.from(remoteAddr{hi: m.hi, lo: m.lo}) {
		if ra.hi != m.hi || ra.lo != m.lo {
			break
		}
		if block == nil && slices.Contains(r.foreign[ra.thing], a) {
			continue
		}
		if n := r.names.name(ra.node); first == "" || n < first {
			first = n
		}
	}
	if block != nil && block.node == first {
		return ""
	}
	return first
}

// markWithin marks the remote addresses in p.
func (r *routes) markWithin(p netip.Prefix) {
	m := prefixMember(p)
	for ra := range r.remote.from(remoteAddr{hi: m.hi, lo: m.lo}) {
		if !m.contains(member{ra.hi, ra.lo, fullLen}) {
			break
		}
		r.mark(single(member{ra.hi, ra.lo, fullLen}.addr()))
	}
}

func (r *routes) setPool(key api.Key, o *api.IPPool) []Problem {
	probs := problems{key: key}
	var p *pool
	if o != nil {
		p = readPool(o, &probs)
	}
	old := r.pools[key.Name]
	if p == nil {
		delete(r.pools, key.Name)
	} else {
		r.pools[key.Name] = p
	}
	if (old == nil) != (p == nil) || old != nil && *old != *p {
		r.all, r.poolsChanged = true, true
	}
	return probs.list
}

func (r *routes) setBlock(key api.Key, o *api.BlockAffinity) []Problem {
	probs := problems{key: key}
	var b *block
	if o != nil {
		b = readBlock(key, o, &probs)
	}
	r.replaceBlock(key, b)
	return probs.list
}

// replaceBlock has b, nil for none, in the place of what key was.
func (r *routes) replaceBlock(key api.Key, b *block) {
	old := r.blocks.byKey[key]
	if old != nil && b != nil && *old == *b {
		return
	}
	if old != nil {
		r.blocks.remove(old)
		r.mark(old.prefix)
		r.markWithin(old.prefix)
	}
	if b != nil {
		r.blocks.add(b)
		r.mark(b.prefix)
		r.markWithin(b.prefix)
	}
}

// setRanges takes in the ranges of a node.
func (r *routes) setRanges(key api.Key, o *api.Node, probs *problems) {
	if !r.ranges {
		return
	}
	keyOf := func(p netip.Prefix) api.Key { return api.Key{Kind: key.Kind, Name: key.Name, Namespace: p.String()} }
	now := map[api.Key]netip.Prefix{}
	if o != nil {
		for i, text := range o.Status.PodCIDRs {
			p, err := api.ParsePrefix(text)
			if err != nil {
				probs.add(fmt.Sprintf("status.podCIDRs[%d]", i), "the range is ignored: %v", err)
				continue
			}
			now[keyOf(p)] = p
		}
	}
	for b := range maps.Clone(r.blocks.byNode[key.Name]) {
		if _, still := now[b.key]; b.key.Kind == key.Kind && !still {
			r.replaceBlock(b.key, nil)
		}
	}
	for k, p := range now {
		r.replaceBlock(k, &block{key: k, prefix: p, node: key.Name})
	}
}

func (r *routes) setNode(key api.Key, o *api.Node) []Problem {
	probs := problems{key: key}
	var n *node
	if o != nil {
		n = readNode(o, &probs)
	}
	r.setRanges(key, o, &probs)
	old := r.nodes[key.Name]
	if n == nil {
		delete(r.nodes, key.Name)
	} else {
		r.nodes[key.Name] = n
	}
	if key.Name == r.self {
		r.all = r.all || (old == nil) != (n == nil) || old != nil && (old.addrs != n.addrs || old.nets != n.nets)
		return probs.list
	}
	if n == nil {
		r.peers.stage(key.Name, nil)
	} else {
		r.peers.stage(key.Name, n.peer)
	}
	if old != nil && n != nil && old.addrs == n.addrs {
		return probs.list
	}
	for b := range r.blocks.byNode[key.Name] {
		r.mark(b.prefix)
	}
	for p := range r.borrowers[key.Name] {
		r.mark(p)
	}
	for p := range r.learnedOf[key.Name] {
		r.mark(p)
	}
	return probs.list
}

// learn takes in a route that BGP has learned, nil if it is gone.
func (r *routes) learn(dst netip.Prefix, rt *drivers.Route) {
	dst = dst.Masked()
	r.mark(dst)
	if old := r.learned[dst]; old != nil {
		delete(r.learned, dst)
		take(r.learnedOf, old.Peer, dst)
	}
	if rt == nil {
		return
	}
	c := *rt
	c.Dst, c.Learned = dst, true
	r.learned[dst] = &c
	put(r.learnedOf, c.Peer, dst)
}

// flush makes the dirty routes, and reports what is different.
func (r *routes) flush(u *drivers.Update) {
	if r.all {
		r.all = false
		r.markAll()
	}
	for dst := range r.dirty {
		r.out.stage(dst, r.route(dst))
	}
	clear(r.dirty)
	r.out.flush(u.Routes)
	r.peers.flush(u.Peers)
}

func (r *routes) markAll() {
	for p := range r.out.now {
		r.mark(p)
	}
	for p := range r.blocks.byPrefix {
		r.mark(p)
		r.markWithin(p)
	}
	for p := range r.learned {
		r.mark(p)
	}
	for p := range r.borrowed {
		r.mark(p)
	}
	for _, p := range r.pools {
		r.markBorrowed(p.prefix)
	}
}

// markBorrowed marks the remote addresses in p that are not in a block of their node.
func (r *routes) markBorrowed(p netip.Prefix) {
	m := prefixMember(p)
	for ra := range r.remote.from(remoteAddr{hi: m.hi, lo: m.lo}) {
		in := member{ra.hi, ra.lo, fullLen}
		if !m.contains(in) {
			break
		}
		if b := r.blocks.of(in.addr()); b == nil || b.node != r.names.name(ra.node) {
			r.mark(single(in.addr()))
		}
	}
}

// route returns the route to dst, nil for none. A workload of this node comes first; then the node that borrowed the
// address or owns the block. What BGP has learned wins over a route that needs no tunnel: it knows the way, which here is
// only assumed.
func (r *routes) route(dst netip.Prefix) *drivers.Route {
	local := dst.IsSingleIP() && len(r.local[dst.Addr()]) > 0
	owner := ""
	if dst.IsSingleIP() && !local {
		owner = r.borrower(dst.Addr())
	}
	r.noteBorrower(dst, owner)
	if local {
		return r.localRoute(dst)
	}
	if b := r.blocks.at(dst); b != nil && owner == "" {
		owner = b.node
	}
	learned := r.learned[dst]
	if owner == r.self {
		if dst.IsSingleIP() {
			return r.learnedRoute(learned)
		}
		return &drivers.Route{Dst: dst, Kind: drivers.RouteBlackhole}
	}
	rt := r.remoteRoute(dst, owner)
	if learned != nil && (rt == nil || rt.Encap == drivers.EncapNone) {
		return r.learnedRoute(learned)
	}
	return rt
}

// noteBorrower keeps borrowed and borrowers: node is "" for none.
func (r *routes) noteBorrower(dst netip.Prefix, node string) {
	old := r.borrowed[dst]
	if old == node {
		return
	}
	if old != "" {
		delete(r.borrowed, dst)
		take(r.borrowers, old, dst)
	}
	if node != "" {
		r.borrowed[dst] = node
		put(r.borrowers, node, dst)
	}
}

// localRoute gives an address that several claim to the first by id.
func (r *routes) localRoute(dst netip.Prefix) *drivers.Route {
	var first *attachment
	for a := range r.local[dst.Addr()] {
		if first == nil || a.id.Compare(first.id) < 0 {
			first = a
		}
	}
	return &drivers.Route{Dst: dst, Kind: drivers.RouteLocal, Iface: first.entry.Iface}
}

// learnedRoute names only peers that there are.
func (r *routes) learnedRoute(rt *drivers.Route) *drivers.Route {
	if rt == nil || rt.Peer == "" || r.nodes[rt.Peer] != nil && rt.Peer != r.self {
		return rt
	}
	c := *rt
	c.Peer = ""
	return &c
}

// remoteRoute leads to another node: through a tunnel if the pool says so, else directly if that node is on the same
// network. It is nil if the node or its address is not known, or if only a router between the two can know the way.
func (r *routes) remoteRoute(dst netip.Prefix, owner string) *drivers.Route {
	n := r.nodes[owner]
	if n == nil || !n.addrs[family(dst.Addr())].IsValid() {
		return nil
	}
	rt := &drivers.Route{Dst: dst, Kind: drivers.RouteRemote, NextHop: n.addrs[family(dst.Addr())], Peer: owner}
	same, sure := r.nodes[r.self].sameNetwork(rt.NextHop)
	if p := r.pools.of(dst.Addr()); p != nil && !(p.crossSubnet && same) {
		rt.Encap = p.encap
	}
	if rt.Encap == drivers.EncapNone && sure && !same {
		return nil
	}
	return rt
}

// problems reports blocks that no route leads to, those that two nodes claim, and addresses that two workloads have.
func (r *routes) problems() []Problem {
	var out []Problem
	for addr, as := range r.local {
		if len(as) == 1 {
			continue
		}
		iface := r.localRoute(single(addr)).Iface
		for a := range as {
			if a.entry.Iface != iface {
				out = append(out, Problem{Key: a.entry.Name, Reason: "another workload has address " + addr.String() + " too; the route leads to " + iface})
			}
		}
	}
	for prefix, same := range r.blocks.byPrefix {
		for _, b := range same[1:] {
			if b.node != same[0].node {
				out = append(out, Problem{Key: b.key, Field: "spec.node", Reason: "node " + same[0].node + " has the same block, and comes first"})
			}
		}
		b := same[0]
		if b.node == r.self {
			continue
		}
		n := r.nodes[b.node]
		switch {
		case n == nil:
			out = append(out, Problem{Key: b.key, Field: "spec.node", Reason: "there is no Node " + b.node + "; no route leads to the block"})
		case !n.addrs[family(prefix.Addr())].IsValid():
			out = append(out, Problem{Key: b.key, Field: "spec.node", Reason: "node " + b.node + " has no address of the block's family; no route leads to the block"})
		}
	}
	return out
}
