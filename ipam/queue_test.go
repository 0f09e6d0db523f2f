package ipam

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tortie/tortie/datastore"
)

// faulty panics at its next write once, when a request waits behind it.
type faulty struct {
	datastore.Store
	before func()
}

func (f *faulty) Txn(ctx context.Context, ops ...datastore.Op) error {
	if before := f.before; before != nil {
		f.before = nil
		before()
		panic("a mistake")
	}
	return f.Store.Txn(ctx, ops...)
}

// panics says whether f does.
func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

// TestPanicInTheStore ends one request, and those that wait go on: callers survive it.
func TestPanicInTheStore(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.0.0.0/24", ""))
	s := &faulty{Store: b.store}
	a := New(Config{Store: s, Node: "n1"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	s.before = func() {
		wg.Go(func() {
			if _, err := a.Assign(ctx, Request{Handle: "behind", V4: true}); err != nil {
				t.Errorf("the one behind: %v", err)
			}
		})
		untilWaiting(t, a, 1)
	}
	if !panics(func() { a.Assign(ctx, Request{Handle: "first", V4: true}) }) {
		t.Error("no panic")
	}
	wg.Wait()
	if _, err := a.Assign(ctx, Request{Handle: "first", V4: true}); err != nil {
		t.Errorf("again: %v", err)
	}
	if got, err := a.Release(ctx, "behind", ReleaseOptions{}); err != nil || len(got) != 1 {
		t.Errorf("released %v, %v", got, err)
	}
}

// TestPanicOfTheLeader tells those whose requests were in the same batch that nobody knows what came of them.
func TestPanicOfTheLeader(t *testing.T) {
	b := newBench(t)
	a := b.node("n1")
	q := &a.queue
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var mu sync.Mutex
	var panicked int
	var errs []error
	work := func(_ context.Context, batch []*ticket) {
		if len(batch) > 1 {
			panic("a mistake")
		}
	}
	var wg sync.WaitGroup
	first := func(context.Context, []*ticket) {
		for i := range 3 {
			wg.Go(func() {
				var err error
				did := panics(func() { err = q.do(ctx, &task{}, work) })
				mu.Lock()
				defer mu.Unlock()
				if did {
					panicked++
				} else {
					errs = append(errs, err)
				}
			})
			untilWaiting(t, a, i+1)
		}
	}
	if err := q.do(ctx, &task{}, first); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if panicked != 1 || len(errs) != 2 || !errors.Is(errs[0], errBroken) || !errors.Is(errs[1], errBroken) {
		t.Errorf("%d panicked, the others got %v", panicked, errs)
	}
	if err := q.do(ctx, &task{}, work); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
