package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
)

// watched is an Allocator that reads its rules once, as an agent's does.
func (b *bench) watched(node string) *Allocator {
	b.t.Helper()
	s, err := ReadSettings(b.t.Context(), b.store, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	a := New(Config{Store: b.store, Node: node, Settings: func(context.Context) (Settings, error) { return s, nil }})
	a.queue.patient = time.Minute
	return a
}

// untilWaiting waits until n requests are in the queue.
func untilWaiting(t *testing.T, a *Allocator, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		a.queue.mu.Lock()
		now := len(a.queue.waiting)
		a.queue.mu.Unlock()
		if now >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d requests wait, want %d", now, n)
		}
	}
}

// TestReleasesShareWrites has releases come one after the other, as links are removed.
func TestReleasesShareWrites(t *testing.T) {
	for name, third := range map[string]func(*Allocator, *Coming){
		"the last comes":          func(a *Allocator, c *Coming) { a.Release(t.Context(), "h2", ReleaseOptions{Announced: c}) },
		"the last does not":       func(_ *Allocator, c *Coming) { c.Cancel() },
		"the last is gone before": func(a *Allocator, c *Coming) { a.Release(t.Context(), "none", ReleaseOptions{Announced: c}) },
		"an address is asked for": func(a *Allocator, _ *Coming) { a.Assign(t.Context(), Request{Handle: "new", V4: true}) },
		"nobody has patience":     func(*Allocator, *Coming) {},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""))
			a := b.watched("n1")
			if name == "nobody has patience" {
				a.queue.patient = time.Millisecond
			}
			had := map[netip.Addr]bool{}
			coming := make([]*Coming, 3)
			for i := range 3 {
				had[b.v4(a, fmt.Sprint("h", i)).Addr] = true
			}
			other := b.v4(a, "other")
			for i := range coming {
				coming[i] = a.Announce()
			}
			var wg sync.WaitGroup
			before := b.store.writes
			for i := range 2 {
				wg.Go(func() {
					got, err := a.Release(t.Context(), fmt.Sprint("h", i), ReleaseOptions{Announced: coming[i]})
					if err != nil || len(got) != 1 || !had[got[0]] {
						t.Errorf("released %v, %v", got, err)
					}
				})
				if name != "nobody has patience" {
					untilWaiting(t, a, i+1)
				}
			}
			third(a, coming[2])
			wg.Wait()
			if n := b.store.writes - before; n != 1 && name != "nobody has patience" {
				t.Errorf("%d writes, want 1", n)
			}
			coming[2].Cancel()
			coming[2].Cancel()
			if a.queue.coming != 0 {
				t.Errorf("%d are still announced", a.queue.coming)
			}
			if got := b.release(a, "other", ReleaseOptions{}); !slices.Equal(got, []netip.Addr{other.Addr}) {
				t.Errorf("the other one had %v, want %s", got, other.Addr)
			}
		})
	}
}

// TestManyReleases are more than fit into a write.
func TestManyReleases(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""))
	a := b.watched("n1")
	const n = 100
	coming := make([]*Coming, n)
	for i := range n {
		b.v4(a, fmt.Sprint("h", i))
	}
	for i := range n {
		coming[i] = a.Announce()
	}
	before := b.store.writes
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if got, err := a.Release(t.Context(), fmt.Sprint("h", i), ReleaseOptions{Announced: coming[i]}); err != nil || len(got) != 1 {
				t.Errorf("released %v, %v", got, err)
			}
		})
	}
	wg.Wait()
	if w := b.store.writes - before; w > 4 {
		t.Errorf("%d DELs at once are %d writes, want 2", n, w)
	}
}

// TestReleaseGivesUp ends the context of a release that waits for company.
func TestReleaseGivesUp(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""))
	a := b.watched("n1")
	b.v4(a, "h")
	defer a.Announce().Cancel()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := a.Release(ctx, "h", ReleaseOptions{})
		done <- err
	}()
	untilWaiting(t, a, 1)
	cancel()
	select {
	case <-done: // done, or given up: in time
	case <-time.After(20 * time.Second):
		t.Fatal("it waits on")
	}
}

// TestAskedAgain: a DEL that is repeated costs nothing, unless something may be left.
func TestAskedAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(b *bench, a *Allocator) *Allocator // ends with a release of "h", or what is like it
		reads bool
	}{
		{"released", func(b *bench, a *Allocator) *Allocator {
			b.v4(a, "h")
			b.release(a, "h", ReleaseOptions{})
			return a
		}, false},
		{"never had any", func(b *bench, a *Allocator) *Allocator {
			b.release(a, "h", ReleaseOptions{})
			return a
		}, true},
		{"released by another process", func(b *bench, a *Allocator) *Allocator {
			b.v4(a, "h")
			b.release(a, "h", ReleaseOptions{})
			return b.watched("n1")
		}, true},
		{"one allocation of it released", func(b *bench, a *Allocator) *Allocator {
			b.release(a, "h", ReleaseOptions{Held: []Held{b.v4(a, "h")}})
			return a
		}, true},
		{"a request had failed", func(b *bench, a *Allocator) *Allocator {
			b.store.Store.(*mem.Store).LoseAnswers(1)
			if _, err := a.Assign(b.t.Context(), Request{Handle: "h", V4: true}); err == nil {
				b.v4(a, "h") // it found out by itself
				a.gone.doubt("h")
			}
			b.release(a, "h", ReleaseOptions{})
			return a
		}, true},
		{"a block can't be read", func(b *bench, a *Allocator) *Allocator {
			b.v4(a, "h")
			b.release(a, "h", ReleaseOptions{})
			a.gone.blind()
			return a
		}, true},
	} {
		b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""))
		a := b.watched("n1")
		b.v4(a, "first")
		a = c.do(b, a)
		b.v4(a, "again") // has what another process has to read read
		before := b.store.reads
		if got := b.release(a, "h", ReleaseOptions{}); len(got) > 0 {
			t.Errorf("%s: released %v once more", c.name, got)
		}
		if n := b.store.reads - before; n > 0 != c.reads {
			t.Errorf("%s: %d reads", c.name, n)
		}
	}
}

// TestAskedAgainSkipsNothing: whatever a handle has is taken back, also if it had been before.
func TestAskedAgainSkipsNothing(t *testing.T) {
	b := newBench(t, poolYAML("v4", "10.65.0.0/16", ""))
	a := b.watched("n1")
	for range 3 {
		h := b.v4(a, "h")
		if got := b.release(a, "h", ReleaseOptions{}); len(got) != 1 || got[0] != h.Addr {
			t.Fatalf("released %v, want %s", got, h.Addr)
		}
	}
	// What comes with a release is written, whatever it releases.
	w := endpoint("w", Result{})
	if _, err := b.store.Create(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	b.release(a, "h", ReleaseOptions{Ops: []datastore.Op{{Verb: datastore.Delete, Key: api.Key{Kind: "WorkloadEndpoint", Namespace: "prod", Name: "w"}}}})
	if left := list1[*api.WorkloadEndpoint](b, "WorkloadEndpoint"); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	// A process before this one wrote it, and died.
	b.v4(b.watched("n1"), "old")
	if got := b.release(a, "old", ReleaseOptions{}); len(got) != 1 {
		t.Errorf("released %v of a process of before", got)
	}
}

// TestGoneIsBounded: and a doubt is for good.
func TestGoneIsBounded(t *testing.T) {
	var g gone
	g.doubt("bad")
	g.add("bad")
	g.back("bad")
	g.add("bad")
	if g.has("bad") {
		t.Error("a doubtful handle is for certain")
	}
	for i := range 2 * maxGone {
		g.add(fmt.Sprint(i))
		g.back(fmt.Sprint(i))
		g.add(fmt.Sprint(i))
	}
	if len(g.handles) != maxGone || len(g.order) != maxGone || !g.has(fmt.Sprint(2*maxGone-1)) || g.has("0") {
		t.Errorf("%d handles, %d in order", len(g.handles), len(g.order))
	}
}

// TestPoolsThatSelectNodes: to take back needs no labels.
func TestPoolsThatSelectNodes(t *testing.T) {
	b := newBench(t, nodeYAML("n1", "a: b"), poolYAML("v4", "10.65.0.0/16", `, nodeSelector: "a == 'b'"`))
	a := b.watched("n1")
	b.v4(a, "h")
	b.v4(a, "i") // the block has been read again, then
	before := b.store.reads
	b.release(a, "h", ReleaseOptions{})
	if n := b.store.reads - before; n != 0 {
		t.Errorf("%d reads", n)
	}
	if _, err := a.Assign(t.Context(), Request{Handle: "x", V4: true, Pools: []string{"none"}}); !errors.Is(err, ErrNoPool) {
		t.Error(err)
	}
}
