package workload

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/ipam"
)

// tell has a Keeper know what the store holds.
func (h *host) tell(k *Keeper) {
	h.t.Helper()
	blocks, err := h.store.List(h.t.Context(), "IPAMBlock", "")
	if err != nil {
		h.t.Fatal(err)
	}
	b := datastore.Batch{InSync: true}
	for key := range k.blocks {
		b.Events = append(b.Events, datastore.Event{Key: key})
	}
	for _, o := range blocks {
		b.Events = append(b.Events, datastore.Event{Key: api.KeyOf(o), Object: o})
	}
	k.Take(b)
}

// ownersOf is who holds addresses, by address.
func (h *host) ownersOf() map[string]api.Owner {
	h.t.Helper()
	blocks, err := h.store.List(h.t.Context(), "IPAMBlock", "")
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[string]api.Owner{}
	for _, o := range blocks {
		for a, owner := range o.(*api.IPAMBlock).Owners() {
			out[a.String()] = owner
		}
	}
	return out
}

// restored is a pod that is plugged in, after the store has forgotten that it has its address.
func restored(t *testing.T) (h *host, w *Workloads, k *Keeper, addr string) {
	t.Helper()
	h = kubeHost(true)(t)
	w = h.begin()
	got, err := h.ask(w, agentapi.AttachRequest{Sandbox: "s1", Workload: db0(), Allocate: &agentapi.Allocate{V4: true}})
	if err != nil {
		t.Fatal(err)
	}
	k = NewKeeper(w)
	h.tell(k)
	if h.look(k) {
		t.Error("something is to be done though all is well")
	}
	h.free("s1")
	return h, w, k, got.Addresses[0].String()
}

// look looks, and says whether something is left to do.
func (h *host) look(k *Keeper) bool {
	h.t.Helper()
	if err := k.look(h.t.Context()); err != nil {
		h.t.Error(err)
	}
	return len(k.concerns) > 0
}

// settle looks until the watch would have told, and what comes of that is done.
func (h *host) settle(k *Keeper) (left bool) {
	h.t.Helper()
	h.tell(k)
	if !h.look(k) {
		h.t.Error("nothing is left at the first look")
	}
	time.Sleep(keepAfter) // of a synctest bubble
	return h.later(k)
}

// later looks, has the watch tell what came of it, and looks again.
func (h *host) later(k *Keeper) (left bool) {
	h.t.Helper()
	h.look(k)
	h.tell(k)
	return h.look(k)
}

func TestKeepsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, k, addr := restored(t)
		if blind := NewKeeper(w); h.look(blind) {
			t.Error("something is to be done before the store has been read")
		}
		if h.settle(k) {
			t.Error("something is left")
		}
		want := api.Owner{Namespace: db0().Namespace, Pod: db0().Name, UID: db0().UID, Node: "node1"}
		if got := h.ownersOf()[addr]; got != want {
			t.Errorf("%s is held by %+v, want %+v", addr, got, want)
		}
		if len(h.attached) != 1 {
			t.Error("the pod is closed")
		}
		if err := h.detach(w, "s1"); err != nil {
			t.Fatal(err)
		}
		if got := h.ownersOf(); len(got) > 0 {
			t.Errorf("held after the detach: %v", got)
		}
	})
}

// TestKeepsAddressOfPools: of addresses that another plugin has given, those that no pool holds are nobody's to keep.
func TestKeepsAddressOfPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := kubeHost(false)(t)
		w := h.begin()
		given := addrs("10.65.0.7", "2001:db8::7")
		if _, err := h.ask(w, agentapi.AttachRequest{Sandbox: "s1", Workload: db0(), Addresses: given}); err != nil {
			t.Fatal(err)
		}
		k := NewKeeper(w)
		h.tell(k)
		if h.look(k) {
			t.Error("something is to be done though all is well")
		}
		h.free("s1")
		if h.settle(k) {
			t.Error("something is left")
		}
		if got := h.ownersOf(); len(got) != 1 || got["10.65.0.7"].UID != db0().UID {
			t.Errorf("held are %+v", got)
		}
		if !slices.Equal(h.attached[endpointID("s1")].Addrs, given) {
			t.Error("it is not enough")
		}
	})
}

// A sandbox that is gone held the address when the backup was made.
func TestKeepsAddressOfASandboxThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, k, addr := restored(t)
		h.hold(addr, "gone", "node1")
		// the backup is older than the release of that one
		if _, err := w.o.Addresses.Release(t.Context(), ipam.HandleOf("gone", "eth0"), ipam.ReleaseOptions{}); err != nil {
			t.Fatal(err)
		}
		h.hold(addr, "gone", "node1")
		if h.settle(k) {
			t.Error("something is left")
		}
		if got := h.ownersOf()[addr]; got.UID != db0().UID {
			t.Errorf("%s is held by %+v", addr, got)
		}
	})
}

// A sandbox of this node that is there has the address by now: it is not for the other to take.
func TestKeepsNoAddressOfANeighbour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, k, addr := restored(t)
		if err := w.o.Ledger.Put(ledger.Entry{Sandbox: "s2", Interface: "eth0", Phase: ledger.Plugged, HostIface: "tort2"}); err != nil {
			t.Fatal(err)
		}
		h.hold(addr, "s2", "node1")
		if !h.settle(k) {
			t.Error("nothing is left to do")
		}
		if got := h.ownersOf()[addr]; got.Pod != "s2" {
			t.Errorf("%s is held by %+v", addr, got)
		}
		if len(h.attached) != 0 {
			t.Error("both have the address")
		}
	})
}

// free takes the addresses of a sandbox back.
func (h *host) free(sandbox string) {
	h.t.Helper()
	if _, err := newPools(h.store, true).Release(h.t.Context(), ipam.HandleOf(sandbox, "eth0"), ipam.ReleaseOptions{Everywhere: true}); err != nil {
		h.t.Fatal(err)
	}
}

// hold gives an address to another pod.
func (h *host) hold(addr, pod, node string) {
	h.t.Helper()
	_, err := newPools(h.store, true).Assign(h.t.Context(), ipam.Request{Handle: ipam.HandleOf(pod, "eth0"), Addrs: addrs(addr),
		Owner: api.Owner{Namespace: "other", Pod: pod, UID: "uid-" + pod, Node: node}})
	if err != nil {
		h.t.Fatal(err)
	}
}

// stolen is restored, whose address another node's pod has by now, and whose disk may be full: it is closed.
func stolen(t *testing.T, full bool) (h *host, w *Workloads, k *Keeper, addr string) {
	t.Helper()
	h, w, k, addr = restored(t)
	h.hold(addr, "thief", "node2")
	h.full = full
	if !h.settle(k) {
		t.Error("nothing is left to do")
	}
	if len(h.attached) != 0 {
		t.Error("the pod is open, though its address is another one's")
	}
	return h, w, k, addr
}

// release takes the addresses of a sandbox back, and waits for the time of the next look.
func (h *host) release(w *Workloads, sandbox string) {
	h.t.Helper()
	h.free(sandbox)
	w.o.Addresses = newPools(h.store, true) // that has read the block since
	time.Sleep(keepInterval)
}

// Somebody on another node has the address by now: who has the old one would be taken for that one.
func TestAddressOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, _, addr := stolen(t, false)
		if got := h.ownersOf()[addr]; got.Pod != "thief" {
			t.Errorf("%s is held by %+v", addr, got)
		}
		// neither another attach nor another agent opens it
		again := agentapi.AttachRequest{Sandbox: "s1", Workload: db0(), Allocate: &agentapi.Allocate{V4: true}}
		if _, err := h.ask(w, again); agentapi.CodeOf(err) != agentapi.CodeConflict || len(h.attached) != 0 {
			t.Errorf("attached again: %v, graph %v", err, h.attached)
		}
		w = h.begin()
		k := NewKeeper(w)
		if len(h.attached) != 0 {
			t.Error("a new agent opens it before it has looked")
		}
		if !h.settle(k) || len(h.attached) != 0 {
			t.Error("a new agent opens it")
		}
		h.release(w, "thief")
		if h.later(k) || len(h.attached) != 1 || !slices.Equal(h.attached[endpointID("s1")].Addrs, addrs(addr)) {
			t.Error("the pod is not open again, though it has its address")
		}
		if e, _ := w.o.Ledger.Get(endpointID("s1")); e.Closed != "" || e.ClosedFor != nil {
			t.Errorf("the ledger has %+v", e)
		}
		if err := h.detach(w, "s1"); err != nil {
			t.Fatal(err)
		}
	})
}

// TestChainedAddressOfAnother: an interface that another plugin has made is closed by an endpoint that denies, not by none.
func TestChainedAddressOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := kubeHost(false)(t)
		w := h.begin()
		w.o.Attacher = &finding{T: t, made: drivers.Attached{HostIface: "veth7", MAC: drivers.MAC{2, 0, 0, 0, 0, 7}}}
		addr := "10.65.0.7"
		if _, err := h.ask(w, agentapi.AttachRequest{Sandbox: "s1", Workload: db0(), Chained: true, Addresses: addrs(addr)}); err != nil {
			t.Fatal(err)
		}
		k := NewKeeper(w)
		h.tell(k)
		if h.look(k) {
			t.Error("something is to be done though all is well")
		}
		h.free("s1")
		h.hold(addr, "thief", "node2")
		if !h.settle(k) {
			t.Error("nothing is left to do")
		}
		if e := h.attached[endpointID("s1")]; e == nil || e.Closed == "" || e.Iface != "veth7" || !e.Chained {
			t.Errorf("the graph has %+v", e)
		}
		plane := &recorder{host: h}
		w.o.Plane = plane
		left := w.finish(t.Context())
		again := w.finish(t.Context()) // with nothing to do
		if left || again || !slices.Equal(plane.log, []string{"renew", "cut"}) {
			t.Errorf("what is established is not cut once it is denied: %v", plane.log)
		}
		h.release(w, "thief")
		if left := h.later(k); left || h.attached[endpointID("s1")].Closed != "" {
			t.Errorf("the graph has %+v, though it has its address", h.attached[endpointID("s1")])
		}
	})
}

// refusing is a graph that can't be told now.
type refusing struct {
	*host
	err error
}

func (r *refusing) Attached(ctx context.Context, id drivers.EndpointID, e *calcgraph.LedgerEntry) (uint64, error) {
	if r.err != nil {
		return 0, r.err
	}
	return r.host.Attached(ctx, id, e)
}

// TestKeeperOnAFullDisk: a workload is closed, though that can't be written down, and it is written when there is room.
func TestKeeperOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, k, _ := stolen(t, true)
		h.full = false
		if e, _ := w.o.Ledger.Get(endpointID("s1")); e.Closed != "" {
			t.Errorf("written on a full disk: %+v", e)
		}
		time.Sleep(keepInterval)
		h.look(k)
		if e, _ := w.o.Ledger.Get(endpointID("s1")); e.Closed == "" || len(h.attached) != 0 {
			t.Errorf("%+v", e)
		}
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		err = w.Check(t.Context(), agentapi.CheckRequest{Sandbox: "s1", Interface: "eth0"}, null)
		if agentapi.CodeOf(err) != agentapi.CodeDiffers || !strings.Contains(err.Error(), "another one's") {
			t.Errorf("check: %v", err)
		}
	})
}

// TestKeeperTellsAgain: a workload is closed, and open again, once the graph has been told so.
func TestKeeperTellsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, k, addr := restored(t)
		g := &refusing{host: h, err: context.DeadlineExceeded}
		w.o.Graph = g
		h.hold(addr, "thief", "node2")
		if !h.settle(k) {
			t.Error("nothing is left to do")
		}
		g.err = nil
		time.Sleep(keepInterval)
		if h.look(k); len(h.attached) != 0 {
			t.Error("the pod is not closed, though the graph can be told")
		}
		g.err = context.DeadlineExceeded
		h.release(w, "thief")
		if !h.later(k) {
			t.Error("nothing is left to do")
		}
		g.err = nil
		time.Sleep(keepInterval)
		if h.later(k) || len(h.attached) != 1 {
			t.Error("the pod is not open again, though the graph can be told")
		}
	})
}

// TestKeeperOpensAfterAFullDisk: what could not be written down is opened all the same when its address is free, or its own, again.
func TestKeeperOpensAfterAFullDisk(t *testing.T) {
	for _, own := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h, w, k, addr := stolen(t, true)
			// another attach may find no trace of that
			if _, err := w.o.Graph.Attached(t.Context(), endpointID("s1"), &calcgraph.LedgerEntry{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(keepInterval)
			if !h.later(k) || len(h.attached) != 0 {
				t.Error("it stays open")
			}
			h.release(w, "thief")
			if own {
				h.hold(addr, "s1", "node1")
				h.tell(k)
			}
			if h.later(k) || len(h.attached) != 1 {
				t.Error("it is not open again")
			}
		})
	}
}

// TestKeepsNothingOfTheGone: a workload that is gone, which could not be written down, gets no address any more.
func TestKeepsNothingOfTheGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, k, _ := restored(t)
		w.gone.put(endpointID("s1"), struct{}{})
		h.settle(k)
		if got := h.ownersOf(); len(got) > 0 {
			t.Errorf("held are %+v", got)
		}
	})
}

// TestKeeperClosesAgain: who could not write down that it is open closes it again if it has to.
func TestKeeperClosesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, k, addr := stolen(t, false)
		h.full = true
		h.release(w, "thief")
		if !h.later(k) || len(h.attached) != 1 {
			t.Error("it is not open again, and to be written down")
		}
		h.release(w, "s1")
		h.hold(addr, "thief", "node2")
		if !h.later(k) || len(h.attached) != 0 {
			t.Error("it is open, though its address is another one's again")
		}
	})
}

// TestClosedUntilAllIsHeld: a workload that is closed for an address stays so when the pool of that one gives none any more.
func TestClosedUntilAllIsHeld(t *testing.T) {
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := kubeHost(true)(t)
			w := h.begin()
			if _, err := h.ask(w, agentapi.AttachRequest{Sandbox: "s1", Workload: db0(), Addresses: addrs("10.65.0.7", "fd65::7")}); err != nil {
				t.Fatal(err)
			}
			h.free("s1")
			h.hold("10.65.0.7", "thief", "node2")
			k := NewKeeper(w)
			if !h.settle(k) || len(h.attached) != 0 {
				t.Error("it is not closed")
			}
			pools, err := h.store.List(t.Context(), "IPPool", "")
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range pools {
				if p := o.(*api.IPPool); strings.HasPrefix(p.Spec.CIDR, "10.65.") {
					p.Spec.Disabled = true
					if _, err := h.store.Update(t.Context(), p); err != nil {
						t.Fatal(err)
					}
				}
			}
			if restart {
				w = h.begin()
				k = NewKeeper(w)
				h.settle(k)
			}
			w.o.Addresses = newPools(h.store, true) // that has read the pools since
			time.Sleep(keepInterval)
			if !h.later(k) || len(h.attached) != 0 {
				t.Error("it is open, though one of its addresses is another one's")
			}
		})
	}
}

// asked counts requests for addresses.
type asked struct {
	Addresses
	n int
}

func (a *asked) Assign(ctx context.Context, r ipam.Request) (ipam.Result, error) {
	a.n++
	return a.Addresses.Assign(ctx, r)
}

// TestKeeperPace: a workload that stays closed is not looked into at every change, and does not delay others.
func TestKeeperPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, k, addr := restored(t)
		h.hold(addr, "thief", "node2")
		h.tell(k)
		count := &asked{Addresses: w.o.Addresses}
		w.o.Addresses = count
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go k.Run(ctx)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if len(h.attached) != 0 {
			t.Error("it is not closed")
		}
		if count.n > 20 {
			t.Errorf("%d requests in ten minutes", count.n)
		}
		count.n = 0
		for range 20 {
			k.kick()
			synctest.Wait()
		}
		if count.n > 1 {
			t.Errorf("%d requests for 20 changes", count.n)
		}
		// another one loses its address
		e, _ := w.o.Ledger.Get(endpointID("s1"))
		e.Sandbox, e.HostIface, e.Addrs, e.Closed, e.ClosedFor = "s2", "tort2", addrs("10.65.0.9"), "", nil
		if err := w.o.Ledger.Put(e); err != nil {
			t.Fatal(err)
		}
		k.kick()
		synctest.Wait()
		time.Sleep(keepAfter)
		synctest.Wait()
		if got := h.ownersOf()["10.65.0.9"]; got.UID != e.UID {
			t.Errorf("after %s it is held by %+v", keepAfter, got)
		}
	})
}
