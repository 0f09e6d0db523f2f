package workload

import (
	"fmt"
	"sync"
	"testing"

	"github.com/tortie/tortie/agent/ledger"
)

const crowd = 8

// crowded is a host with many sandboxes of a pod.
func crowded(t *testing.T) (*host, *Workloads) {
	t.Helper()
	h := kubeHost(true)(t)
	w := h.begin()
	for i := range crowd {
		if err := h.attach(w, fmt.Sprint("s", i)); err != nil {
			t.Fatal(err)
		}
	}
	return h, w
}

// detachAll unplugs all of a crowd at once, and returns how many answers were good.
func (h *host) detachAll(w *Workloads) int {
	var wg sync.WaitGroup
	var mu sync.Mutex
	good := 0
	for i := range crowd {
		wg.Go(func() {
			err := h.detach(w, fmt.Sprint("s", i))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				good++
			}
		})
	}
	wg.Wait()
	return good
}

// TestDetachesShareWrites: many DELs at once are few writes, wherever they wait for each other before.
func TestDetachesShareWrites(t *testing.T) {
	h, w := crowded(t)
	h.together = &sync.WaitGroup{}
	h.together.Add(crowd)
	h.writes = 0
	if good := h.detachAll(w); good != crowd {
		t.Errorf("%d of %d are answered", good, crowd)
	}
	if h.writes > crowd/2 {
		t.Errorf("%d DELs are %d writes", crowd, h.writes)
	}
	h.nothing(w, "all gone")
	h.audit("all gone")
}

// TestUnfinishedShareWrites: what is left of many DELs is few writes, too.
func TestUnfinishedShareWrites(t *testing.T) {
	h, w := crowded(t)
	for _, e := range w.o.Ledger.List() {
		e.Phase = ledger.Detaching
		if err := w.o.Ledger.Put(e); err != nil {
			t.Fatal(err)
		}
	}
	w = h.begin()
	h.together = &sync.WaitGroup{}
	h.together.Add(crowd)
	h.writes = 0
	if w.finish(t.Context()) {
		t.Error("not finished")
	}
	if h.writes > crowd/2 {
		t.Errorf("%d DELs are %d writes", crowd, h.writes)
	}
	h.nothing(w, "all gone")
	h.audit("all gone")
}

// TestCrashInDetaches crashes in the midst of many DELs: what was answered is gone, nothing is released twice or lost.
func TestCrashInDetaches(t *testing.T) {
	for n := 3; ; n += 11 {
		h, w := crowded(t)
		h.steps, h.crashAt = 0, n
		good := h.detachAll(w)
		crashed := h.crashed
		when := fmt.Sprintf("crash at step %d", n)
		w = h.begin()
		if left := len(w.o.Ledger.List()); left > crowd-good {
			t.Errorf("%s: %d are answered, %d are in the ledger", when, good, left)
		}
		if w.finish(t.Context()) {
			t.Errorf("%s: not finished", when)
		}
		h.audit(when)
		// The next owners come, before the others go.
		for i := range crowd / 2 {
			if err := h.attach(w, fmt.Sprint("next", i)); err != nil {
				t.Fatal(err)
			}
		}
		h.audit(when + ", the next have come")
		if good := h.detachAll(w); good != crowd {
			t.Errorf("%s: %d of %d are answered at the second try", when, good, crowd)
		}
		if left := len(w.o.Ledger.List()); left != crowd/2 {
			t.Errorf("%s: %d are left, want %d", when, left, crowd/2)
		}
		h.audit(when + ", all others are gone")
		if !crashed {
			return
		}
	}
}

// TestAskedAgain: a DEL that is repeated asks the store nothing.
func TestAskedAgain(t *testing.T) {
	h, w := crowded(t)
	if err := h.detach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	h.steps = 0
	if err := h.detach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	if h.steps > 2 { // the link is looked for, as before
		t.Errorf("%d steps", h.steps)
	}
}
