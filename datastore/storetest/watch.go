package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

func testWatchSnapshotAndDelta(t *testing.T, h *Harness) {
	create(t, h.Store, netset("default", "a"))
	b := create(t, h.Store, globalset("b"))
	create(t, h.Store, &api.Tier{ObjectMeta: globalset("other").ObjectMeta})
	w := watch(t, h.Store)
	w.untilInSync()
	w.wantEvents("a b", "")
	c := create(t, h.Other, netset("default", "c"))
	update(t, h.Other, labelled(b, "k", "v"))
	w.untilEqual(h.Other)
	remove(t, h.Other, c)
	create(t, h.Other, netset("default", "d"))
	w.untilEqual(h.Other)
	w.stop()
	w.wantEvents("a b c d", "c")
	if w.inSyncs != 1 || !w.last.Status.Connected || w.last.Status.Err != nil || w.last.Status.Kinds != nil {
		t.Errorf("in sync %d times, status %+v", w.inSyncs, w.last.Status)
	}
}

func testWatchPages(t *testing.T, h *Harness) {
	fill(t, h.Store, many()...)
	w := watch(t, h.Store)
	w.untilInSync()
	if len(w.world) != manySets {
		t.Errorf("in sync with %d of %d", len(w.world), manySets)
	}
	w.untilEqual(h.Other)
	w.stop()
	for k, n := range w.puts {
		if n != 1 {
			t.Errorf("%v came %d times", k, n)
		}
	}
}

func testWatchTxnInOneBatch(t *testing.T, h *Harness) {
	w := watch(t, h.Store)
	w.untilInSync()
	var ops []datastore.Op
	for i := range 40 {
		ops = append(ops,
			datastore.Op{Verb: datastore.Create, Object: globalset(fmt.Sprintf("g%d", i))},
			datastore.Op{Verb: datastore.Create, Object: netset("default", fmt.Sprintf("n%d", i))})
	}
	if err := h.Other.Txn(background(t), ops...); err != nil {
		t.Fatal(err)
	}
	w.untilEqual(h.Other)
	w.stop()
	for _, b := range w.batches {
		if n := len(b.Events); n != 0 && n != len(ops) {
			t.Errorf("a batch with %d of %d changes of one transaction", n, len(ops))
		}
	}
}

// testWatchOrder: what was written first is told first, also of different kinds.
func testWatchOrder(t *testing.T, h *Harness) {
	w := watch(t, h.Store)
	w.untilInSync()
	for i := range 30 {
		if i%2 == 0 {
			create(t, h.Other, netset("default", fmt.Sprintf("s%02d", i)))
		} else {
			create(t, h.Other, globalset(fmt.Sprintf("s%02d", i)))
		}
	}
	w.untilEqual(h.Other)
	w.stop()
	next := 0
	for _, b := range w.batches {
		for _, e := range b.Events {
			if want := fmt.Sprintf("s%02d", next); e.Key.Name != want {
				t.Fatalf("%s came when %s was due", e.Key.Name, want)
			}
			next++
		}
	}
}

func testWatchResume(t *testing.T, h *Harness) {
	for _, n := range []string{"a", "b", "c"} {
		create(t, h.Store, netset("default", n))
	}
	first := watch(t, h.Store)
	first.untilInSync()
	first.stop()
	remove(t, h.Store, netset("default", "b"))
	update(t, h.Store, netset("default", "c", "10.0.0.0/8"))
	create(t, h.Store, netset("default", "d"))
	gone := create(t, h.Store, netset("default", "gone"))
	remove(t, h.Store, gone)
	for _, known := range []bool{true, false} {
		w := first.resume(h.Store, known)
		w.untilEqual(h.Other)
		w.stop()
		want := "b"
		if !known {
			want = "b gone"
		}
		w.wantEvents("c d", want)
	}
}

func testWatchResumeCompacted(t *testing.T, h *Harness) {
	for _, n := range []string{"a", "b", "c"} {
		create(t, h.Store, netset("default", n))
	}
	first := watch(t, h.Store)
	first.untilInSync()
	first.stop()
	remove(t, h.Store, netset("default", "b"))
	update(t, h.Store, netset("default", "c", "10.0.0.0/8"))
	create(t, h.Store, globalset("d"))
	h.Compact()
	w := first.resume(h.Store, true)
	w.untilEqual(h.Other)
	create(t, h.Store, globalset("e"))
	w.untilEqual(h.Other)
	w.stop()
	w.wantEvents("c d e", "b")
}

// testWatchResumeCompactedUnknown: without knowing what the caller holds, all is sent, and nothing is said to be gone.
func testWatchResumeCompactedUnknown(t *testing.T, h *Harness) {
	create(t, h.Store, netset("default", "a"))
	create(t, h.Store, netset("default", "b"))
	first := watch(t, h.Store)
	first.untilInSync()
	first.stop()
	remove(t, h.Store, netset("default", "b"))
	create(t, h.Store, globalset("d"))
	h.Compact()
	w := first.resume(h.Store, false)
	w.untilInSync()
	w.stop()
	w.wantEvents("a d", "")
}

func testWatchResumeNothingNew(t *testing.T, h *Harness) {
	create(t, h.Store, netset("default", "a"))
	first := watch(t, h.Store)
	first.untilInSync()
	first.stop()
	// What others write moves the store on; nothing of it is of these kinds.
	create(t, h.Store, &api.Tier{ObjectMeta: globalset("other").ObjectMeta})
	w := first.resume(h.Store, true)
	w.untilInSync()
	w.stop()
	w.wantEvents("", "")
	if w.inSyncs != 1 {
		t.Errorf("in sync %d times", w.inSyncs)
	}
}

func testWatchCut(t *testing.T, h *Harness) {
	w := watch(t, h.Store)
	w.untilInSync()
	for i := range 5 {
		create(t, h.Other, netset("default", fmt.Sprintf("a%d", i)))
		h.Cut()
		create(t, h.Other, netset("default", fmt.Sprintf("b%d", i)))
		if i > 0 {
			remove(t, h.Other, netset("default", fmt.Sprintf("a%d", i-1)))
		}
		w.untilEqual(h.Other)
	}
	w.until("connected", func() bool { return w.last.Status.Connected })
	w.stop()
	for k, n := range w.puts {
		if n != 1 {
			t.Errorf("%v came %d times", k, n)
		}
	}
	if w.inSyncs != 1 {
		t.Errorf("in sync %d times", w.inSyncs)
	}
}

func testWatchCompactedWhileDown(t *testing.T, h *Harness) {
	for _, n := range []string{"a", "b", "c", "d"} {
		create(t, h.Store, netset("default", n))
	}
	w := watch(t, h.Store)
	w.untilInSync()
	h.Down()
	w.until("the bad news", func() bool { return !w.last.Status.Connected })
	if !errors.Is(w.last.Status.Err, datastore.ErrUnavailable) {
		t.Errorf("status %+v", w.last.Status)
	}
	remove(t, h.Other, netset("default", "b"))
	update(t, h.Other, netset("default", "c", "10.0.0.0/8"))
	remove(t, h.Other, netset("default", "d"))
	create(t, h.Other, netset("default", "d"))
	create(t, h.Other, globalset("e"))
	h.Compact()
	h.Up()
	w.untilEqual(h.Other)
	w.until("connected", func() bool { return w.last.Status.Connected && w.last.Status.Err == nil })
	w.stop()
	w.wantEvents("a b c d e", "b")
	if w.puts[api.KeyOf(netset("default", "a"))] != 1 {
		t.Error("a, which has not changed, was sent again")
	}
}

func testWatchRestored(t *testing.T, h *Harness) {
	create(t, h.Store, netset("default", "kept"))
	create(t, h.Store, netset("default", "deleted"))
	create(t, h.Store, netset("default", "changed"))
	restore := h.Backup()
	w := watch(t, h.Store)
	w.untilInSync()
	remove(t, h.Store, netset("default", "deleted"))
	update(t, h.Store, netset("default", "changed", "10.0.0.0/8"))
	create(t, h.Store, netset("default", "new"))
	w.untilEqual(h.Other)
	restore()
	w.untilEqual(h.Other)
	if _, ok := w.world[api.KeyOf(netset("default", "new"))]; ok {
		t.Error("new, which is not in the backup, is still there")
	}
	create(t, h.Other, netset("default", "after"))
	w.untilEqual(h.Other)
	w.stop()
}

func testWatchDownAtFirst(t *testing.T, h *Harness) {
	create(t, h.Other, netset("default", "a"))
	h.Down()
	w := watch(t, h.Store)
	w.until("the bad news", func() bool { return errors.Is(w.last.Status.Err, datastore.ErrUnavailable) })
	if w.last.InSync || w.last.Status.Connected || w.last.Resume != "" {
		t.Errorf("in sync %v, resume %q, status %+v", w.last.InSync, w.last.Resume, w.last.Status)
	}
	h.Up()
	w.untilEqual(h.Other)
	w.until("connected", func() bool { return w.last.Status.Connected })
	w.stop()
}

// testWatchSlowConsumer: a consumer that hangs finds the present when it comes back, not all of the past.
func testWatchSlowConsumer(t *testing.T, h *Harness) {
	gate := make(chan struct{})
	create(t, h.Store, netset("default", "a"))
	w := watchWith(t, h.Store, datastore.WatchOptions{Kinds: everything}, func(w *watching) { w.gate = gate })
	gate <- struct{}{} // the first batch; the consumer hangs in the second
	w.untilInSync()
	create(t, h.Other, netset("default", "hang"))
	for i := range 200 {
		update(t, h.Other, labelled(netset("default", "a"), "n", strconv.Itoa(i)))
		if i%10 == 0 {
			passing := create(t, h.Other, netset("default", fmt.Sprintf("passing%d", i)))
			remove(t, h.Other, passing)
		}
	}
	last := create(t, h.Other, netset("default", "last"))
	close(gate)
	w.untilEqual(h.Other)
	w.stop()
	// Up to a few, if batches were under way when the writes began.
	if n := w.puts[api.KeyOf(netset("default", "a"))]; n > 10 {
		t.Errorf("a came %d times, want a few", n)
	}
	if n := len(w.puts); n > 8 {
		t.Errorf("%d keys came, want a few", n)
	}
	if w.puts[api.KeyOf(last)] != 1 {
		t.Error("the last one did not come")
	}
}

func testWatchUnreadable(t *testing.T, h *Harness) {
	bad := api.KeyOf(netset("default", "bad"))
	later := create(t, h.Store, netset("default", "later"))
	h.SetRaw(bad, []byte(`{`))
	w := watch(t, h.Store)
	w.untilInSync()
	if err := w.broken[bad]; !errors.Is(err, datastore.ErrUnreadable) {
		t.Errorf("problem of the snapshot: %v", err)
	}
	h.SetRaw(api.KeyOf(later), []byte(``))
	w.until("the second problem", func() bool { return w.broken[api.KeyOf(later)] != nil })
	update(t, h.Other, netset("default", "bad"))
	remove(t, h.Other, later)
	w.untilEqual(h.Other)
	w.stop()
	if len(w.broken) != 0 {
		t.Errorf("still broken: %v", w.broken)
	}
}

// testWatchPartial: what can't be read of a value comes beside the rest of it.
func testWatchPartial(t *testing.T, h *Harness) {
	key := api.KeyOf(netset("default", "partly"))
	h.SetRaw(key, []byte(`{"apiVersion": "projectcalico.org/v3", "kind": "NetworkSet", "metadata": {"namespace": "default", "name": "partly"}, "spec": {"nets": ["10.0.0.0/8", 5]}}`))
	w := watch(t, h.Store)
	w.untilInSync()
	if ps := w.partial[key]; len(ps) != 1 || ps[0].Path != "spec.nets[1]" || w.world[key] == "" {
		t.Errorf("problems %v of revision %q", ps, w.world[key])
	}
	update(t, h.Other, netset("default", "partly"))
	w.until("a whole value", func() bool { return w.partial[key] == nil })
	w.stop()
}

func testWatchEnds(t *testing.T, h *Harness) {
	enough := errors.New("enough")
	create(t, h.Store, netset("default", "a"))
	err := h.Store.Watch(background(t), datastore.WatchOptions{Kinds: everything}, func(datastore.Batch) error { return enough })
	if err != enough {
		t.Errorf("by the consumer: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	err = h.Store.Watch(ctx, datastore.WatchOptions{Kinds: everything}, func(datastore.Batch) error {
		cancel(errors.New("some cause"))
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("by its context: %v", err)
	}
	w := watch(t, h.Store)
	w.untilInSync()
	if err := h.Store.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	select {
	case err := <-w.ended:
		w.ended <- err
		if !errors.Is(err, datastore.ErrUnavailable) {
			t.Errorf("by close: %v", err)
		}
	case <-time.After(patience):
		t.Error("the watch of a closed store goes on")
	}
	if _, err := h.Store.Get(background(t), api.KeyOf(netset("default", "a"))); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("get of a closed store: %v", err)
	}
}

func testWatchInvalid(t *testing.T, h *Harness) {
	fn := func(datastore.Batch) error { return nil }
	for _, o := range []datastore.WatchOptions{
		{},
		{Kinds: []string{"Nonsense"}},
		{Kinds: everything, Resume: "nonsense"},
	} {
		if err := h.Store.Watch(background(t), o, fn); !errors.Is(err, datastore.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// testWatchUnderFire: whatever happens, the watch ends up with what the store holds.
func testWatchUnderFire(t *testing.T, h *Harness) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	w := watch(t, h.Store)
	for range 12 {
		for range 15 {
			write(t, h, rnd)
		}
		switch rnd.IntN(4) {
		case 0:
			h.Cut()
		case 1:
			h.Compact()
		case 2:
			h.Cut()
			write(t, h, rnd)
			h.Compact()
		}
		if rnd.IntN(3) == 0 {
			w.untilEqual(h.Other)
		}
		if rnd.IntN(4) == 0 {
			w.untilInSync()
			w.stop()
			w = w.resume(h.Store, true)
		}
	}
	w.untilEqual(h.Other)
	w.stop()
}

// write does something to one of a few resources.
func write(t *testing.T, h *Harness, rnd *rand.Rand) {
	t.Helper()
	name := fmt.Sprintf("x%d", rnd.IntN(12))
	var o api.Object = netset("default", name)
	if rnd.IntN(2) == 0 {
		o = globalset(name)
	}
	o = labelled(o, "n", strconv.Itoa(rnd.IntN(1000)))
	var err error
	switch rnd.IntN(3) {
	case 0:
		_, err = h.Other.Create(background(t), o)
	case 1:
		_, err = h.Other.Update(background(t), o)
	case 2:
		err = h.Other.Delete(background(t), api.KeyOf(o), "")
	}
	if err != nil && !errors.Is(err, datastore.ErrExists) && !errors.Is(err, datastore.ErrNotFound) {
		t.Fatal(err)
	}
}
