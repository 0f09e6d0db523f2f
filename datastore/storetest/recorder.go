package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// watching is a watch that keeps what it is told, and checks what holds for every batch.
type watching struct {
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
	gate   chan struct{} // nil: open; the consumer waits for it in each batch

	mu      sync.Mutex
	changed chan struct{}
	lenient bool // may be told of deletes of what it does not hold: it resumed without saying what that is
	world   map[api.Key]string
	broken  map[api.Key]error
	partial map[api.Key][]api.Problem // what could not be read of what came last
	puts    map[api.Key]int           // events with a value, by key
	deletes map[api.Key]int
	batches []datastore.Batch // without the objects
	last    datastore.Batch
	inSyncs int // changes to in sync
	faults  []string
}

var everything = []string{"NetworkSet", "GlobalNetworkSet"}

// watch starts a watch of both kinds, with a snapshot.
func watch(t *testing.T, s datastore.Store) *watching {
	return watchWith(t, s, datastore.WatchOptions{Kinds: everything}, nil)
}

// resume goes on where w has ended, telling what it holds if known.
func (w *watching) resume(s datastore.Store, known bool) *watching {
	o := datastore.WatchOptions{Kinds: everything, Resume: w.last.Resume}
	if known {
		o.Known = maps.Clone(w.world)
	}
	return watchWith(w.t, s, o, func(n *watching) {
		n.lenient = !known
		maps.Copy(n.world, w.world)
	})
}

func watchWith(t *testing.T, s datastore.Store, o datastore.WatchOptions, prepare func(*watching)) *watching {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watching{
		t: t, cancel: cancel, ended: make(chan error, 1), changed: make(chan struct{}),
		world: map[api.Key]string{}, broken: map[api.Key]error{}, partial: map[api.Key][]api.Problem{},
		puts: map[api.Key]int{}, deletes: map[api.Key]int{},
	}
	if prepare != nil {
		prepare(w)
	}
	go func() { w.ended <- s.Watch(ctx, o, w.batch) }()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *watching) batch(b datastore.Batch) error {
	if w.gate != nil {
		<-w.gate
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[api.Key]bool{}
	for _, e := range b.Events {
		if seen[e.Key] {
			w.faults = append(w.faults, fmt.Sprintf("%v twice in a batch", e.Key))
		}
		seen[e.Key] = true
		w.event(e)
	}
	switch {
	case w.last.InSync && !b.InSync:
		w.faults = append(w.faults, "in sync no more")
	case !w.last.InSync && b.InSync:
		w.inSyncs++
	}
	if b.InSync && b.Resume == "" {
		w.faults = append(w.faults, "in sync, and nothing to resume from")
	}
	if b.Status.Err != nil && (b.Status.Connected || b.Status.Since.IsZero()) {
		w.faults = append(w.faults, fmt.Sprintf("status %+v", b.Status))
	}
	w.last = b
	w.batches = append(w.batches, b)
	close(w.changed)
	w.changed = make(chan struct{})
	return nil
}

func (w *watching) event(e datastore.Event) {
	_, held := w.world[e.Key]
	delete(w.partial, e.Key)
	if len(e.Problems) > 0 {
		w.partial[e.Key] = e.Problems
	}
	switch {
	case e.Object != nil:
		w.puts[e.Key]++
		w.world[e.Key] = e.Object.GetResourceVersion()
		delete(w.broken, e.Key)
		if api.KeyOf(e.Object) != e.Key || e.Problem != nil {
			w.faults = append(w.faults, fmt.Sprintf("%v with object %v, problem %v", e.Key, api.KeyOf(e.Object), e.Problem))
		}
	case e.Problem != nil:
		w.world[e.Key] = ""
		w.broken[e.Key] = e.Problem
	default:
		w.deletes[e.Key]++
		if !held && !w.lenient {
			w.faults = append(w.faults, fmt.Sprintf("delete of %v, which was not there", e.Key))
		}
		delete(w.world, e.Key)
		delete(w.broken, e.Key)
	}
}

// until waits for a condition on what has been told; it is called with the lock held.
func (w *watching) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		if ok() {
			w.mu.Unlock()
			return
		}
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case err := <-w.ended:
			w.ended <- err
			w.t.Fatalf("the watch ended before %s: %v", what, err)
		case <-deadline:
			w.mu.Lock()
			defer w.mu.Unlock()
			w.t.Fatalf("%s did not come: %d batches, last in sync %v, status %+v, %d keys",
				what, len(w.batches), w.last.InSync, w.last.Status, len(w.world))
		}
	}
}

func (w *watching) untilInSync() {
	w.t.Helper()
	w.until("in sync", func() bool { return w.last.InSync })
}

// untilEqual waits until the world is what the store holds.
func (w *watching) untilEqual(s datastore.Store) {
	w.t.Helper()
	want := revisions(w.t, s)
	w.until("the world of the store", func() bool { return w.last.InSync && maps.Equal(w.world, want) })
}

// revisions is what the store holds.
func revisions(t *testing.T, s datastore.Store) map[api.Key]string {
	t.Helper()
	want := map[api.Key]string{}
	for _, kind := range everything {
		os, err := s.List(background(t), kind, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range os {
			want[api.KeyOf(o)] = o.GetResourceVersion()
		}
	}
	return want
}

// stop ends the watch, and reports what was wrong with it.
func (w *watching) stop() {
	w.t.Helper()
	w.cancel()
	select {
	case err := <-w.ended:
		w.ended <- err
		if !errors.Is(err, context.Canceled) && !errors.Is(err, datastore.ErrUnavailable) && err != nil {
			w.t.Errorf("the watch ended with %v", err)
		}
	case <-time.After(patience):
		w.t.Fatal("the watch does not end")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range w.faults {
		w.t.Error(f)
	}
	w.faults = nil
}

// wantEvents checks which keys had events since the beginning of the watch.
func (w *watching) wantEvents(puts, deletes string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range []struct {
		what string
		want string
		got  map[api.Key]int
	}{{"puts", puts, w.puts}, {"deletes", deletes, w.deletes}} {
		var got []string
		for k := range c.got {
			got = append(got, k.Name)
		}
		slices.Sort(got)
		if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
			w.t.Errorf("%s: %s", c.what, diff)
		}
	}
}
