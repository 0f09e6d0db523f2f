package workload

import (
	"context"
	"fmt"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/ipam"
)

// Detach unplugs a workload. One that isn't there is no error.
func (w *Workloads) Detach(ctx context.Context, r agentapi.DetachRequest) error {
	if r.Sandbox == "" || r.Interface == "" {
		return agentapi.Errorf(agentapi.CodeBadRequest, "detach: want a sandbox and an interface")
	}
	if w.o.Attacher == nil {
		return agentapi.Errorf(agentapi.CodeUnsupported, "detach: this driver can't plug workloads in")
	}
	id := drivers.EndpointID{Kind: drivers.Workload, Sandbox: r.Sandbox, Interface: r.Interface}
	err := interrupted(ctx, w.detach(ctx, id, false))
	if _, left := w.o.Ledger.Get(id); left {
		w.Kick()
	}
	return err
}

// detach unplugs id; with unfinished only if that had begun before.
func (w *Workloads) detach(ctx context.Context, id drivers.EndpointID, unfinished bool) error {
	unlock, err := w.locks.lock(ctx, id)
	if err != nil {
		return waitError("detach: waiting for another request about this workload", err)
	}
	defer unlock()
	if unfinished {
		if e, ok := w.o.Ledger.Get(id); !ok || e.Phase == ledger.Plugged {
			return nil
		}
	}
	delAsked.Hit()
	if err := w.clear(ctx, id); err != nil {
		return err
	}
	delForgotten.Hit()
	if err := w.dropNote(id); err != nil {
		return err
	}
	delDone.Hit()
	return nil
}

// clear unplugs id, whatever is known of it. The caller holds its lock.
func (w *Workloads) clear(ctx context.Context, id drivers.EndpointID) error {
	e, ok := w.o.Ledger.Get(id)
	if !ok {
		if err := w.unplugLost(ctx, id); err != nil {
			return waitError("detach", err)
		}
		// An entry that could not be read may have left its interface behind.
		a := drivers.Attachment{ID: id, HostIface: ledger.HostIface(w.o.Prefix, id.Sandbox, id.Interface)}
		if err := w.o.Attacher.Detach(ctx, a); err != nil {
			return fmt.Errorf("detach: removing the interface: %w", err)
		}
		if err := w.o.Ledger.Forget(id); err != nil {
			return err
		}
		return w.reclaim(ctx, id)
	}
	return w.end(ctx, e)
}

// end brings an entry out of the ledger, from whatever phase it is in. What is left to do in the store when it returns
// nil is in the ledger, and Run does it.
func (w *Workloads) end(ctx context.Context, e ledger.Entry) error {
	var coming *ipam.Coming
	if e.Allocated && w.o.Addresses != nil {
		coming = w.o.Addresses.Announce()
		defer coming.Cancel()
	}
	if e.Phase == ledger.Plugged {
		e.Phase = ledger.Detaching
		if err := w.o.Ledger.Put(e); err != nil {
			return err
		}
		delLedger.Hit()
	}
	if e.Phase == ledger.Detaching {
		if err := w.unplug(ctx, e); err != nil {
			return err
		}
	}
	return w.forgetAnnounced(ctx, e, coming)
}

// unplug denies the workload, cuts its flows and removes its interface.
func (w *Workloads) unplug(ctx context.Context, e ledger.Entry) error {
	since, err := w.o.Graph.Attached(ctx, e.ID(), nil)
	if err != nil {
		return waitError("detach", err)
	}
	delTold.Hit()
	if since > 0 { // else the dataplane isn't the graph's yet; without an interface nothing passes
		if err := w.o.Plane.WaitGone(ctx, e.ID(), since); err != nil {
			return waitError("detach: closing the endpoint", err)
		}
	}
	delClosed.Hit()
	if err := w.o.Plane.CutFlows(ctx, e.Addrs); err != nil {
		return waitError("detach: cutting its flows", err)
	}
	delCut.Hit()
	if err := w.attacher(e).Detach(ctx, attachment(e, "")); err != nil {
		return fmt.Errorf("detach: removing the interface: %w", err)
	}
	delLink.Hit()
	return nil
}

// forget deletes the WorkloadEndpoint, releases its addresses, and deletes the ledger entry. If the store can't be reached,
// the ledger keeps a note for Run; that is no error.
func (w *Workloads) forget(ctx context.Context, e ledger.Entry) error {
	return w.forgetAnnounced(ctx, e, nil)
}

// forgetAnnounced is forget, for a release that was announced; nil = it was not.
func (w *Workloads) forgetAnnounced(ctx context.Context, e ledger.Entry, coming *ipam.Coming) error {
	err := w.deleteEndpoint(ctx, e, coming)
	if err == nil {
		delReleased.Hit()
		return w.o.Ledger.Remove(e.ID())
	}
	if e.Phase == ledger.Gone {
		return nil
	}
	w.o.Log.Info("a WorkloadEndpoint and its addresses are left in the store for later", "endpoint", e.Namespace+"/"+e.Name, "err", err)
	e.Phase = ledger.Gone
	return w.o.Ledger.Put(e)
}

// deleteEndpoint takes out of the store what is there of e, in one write.
func (w *Workloads) deleteEndpoint(ctx context.Context, e ledger.Entry, coming *ipam.Coming) error {
	s, err := w.o.Store()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	if e.Name == "" && w.o.Addresses != nil {
		return w.releaseUnknown(ctx, e.ID())
	}
	for range writeTries {
		var ops []datastore.Op
		if w.o.Pods == nil {
			if ops, err = removal(ctx, s, w.o.Node, e); err != nil {
				return err
			}
		}
		switch {
		case e.Allocated && w.o.Addresses != nil:
			_, err = w.o.Addresses.Release(ctx, ipam.HandleOf(e.Sandbox, e.Interface), ipam.ReleaseOptions{Ops: ops, Announced: coming})
		case len(ops) > 0:
			err = s.Delete(ctx, ops[0].Key, ops[0].Revision)
		}
		if err == nil || !changed(err) {
			return err
		}
	}
	return err
}
