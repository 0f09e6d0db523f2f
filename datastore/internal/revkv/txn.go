package revkv

import (
	"bytes"
	"context"
	"fmt"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// maxOps is what etcd takes in one transaction, as it is configured by default.
const maxOps = 128

// txn does some operations as one: read what is there, work out what to write, write it if nothing has changed
// meanwhile; else, if that is not for the caller to know, once more.
type txn struct {
	s     *Store
	steps []*step
	keys  []string
}

// step is one operation.
type step struct {
	verb datastore.Verb
	name api.Key
	key  string
	want int64 // the revision that the caller demands; 0 = any
	obj  api.Object

	data  []byte // what will be stored
	mod   int64  // revision of it, when it is
	write bool   // there is something to write
}

// Txn implements datastore.Store.
func (s *Store) Txn(ctx context.Context, ops ...datastore.Op) error {
	if len(ops) == 0 {
		return nil
	}
	t, err := s.newTxn(ops)
	if err != nil {
		return err
	}
	return t.run(ctx)
}

func (s *Store) newTxn(ops []datastore.Op) (*txn, error) {
	if len(ops) > maxOps {
		return nil, fmt.Errorf("%w: %d operations in one transaction, more than %d", datastore.ErrInvalid, len(ops), maxOps)
	}
	t := &txn{s: s}
	seen := map[string]bool{}
	for _, op := range ops {
		st, err := s.newStep(op)
		if err != nil {
			return nil, err
		}
		if seen[st.key] {
			return nil, fmt.Errorf("%v: %w: twice in one transaction", st.name, datastore.ErrInvalid)
		}
		seen[st.key] = true
		t.steps = append(t.steps, st)
		t.keys = append(t.keys, st.key)
	}
	return t, nil
}

func (s *Store) newStep(op datastore.Op) (st *step, err error) {
	st = &step{verb: op.Verb, name: op.Key}
	demand := op.Revision
	if op.Verb != datastore.Delete {
		if op.Object == nil {
			return nil, fmt.Errorf("%w: nothing to write", datastore.ErrInvalid)
		}
		st.name, demand = api.KeyOf(op.Object), op.Object.GetResourceVersion()
	}
	if st.key, err = s.key(st.name); err != nil {
		return nil, err
	}
	if op.Verb != datastore.Create && demand != "" {
		if st.want, err = parseRevision(st.name, demand); err != nil {
			return nil, err
		}
	}
	if op.Verb == datastore.Delete {
		return st, nil
	}
	if st.obj, err = prepare(op.Object); err != nil {
		return nil, err
	}
	if op.Verb == datastore.Create {
		// Once, not for each try: it is how a try knows what an earlier one has done.
		newborn(st.obj)
		st.data, err = value(st.obj)
	}
	return st, err
}

// run tries until it is done, or it is clear that it can't be.
func (t *txn) run(ctx context.Context) error {
	ctx, cancel := t.s.bounded(ctx)
	defer cancel()
	var current []Entry
	if t.mustRead() {
		var err error
		if current, err = t.s.get(ctx, t.keys...); err != nil {
			return t.fail(err)
		}
	}
	for {
		guards, writes, err := t.plan(current)
		if err != nil {
			return err
		}
		if len(writes) == 0 {
			return nil
		}
		res, mine, err := t.commit(ctx, guards, writes)
		if err != nil {
			return t.fail(err)
		}
		if res.OK || mine {
			t.done(res)
			return nil
		}
		// Somebody was faster. With what is there now, plan knows whether that is an error or a reason to do it again.
		current = res.Current
		if ctx.Err() != nil {
			return t.fail(fmt.Errorf("%w: too many others write it: %w", datastore.ErrConflict, ctx.Err()))
		}
	}
}

// mustRead says whether the present values are needed: creates need none, and so go with one message.
func (t *txn) mustRead() bool {
	for _, st := range t.steps {
		if st.verb != datastore.Create {
			return true
		}
	}
	return false
}

func (t *txn) fail(err error) error {
	if len(t.steps) == 1 {
		return fmt.Errorf("%v: %w", t.steps[0].name, err)
	}
	return fmt.Errorf("%v and %d more: %w", t.steps[0].name, len(t.steps)-1, err)
}

// plan works out the writes for what is there now; current is nil if that has not been asked.
func (t *txn) plan(current []Entry) (guards []Guard, writes []Write, err error) {
	for i, st := range t.steps {
		e := Entry{Key: st.key}
		if current != nil {
			e = current[i]
		}
		if err := st.plan(e); err != nil {
			return nil, nil, err
		}
		guards = append(guards, Guard{Key: st.key, Mod: e.Mod})
		if st.write {
			writes = append(writes, Write{Key: st.key, Value: st.data})
		}
	}
	return guards, writes, nil
}

func (st *step) plan(e Entry) (err error) {
	switch {
	case st.verb == datastore.Create && e.Mod != 0:
		return fmt.Errorf("%v: %w", st.name, datastore.ErrExists)
	case st.verb == datastore.Create:
		st.write = true
		return nil
	case e.Mod == 0:
		return fmt.Errorf("%v: %w", st.name, datastore.ErrNotFound)
	case st.want != 0 && st.want != e.Mod:
		return fmt.Errorf("%v: %w", st.name, datastore.ErrConflict)
	case st.verb == datastore.Delete:
		st.write = true
		return nil
	}
	o := api.DeepCopy(st.obj)
	st.mod = e.Mod
	if st.data, st.write, err = succeed(o, e.Value); err != nil {
		return err
	}
	if !st.write {
		st.data = e.Value
	}
	return nil
}

// commit writes. If the answer to a try got lost, the next one finds out whether that had been done: mine.
func (t *txn) commit(ctx context.Context, guards []Guard, writes []Write) (res Result, mine bool, err error) {
	err = t.s.retry(ctx, func(try int) error {
		if res, err = t.s.b.Commit(ctx, guards, writes); err != nil {
			return err
		}
		mine = try > 1 && !res.OK && t.applied(res.Current)
		return nil
	})
	return res, mine, err
}

// applied says whether current is what the writes make. Values hold a random uid, or are as good whoever wrote them.
func (t *txn) applied(current []Entry) bool {
	for i, st := range t.steps {
		if !st.write {
			continue
		}
		if gone := current[i].Mod == 0; gone != (st.verb == datastore.Delete) || !gone && !bytes.Equal(current[i].Value, st.data) {
			return false
		}
	}
	return true
}

func (t *txn) done(res Result) {
	for i, st := range t.steps {
		switch {
		case !st.write:
		case res.OK:
			st.mod = res.Rev
		default:
			st.mod = res.Current[i].Mod
		}
	}
}
