package ipam

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

const (
	// MinReclaimAge is how long a node has had an empty block before another one may take it.
	MinReclaimAge = time.Minute
	// surveyAge is how long it is believed what all blocks of the cluster looked like: reading them is a lot of work.
	surveyAge = 5 * time.Second
)

// survey is what the blocks of the cluster looked like. It says where to look, no more.
type survey struct {
	at     time.Time
	blocks []*block
}

// all reads the blocks of the cluster, unless that was a moment ago.
func (a *Allocator) all(ctx context.Context) ([]*block, error) {
	if age := a.now().Sub(a.survey.at); a.survey.blocks != nil && age >= 0 && age < surveyAge {
		return a.survey.blocks, nil
	}
	objects, err := list[*api.IPAMBlock](ctx, a.store, "IPAMBlock")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return nil, err
	}
	a.survey = survey{at: a.now(), blocks: []*block{}}
	for _, o := range objects {
		if b, err := readBlock(o); err == nil {
			a.survey.blocks = append(a.survey.blocks, b)
		}
	}
	// Each node begins elsewhere, or all would want the same.
	shuffle := rand.New(rand.NewPCG(seedOf(a.affinity), 0))
	shuffle.Shuffle(len(a.survey.blocks), func(i, j int) {
		a.survey.blocks[i], a.survey.blocks[j] = a.survey.blocks[j], a.survey.blocks[i]
	})
	return a.survey.blocks, nil
}

// struck removes a block from the survey: it is not what it looked like.
func (a *Allocator) struck(p netip.Prefix) {
	a.survey.blocks = slices.DeleteFunc(slices.Clone(a.survey.blocks), func(b *block) bool { return b.prefix == p })
	if a.survey.blocks == nil {
		a.survey.blocks = []*block{}
	}
}

func within(p netip.Prefix, pools []*pool) bool {
	return slices.ContainsFunc(pools, func(pool *pool) bool { return contains(pool.prefix, p) })
}

// borrow finds an address in a block of another node.
func (a *Allocator) borrow(ctx context.Context, d *draft, pools []*pool) (place, bool, error) {
	blocks, err := a.all(ctx)
	if err != nil {
		return place{}, false, err
	}
	for _, seen := range blocks {
		p := seen.prefix
		if !within(p, pools) || !strings.HasPrefix(seen.obj.Spec.Affinity, "host:") || seen.obj.Spec.Affinity == a.affinity {
			continue
		}
		if k := a.blocks[p]; k == nil {
			if _, ok := seen.next(d.rules.isReserved, d.now, d.rules.cooldown); !ok {
				continue
			}
		}
		if err := a.know(ctx, p); err != nil {
			return place{}, false, err
		}
		lends, err := a.lends(ctx, p)
		if err != nil {
			return place{}, false, err
		}
		if lends {
			b := d.block(p)
			if i, ok := b.next(d.rules.isReserved, d.now, d.rules.cooldown); ok {
				return place{p, i, b}, true, nil
			}
		}
		a.struck(p)
	}
	return place{}, false, nil
}

// lends says whether a block that is known belongs to another node, for certain. It may have changed hands, even into
// ours; and one whose affinity is not confirmed may overlap another.
func (a *Allocator) lends(ctx context.Context, p netip.Prefix) (bool, error) {
	k := a.blocks[p]
	if k == nil || k.affinity != nil || !strings.HasPrefix(k.obj.Spec.Affinity, "host:") || k.obj.Spec.Affinity == a.affinity {
		return false, nil
	}
	o, err := a.affinityFor(ctx, k.block)
	return o != nil && o.Spec.State == stateConfirmed, err
}

// reclaim takes an empty block of another node, that has had it for a while.
func (a *Allocator) reclaim(ctx context.Context, d *draft, pools []*pool) error {
	blocks, err := a.all(ctx)
	if err != nil {
		return err
	}
	for _, seen := range blocks {
		if !within(seen.prefix, pools) || !d.reclaimable(seen) || !d.rules.usable(seen.prefix) {
			continue
		}
		a.struck(seen.prefix)
		b, err := a.get(ctx, seen.prefix)
		if err != nil {
			return err
		}
		if b == nil || !d.reclaimable(b) {
			continue
		}
		ok, err := a.removeBlock(ctx, b)
		if errors.Is(err, datastore.ErrForbidden) {
			continue // a store where nodes keep to what is theirs
		}
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		a.log.Info("empty block taken from another node", "block", b.prefix, "affinity", b.obj.Spec.Affinity)
		p, err := a.fitting(ctx, b.prefix, pools)
		if err != nil {
			return err
		}
		if ok, err := a.claimBlock(ctx, p); ok || err != nil {
			return err
		}
	}
	return ErrFull
}

// fitting is the block to take where one was removed: of the size that the pool wants by now, if that fits between the
// others.
func (a *Allocator) fitting(ctx context.Context, p netip.Prefix, pools []*pool) (netip.Prefix, error) {
	all, err := a.affinities(ctx)
	if err != nil {
		return p, err
	}
	for _, pool := range pools {
		want := blockOf(p.Addr(), pool.blockSize)
		if contains(pool.prefix, want) && !slices.ContainsFunc(all, func(o *api.BlockAffinity) bool { return rangeOf(o).Overlaps(want) }) {
			return want, nil
		}
	}
	return p, nil
}

func (d *draft) reclaimable(b *block) bool {
	s := &b.obj.Spec
	if s.Affinity == "" || s.Affinity == d.a.affinity || !strings.HasPrefix(s.Affinity, "host:") || !b.empty(d.now, d.rules.cooldown) {
		return false
	}
	return s.AffinityClaimTime == nil || cooled(s.AffinityClaimTime, d.now, MinReclaimAge)
}

// removeBlock removes an empty block with its affinity; ok is false if somebody was faster.
func (a *Allocator) removeBlock(ctx context.Context, b *block) (ok bool, err error) {
	remove := datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(b.obj), Revision: b.obj.ResourceVersion}
	o, err := a.affinityFor(ctx, b)
	if err != nil {
		return false, err
	}
	switch {
	case o == nil:
		err = a.store.Txn(ctx, remove)
	case a.oneByOne:
		err = a.removeSlowly(ctx, o, remove)
	default:
		err = a.store.Txn(ctx, remove, datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(o), Revision: o.ResourceVersion})
	}
	if conflict(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("removing the empty block %s: %w", b.prefix, err)
	}
	if k := a.blocks[b.prefix]; k != nil {
		delete(a.blocks, b.prefix)
	}
	return true, nil
}

// removeSlowly marks the affinity, removes the block, and then the affinity.
func (a *Allocator) removeSlowly(ctx context.Context, o *api.BlockAffinity, remove datastore.Op) error {
	mark := *o
	mark.Spec.State = stateDeletion
	stored, err := a.store.Update(ctx, &mark)
	if err != nil {
		return err
	}
	if err := a.store.Txn(ctx, remove); err != nil {
		if conflict(err) { // it is used again
			back := *stored.(*api.BlockAffinity)
			back.Spec.State = o.Spec.State
			if _, uerr := a.store.Update(ctx, &back); uerr != nil && !conflict(uerr) {
				return uerr
			}
		}
		return err
	}
	err = a.store.Txn(ctx, datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(o), Revision: stored.GetResourceVersion()})
	if conflict(err) {
		return nil
	}
	return err
}

// affinityFor reads the affinity that belongs to a block, nil if there is none.
func (a *Allocator) affinityFor(ctx context.Context, b *block) (*api.BlockAffinity, error) {
	kind, node, _ := strings.Cut(b.obj.Spec.Affinity, ":")
	name := affinityName(node, b.prefix)
	if kind == "virtual" {
		name = "virtual-" + name
	}
	o, err := a.store.Get(ctx, api.Key{Kind: "BlockAffinity", Name: name})
	if errors.Is(err, datastore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return o.(*api.BlockAffinity), nil
}

// exactly finds the place of one address.
func (d *draft) exactly(ctx context.Context, req *Request, addr netip.Addr) (place, error) {
	pool, err := d.rules.holding(req, addr)
	if err != nil {
		return place{}, err
	}
	p, err := d.a.locate(ctx, addr)
	if err != nil {
		return place{}, err
	}
	if !p.IsValid() {
		p = blockOf(addr, pool.blockSize)
		if err := d.claimFor(ctx, addr, p); err != nil {
			return place{}, err
		}
	}
	b := d.block(p)
	if b == nil {
		return place{}, errAgain
	}
	at := place{p, ordinal(p, addr), b}
	if d.a.blocks[p].affinity == nil {
		switch lends, err := d.a.lends(ctx, p); {
		case err != nil:
			return place{}, err
		case !lends:
			return place{}, errAgain
		case d.rules.strict:
			return place{}, fmt.Errorf("address %s is in block %s of %s, and strictAffinity forbids to borrow it: "+
				"run the workload there, or ask for another address: %w", addr, p, b.obj.Spec.Affinity, ErrTaken)
		}
	}
	if h, held := b.handle(at.ordinal); held {
		// Somebody else may have given it back since this node has read the block.
		if now, err := d.a.get(ctx, p); err != nil {
			return place{}, err
		} else if k := d.a.blocks[p]; now == nil || now.obj.ResourceVersion != k.obj.ResourceVersion {
			k.stale = true
			return place{}, errAgain
		}
		return place{}, takenError(addr, h, b.owner(at.ordinal))
	}
	return at, nil // also while it cools down: its owner wants it back
}

func takenError(addr netip.Addr, handle string, o api.Owner) error {
	who := "handle " + handle
	switch {
	case o.Pod != "":
		who = o.Namespace + "/" + o.Pod
	case o.Type != "":
		who = o.Type
	}
	if o.Node != "" {
		who += " on node " + o.Node
	}
	return fmt.Errorf("address %s is %w by %s (handle %s): release it there, or ask for another one", addr, ErrTaken, who, handle)
}

// claimFor takes the block of an address that is in nobody's.
func (d *draft) claimFor(ctx context.Context, addr netip.Addr, p netip.Prefix) error {
	switch own := d.a.owned(familyOf(addr)); {
	case d.rules.none != nil:
		return d.rules.blind()
	case !d.rules.auto:
		return fmt.Errorf("%w at %s: its block %s is not this node's, and autoAllocateBlocks is off", ErrFull, addr, p)
	case own >= d.rules.maxBlocks:
		return fmt.Errorf("%w at %s: its block %s is nobody's, but the node has %d blocks, maxBlocksPerHost", ErrFull, addr, p, own)
	}
	ok, err := d.a.claimBlock(ctx, p)
	if err == nil && !ok {
		return errAgain
	}
	return err
}

// locate finds the block that holds an address, and gets to know it. It is invalid if there is none.
func (a *Allocator) locate(ctx context.Context, addr netip.Addr) (netip.Prefix, error) {
	for _, p := range a.prefixes() {
		if p.Contains(addr) {
			return p, nil
		}
	}
	all, err := a.affinities(ctx)
	if err != nil {
		return netip.Prefix{}, err
	}
	for _, o := range all {
		p := rangeOf(o)
		if !p.Contains(addr) {
			continue
		}
		if a.isOurs(o) {
			err = a.adopt(ctx, o, all)
		} else {
			err = a.know(ctx, p)
		}
		if err != nil {
			return netip.Prefix{}, err
		}
		if a.blocks[p] != nil {
			return p, nil
		}
		return netip.Prefix{}, errAgain // the block is being made, or removed
	}
	return netip.Prefix{}, nil
}

// look reads again where the addresses of a release may be: the blocks of this node, those that the handle's record
// names, those of the addresses, and, if that is wanted, all.
func (a *Allocator) look(ctx context.Context, j *release) error {
	for _, k := range a.blocks {
		k.stale = true
	}
	if err := a.freshen(ctx); err != nil {
		return err
	}
	addrs := slices.Clone(j.addrs)
	for _, h := range j.held {
		addrs = append(addrs, h.Addr)
	}
	for _, addr := range addrs {
		if _, err := a.locate(ctx, addr); err != nil {
			return err
		}
	}
	if j.handle != "" {
		o, err := a.store.Get(ctx, handleKey(j.handle))
		if err == nil {
			err = a.lookInto(ctx, o.(*api.IPAMHandle))
		}
		if err != nil && !conflict(err) && !errors.Is(err, datastore.ErrUnreadable) {
			return err
		}
	}
	if !j.everywhere {
		return nil
	}
	a.survey = survey{}
	blocks, err := a.all(ctx)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		if len(b.heldBy(j.handle)) > 0 {
			if err := a.know(ctx, b.prefix); err != nil {
				return err
			}
		}
	}
	return nil
}
