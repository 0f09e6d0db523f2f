package workload

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/drivers"
)

// whyLost is why a workload is closed that the ledger does not know.
const whyLost = "the ledger has lost it"

// closed has a workload pass nothing. Without an endpoint an interface of ours does that. One that another plugin has made has
// a name like any of the host's: it needs an endpoint that denies everything.
func (w *Workloads) closed(ctx context.Context, e ledger.Entry, why string) error {
	if !e.Chained {
		_, err := w.o.Graph.Attached(ctx, e.ID(), nil)
		return err
	}
	g := graphEntry(e)
	g.Closed = why
	return w.deny(ctx, e.ID(), g, e.Addrs)
}

// deny has an endpoint deny everything, and soon cuts its flows: what is established passes it otherwise.
func (w *Workloads) deny(ctx context.Context, id drivers.EndpointID, e *calcgraph.LedgerEntry, addrs []netip.Addr) error {
	if _, err := w.o.Graph.Attached(ctx, id, e); err != nil {
		return err
	}
	w.denied.mu.Lock()
	w.denied.addrs = append(w.denied.addrs, addrs...)
	w.denied.mu.Unlock()
	w.Kick()
	return nil
}

// denied are addresses whose flows are to be cut once the dataplane denies new ones.
type denied struct {
	mu    sync.Mutex
	addrs []netip.Addr
}

// cutDenied cuts the flows of workloads that were closed, and reports whether that is left to do.
func (w *Workloads) cutDenied(ctx context.Context) (left bool) {
	w.denied.mu.Lock()
	addrs := slices.Clone(w.denied.addrs)
	w.denied.mu.Unlock()
	if len(addrs) == 0 {
		return false
	}
	if w.o.Ready() != "" { // the dataplane is not the graph's yet
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	err := w.o.Plane.Renew(ctx)
	if err == nil {
		err = w.o.Plane.CutFlows(ctx, addrs)
	}
	if err != nil {
		w.o.Log.Error("cutting the flows of workloads that are closed: it is tried again", "addresses", addrs, "err", err)
		return true
	}
	w.denied.mu.Lock()
	defer w.denied.mu.Unlock()
	w.denied.addrs = w.denied.addrs[len(addrs):]
	return false
}

// findLost notes the workloads on interfaces that another plugin has made, which the dataplane had before the agent started,
// and the ledger does not know: their entries are damaged, say.
func (w *Workloads) findLost() {
	for _, e := range w.o.Before {
		if _, known := w.o.Ledger.Get(e.ID); !known && e.ID.Kind == drivers.Workload && !strings.HasPrefix(e.Iface, w.o.Prefix) {
			w.lost.put(e.ID, e)
		}
	}
}

// closeLost closes the workloads that the ledger has lost, if their interfaces are there yet.
func (w *Workloads) closeLost(ctx context.Context, there func(iface string) bool) error {
	for id, e := range w.lost.all() {
		if !there(e.Iface) {
			w.lost.remove(id)
			continue
		}
		if err := w.closeOneLost(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (w *Workloads) closeOneLost(ctx context.Context, e drivers.Endpoint) error {
	unlock, err := w.locks.lock(ctx, e.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if !w.lost.has(e.ID) { // it has been unplugged
		return nil
	}
	w.o.Log.Error("a workload that another plugin has plugged in is not in the ledger: it is closed until it is attached again", "endpoint", e.Name,
		"sandbox", e.ID.Sandbox, "interface", e.Iface)
	namespace, name, _ := strings.Cut(e.Name, "/")
	return w.deny(ctx, e.ID, &calcgraph.LedgerEntry{Name: api.Key{Namespace: namespace, Name: name}, Iface: e.Iface, Chained: true,
		Closed: whyLost}, e.Addrs)
}

// unplugLost is the detach of a workload that the ledger may have lost. The caller holds its lock.
func (w *Workloads) unplugLost(ctx context.Context, id drivers.EndpointID) error {
	if !w.lost.has(id) {
		return nil
	}
	if _, err := w.o.Graph.Attached(ctx, id, nil); err != nil {
		return err
	}
	w.lost.remove(id)
	return nil
}

// replaceLost gives e, which is being attached, the interface of a workload that the ledger has lost: itself, or one whose
// detach nobody has heard of.
func (w *Workloads) replaceLost(ctx context.Context, e ledger.Entry) error {
	w.lost.remove(e.ID())
	for id, x := range w.lost.all() {
		if x.Iface == e.HostIface {
			if err := w.unplugLost(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}
