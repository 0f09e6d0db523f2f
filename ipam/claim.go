package ipam

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A block comes to a node in steps, of which each can be the last before a crash:
//
//	1. BlockAffinity, pending    everybody sees that the range is wanted
//	2. IPAMBlock without affinity    (with 1, if the store can do both at once)
//	3. all affinities are read: if another range overlaps, both 2 and 1 are taken back. Of two nodes that want
//	   overlapping ranges at the same time, at least the second one to write sees the other
//	4. the block's first address, and its affinity: whoever compares and swaps this in has the block
//	5. BlockAffinity, confirmed    (with 4, if the store can)
//
// It goes the other way round: the affinity becomes pendingDeletion, the block is removed if it is still empty, then the
// affinity. A store that can do both at once needs no mark.
//
// So there is a BlockAffinity as long as there is a block, and the affinities tell which ranges are taken. Nobody
// borrows of a block that says nobody's.

const (
	statePending   = "pending"
	stateConfirmed = "confirmed"
	stateDeletion  = "pendingDeletion"
)

// errAgain says that somebody else is in the middle of something: plan it anew.
var errAgain = errors.New("somebody else is at it")

// load reads what this node has: its affinities, their blocks, and the blocks that it borrowed of.
func (a *Allocator) load(ctx context.Context) error {
	affinities, err := a.affinities(ctx)
	if err != nil {
		return err
	}
	a.blocks = map[netip.Prefix]*known{}
	for _, o := range affinities {
		if a.isOurs(o) {
			if err := a.adopt(ctx, o, affinities); err != nil {
				return err
			}
		}
	}
	handles, err := list[*api.IPAMHandle](ctx, a.store, "IPAMHandle")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return err
	}
	for _, h := range handles {
		if h.Annotations[annotationNode] == a.node {
			if err := a.lookInto(ctx, h); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookInto gets to know the blocks that a handle's record names.
func (a *Allocator) lookInto(ctx context.Context, h *api.IPAMHandle) error {
	for _, cidr := range slices.Sorted(maps.Keys(h.Spec.Block)) {
		if p, err := api.ParsePrefix(cidr); err == nil {
			if err := a.know(ctx, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// ranges is what the affinities looked like.
type ranges struct {
	at  time.Time
	all []*api.BlockAffinity
}

// affinities reads them all, and keeps what they look like.
func (a *Allocator) affinities(ctx context.Context) ([]*api.BlockAffinity, error) {
	at := a.now()
	all, err := a.readAffinities(ctx)
	if err != nil {
		return nil, err
	}
	a.ranges = ranges{at, all}
	return all, nil
}

func (a *Allocator) readAffinities(ctx context.Context) ([]*api.BlockAffinity, error) {
	all, err := list[*api.BlockAffinity](ctx, a.store, "BlockAffinity")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return nil, err
	}
	return slices.DeleteFunc(all, func(o *api.BlockAffinity) bool { return !rangeOf(o).IsValid() }), nil
}

// rangeOf is what an affinity speaks of.
func rangeOf(o *api.BlockAffinity) netip.Prefix {
	p, err := api.ParsePrefix(o.Spec.CIDR)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// affinityOf is what a block says that has o.
func affinityOf(o *api.BlockAffinity) string {
	if o.Spec.Type == "virtual" {
		return "virtual:" + o.Spec.Node
	}
	return "host:" + o.Spec.Node
}

func (a *Allocator) isOurs(o *api.BlockAffinity) bool { return affinityOf(o) == a.affinity }

// adopt takes up an affinity of this node where an earlier process has left it, or removes it.
func (a *Allocator) adopt(ctx context.Context, o *api.BlockAffinity, all []*api.BlockAffinity) error {
	p := rangeOf(o)
	b, err := a.get(ctx, p)
	if err != nil {
		return err
	}
	switch {
	case b != nil && b.obj.Spec.Affinity == a.affinity && o.Spec.State == stateConfirmed:
		a.blocks[p] = &known{block: b, affinity: o}
		return nil
	case b != nil && b.obj.Spec.Affinity == a.affinity:
		// Step 5 is missing, or the block was given somebody while it was to be removed. The affinity may also be one
		// that was written anew, before step 3: then the block is not to be touched.
		if o.Spec.State == statePending && clash(p, o.Name, all) != nil {
			delete(a.blocks, p)
			return nil
		}
		c := *o
		c.Spec.State = stateConfirmed
		err := a.store.Txn(ctx, datastore.Op{Verb: datastore.Update, Object: &c})
		if conflict(err) {
			return a.adoptAgain(ctx, o, all)
		}
		if err == nil {
			a.blocks[p] = &known{block: b, affinity: &c}
		}
		return err
	case o.Spec.State == statePending && (b == nil || b.obj.Spec.Affinity == ""):
		other := clash(p, o.Name, all)
		if other == nil {
			return a.complete(ctx, o, b)
		}
		a.log.Info("ranges of pools overlap: a block is left to another node", "block", p, "other", other.Spec.CIDR, "node", other.Spec.Node)
	}
	return a.drop(ctx, o, b)
}

// adoptAgain is adopt after somebody was faster to write the affinity: another process of this node, or who cleans up.
func (a *Allocator) adoptAgain(ctx context.Context, o *api.BlockAffinity, all []*api.BlockAffinity) error {
	now, err := a.store.Get(ctx, api.KeyOf(o))
	if conflict(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return a.adopt(ctx, now.(*api.BlockAffinity), all)
}

// complete goes on after step 1. Step 3 has been done.
func (a *Allocator) complete(ctx context.Context, o *api.BlockAffinity, b *block) error {
	p := rangeOf(o)
	if b != nil {
		a.blocks[p] = &known{block: b, affinity: o}
		return nil
	}
	// Only as long as the affinity is there: that it is written as it is makes sure.
	err := a.together(ctx, datastore.Op{Verb: datastore.Update, Object: o}, datastore.Op{Verb: datastore.Create, Object: newBlock(p).obj})
	if err != nil && !conflict(err) {
		return err
	}
	if b, err = a.get(ctx, p); err != nil || b == nil {
		return err
	}
	now, err := a.store.Get(ctx, api.KeyOf(o))
	if err == nil && b.obj.Spec.Affinity == "" {
		a.blocks[p] = &known{block: b, affinity: now.(*api.BlockAffinity)}
	}
	if conflict(err) {
		return nil
	}
	return err
}

// drop removes an affinity that leads nowhere, and its block if that is nobody's and empty.
func (a *Allocator) drop(ctx context.Context, o *api.BlockAffinity, b *block) error {
	delete(a.blocks, rangeOf(o))
	remove := datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(o), Revision: o.ResourceVersion}
	if b != nil && b.obj.Spec.Affinity == "" && len(b.obj.Spec.Attributes) == 0 {
		err := a.together(ctx, datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(b.obj), Revision: b.obj.ResourceVersion}, remove)
		if conflict(err) {
			return nil // somebody got the block, maybe another process of this node: it is looked at another time
		}
		return err
	}
	if err := a.store.Txn(ctx, remove); err != nil && !conflict(err) {
		return err
	}
	return nil
}

// together writes ops as one, or, if the store can't, in their order.
func (a *Allocator) together(ctx context.Context, ops ...datastore.Op) error {
	if !a.oneByOne {
		return a.store.Txn(ctx, ops...)
	}
	for _, op := range ops {
		if err := a.store.Txn(ctx, op); err != nil {
			return err
		}
	}
	return nil
}

// get reads a block; nil if there is none. One that can't be read is an error: nobody knows who has its addresses.
func (a *Allocator) get(ctx context.Context, p netip.Prefix) (*block, error) {
	o, err := a.store.Get(ctx, api.Key{Kind: "IPAMBlock", Name: blockName(p)})
	if errors.Is(err, datastore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading block %s: %w", p, err)
	}
	b, err := readBlock(o.(*api.IPAMBlock))
	if err != nil {
		return nil, err
	}
	if b.prefix != p {
		return nil, fmt.Errorf("block %s says that it is %s: %w", p, b.prefix, datastore.ErrUnreadable)
	}
	return b, nil
}

// know reads a block that is not among those of this node.
func (a *Allocator) know(ctx context.Context, p netip.Prefix) error {
	if k := a.blocks[p]; k != nil && !k.stale {
		return nil
	}
	b, err := a.get(ctx, p)
	if errors.Is(err, datastore.ErrUnreadable) {
		a.log.Warn("a block can't be used", "block", p, "error", err)
		a.gone.blind()
		return nil
	}
	if err != nil || b == nil {
		return err
	}
	if a.blocks[p] == nil {
		a.blocks[p] = &known{}
	}
	a.blocks[p].block, a.blocks[p].stale = b, false
	return nil
}

// freshen reads again what is not as it was.
func (a *Allocator) freshen(ctx context.Context) error {
	for _, p := range a.prefixes() {
		k := a.blocks[p]
		if !k.stale {
			continue
		}
		b, err := a.get(ctx, p)
		if errors.Is(err, datastore.ErrUnreadable) {
			a.log.Warn("a block can't be used any more", "block", p, "error", err)
			a.gone.blind()
			delete(a.blocks, p)
			continue
		}
		if err != nil {
			return err
		}
		if b != nil {
			k.block, k.stale = b, false
		}
		if err := a.stillOurs(ctx, k, b); err != nil {
			return err
		}
	}
	return nil
}

// stillOurs finds out whether a block that changed is still this node's, and forgets it if it is gone.
func (a *Allocator) stillOurs(ctx context.Context, k *known, b *block) error {
	confirmed := k.affinity != nil && k.affinity.Spec.State == stateConfirmed
	switch {
	case k.affinity == nil && b != nil:
		return nil
	case confirmed && b != nil && b.obj.Spec.Affinity == a.affinity:
		return nil
	case k.affinity == nil:
		delete(a.blocks, k.prefix)
		return nil
	}
	o, err := a.store.Get(ctx, api.KeyOf(k.affinity))
	if err != nil && !conflict(err) {
		return err
	}
	c, _ := o.(*api.BlockAffinity)
	ours := b != nil && (b.obj.Spec.Affinity == a.affinity || !confirmed && b.obj.Spec.Affinity == "")
	if err == nil && ours && c.Spec.State != stateDeletion {
		k.affinity = c
		return nil
	}
	if err != nil && b != nil && b.obj.Spec.Affinity == a.affinity {
		return a.reaffirm(ctx, k)
	}
	delete(a.blocks, k.prefix)
	if b != nil && b.obj.Spec.Affinity != a.affinity && b.usedOn(a.node) {
		a.blocks[k.prefix] = &known{block: b}
	}
	if err == nil && !ours {
		return a.drop(ctx, c, b)
	}
	return nil
}

// reaffirm writes the affinity of a block of this node anew, after another process has removed it.
func (a *Allocator) reaffirm(ctx context.Context, k *known) error {
	o := a.newAffinity(k.prefix, statePending)
	err := a.store.Txn(ctx, datastore.Op{Verb: datastore.Create, Object: o})
	if err != nil && !errors.Is(err, datastore.ErrExists) {
		return err
	}
	all, err := a.affinities(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(x *api.BlockAffinity) bool { return x.Name == o.Name })
	if i >= 0 && clash(k.prefix, o.Name, all) == nil {
		k.affinity = all[i]
		return nil
	}
	delete(a.blocks, k.prefix)
	if i < 0 {
		return nil
	}
	return a.drop(ctx, all[i], nil) // while nothing said that the range was taken, somebody else got a part of it
}

func (a *Allocator) newAffinity(p netip.Prefix, state string) *api.BlockAffinity {
	o := &api.BlockAffinity{ObjectMeta: metav1.ObjectMeta{Name: affinityName(a.node, p)},
		Spec: api.BlockAffinitySpec{State: state, Node: a.node, Type: "host", CIDR: p.String(), Deleted: "false"}}
	if strings.HasPrefix(a.affinity, "virtual:") {
		o.Spec.Type, o.Name = "virtual", "virtual-"+o.Name
	}
	return o
}

// forget drops other nodes' blocks that nothing is borrowed of any more.
func (a *Allocator) forget() {
	for p, k := range a.blocks {
		if k.affinity == nil && !k.stale && !k.usedOn(a.node) {
			delete(a.blocks, p)
		}
	}
}

// owned is how many blocks of a family this node has.
func (a *Allocator) owned(f family) int {
	n := 0
	for p, k := range a.blocks {
		if k.affinity != nil && familyOf(p.Addr()) == f {
			n++
		}
	}
	return n
}

// clash returns an affinity to a range that overlaps p without being p; name is that of the one that is asked for.
func clash(p netip.Prefix, name string, all []*api.BlockAffinity) *api.BlockAffinity {
	for _, o := range all {
		if r := rangeOf(o); o.Name != name && r != p && r.Overlaps(p) {
			return o
		}
	}
	return nil
}

// taken is the ranges that are somebody's.
type taken struct {
	size   int
	of     map[netip.Prefix]bool // blocks of size that are, or that have smaller ones inside
	larger []netip.Prefix
}

func takenBy(all []*api.BlockAffinity, size int, f family) taken {
	t := taken{size: size, of: map[netip.Prefix]bool{}}
	for _, o := range all {
		switch p := rangeOf(o); {
		case familyOf(p.Addr()) != f:
		case p.Bits() < size:
			t.larger = append(t.larger, p)
		default:
			t.of[blockOf(p.Addr(), size)] = true
		}
	}
	return t
}

func (t taken) has(p netip.Prefix) bool {
	return t.of[p] || slices.ContainsFunc(t.larger, func(l netip.Prefix) bool { return l.Contains(p.Addr()) })
}

const (
	maxClaims  = 16      // blocks that others were faster to take, before we look again
	maxSkipped = 1 << 16 // blocks that are taken or reserved
)

// claim takes a block of one of pools that nobody has. ErrFull says that there is none.
func (a *Allocator) claim(ctx context.Context, d *draft, pools []*pool) error {
	// What was read a moment ago will do to choose by: who is wrong finds out in step 2 or 3. It won't do to give up by.
	age := a.now().Sub(a.ranges.at)
	for fresh := a.ranges.all == nil || age < 0 || age >= surveyAge; ; fresh = true {
		if fresh {
			if _, err := a.affinities(ctx); err != nil {
				return err
			}
		}
		if fresh {
			if found, err := a.strays(ctx, a.ranges.all); found || err != nil {
				return err
			}
		}
		done, err := a.claimOf(ctx, d, pools, a.ranges.all)
		if done || err != nil {
			return err
		}
		if fresh {
			return a.reclaim(ctx, d, pools)
		}
	}
}

// claimOf takes one of the ranges that are nobody's according to all.
func (a *Allocator) claimOf(ctx context.Context, d *draft, pools []*pool, all []*api.BlockAffinity) (done bool, err error) {
	tries := 0
	for p := range d.free(pools, all, seedOf(a.affinity)) {
		if tries++; tries > maxClaims {
			return false, errAgain
		}
		if ok, err := a.claimBlock(ctx, p); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// free gives the ranges of pools that can become blocks.
func (d *draft) free(pools []*pool, all []*api.BlockAffinity, seed uint64) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for _, pool := range pools {
			t := takenBy(all, pool.blockSize, familyOf(pool.prefix.Addr()))
			skipped := 0
			for p := range walk(pool.prefix, pool.blockSize, seed^seedOf(pool.name)) {
				if t.has(p) || !d.rules.usable(p) {
					if skipped++; skipped > len(t.of)+maxSkipped {
						break
					}
				} else if !yield(p) {
					return
				}
			}
		}
		for p := range gaps(pools, all) {
			if d.rules.usable(p) && !yield(p) {
				return
			}
		}
	}
}

// gaps gives the ranges between blocks that were made when they were smaller: in the place of one block by now, but with
// room for one of their size.
func gaps(pools []*pool, all []*api.BlockAffinity) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		sizes := map[int]taken{}
		for _, o := range all {
			small := rangeOf(o)
			i := slices.IndexFunc(pools, func(p *pool) bool { return contains(p.prefix, small) && small.Bits() > p.blockSize })
			if i < 0 {
				continue
			}
			t, ok := sizes[small.Bits()]
			if !ok {
				t = takenBy(all, small.Bits(), familyOf(small.Addr()))
				sizes[small.Bits()] = t
			}
			for p := range walk(blockOf(small.Addr(), pools[i].blockSize), small.Bits(), 0) {
				if !t.has(p) && !yield(p) {
					return
				}
			}
		}
	}
}

// strays takes up affinities of this node that it does not know: a process before this one was still writing.
func (a *Allocator) strays(ctx context.Context, all []*api.BlockAffinity) (found bool, err error) {
	for _, o := range all {
		if k := a.blocks[rangeOf(o)]; a.isOurs(o) && (k == nil || k.affinity == nil) {
			if err := a.adopt(ctx, o, all); err != nil {
				return false, err
			}
			k = a.blocks[rangeOf(o)]
			found = found || k != nil && k.affinity != nil
		}
	}
	return found, nil
}

// claimBlock does steps 1 to 3; ok is false if the block is somebody else's.
func (a *Allocator) claimBlock(ctx context.Context, p netip.Prefix) (ok bool, err error) {
	o := a.newAffinity(p, statePending)
	err = a.together(ctx, datastore.Op{Verb: datastore.Create, Object: o}, datastore.Op{Verb: datastore.Create, Object: newBlock(p).obj})
	if errors.Is(err, datastore.ErrExists) {
		err = a.claimOrphan(ctx, o)
	}
	if err != nil {
		return false, err
	}
	all, err := a.affinities(ctx)
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(all, func(x *api.BlockAffinity) bool { return x.Name == o.Name })
	if i < 0 {
		return false, nil
	}
	if err := a.adopt(ctx, all[i], all); err != nil {
		return false, err
	}
	if k := a.blocks[p]; k == nil || k.affinity == nil {
		return false, nil
	}
	a.log.Info("block claimed", "block", p)
	return true, nil
}

// claimOrphan does step 1 for a block that is there already. It may be nobody's; if it is somebody's, adopt finds out.
func (a *Allocator) claimOrphan(ctx context.Context, o *api.BlockAffinity) error {
	if a.oneByOne {
		return nil // the affinity has been written
	}
	b, err := a.get(ctx, rangeOf(o))
	if err != nil || b == nil || b.obj.Spec.Affinity != "" {
		return err
	}
	if err := a.store.Txn(ctx, datastore.Op{Verb: datastore.Create, Object: o}); !errors.Is(err, datastore.ErrExists) {
		return err
	}
	return nil
}
