package workload

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

// cutter is a dataplane that remembers whose flows it was to cut.
type cutter struct {
	*host
	cut  [][]netip.Addr
	err  error
	then func() // happens meanwhile
}

func (c *cutter) CutFlows(_ context.Context, addrs []netip.Addr) error {
	c.cut = append(c.cut, addrs)
	if c.then != nil {
		c.then()
	}
	return c.err
}

// TestCutDenied: flows are cut once the dataplane denies new ones, until that is done, and those of workloads that are
// closed meanwhile are not forgotten.
func TestCutDenied(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	plane := &cutter{host: h}
	w.o.Plane = plane
	deny := func(sandbox, addr string) {
		t.Helper()
		e := &calcgraph.LedgerEntry{Iface: "veth-" + sandbox, Chained: true, Closed: "test"}
		if err := w.deny(t.Context(), endpointID(sandbox), e, addrs(addr)); err != nil {
			t.Fatal(err)
		}
	}
	deny("s1", "10.9.0.1")
	w.o.Ready = func() string { return "the dataplane is not in sync" }
	if !w.cutDenied(t.Context()) || len(plane.cut) > 0 {
		t.Errorf("%v is cut though new flows may pass yet", plane.cut)
	}
	w.o.Ready = func() string { return "" }
	plane.err = errors.New("busy")
	if !w.cutDenied(t.Context()) {
		t.Error("nothing is left to do after a failure")
	}
	plane.err, plane.then, plane.cut = nil, func() { plane.then = nil; deny("s2", "10.9.0.2") }, nil
	for range 3 {
		w.cutDenied(t.Context())
	}
	if len(plane.cut) != 2 || !slices.Equal(plane.cut[0], addrs("10.9.0.1")) || !slices.Equal(plane.cut[1], addrs("10.9.0.2")) {
		t.Errorf("cut: %v", plane.cut)
	}
}

// TestFindLost: lost are the workloads on interfaces of other plugins alone. Without an entry those of ours are closed anyhow.
func TestFindLost(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	w.o.Attacher = &finding{T: t, made: drivers.Attached{HostIface: "veth1"}}
	if _, err := h.ask(w, agentapi.AttachRequest{Sandbox: "known", Interface: "eth0", Chained: true, Addresses: addrs("10.9.0.1")}); err != nil {
		t.Fatal(err)
	}
	o := w.o
	o.Before = []drivers.Endpoint{
		{ID: endpointID("known"), Iface: "veth1"},
		{ID: endpointID("lost"), Iface: "veth2"},
		{ID: endpointID("ours"), Iface: "tort3"},
		{ID: drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "eth0", Interface: "eth0"}, Iface: "eth0"},
	}
	got := New(o).lost.all()
	if len(got) != 1 || got[endpointID("lost")].Iface != "veth2" {
		t.Errorf("lost: %v", got)
	}
}

// TestGivenUpAndAttachedAgain: who is attached again before it could be written that it is gone is not given up.
func TestGivenUpAndAttachedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, w := two(t)
		id := endpointID("s1")
		w.gone.put(id, struct{}{})
		unlock, err := w.locks.lock(t.Context(), id) // of the attach
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan bool)
		go func() { done <- w.giveUpRest(t.Context()) }()
		synctest.Wait()
		w.gone.remove(id)
		unlock()
		if <-done {
			t.Error("something is left")
		}
		if e, _ := w.o.Ledger.Get(id); e.Phase != ledger.Plugged {
			t.Errorf("it is %v", e.Phase)
		}
	})
}
