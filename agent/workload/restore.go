package workload

import (
	"context"
	"net/netip"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/drivers"
)

// Restore tells the graph of the workloads in the ledger. host is the host's interfaces, nil if nobody knows them: an
// entry of an earlier boot whose interface is gone, or may be another one by now, is given up. Detaches are served
// meanwhile: what counts is what the ledger says of an entry when its turn comes.
func (w *Workloads) Restore(ctx context.Context, host []drivers.HostIface) error {
	there := map[string]bool{}
	for _, i := range host {
		there[i.Name] = true
	}
	noted, err := w.closeNoted(ctx)
	if err != nil {
		return err
	}
	err = w.eachPlugged(ctx, func(e ledger.Entry) error {
		if e.BootID == w.o.BootID || !w.remade(e) && (host == nil || there[e.HostIface]) {
			return nil
		}
		w.o.Log.Info("a workload is gone since the last boot", "sandbox", e.Sandbox, "interface", e.Interface, "endpoint", e.Namespace+"/"+e.Name)
		if err := w.giveUp(e); err != nil {
			w.o.Log.Error("giving up a workload that is gone: it is tried again", "sandbox", e.Sandbox, "err", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := w.cutOld(ctx); err != nil {
		return err
	}
	err = w.eachPlugged(ctx, func(e ledger.Entry) error {
		switch {
		case w.gone.has(e.ID()):
			return nil
		case noted[e.ID()]:
			return w.closed(ctx, e, "it is to be detached")
		case e.Closed != "":
			return w.closed(ctx, e, e.Closed)
		case e.OldFlows && !e.Chained: // what another plugin has made would be open without an endpoint
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

// remade says of an entry of another boot that its interface is not the one of then, whatever its name: another plugin may give
// a name again, and no sandbox outlives a boot.
func (w *Workloads) remade(e ledger.Entry) bool {
	return e.Chained && e.BootID != "" && w.o.BootID != ""
}

// giveUp has the ledger know that a workload is gone, now or when Run tries again. The caller holds its lock.
func (w *Workloads) giveUp(e ledger.Entry) error {
	e.Phase = ledger.Gone
	if err := w.o.Ledger.Put(e); err != nil {
		w.gone.put(e.ID(), struct{}{})
		return err
	}
	w.gone.remove(e.ID())
	return nil
}

// giveUpRest gives up what could not be written at first, and reports whether some of that is left.
func (w *Workloads) giveUpRest(ctx context.Context) (left bool) {
	for id := range w.gone.all() {
		err := w.ifPlugged(ctx, id, func(e ledger.Entry) error {
			if !w.gone.has(id) { // it was attached again
				return nil
			}
			return w.giveUp(e)
		})
		if err != nil {
			left = true
			continue
		}
		w.gone.remove(id) // also if it has been detached since
	}
	return left
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
	return w.eachPlugged(ctx, func(e ledger.Entry) error {
		if err := <-w.noteCut(e); err != nil {
			w.o.Log.Error("noting that old flows are cut: the workload stays closed until it is attached again", "sandbox", e.Sandbox, "err", err)
		}
		return nil
	})
}
