package workload

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/internal/agentapi"
)

func (h *host) note(sandbox string) {
	h.t.Helper()
	if err := agentapi.WriteNote(h.notes, agentapi.Note{Sandbox: sandbox, Interface: "eth0"}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) noNotes(when string) {
	h.t.Helper()
	if ns, err := agentapi.ReadNotes(h.notes); err != nil || len(ns) > 0 {
		h.t.Errorf("%s: notes %v, %v", when, ns, err)
	}
}

// TestNoteIsConsumedAtStart: a workload with a note never comes back to the graph, and crashes in between change nothing.
func TestNoteIsConsumedAtStart(t *testing.T) {
	for n := 1; ; n++ {
		h := newHost(t)
		if err := h.attach(h.begin(), "s1"); err != nil {
			t.Fatal(err)
		}
		h.note("s1")
		h.note("nobody")
		w := h.begin()
		if h.attached[endpointID("s1")] != nil {
			t.Fatal("a noted workload was let in again")
		}
		h.steps, h.crashAt = 0, n
		w.finish(t.Context())
		crashed := h.crashed
		w = h.begin()
		when := fmt.Sprintf("crash at step %d", n)
		if h.attached[endpointID("s1")] != nil {
			t.Errorf("%s: let in again", when)
		}
		if w.finish(t.Context()) {
			t.Errorf("%s: not finished", when)
		}
		h.nothing(w, when)
		h.noNotes(when)
		if err := h.attach(w, "s2"); err != nil {
			t.Errorf("%s: the next owner: %v", when, err)
		}
		if !crashed {
			if n < 10 {
				t.Errorf("only %d steps", n)
			}
			return
		}
	}
}

// TestNoteIsAboutTheAttachmentOfBefore: one that comes after the note is not its victim.
func TestNoteIsAboutTheAttachmentOfBefore(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	if err := h.attach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	before, _ := w.o.Ledger.Get(endpointID("s1"))
	h.note("s1")
	if err := h.attach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	h.noNotes("after the attach")
	if after, _ := w.o.Ledger.Get(endpointID("s1")); !after.Created.After(before.Created) {
		t.Error("the attachment that the note spoke of was not ended first")
	}
	if w.finish(t.Context()) {
		t.Error("not finished")
	}
	h.plugged(w, "s1", "after the note was consumed")

	h.note("s1")
	if err := h.detach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	h.noNotes("after the detach")
}

func TestBadNoteIsSetAside(t *testing.T) {
	h := newHost(t)
	if err := os.MkdirAll(h.notes, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.notes, "x.detach"), []byte(`{"sandbox":`), 0o600); err != nil {
		t.Fatal(err)
	}
	h.note("s1")
	w := h.begin()
	if w.finish(t.Context()) {
		t.Error("not finished")
	}
	h.noNotes("in the end")
	es, err := os.ReadDir(h.notes)
	if err != nil || len(es) != 1 || es[0].Name() != "x.detach.bad" {
		t.Errorf("%v, %v", es, err)
	}
}

func TestCheckAndList(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	check := func(r agentapi.CheckRequest) error {
		r.Sandbox, r.Interface = "s1", "eth0"
		return w.Check(t.Context(), r, f)
	}
	if err := check(agentapi.CheckRequest{}); agentapi.CodeOf(err) != agentapi.CodeNotFound {
		t.Errorf("nothing there: %v", err)
	}
	if err := h.attach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	e, _ := w.o.Ledger.Get(endpointID("s1"))
	if err := check(agentapi.CheckRequest{Addresses: e.Addrs}); err != nil {
		t.Error(err)
	}
	other := slices.Clone(e.Addrs)
	other[0] = other[0].Next()
	if err := check(agentapi.CheckRequest{Addresses: other}); agentapi.CodeOf(err) != agentapi.CodeDiffers {
		t.Errorf("another address: %v", err)
	}
	h.tampered = true
	if err := check(agentapi.CheckRequest{}); agentapi.CodeOf(err) != agentapi.CodeDiffers {
		t.Errorf("tampered with: %v", err)
	}

	e.Network, e.Phase = "net1", ledger.Detaching
	if err := w.o.Ledger.Put(e); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		r    agentapi.ListRequest
		want int
	}{{agentapi.ListRequest{}, 1}, {agentapi.ListRequest{Network: "net1"}, 1}, {agentapi.ListRequest{Network: "net"}, 0},
		{agentapi.ListRequest{Sandbox: "s1", Interface: "eth0"}, 1}, {agentapi.ListRequest{Sandbox: "s1", Interface: "eth1"}, 0},
		{agentapi.ListRequest{Sandbox: "s2"}, 0}} {
		got := w.List(c.r)
		if len(got) != c.want || c.want > 0 && (!got[0].Detaching || got[0].Network != "net1") {
			t.Errorf("%+v: %+v", c.r, got)
		}
	}
	if err := check(agentapi.CheckRequest{}); agentapi.CodeOf(err) != agentapi.CodeNotFound {
		t.Errorf("on its way out: %v", err)
	}
	e.Phase = ledger.Gone
	if err := w.o.Ledger.Put(e); err != nil {
		t.Fatal(err)
	}
	if got := w.List(agentapi.ListRequest{}); len(got) != 0 {
		t.Errorf("gone: %+v", got)
	}
}
