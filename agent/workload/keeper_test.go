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
	if k.look(t.Context()) || len(k.since) > 0 {
		t.Error("something is to be done though all is well")
	}
	if _, err := newPools(h.store, true).Release(t.Context(), ipam.HandleOf("s1", "eth0"), ipam.ReleaseOptions{Everywhere: true}); err != nil {
		t.Fatal(err)
	}
	return h, w, k, got.Addresses[0].String()
}

// settle looks, waits until the watch would have told, and looks again.
func (h *host) settle(k *Keeper) (left bool) {
	h.tell(k)
	if !k.look(h.t.Context()) {
		h.t.Error("nothing is left at the first look")
	}
	time.Sleep(keepAfter) // of a synctest bubble
	return k.look(h.t.Context())
}

func TestKeepsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, k, addr := restored(t)
		if blind := NewKeeper(w); blind.look(t.Context()) || len(blind.since) > 0 {
			t.Error("something is to be done before the store has been read")
		}
		if h.settle(k) {
			t.Error("something is left")
		}
		want := api.Owner{Namespace: db0().Namespace, Pod: db0().Name, UID: db0().UID, Node: "node1"}
		if got := h.ownersOf()[addr]; got != want {
			t.Errorf("%s is held by %+v, want %+v", addr, got, want)
		}
		h.tell(k)
		if k.look(t.Context()) {
			t.Error("it is not enough")
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
		if k.look(t.Context()) || len(k.since) > 0 {
			t.Error("something is to be done though all is well")
		}
		if _, err := newPools(h.store, true).Release(t.Context(), ipam.HandleOf("s1", "eth0"), ipam.ReleaseOptions{Everywhere: true}); err != nil {
			t.Fatal(err)
		}
		if h.settle(k) {
			t.Error("something is left")
		}
		if got := h.ownersOf(); len(got) != 1 || got["10.65.0.7"].UID != db0().UID {
			t.Errorf("held are %+v", got)
		}
		h.tell(k)
		if k.look(t.Context()) || len(k.since) > 0 || !slices.Equal(h.attached[endpointID("s1")].Addrs, given) {
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

// hold gives an address to another pod.
func (h *host) hold(addr, pod, node string) {
	h.t.Helper()
	_, err := newPools(h.store, true).Assign(h.t.Context(), ipam.Request{Handle: ipam.HandleOf(pod, "eth0"), Addrs: addrs(addr),
		Owner: api.Owner{Namespace: "other", Pod: pod, UID: "uid-" + pod, Node: node}})
	if err != nil {
		h.t.Fatal(err)
	}
}

// Somebody on another node has the address by now: who has the old one would be taken for that one.
func TestAddressOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, w, k, addr := restored(t)
		h.hold(addr, "thief", "node2")
		if !h.settle(k) {
			t.Error("nothing is left to do")
		}
		if len(h.attached) != 0 {
			t.Error("the pod is open, though its address is another one's")
		}
		if got := h.ownersOf()[addr]; got.Pod != "thief" {
			t.Errorf("%s is held by %+v", addr, got)
		}
		// neither another attach nor another agent opens it
		again := agentapi.AttachRequest{Sandbox: "s1", Workload: db0(), Allocate: &agentapi.Allocate{V4: true}}
		if _, err := h.ask(w, again); agentapi.CodeOf(err) != agentapi.CodeConflict || len(h.attached) != 0 {
			t.Errorf("attached again: %v, graph %v", err, h.attached)
		}
		w = h.begin()
		k = NewKeeper(w)
		if len(h.attached) != 0 {
			t.Error("a new agent opens it before it has looked")
		}
		if h.tell(k); k.look(t.Context()) {
			time.Sleep(keepAfter)
		}
		if !k.look(t.Context()) || len(h.attached) != 0 {
			t.Error("a new agent opens it")
		}
		if _, err := newPools(h.store, true).Release(t.Context(), ipam.HandleOf("thief", "eth0"), ipam.ReleaseOptions{Everywhere: true}); err != nil {
			t.Fatal(err)
		}
		w.o.Addresses = newPools(h.store, true) // that has read the block since
		if k.look(t.Context()) || len(h.attached) != 1 || !slices.Equal(h.attached[endpointID("s1")].Addrs, addrs(addr)) {
			t.Error("the pod is not open again, though it has its address")
		}
		h.tell(k)
		if k.look(t.Context()) || len(k.since) > 0 {
			t.Error("it is not enough that the pod is open again")
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
		if k.look(t.Context()) {
			t.Error("something is to be done though all is well")
		}
		give := newPools(h.store, true)
		if _, err := give.Release(t.Context(), ipam.HandleOf("s1", "eth0"), ipam.ReleaseOptions{Everywhere: true}); err != nil {
			t.Fatal(err)
		}
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
		if _, err := give.Release(t.Context(), ipam.HandleOf("thief", "eth0"), ipam.ReleaseOptions{Everywhere: true}); err != nil {
			t.Fatal(err)
		}
		w.o.Addresses = newPools(h.store, true) // that has read the block since
		if e := h.attached[endpointID("s1")]; k.look(t.Context()) || h.attached[endpointID("s1")].Closed != "" {
			t.Errorf("the graph has %+v, though it has its address", e)
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
		h, w, k, addr := restored(t)
		h.hold(addr, "thief", "node2")
		h.full = true
		if !h.settle(k) || len(h.attached) != 0 {
			t.Error("it is not closed")
		}
		h.full = false
		if e, _ := w.o.Ledger.Get(endpointID("s1")); e.Closed != "" {
			t.Errorf("written on a full disk: %+v", e)
		}
		k.look(t.Context())
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
		if k.look(t.Context()); len(h.attached) != 0 {
			t.Error("the pod is not closed, though the graph can be told")
		}
		if _, err := newPools(h.store, true).Release(t.Context(), ipam.HandleOf("thief", "eth0"), ipam.ReleaseOptions{Everywhere: true}); err != nil {
			t.Fatal(err)
		}
		w.o.Addresses = newPools(h.store, true) // that has read the block since
		g.err = context.DeadlineExceeded
		if !k.look(t.Context()) {
			t.Error("nothing is left to do")
		}
		g.err = nil
		h.tell(k)
		if k.look(t.Context()) || len(h.attached) != 1 {
			t.Error("the pod is not open again, though the graph can be told")
		}
	})
}
