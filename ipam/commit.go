package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/internal/backoff"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

const (
	maxTries = 100
	maxAgain = 10 // tries of a job that has to wait for somebody else: the others of its batch wait, too
	maxOps   = 90 // of one write; a few more come with the last job that fits
)

// process does jobs that came together, in as few writes as there can be.
func (a *Allocator) process(ctx context.Context, todo []*ticket) {
	r, labels, err := a.prepare(ctx, slices.ContainsFunc(todo, func(t *ticket) bool { return t.job.labels() }))
	if err != nil {
		fail(todo, err)
		return
	}
	alone := false // one job at a time
	for try := 0; len(todo) > 0; try++ {
		if try == maxTries {
			fail(todo, ErrBusy)
			return
		}
		err := a.wait(ctx, try)
		if err == nil {
			err = a.freshen(ctx)
		}
		if err != nil {
			fail(todo, err)
			return
		}
		d := a.newDraft(r, labels)
		var batch, rest []*ticket
		for i, t := range todo {
			if len(batch) > 0 && (alone || d.size() >= maxOps) {
				rest = todo[i:]
				break
			}
			if t.err = t.job.plan(ctx, d); t.err == nil {
				d.ops = append(d.ops, t.job.extra()...)
				batch = append(batch, t)
			} else if errors.Is(t.err, errAgain) {
				if t.again++; t.again < maxAgain {
					rest = append(rest, t)
				} else {
					t.err = ErrBusy
				}
			}
		}
		again, blame, err := a.commit(ctx, d, try)
		switch {
		case err == nil:
			for _, t := range batch {
				t.err = t.job.outcome()
			}
		case again:
			rest = append(batch, rest...)
		case blame && len(batch) > 1:
			// One of the jobs brought something along that can't be written: it is found by trying each alone.
			alone, rest = true, append(batch, rest...)
		default:
			fail(batch, err)
		}
		todo = rest
	}
}

// pause lets those who are faster get done, when there are many of them.
func pause(ctx context.Context, try int) error {
	if try < 3 {
		return nil
	}
	b := backoff.Backoff{Max: min(time.Millisecond<<min(try-3, 6), 50*time.Millisecond)}
	return b.Sleep(ctx)
}

func fail(ts []*ticket, err error) {
	for _, t := range ts {
		t.err = err
	}
}

// prepare reads what rules there are, and the node's labels if they are wanted and matter; the first time, what this node
// has, too.
func (a *Allocator) prepare(ctx context.Context, labels bool) (*rules, map[string]string, error) {
	if !a.loaded {
		if err := a.load(ctx); err != nil {
			return nil, nil, fmt.Errorf("reading what node %s has: %w", a.node, err)
		}
		a.loaded = true
	}
	s, err := a.settings(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("reading pools, reservations and configuration: %w", err)
	}
	r := s.rules()
	if !labels || !slices.ContainsFunc(r.pools, func(p *pool) bool { return !p.allNodes }) {
		return r, nil, nil
	}
	o, err := a.store.Get(ctx, api.Key{Kind: "Node", Name: a.node})
	switch {
	case errors.Is(err, datastore.ErrNotFound):
		return r, nil, nil
	case err != nil:
		return nil, nil, fmt.Errorf("reading the node's labels: %w", err)
	}
	return r, o.GetLabels(), nil
}

// size is how many objects the write will have.
func (d *draft) size() int { return 2*len(d.edited) + len(d.borrowed) + len(d.ops) }

// conflict says whether a write failed since something is not as it was.
func conflict(err error) bool {
	return errors.Is(err, datastore.ErrConflict) || errors.Is(err, datastore.ErrNotFound) || errors.Is(err, datastore.ErrExists)
}

// commit writes a draft. After an error, again says that blocks were not as expected, and blame that it is not about the
// blocks.
func (a *Allocator) commit(ctx context.Context, d *draft, try int) (again, blame bool, err error) {
	if d.size() == 0 {
		return false, false, nil
	}
	if d.moved() {
		return true, false, errAgain
	}
	if a.oneByOne {
		err = a.writeEach(ctx, d)
	} else {
		err = a.writeAll(ctx, d)
	}
	if err == nil {
		a.forget()
		return false, false, nil
	}
	for p := range d.edited {
		if k := a.blocks[p]; k != nil {
			k.stale = true
		}
	}
	if !conflict(err) {
		return false, !errors.Is(err, datastore.ErrUnavailable) && len(d.ops) > 0, err
	}
	if a.oneByOne {
		return true, false, err
	}
	if ferr := a.freshen(ctx); ferr != nil {
		return false, false, ferr
	}
	if d.moved() || len(d.ops) == 0 || len(d.borrowed) > 0 && try < 3 {
		return true, false, err // without a moved block it is about a handle's record
	}
	return false, true, err
}

// version changes whenever the block or its affinity does.
func (k *known) version() string {
	v := k.obj.ResourceVersion
	if k.affinity != nil && k.affinity.Spec.State != stateConfirmed {
		v += "/" + k.affinity.ResourceVersion
	}
	return v
}

// writeAll writes a draft at once. A block with nothing beside it comes back as it is stored; others are read again
// before their next use.
func (a *Allocator) writeAll(ctx context.Context, d *draft) error {
	var ops []datastore.Op
	edited := slices.SortedFunc(maps.Keys(d.edited), comparePrefixes)
	for _, p := range edited {
		ops = append(ops, datastore.Op{Verb: datastore.Update, Object: d.edited[p].obj})
		if c := a.blocks[p].confirmation(); c != nil {
			ops = append(ops, datastore.Op{Verb: datastore.Update, Object: c})
		}
	}
	records, err := a.records(ctx, d, 0)
	if err != nil {
		return err
	}
	ops = append(append(ops, records...), d.ops...)
	if len(ops) == 1 && len(edited) == 1 {
		return a.update(ctx, edited[0], d.edited[edited[0]].obj)
	}
	if err := a.store.Txn(ctx, ops...); err != nil {
		return err
	}
	for _, p := range edited {
		k := a.blocks[p]
		if c := k.confirmation(); c != nil {
			k.affinity = c
		}
		k.block, k.stale = d.edited[p], true
	}
	return nil
}

// update writes one block by itself.
func (a *Allocator) update(ctx context.Context, p netip.Prefix, o *api.IPAMBlock) error {
	stored, err := a.store.Update(ctx, o)
	if err != nil {
		return err
	}
	b, err := readBlock(stored.(*api.IPAMBlock))
	if err != nil {
		return err
	}
	a.blocks[p].block, a.blocks[p].stale = b, false
	return nil
}

// confirmation is the affinity to write with the first change of a new block, nil if it has been.
func (k *known) confirmation() *api.BlockAffinity {
	if k.affinity == nil || k.affinity.Spec.State == stateConfirmed {
		return nil
	}
	c := *k.affinity
	c.Spec.State = stateConfirmed
	return &c
}

// writeEach writes a draft object by object, so that whoever comes after a crash in between can clean up: the record of
// a handle is there before the address and gone after it, and a block says that it is ours before the affinity does.
func (a *Allocator) writeEach(ctx context.Context, d *draft) error {
	records, err := a.records(ctx, d, 1)
	if err != nil {
		return err
	}
	for _, op := range records {
		if err := a.store.Txn(ctx, op); err != nil {
			return err
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(d.edited), comparePrefixes) {
		if err := a.update(ctx, p, d.edited[p].obj); err != nil {
			return err
		}
		d.wrote(p)
		if c := a.blocks[p].confirmation(); c != nil {
			if err := a.store.Txn(ctx, datastore.Op{Verb: datastore.Update, Object: c}); err != nil {
				return err
			}
			a.blocks[p].affinity = c
		}
	}
	if records, err = a.records(ctx, d, -1); err != nil {
		return err
	}
	for _, op := range records {
		if err := a.store.Txn(ctx, op); err != nil {
			return err
		}
	}
	return nil
}

// annotationNode says on an IPAMHandle whose it is.
const annotationNode = "tortie.io/node"

// records are the writes of IPAMHandles that a draft needs: only those that add (sign 1), only those that take away
// (-1), or all (0). They are what finds addresses in other nodes' blocks after a restart.
func (a *Allocator) records(ctx context.Context, d *draft, sign int) ([]datastore.Op, error) {
	var ops []datastore.Op
	for _, handle := range slices.Sorted(maps.Keys(d.borrowed)) {
		change := map[netip.Prefix]int{}
		for p, n := range d.borrowed[handle] {
			if n != 0 && n*sign >= 0 {
				change[p] = n
			}
		}
		if len(change) == 0 {
			continue
		}
		op, err := a.record(ctx, handle, change)
		if err != nil {
			return nil, err
		}
		if op != nil {
			ops = append(ops, *op)
		}
	}
	return ops, nil
}

func (a *Allocator) record(ctx context.Context, handle string, change map[netip.Prefix]int) (*datastore.Op, error) {
	key := handleKey(handle)
	o, err := a.store.Get(ctx, key)
	verb := datastore.Update
	switch {
	case errors.Is(err, datastore.ErrNotFound):
		verb = datastore.Create
		o = &api.IPAMHandle{ObjectMeta: metav1.ObjectMeta{Name: key.Name, Annotations: map[string]string{annotationNode: a.node}},
			Spec: api.IPAMHandleSpec{HandleID: handle, Block: map[string]int{}}}
	case err != nil:
		return nil, fmt.Errorf("reading the record of %s: %w", handle, err)
	}
	h := *o.(*api.IPAMHandle)
	h.Spec.Block = maps.Clone(h.Spec.Block)
	for p, n := range change {
		h.Spec.Block[p.String()] += n
		if h.Spec.Block[p.String()] <= 0 {
			delete(h.Spec.Block, p.String())
		}
	}
	switch {
	case len(h.Spec.Block) > 0:
		return &datastore.Op{Verb: verb, Object: &h}, nil
	case verb == datastore.Create:
		return nil, nil
	}
	return &datastore.Op{Verb: datastore.Delete, Key: key, Revision: h.ResourceVersion}, nil
}

// handleKey names the record of a handle. Handles that are no names of objects get one of their own.
func handleKey(handle string) api.Key {
	name := handle
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		name = HandleOf(handle, "handle")
		if name[0] == '.' {
			name = "h" + name
		}
	}
	return api.Key{Kind: "IPAMHandle", Name: name}
}
