package workload

import (
	"context"
	"errors"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/ipam"
)

// Saw tells of what the store holds. A stray among it is deleted by Run; what people wrote is not one, even if it speaks
// of this node.
func (w *Workloads) Saw(o api.Object) {
	e, ok := o.(*api.WorkloadEndpoint)
	if !ok || e.Spec.Node != w.o.Node || e.Spec.ContainerID == "" ||
		e.Spec.InterfaceName != ledger.HostIface(w.o.Prefix, e.Spec.ContainerID, e.Spec.Endpoint) {
		return
	}
	id := drivers.EndpointID{Kind: drivers.Workload, Sandbox: e.Spec.ContainerID, Interface: e.Spec.Endpoint}
	if key := api.KeyOf(e); !w.standsFor(id, key) {
		w.strays.put(key, id)
		w.Kick()
	}
}

// standsFor reports whether id is plugged in as key. One that is on its way out is not: its delete may be too early.
func (w *Workloads) standsFor(id drivers.EndpointID, key api.Key) bool {
	e, ok := w.o.Ledger.Get(id)
	return ok && e.Phase == ledger.Plugged && endpointKey(e) == key
}

// collect deletes the strays, and reports whether some are left.
func (w *Workloads) collect(ctx context.Context) (left bool) {
	for key, id := range w.strays.all() {
		if ctx.Err() != nil {
			return true
		}
		if w.Busy(id) { // it is being attached: then it stands for something soon
			left = true
			continue
		}
		if err := w.collectOne(ctx, key, id); err != nil {
			w.o.Log.Debug("a stray WorkloadEndpoint is left", "endpoint", key.String(), "err", err)
			left = true
		}
	}
	return left
}

func (w *Workloads) collectOne(ctx context.Context, key api.Key, id drivers.EndpointID) error {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	unlock, err := w.locks.lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if !w.standsFor(id, key) {
		if err := w.deleteStray(ctx, key, id); err != nil {
			return err
		}
	}
	w.strays.remove(key)
	return nil
}

// deleteStray deletes what is at key, unless it is another's by now.
func (w *Workloads) deleteStray(ctx context.Context, key api.Key, id drivers.EndpointID) error {
	s, err := w.o.Store()
	if err != nil {
		return err
	}
	o, err := s.Get(ctx, key)
	if errors.Is(err, datastore.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	e, ok := o.(*api.WorkloadEndpoint)
	if !ok || e.Spec.ContainerID != id.Sandbox || e.Spec.Endpoint != id.Interface || e.Spec.Node != w.o.Node {
		return nil
	}
	if _, known := w.o.Ledger.Get(id); known || w.o.Addresses == nil {
		err = s.Delete(ctx, key, e.ResourceVersion) // its addresses are what the entry stands for
	} else {
		_, err = w.o.Addresses.Release(ctx, ipam.HandleOf(id.Sandbox, id.Interface),
			ipam.ReleaseOptions{Ops: []datastore.Op{{Verb: datastore.Delete, Key: key, Revision: e.ResourceVersion}}})
	}
	if err != nil {
		return err
	}
	w.o.Log.Info("deleted a WorkloadEndpoint that stands for nothing", "endpoint", key.String())
	return nil
}
