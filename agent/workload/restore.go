package workload

import (
	"context"
	"net/netip"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/drivers"
)

// Restore tells the graph of the workloads in the ledger. host is the host's interfaces, nil if nobody knows them: an
// entry of an earlier boot whose interface is gone is given up. Detaches are served meanwhile: what counts is what the
// ledger says of an entry when its turn comes.
func (w *Workloads) Restore(ctx context.Context, host []drivers.HostIface) error {
	there := map[string]bool{}
	for _, i := range host {
		there[i.Name] = true
	}
	if err := w.closeNoted(ctx); err != nil {
		return err
	}
	err := w.eachPlugged(ctx, func(e ledger.Entry) error {
		if e.BootID == w.o.BootID || host == nil || there[e.HostIface] {
			return nil
		}
		w.o.Log.Info("a workload is gone since the last boot", "sandbox", e.Sandbox, "interface", e.Interface, "endpoint", e.Namespace+"/"+e.Name)
		e.Phase = ledger.Gone
		return w.o.Ledger.Put(e)
	})
	if err != nil {
		return err
	}
	if err := w.cutOld(ctx); err != nil {
		return err
	}
	err = w.eachPlugged(ctx, func(e ledger.Entry) error {
		if e.OldFlows && !e.Chained { // what another plugin has made would be open without an endpoint
			return nil
		}
		_, err := w.o.Graph.Attached(ctx, e.ID(), graphEntry(e))
		return err
	})
	if err != nil {
		return err
	}
	if err := w.closeLost(ctx, func(iface string) bool { return host == nil || there[iface] }); err != nil {
		return err
	}
	for _, e := range w.o.Ledger.List() {
		if e.Phase != ledger.Plugged {
			w.Kick()
		}
	}
	return w.o.Graph.LedgerRead(ctx)
}

// eachPlugged calls fn with each entry that is plugged in, as it is then; requests about it wait meanwhile.
func (w *Workloads) eachPlugged(ctx context.Context, fn func(ledger.Entry) error) error {
	for _, e := range w.o.Ledger.List() {
		if e.Phase != ledger.Plugged {
			continue
		}
		if err := w.ifPlugged(ctx, e.ID(), fn); err != nil {
			return err
		}
	}
	return nil
}

func (w *Workloads) ifPlugged(ctx context.Context, id drivers.EndpointID, fn func(ledger.Entry) error) error {
	unlock, err := w.locks.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if e, ok := w.o.Ledger.Get(id); ok && e.Phase == ledger.Plugged {
		return fn(e)
	}
	return nil
}

// cutOld cuts the flows that earlier owners have left of those entries whose attach was interrupted before it had done so.
// Where that can't be done the workload stays closed: nobody has been told that it is plugged in.
func (w *Workloads) cutOld(ctx context.Context) error {
	var addrs []netip.Addr
	for _, e := range w.o.Ledger.List() {
		if e.Phase == ledger.Plugged && e.OldFlows && !e.Chained {
			addrs = append(addrs, e.Addrs...)
		}
	}
	if len(addrs) == 0 {
		return nil
	}
	if err := w.o.Plane.CutFlows(ctx, addrs); err != nil {
		if ctx.Err() != nil {
			return waitError("cutting old flows", err)
		}
		w.o.Log.Error("cutting flows of earlier owners of addresses: their workloads stay closed until they are attached again",
			"addresses", addrs, "err", err)
		return nil
	}
	return w.eachPlugged(ctx, func(e ledger.Entry) error { return <-w.noteCut(e) })
}
