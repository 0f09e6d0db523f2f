package ipam

import (
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

// DefaultGrace is how long something has to look wrong before it is cleaned up.
const DefaultGrace = 15 * time.Minute

// CollectOptions says how to clean up.
type CollectOptions struct {
	AuditOptions
	Grace time.Duration // 0 = DefaultGrace; an ADD takes much less
	// Confirm is asked before an address is taken back whether nobody uses it now: where what InUse knows may be old. A
	// handle goes as a whole, or not at all. nil = it is so.
	Confirm func(context.Context, Allocation) (unused bool, err error)
}

// Collected is what was cleaned up.
type Collected struct {
	Released []Allocation
	Objects  []Finding
	// Candidates are leaks that are too young, that Confirm has not confirmed, or that could not be taken back.
	Candidates []Allocation
}

// Collect is an audit that cleans up what has looked the same, and wrong, at an earlier call at least the grace ago: it
// is to be called from time to time, by one allocator of the cluster. Everything that it does is compare-and-swap, so
// that two of them, or a node that wakes up, do no harm. What can't be read, asked or written is left alone, and is in the
// error, beside which all else has been done, unless the store is away.
func (a *Allocator) Collect(ctx context.Context, o CollectOptions) (Collected, error) {
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	var done Collected
	err := a.exclusively(ctx, func(ctx context.Context) (err error) {
		done, err = a.collect(ctx, o)
		return err
	})
	if err != nil {
		return done, fmt.Errorf("cleaning up addresses: %w", err)
	}
	return done, nil
}

// task is a job that does not share a write.
type task struct {
	do   func(context.Context) error
	done bool
}

func (t *task) labels() bool          { return false }
func (t *task) extra() []datastore.Op { return nil }
func (t *task) outcome() error        { return nil }
func (t *task) plan(ctx context.Context, _ *draft) error {
	if t.done { // another job of the batch has to be tried again
		return nil
	}
	t.done = true
	return t.do(ctx)
}

// exclusively runs f while no request is worked on.
func (a *Allocator) exclusively(ctx context.Context, f func(context.Context) error) error {
	return a.queue.do(ctx, &task{do: f}, a.process)
}

func (a *Allocator) collect(ctx context.Context, o CollectOptions) (Collected, error) {
	var done Collected
	w, err := a.view(ctx, o.AuditOptions)
	if err != nil {
		return done, err
	}
	report := w.report()
	ripe := a.ripen(report, o.Grace)
	kept := map[string]bool{} // handles that are not ripe in full, or that may be used
	for _, l := range report.Leaked {
		if !ripe[leakKey(l)] {
			kept[l.Handle] = true
		}
	}
	var t trouble
	a.confirm(ctx, o, report.Leaked, kept, &t)
	for _, l := range report.Leaked {
		if kept[l.Handle] || t.away {
			done.Candidates = append(done.Candidates, l)
			continue
		}
		ok, err := a.takeBack(ctx, w.rules, l)
		if err != nil {
			t.note(ctx, fmt.Errorf("taking back %s: %w", l.Addr, err))
			kept[l.Handle] = true
			done.Candidates = append(done.Candidates, l)
		}
		if ok {
			a.log.Info("leaked address released", "address", l.Addr, "handle", l.Handle, "node", l.Owner.Node)
			done.Released = append(done.Released, l)
		}
	}
	for _, f := range report.Objects {
		if t.away {
			break
		}
		if f.revision == "" { // there is nothing to compare with, maybe not even a name
			t.note(ctx, fmt.Errorf("%s: %s", f.Key.Kind, f.Problem))
			continue
		}
		if !ripe[findingKey(f)] {
			continue
		}
		ok, err := a.mend(ctx, w, f)
		if err != nil {
			t.note(ctx, fmt.Errorf("%v, which %s: %w", f.Key, f.Problem, err))
		}
		if ok {
			a.log.Info("address record cleaned up", "object", f.Key.String(), "problem", f.Problem)
			done.Objects = append(done.Objects, f)
		}
	}
	return done, t.err()
}

func leakKey(l Allocation) string { return l.Addr.String() + " " + l.Token }

func findingKey(f Finding) string { return f.Key.String() + " " + f.revision }

// ripen keeps since when what looks wrong has done so, and says what has for the grace.
func (a *Allocator) ripen(r Report, grace time.Duration) map[string]bool {
	now, seen, ripe := a.now(), map[string]time.Time{}, map[string]bool{}
	note := func(key string) {
		first, ok := a.suspects[key]
		if !ok || now.Before(first) {
			first = now
		}
		seen[key], ripe[key] = first, ok && now.Sub(first) >= grace
	}
	for _, l := range r.Leaked {
		note(leakKey(l))
	}
	for _, f := range r.Objects {
		note(findingKey(f))
	}
	a.suspects = seen
	return ripe
}

// trouble is what goes wrong with some objects, while work on the others goes on.
type trouble struct {
	errs []error
	away bool // nothing more can be done
}

func (t *trouble) note(ctx context.Context, err error) {
	if errors.Is(err, datastore.ErrUnavailable) || ctx.Err() != nil {
		t.away = true
		t.errs = slices.Insert(t.errs, 0, err)
		return
	}
	t.errs = append(t.errs, err)
}

// err is the first few errors: they are for people.
func (t *trouble) err() error {
	const most = 10
	if n := len(t.errs) - most; n > 0 {
		return errors.Join(append(t.errs[:most:most], fmt.Errorf("and %d more", n))...)
	}
	return errors.Join(t.errs...)
}

// confirm adds to kept the handles of those of leaked that somebody uses after all, or of which nobody could tell.
func (a *Allocator) confirm(ctx context.Context, o CollectOptions, leaked []Allocation, kept map[string]bool, t *trouble) {
	if o.Confirm == nil {
		return
	}
	for _, l := range leaked {
		if kept[l.Handle] || t.away {
			kept[l.Handle] = true
			continue
		}
		unused, err := o.Confirm(ctx, l)
		switch {
		case err != nil:
			t.note(ctx, fmt.Errorf("asking who uses %s: %w", l.Addr, err))
			kept[l.Handle] = true
		case !unused:
			a.log.Warn("an address that nobody seemed to use is used", "address", l.Addr, "handle", l.Handle, "node", l.Owner.Node)
			kept[l.Handle] = true
		}
	}
}

// takeBack releases an allocation, if it still is the same. It does not share the batch that it runs in: the leader does
// it before its own.
func (a *Allocator) takeBack(ctx context.Context, r *rules, l Allocation) (bool, error) {
	for range maxClaims {
		j := &release{handle: l.Handle, held: []Held{l.Held}, byToken: true}
		if err := a.know(ctx, l.Block); err != nil {
			return false, err
		}
		d := a.newDraft(r, nil)
		if err := j.plan(ctx, d); err != nil {
			if errors.Is(err, errAgain) {
				return false, nil
			}
			return false, err
		}
		if len(j.released) == 0 {
			return false, nil
		}
		again, _, err := a.commit(ctx, d, maxTries)
		if err == nil {
			return true, nil
		}
		if !again {
			return false, err
		}
		if err := a.freshen(ctx); err != nil {
			return false, err
		}
	}
	return false, nil
}

// mend repairs what a finding is about, after another look at it.
func (a *Allocator) mend(ctx context.Context, w *world, f Finding) (bool, error) {
	o, err := a.store.Get(ctx, f.Key)
	if err != nil || o.GetResourceVersion() != f.revision {
		if err == nil || conflict(err) || errors.Is(err, datastore.ErrUnreadable) {
			return false, nil
		}
		return false, err
	}
	switch o := o.(type) {
	case *api.BlockAffinity:
		return a.mendAffinity(ctx, w, o)
	case *api.IPAMBlock:
		return a.mendBlock(ctx, w, o)
	case *api.IPAMHandle:
		return a.mendRecord(ctx, o)
	}
	return false, nil
}

// quietly turns a lost race into nothing done.
func quietly(err error) (bool, error) {
	if conflict(err) {
		return false, nil
	}
	return err == nil, err
}

func (a *Allocator) mendAffinity(ctx context.Context, w *world, o *api.BlockAffinity) (bool, error) {
	b, err := a.get(ctx, rangeOf(o))
	if err != nil {
		return false, err
	}
	if b == nil || b.obj.Spec.Affinity != affinityOf(o) {
		remove := []datastore.Op{{Verb: datastore.Delete, Key: api.KeyOf(o), Revision: o.ResourceVersion}}
		if b != nil && b.obj.Spec.Affinity == "" && len(b.obj.Spec.Attributes) == 0 {
			remove = append([]datastore.Op{{Verb: datastore.Delete, Key: api.KeyOf(b.obj), Revision: b.obj.ResourceVersion}}, remove...)
		}
		return quietly(a.together(ctx, remove...))
	}
	all, err := a.affinities(ctx)
	if err != nil {
		return false, err
	}
	empty, other := b.empty(a.now(), w.rules.cooldown), clash(b.prefix, o.Name, all)
	switch {
	case o.Spec.State == statePending && other != nil:
		if empty {
			return a.removeBlock(ctx, b)
		}
	case empty && (o.Spec.State == stateDeletion || w.gone(o.Spec.Node, affinityOf(o))):
		return a.removeBlock(ctx, b)
	case o.Spec.State != stateConfirmed:
		c := *o
		c.Spec.State = stateConfirmed
		return quietly(a.store.Txn(ctx, datastore.Op{Verb: datastore.Update, Object: &c}))
	}
	return false, nil
}

// mendBlock removes an empty block that nobody will ask for, and gives one that has lost its affinity a new one.
func (a *Allocator) mendBlock(ctx context.Context, w *world, o *api.IPAMBlock) (bool, error) {
	b, err := readBlock(o)
	if err != nil {
		return false, nil
	}
	affinity, err := a.affinityFor(ctx, b)
	if err != nil {
		return false, err
	}
	all, err := a.affinities(ctx)
	if err != nil {
		return false, err
	}
	kind, node, _ := strings.Cut(o.Spec.Affinity, ":")
	switch {
	case o.Spec.Affinity == "":
		if anyFor(b.prefix, all) || !b.empty(a.now(), w.rules.cooldown) {
			return false, nil
		}
		return quietly(a.store.Txn(ctx, datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(o), Revision: o.ResourceVersion}))
	case b.empty(a.now(), w.rules.cooldown) && (affinity == nil || w.rules.poolOf(b.prefix) == nil || w.gone(node, o.Spec.Affinity)):
		return a.removeBlock(ctx, b)
	case affinity == nil && clash(b.prefix, "", all) == nil:
		// Pending, so that it is looked at again once everybody can see it.
		c := &api.BlockAffinity{Spec: api.BlockAffinitySpec{State: statePending, Node: node, Type: kind, CIDR: o.Spec.CIDR, Deleted: "false"}}
		c.Name = affinityName(node, b.prefix)
		if kind == "virtual" {
			c.Name = "virtual-" + c.Name
		}
		return quietly(a.store.Txn(ctx, datastore.Op{Verb: datastore.Create, Object: c}))
	}
	return false, nil
}

func anyFor(p netip.Prefix, all []*api.BlockAffinity) bool {
	for _, o := range all {
		if rangeOf(o) == p {
			return true
		}
	}
	return false
}

// mendRecord makes a handle's record say what is so.
func (a *Allocator) mendRecord(ctx context.Context, o *api.IPAMHandle) (bool, error) {
	h := *o
	h.Spec.Block = map[string]int{}
	for _, cidr := range slices.Sorted(maps.Keys(o.Spec.Block)) {
		p, err := api.ParsePrefix(cidr)
		if err != nil {
			continue
		}
		b, err := a.get(ctx, p)
		if err != nil {
			return false, err
		}
		if b != nil {
			if n := len(b.heldBy(h.Spec.HandleID)); n > 0 {
				h.Spec.Block[cidr] = n
			}
		}
	}
	if len(h.Spec.Block) == 0 {
		return quietly(a.store.Txn(ctx, datastore.Op{Verb: datastore.Delete, Key: api.KeyOf(o), Revision: o.ResourceVersion}))
	}
	return quietly(a.store.Txn(ctx, datastore.Op{Verb: datastore.Update, Object: &h}))
}

// Tidy gives back the blocks of this node that are empty, but one of each family. Called twice at least the grace apart,
// it gives back what was empty both times.
func (a *Allocator) Tidy(ctx context.Context, grace time.Duration) error {
	err := a.exclusively(ctx, func(ctx context.Context) error { return a.tidy(ctx, grace) })
	if err != nil {
		return fmt.Errorf("giving back empty blocks: %w", err)
	}
	return nil
}

func (a *Allocator) tidy(ctx context.Context, grace time.Duration) error {
	s, err := a.settings(ctx)
	if err != nil {
		return err
	}
	r := s.rules()
	for _, k := range a.blocks {
		k.stale = true
	}
	if err := a.freshen(ctx); err != nil {
		return err
	}
	d := a.newDraft(r, nil)
	seen := map[string]time.Time{}
	for _, p := range a.prefixes() {
		k := a.blocks[p]
		if k.affinity == nil || !k.empty(d.now, r.cooldown) || r.poolOf(p) != nil && a.owned(familyOf(p.Addr())) < 2 {
			continue
		}
		key := p.String() + " " + k.obj.ResourceVersion
		first, ok := a.empties[key]
		if !ok || d.now.Before(first) {
			first = d.now
		}
		seen[key] = first
		if ok && d.now.Sub(first) >= grace {
			if _, err := a.removeBlock(ctx, k.block); err != nil {
				return err
			}
		}
	}
	a.empties = seen
	return nil
}
