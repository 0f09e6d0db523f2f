package agent

import (
	"context"
	"slices"
	"time"

	"github.com/tortie/tortie/agent/feed"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/backoff"
	"github.com/tortie/tortie/ipam"
)

// watchStore brings the store's changes to the graph until ctx ends.
func (a *agent) watchStore(ctx context.Context) error {
	self := api.Key{Kind: "Node", Name: a.cfg.NodeName}
	return a.link.watch(ctx, a.kinds(), func(b datastore.Batch, back bool) error {
		a.addresses.take(b)
		if err := a.feed.Batch(ctx, b); err != nil {
			return err
		}
		if a.pods != nil {
			a.pods.take(b)
			a.keeper.Take(b)
		}
		for _, e := range b.Events {
			if e.Key == self && a.sawNode(e.Object) {
				back = true
			}
			a.workloads.Saw(e.Object)
		}
		if b.InSync && a.registrar.kube != nil {
			a.registrar.kube.synced()
		}
		if back {
			a.registrar.Kick()
			a.workloads.Kick()
		}
		return nil
	})
}

// kinds are those that a node needs to know of.
func (a *agent) kinds() []string {
	kinds := append(calcgraph.Kinds(), ipam.SettingKinds()...)
	if a.keeper != nil {
		kinds = append(kinds, "IPAMBlock")
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// sawNode takes in this node's own Node, and reports whether the registrar should look at it.
func (a *agent) sawNode(o api.Object) bool {
	if a.registrar.kube == nil {
		return true
	}
	n, _ := o.(*api.Node)
	return a.registrar.kube.saw(n)
}

// watchHost brings the host's interfaces to the graph until ctx ends. The ledger comes with the first: only they tell
// which of its entries are still true.
func (a *agent) watchHost(ctx context.Context) {
	inv, ok := a.driver.(drivers.Inventory)
	if !ok {
		a.registrar.saw(nil)
		a.restore(ctx, nil)
		return
	}
	restored := false
	retry := backoff.Backoff{Min: time.Second, Max: time.Minute}
	for ctx.Err() == nil {
		err := inv.WatchHost(ctx, func(ifaces []drivers.HostIface) {
			if !restored {
				if ifaces == nil {
					ifaces = []drivers.HostIface{} // there are none; nil is "nobody knows"
				}
				a.restore(ctx, ifaces)
				restored = true
			}
			if err := a.feed.HostIfaces(ctx, ifaces); err != nil && ctx.Err() == nil {
				a.log.Error("taking in the host's interfaces", "err", err)
			}
			retry.Reset()
			a.registrar.saw(ifaces)
		})
		if ctx.Err() != nil {
			return
		}
		a.log.Warn("the watch of the host's interfaces was lost", "err", err)
		a.pump.Kick() // what went by unseen may be ours
		if retry.Sleep(ctx) != nil {
			return
		}
	}
}

// restore brings the ledger to the graph, for as long as that takes.
func (a *agent) restore(ctx context.Context, ifaces []drivers.HostIface) {
	retry := backoff.Backoff{Min: time.Second, Max: time.Minute}
	for {
		err := a.workloads.Restore(ctx, ifaces)
		if err == nil || ctx.Err() != nil {
			return
		}
		a.log.Error("restoring the workloads of the ledger", "err", err)
		if retry.Sleep(ctx) != nil {
			return
		}
	}
}

// waitingInputs are inputs of the graph that are not complete yet.
func (a *agent) waitingInputs() map[feed.Input]bool {
	out := map[feed.Input]bool{}
	for _, in := range a.feed.Waiting() {
		out[in] = true
	}
	return out
}
