package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tortie/tortie/drivers"
)

// quarantined is an object that the kernel refused: it is tried again when it has another value, and now and then. That a
// hint names it says nothing: one that was refused stays in the hints until it is taken.
type quarantined struct {
	value any // the *drivers.Policy, *drivers.Set or *drivers.Endpoint that was refused
	err   error
	tries int
	until time.Time
}

const (
	firstQuarantine = time.Second
	maxQuarantine   = 5 * time.Minute
)

// applyRules makes our tables match want. It returns the objects that are on stand-ins; an error means that nothing is
// known.
func (d *Driver) applyRules(ctx context.Context, want *drivers.State, ch *drivers.Changes) (map[drivers.ObjectRef]error, error) {
	d.release(want)
	d.comp.update(want, ch)
	full := ch == nil || d.have == nil
	if !full {
		full = !d.refresh(ch)
	}
	if full {
		d.have = nil
		d.unread = map[Key]struct{}{}
	}
	err := d.commit(ctx, deltasOf(d.comp, ch))
	var refused *refusedOps
	if errors.As(err, &refused) && !full {
		// Somebody may have moved the tables under us: look at them before anything is blamed.
		d.log.Info("nftables refused a change, reading the tables back", "error", err)
		d.have = nil
		err = d.commit(ctx, nil)
	}
	if errors.As(err, &refused) {
		err = d.search(ctx, want, refused)
	}
	if err != nil {
		d.have = nil
		return nil, err
	}
	failed := map[drivers.ObjectRef]error{}
	maps.Copy(failed, d.comp.failed)
	for o, q := range d.quarantine {
		if q.until.IsZero() { // tried, and taken
			delete(d.quarantine, o)
			continue
		}
		failed[o] = q.err
	}
	return failed, nil
}

// readAtOnce is how many elements are read back in one Apply beside a change, if there are so many: a slice of the rolling
// resync must not make a change wait. The rest is read in Applies to come.
const readAtOnce = 1 << 13

// refresh reads those sets from the kernel whose members ch does not know, and reports whether it could.
func (d *Driver) refresh(ch *drivers.Changes) bool {
	asked := false
	add := func(k Key) {
		if have := d.have.Sets[k]; have != nil && have.sameShape(d.comp.prog.Sets[k]) {
			d.unread[k] = struct{}{}
		}
	}
	for id, sc := range ch.Sets {
		if !sc.Full {
			continue
		}
		asked = true
		if u := d.comp.sets[id]; u != nil {
			for k := range u.keys {
				add(k)
			}
		}
		for k := range d.comp.users[id] {
			add(k)
		}
	}
	if !asked {
		return true
	}
	var keys []Key
	for left := readAtOnce; left > 0 && len(d.unread) > 0; {
		for k := range d.unread {
			delete(d.unread, k)
			have, want := d.have.Sets[k], d.comp.prog.Sets[k]
			if have != nil && want != nil && have.sameShape(want) {
				keys = append(keys, k)
				d.comp.touched[k] = struct{}{}
				left -= 1 + have.Content.Len()
			}
			break
		}
	}
	if err := d.kernel.readSets(&d.comp.prog, d.have, keys); err != nil {
		d.log.Warn("sets cannot be read back, reading all", "error", err)
		return false
	}
	return true
}

// release ends the quarantine of objects that have another value, that are gone, or whose time has come.
func (d *Driver) release(want *drivers.State) {
	now := d.opts.Clock()
	poison := map[drivers.ObjectRef]error{}
	for o, q := range d.quarantine {
		switch value := valueOf(want, o); {
		case value == nil:
			delete(d.quarantine, o)
		case value != q.value || !now.Before(q.until):
			q.until = time.Time{} // tried now; its count of tries stays
			d.quarantine[o] = q
		default:
			poison[o] = q.err
		}
	}
	d.comp.setPoison(poison)
}

// valueOf is the value of an object that can be put on a stand-in, as a pointer; nil if it is gone. Values are immutable:
// another one is another pointer.
func valueOf(s *drivers.State, o drivers.ObjectRef) any {
	switch o.Kind {
	case drivers.ObjPolicy:
		if v := s.Policies[o.Policy]; v != nil {
			return v
		}
	case drivers.ObjSet:
		if v := s.Sets[o.Set]; v != nil {
			return v
		}
	case drivers.ObjEndpoint:
		if v := s.Endpoints[o.Endpoint]; v != nil {
			return v
		}
	}
	return nil
}

// commit writes what differs from the program: what becomes of packets changes in one transaction, which may have others
// ahead of it and behind it. If it is not known what the tables hold they are read first.
func (d *Driver) commit(ctx context.Context, deltas map[Key]delta) error {
	if err := d.readBack(ctx, &deltas); err != nil {
		return err
	}
	ops := plan(&d.comp.prog, d.have, d.comp.touched, deltas)
	for _, stage := range stages(ops, &d.comp.prog, d.have) {
		if err := d.send(stage, false); err != nil {
			var refused *refusedOps
			if errors.As(err, &refused) {
				refused.suspects = suspectsOf(ops)
			}
			return err
		}
		d.have.wrote(&d.comp.prog, opKeys(stage))
	}
	if len(ops) > 0 {
		d.have.wrote(&d.comp.prog, d.comp.touched)
	}
	d.comp.touched = map[Key]struct{}{} // not cleared: it costs as much to walk as it has ever held
	return nil
}

func (d *Driver) readBack(ctx context.Context, deltas *map[Key]delta) error {
	if err := ctx.Err(); err != nil || d.have != nil {
		return err
	}
	have, err := d.kernel.read(&d.comp.prog)
	if err != nil {
		return err
	}
	for t := range have.remake {
		d.log.Warn("a table of ours has been changed beyond repair, making it anew", "table", tableNames[t])
	}
	d.have, *deltas = have, nil
	d.comp.touched = allKeys(&d.comp.prog, &have.Program)
	return nil
}

// send is one transaction.
func (d *Driver) send(ops []op, dry bool) error {
	refused := &refusedOps{ops: map[int]error{}}
	for i := range ops {
		if d.opts.refuse == nil {
			break
		}
		if err := d.opts.refuse(ops[i].owner(), ops[i].String()); err != nil {
			refused.ops[i] = fmt.Errorf("%s: %w", ops[i].String(), err)
		}
	}
	if !dry {
		d.wrote(len(ops))
		d.metric("transactions", 1)
	}
	err := error(refused)
	if len(refused.ops) == 0 {
		err = d.kernel.commit(ops, dry)
	}
	var r *refusedOps
	if !errors.As(err, &r) {
		return err
	}
	if err = r.orShort(); err == r {
		r.blaming(ops)
	}
	return err
}

// blaming fills in which objects of the State the refused ops are about.
func (r *refusedOps) blaming(ops []op) {
	r.owners = map[drivers.ObjectRef]error{}
	for i, err := range r.ops {
		if o := ops[i].owner(); suspect(o) {
			r.owners[o] = err
		}
	}
	// Where a set is not made, whatever names it is refused as well: the next try tells whether for that only.
	for o := range r.owners {
		if o.Kind == drivers.ObjSet {
			maps.DeleteFunc(r.owners, func(o drivers.ObjectRef, _ error) bool { return o.Kind != drivers.ObjSet })
			break
		}
	}
	r.suspects = suspectsOf(ops)
}

// suspectsOf are the objects that ops are about, in the order in which they are tried.
func suspectsOf(ops []op) []drivers.ObjectRef {
	var suspects []drivers.ObjectRef
	seen := map[drivers.ObjectRef]bool{}
	for i := range ops {
		if o := ops[i].owner(); suspect(o) && !seen[o] {
			seen[o] = true
			suspects = append(suspects, o)
		}
	}
	// Endpoints first: without them nothing is needed. Then sets: what a policy adds is then the policy only.
	order := map[drivers.ObjectKind]int{drivers.ObjEndpoint: 0, drivers.ObjSet: 1, drivers.ObjPolicy: 2}
	slices.SortFunc(suspects, func(a, b drivers.ObjectRef) int {
		return cmp.Or(cmp.Compare(order[a.Kind], order[b.Kind]), strings.Compare(a.String(), b.String()))
	})
	return suspects
}

// suspect reports whether an object can be put on a stand-in.
func suspect(o drivers.ObjectRef) bool {
	return o.Kind == drivers.ObjPolicy || o.Kind == drivers.ObjSet || o.Kind == drivers.ObjEndpoint
}

// search finds the objects that the kernel does not take, puts what needs them on deny stand-ins, and commits the rest.
// Where the kernel says which messages it refused there is nothing to search. Where it refuses a transaction as a whole,
// the objects in it are halved: at most log2 n tries for each one to blame.
func (d *Driver) search(ctx context.Context, want *drivers.State, refused *refusedOps) error {
	found := maps.Clone(d.comp.poison)
	render := func(held []drivers.ObjectRef) {
		hold := map[drivers.ObjectRef]bool{}
		for _, o := range held {
			hold[o] = true
		}
		d.comp.setPoison(maps.Clone(found))
		d.comp.setHold(hold)
		d.comp.update(want, drivers.NewChanges())
	}
	defer render(nil)
	try := func(held []drivers.ObjectRef) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		render(held)
		d.metric("bisections", 1)
		return d.send(plan(&d.comp.prog, d.have, d.comp.touched, nil), true)
	}
	suspects := refused.suspects
	for len(suspects) > 0 {
		if len(refused.owners) == 0 {
			guilty, rest, err := d.halve(suspects, try)
			if err != nil {
				return err
			}
			refused.owners = map[drivers.ObjectRef]error{guilty: refused}
			suspects = rest
		}
		for o, err := range refused.owners {
			found[o] = err
			d.detain(o, valueOf(want, o), err)
		}
		render(nil)
		err := d.commit(ctx, nil)
		var again *refusedOps
		if !errors.As(err, &again) {
			return err
		}
		refused = again
		suspects = slices.DeleteFunc(suspects, func(o drivers.ObjectRef) bool { return found[o] != nil })
	}
	return refused
}

// halve finds the first of suspects with which a transaction is refused, while all before it are in and all after it are
// held back. rest is what comes after it.
func (d *Driver) halve(suspects []drivers.ObjectRef, try func(held []drivers.ObjectRef) error) (guilty drivers.ObjectRef, rest []drivers.ObjectRef, err error) {
	var refused *refusedOps
	if err := try(suspects); err != nil {
		return guilty, nil, err // it is none of them
	}
	lo, hi := 0, len(suspects) // with lo of them it works, with hi it does not
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		err := try(suspects[mid:])
		switch {
		case err == nil:
			lo = mid
		case errors.As(err, &refused):
			hi = mid
		default:
			return guilty, nil, err
		}
	}
	return suspects[hi-1], suspects[hi:], nil
}

// detain puts an object into quarantine, for longer each time.
func (d *Driver) detain(o drivers.ObjectRef, value any, err error) {
	q := d.quarantine[o]
	wait := firstQuarantine << min(q.tries, 20)
	if wait > maxQuarantine {
		wait = maxQuarantine
	}
	d.quarantine[o] = quarantined{value: value, err: err, tries: q.tries + 1, until: d.opts.Clock().Add(wait)}
	d.log.Warn("nftables refuses an object, what needs it denies", "object", o.String(), "error", err, "retry_in", wait)
}
