package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// draft is what the next write will change.
type draft struct {
	a      *Allocator
	rules  *rules
	labels map[string]string // of the node
	now    time.Time
	edited map[netip.Prefix]*block
	before map[netip.Prefix]string // versions of those
	// borrowed counts, by handle and block, the addresses outside of the node's blocks that come and go.
	borrowed map[string]map[netip.Prefix]int
	ops      []datastore.Op // what jobs want to be written, too
	assigns  []*assign      // that it is for
}

func (a *Allocator) newDraft(r *rules, labels map[string]string) *draft {
	return &draft{a: a, rules: r, labels: labels, now: a.now(), edited: map[netip.Prefix]*block{},
		before: map[netip.Prefix]string{}, borrowed: map[string]map[netip.Prefix]int{}}
}

// block is how a block would be after the write; nil if this node does not know it.
func (d *draft) block(p netip.Prefix) *block {
	if b := d.edited[p]; b != nil {
		return b
	}
	if k := d.a.blocks[p]; k != nil && !k.stale {
		return k.block
	}
	return nil
}

// edit is block, to be changed.
func (d *draft) edit(p netip.Prefix) *block {
	if b := d.edited[p]; b != nil {
		return b
	}
	k := d.a.blocks[p]
	b := k.edit()
	b.thaw(d.now, d.rules.cooldown)
	if k.affinity != nil && b.obj.Spec.Affinity == "" {
		b.setAffinity(d.a.affinity, d.now)
	}
	d.edited[p], d.before[p] = b, k.version()
	return b
}

// moved says whether a block has changed in the store, as far as is known by now, since it was edited.
func (d *draft) moved() bool {
	for p, version := range d.before {
		if k := d.a.blocks[p]; k == nil || k.version() != version {
			return true
		}
	}
	return false
}

// prefixes are the blocks that are known, in an order that does not change.
func (a *Allocator) prefixes() []netip.Prefix {
	return slices.SortedFunc(maps.Keys(a.blocks), comparePrefixes)
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// place is an address in a block.
type place struct {
	block   netip.Prefix
	ordinal int
	seen    *block // in which it was found
}

func (p place) addr() netip.Addr { return nth(p.block, p.ordinal) }

// held is where a handle has addresses, as far as this node knows.
func (d *draft) held(handle string) []place {
	var out []place
	for _, p := range d.a.prefixes() {
		if b := d.block(p); b != nil {
			for _, i := range b.heldBy(handle) {
				out = append(out, place{p, i, b})
			}
		}
	}
	return out
}

func (d *draft) describe(p place) Held {
	return Held{Addr: p.addr(), Block: p.block, Pool: d.rules.poolName(p.block), Token: d.block(p.block).token(p.ordinal)}
}

// take gives the address at p to a handle, or again to it.
func (d *draft) take(p place, handle string, owner api.Owner) {
	b := d.edit(p.block)
	if h, ok := b.handle(p.ordinal); ok && h == handle {
		b.renew(p.ordinal, owner)
		return
	}
	b.take(p.ordinal, handle, owner)
	if d.a.blocks[p.block].affinity == nil {
		d.count(handle, p.block, 1)
	}
}

// give takes the address at p back.
func (d *draft) give(p place) {
	b := d.edit(p.block)
	handle, _ := b.handle(p.ordinal)
	if b.obj.Spec.Affinity != "host:"+b.owner(p.ordinal).Node {
		d.count(handle, p.block, -1)
	}
	b.give(p.ordinal, d.now, d.rules.cooldown)
}

func (d *draft) count(handle string, block netip.Prefix, n int) {
	if d.borrowed[handle] == nil {
		d.borrowed[handle] = map[netip.Prefix]int{}
	}
	d.borrowed[handle][block] += n
}

// wrote lets those who get something of a block know that it has been written, should the rest of the draft not be.
func (d *draft) wrote(block netip.Prefix) {
	for _, j := range d.assigns {
		for _, h := range j.result.Addrs {
			if h.Block == block {
				j.wrote = append(j.wrote, h)
			}
		}
	}
}

// assign is a request for addresses.
type assign struct {
	req    *Request
	result Result
	ops    []datastore.Op

	wrote  []Held // by earlier tries, where objects are written one by one
	failed error  // why it comes to nothing, while that part is taken back
}

func (j *assign) labels() bool          { return true }
func (j *assign) extra() []datastore.Op { return j.ops }
func (j *assign) outcome() error        { return j.failed }

func (j *assign) plan(ctx context.Context, d *draft) error {
	if len(j.req.Addrs) == 0 && d.rules.none != nil {
		return d.rules.blind()
	}
	places, err := j.places(ctx, d)
	if err == nil && d.rules.none != nil { // but that an address is taken is known all the same
		err = d.rules.blind()
	}
	if err != nil {
		return j.undo(d, err)
	}
	for _, p := range places {
		if d.block(p.block) != p.seen { // it was read again, or went away, while we looked for the others
			return errAgain
		}
	}
	j.result = Result{}
	for _, p := range places {
		d.take(p, j.req.Handle, j.req.Owner)
		j.result.Addrs = append(j.result.Addrs, d.describe(p))
	}
	d.assigns = append(d.assigns, j)
	j.ops = nil
	if j.req.Ops != nil {
		j.ops = j.req.Ops(j.result)
	}
	return nil
}

// undo takes back what an earlier try has written, where objects are written one by one: all or nothing. What the same
// handle has of somebody else's doing has other tokens.
func (j *assign) undo(d *draft, err error) error {
	part := slices.DeleteFunc(d.held(j.req.Handle), func(p place) bool { return !slices.Contains(j.wrote, d.describe(p)) })
	if len(part) == 0 || errors.Is(err, errAgain) {
		return err
	}
	j.failed, j.ops = err, nil
	for _, p := range part {
		d.give(p)
	}
	return nil
}

// places finds the addresses before any of them is taken.
func (j *assign) places(ctx context.Context, d *draft) ([]place, error) {
	had := d.held(j.req.Handle)
	if len(j.req.Addrs) > 0 {
		return j.fixed(ctx, d, had)
	}
	var out []place
	for _, f := range []family{4, 6} {
		if f == 4 && !j.req.V4 || f == 6 && !j.req.V6 {
			continue
		}
		if i := slices.IndexFunc(had, func(p place) bool { return familyOf(p.block.Addr()) == f }); i >= 0 {
			out = append(out, had[i])
			continue
		}
		p, err := d.room(ctx, j.req, f)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func (j *assign) fixed(ctx context.Context, d *draft, had []place) ([]place, error) {
	var out []place
	for _, a := range j.req.Addrs {
		if i := slices.IndexFunc(had, func(p place) bool { return p.addr() == a }); i >= 0 {
			out = append(out, had[i])
			continue
		}
		p, err := d.exactly(ctx, j.req, a)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// room finds an address of a family: in a block of this node, else in a new one, else in one of another node.
func (d *draft) room(ctx context.Context, req *Request, f family) (place, error) {
	pools, err := d.rules.choose(req, f, d.a.node, d.labels)
	if err != nil {
		return place{}, err
	}
	if p, ok := d.pick(pools); ok {
		return p, nil
	}
	var why []string
	switch own := d.a.owned(f); {
	case !d.rules.auto:
		why = append(why, "autoAllocateBlocks is off")
	case own >= d.rules.maxBlocks:
		why = append(why, fmt.Sprintf("the node has %d blocks, maxBlocksPerHost", own))
	default:
		if err := d.a.claim(ctx, d, pools); err != nil && !errors.Is(err, ErrFull) {
			return place{}, err
		}
		if p, ok := d.pick(pools); ok {
			return p, nil
		}
		why = append(why, "no block is free")
	}
	if d.rules.strict {
		why = append(why, "strictAffinity forbids to borrow of other nodes")
	} else {
		if p, ok, err := d.a.borrow(ctx, d, pools); ok || err != nil {
			return p, err
		}
		why = append(why, "no other node's block has one")
	}
	// A survey may have brought to light what is ours.
	if p, ok := d.pick(pools); ok {
		return p, nil
	}
	return place{}, fmt.Errorf("%w for node %s in %s (%s): add a pool, or release what nobody uses (tortie ipam check)",
		ErrFull, d.a.node, names(pools), strings.Join(why, "; "))
}

// pick finds a free address in the blocks of this node, in pools' order.
func (d *draft) pick(pools []*pool) (place, bool) {
	all := d.a.prefixes()
	for _, pool := range pools {
		for _, p := range all {
			if !contains(pool.prefix, p) || d.a.blocks[p].affinity == nil {
				continue
			}
			if b := d.block(p); b != nil {
				if i, ok := b.next(d.rules.isReserved, d.now, d.rules.cooldown); ok {
					return place{p, i, b}, true
				}
			}
		}
	}
	return place{}, false
}

// release is a request to take addresses back: those of a handle, or given ones.
type release struct {
	handle     string
	addrs      []netip.Addr // whoever has them
	held       []Held
	byToken    bool // only held
	everywhere bool
	ops        []datastore.Op
	coming     *Coming // how it was announced; nil = it was not

	looked   bool // the store has been asked where they are
	released []netip.Addr
}

func (j *release) labels() bool          { return false }
func (j *release) extra() []datastore.Op { return j.ops }
func (j *release) outcome() error        { return nil }

func (j *release) plan(ctx context.Context, d *draft) error {
	found := j.find(d)
	if !j.looked && len(found) < max(1, len(j.held), len(j.addrs)) {
		j.looked = true
		if err := d.a.look(ctx, j); err != nil {
			return err
		}
		found = j.find(d)
	}
	j.released = nil
	for _, p := range found {
		d.give(p)
		j.released = append(j.released, p.addr())
	}
	return nil
}

func (j *release) find(d *draft) []place {
	if j.addrs == nil {
		found := d.held(j.handle)
		if j.byToken {
			found = slices.DeleteFunc(found, func(p place) bool {
				h := d.describe(p)
				return !slices.ContainsFunc(j.held, func(want Held) bool { return want.Addr == h.Addr && want.Token == h.Token })
			})
		}
		return found
	}
	var found []place
	for _, a := range j.addrs {
		for _, p := range d.a.prefixes() {
			if b := d.block(p); b != nil && p.Contains(a) {
				if _, ok := b.handle(ordinal(p, a)); ok {
					found = append(found, place{p, ordinal(p, a), b})
				}
			}
		}
	}
	return found
}
