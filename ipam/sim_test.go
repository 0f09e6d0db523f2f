package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"k8s.io/apimachinery/pkg/types"
)

var errCrashed = fmt.Errorf("%w: the process has been killed", datastore.ErrUnavailable)

// simStore is a compare-and-swap store without JSON, locks or goroutines. Objects in it are never changed: what is read
// is shared.
type simStore struct {
	kinds  map[string]*simKind
	rev    int
	writes int
	// wrote sees each change of a block before anybody else does.
	wrote func(before, after *api.IPAMBlock)
}

type simKind struct {
	objects map[string]api.Object
	sorted  []api.Object // nil after a change of what there is
}

func newSimStore() *simStore { return &simStore{kinds: map[string]*simKind{}} }

func (s *simStore) kind(name string) *simKind {
	if s.kinds[name] == nil {
		s.kinds[name] = &simKind{objects: map[string]api.Object{}}
	}
	return s.kinds[name]
}

func (s *simStore) list(kind string) []api.Object {
	k := s.kind(kind)
	if k.sorted == nil {
		k.sorted = make([]api.Object, 0, len(k.objects))
		for _, o := range k.objects {
			k.sorted = append(k.sorted, o)
		}
		slices.SortFunc(k.sorted, func(a, b api.Object) int { return cmp.Compare(a.GetName(), b.GetName()) })
	}
	return k.sorted
}

func simClone(o api.Object) api.Object {
	switch o := o.(type) {
	case *api.IPAMBlock:
		c := *o
		return &c
	case *api.BlockAffinity:
		c := *o
		return &c
	case *api.IPAMHandle:
		c := *o
		return &c
	case *api.IPPool:
		c := *o
		return &c
	case *api.WorkloadEndpoint:
		c := *o
		return &c
	}
	return api.DeepCopy(o)
}

func (s *simStore) txn(ops []datastore.Op) error {
	for i := range ops {
		op := &ops[i]
		key, revision := op.Key, op.Revision
		if op.Verb != datastore.Delete {
			key, revision = api.KeyOf(op.Object), op.Object.GetResourceVersion()
		}
		old := s.kind(key.Kind).objects[key.Name]
		switch {
		case op.Verb == datastore.Create && old != nil:
			return fmt.Errorf("%v: %w", key, datastore.ErrExists)
		case op.Verb == datastore.Create:
		case old == nil:
			return fmt.Errorf("%v: %w", key, datastore.ErrNotFound)
		case revision != "" && revision != old.GetResourceVersion():
			return fmt.Errorf("%v: %w", key, datastore.ErrConflict)
		}
	}
	s.rev++
	s.writes++
	for i := range ops {
		s.write(&ops[i])
	}
	return nil
}

func (s *simStore) write(op *datastore.Op) {
	key := op.Key
	var o api.Object
	if op.Verb != datastore.Delete {
		key, o = api.KeyOf(op.Object), simClone(op.Object)
	}
	k := s.kind(key.Kind)
	old := k.objects[key.Name]
	k.sorted = nil
	if o == nil {
		delete(k.objects, key.Name)
	} else {
		o.SetResourceVersion(strconv.Itoa(s.rev))
		if old != nil {
			o.SetUID(old.GetUID())
		} else {
			o.SetUID(types.UID("u" + strconv.Itoa(s.rev)))
		}
		k.objects[key.Name] = o
	}
	if key.Kind == "IPAMBlock" && s.wrote != nil {
		before, _ := old.(*api.IPAMBlock)
		after, _ := o.(*api.IPAMBlock)
		s.wrote(before, after)
	}
}

// client is a process's connection to the store. Before each call the scheduler decides who is next, and whether the
// process lives to see the answer.
type client struct {
	s     *simStore
	rng   *rand.Rand
	yield func(struct{}) bool // nil = nobody else is there
	dead  bool
	// flaky is how many of 1000 calls fail; of writes, half of them after they were done.
	flaky int
	// late says that whoever called has given up: the context has ended.
	late bool
}

func (c *client) enter() error {
	if !c.dead && c.yield != nil && !c.yield(struct{}{}) {
		c.dead = true
	}
	if c.dead {
		return errCrashed
	}
	if c.late || c.flaky > 0 && c.rng.IntN(2000) < c.flaky {
		return datastore.ErrUnavailable
	}
	return nil
}

func (c *client) leave() error {
	if c.flaky > 0 && c.rng.IntN(2000) < c.flaky {
		return fmt.Errorf("%w: the answer was lost", datastore.ErrUnavailable)
	}
	return nil
}

func (c *client) Get(_ context.Context, key api.Key) (api.Object, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	if o := c.s.kind(key.Kind).objects[key.Name]; o != nil {
		return o, nil
	}
	return nil, datastore.ErrNotFound
}

func (c *client) List(_ context.Context, kind, _ string) ([]api.Object, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	return c.s.list(kind), nil
}

func (c *client) Update(_ context.Context, o api.Object) (api.Object, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	if err := c.s.txn([]datastore.Op{{Verb: datastore.Update, Object: o}}); err != nil {
		return nil, err
	}
	return c.s.kind(o.GetKind()).objects[o.GetName()], c.leave()
}

func (c *client) Txn(_ context.Context, ops ...datastore.Op) error {
	if err := c.enter(); err != nil {
		return err
	}
	if err := c.s.txn(ops); err != nil {
		return err
	}
	return c.leave()
}

// process runs one thing after the other, each a coroutine that stops before every call of the store.
type process struct {
	c      *client
	a      *Allocator
	next   func() (struct{}, bool)
	stop   func()
	done   func(lived bool) // what follows from it
	paused int              // steps for which it does not run
	now    func() time.Time // the same for all
	since  time.Time
}

func (p *process) busy() bool { return p.next != nil }

func (p *process) start(f func(), done func(lived bool)) {
	p.done, p.since, p.c.late = done, p.now(), false
	p.next, p.stop = iter.Pull(func(yield func(struct{}) bool) {
		p.c.yield = yield
		f()
		p.c.yield = nil
	})
}

// step lets it run up to its next call of the store.
func (p *process) step() {
	if _, more := p.next(); !more {
		p.next, p.stop = nil, nil
		p.done(true)
	}
}

// kill ends it where it is.
func (p *process) kill() {
	if p.busy() {
		p.stop()
		p.next, p.stop = nil, nil
		p.done(false)
	}
	p.c.dead = true
}

// sane checks what must hold for each block by itself.
func sane(o *api.IPAMBlock) error {
	var errs []string
	for _, e := range api.Validate(o) {
		errs = append(errs, e.Error())
	}
	if len(errs) > 0 {
		return errors.New(strings.Join(errs, "; "))
	}
	return nil
}
