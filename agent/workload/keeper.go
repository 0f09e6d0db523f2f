package workload

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/backoff"
	"github.com/tortie/tortie/ipam"
)

const (
	// keepAfter is how long the watch has to tell that a workload's address is not its own before that is looked into: what an
	// attach or a detach has just written may not have come back yet.
	keepAfter = 3 * time.Second
	// keepInterval is how often that is looked at while nothing changes.
	keepInterval = time.Minute
)

// Keeper sees to it that the workloads that are plugged in hold their addresses. Somebody else may have taken those back:
// the store was restored from a backup in which they are free yet, or were somebody's who is gone. The ledger knows better:
// a workload gets its address again, and one that is another one's by now is closed, since it would be taken for that one.
//
// It is for stores where a block's own write says who has an address (Kubernetes).
type Keeper struct {
	w    *Workloads
	wake chan struct{}

	mu       sync.Mutex
	inSync   bool
	blocks   map[api.Key]map[netip.Addr]string   // handles of what blocks hold for this node
	concerns map[drivers.EndpointID]*concern     // workloads that may not hold their addresses
	shut     map[drivers.EndpointID][]netip.Addr // workloads that the graph has closed, and what they have to hold again
}

// concern is when a workload is looked into that does not hold its addresses, or that is closed.
type concern struct {
	due   time.Time
	retry backoff.Backoff
}

// NewKeeper returns the Keeper of w.
func NewKeeper(w *Workloads) *Keeper {
	k := &Keeper{w: w, wake: make(chan struct{}, 1), blocks: map[api.Key]map[netip.Addr]string{},
		concerns: map[drivers.EndpointID]*concern{}, shut: map[drivers.EndpointID][]netip.Addr{}}
	for _, e := range w.o.Ledger.List() {
		if e.Closed != "" {
			k.shut[e.ID()] = e.ClosedFor
		}
	}
	return k
}

// Take takes in what the watch tells.
func (k *Keeper) Take(b datastore.Batch) {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed := b.InSync && !k.inSync
	k.inSync = k.inSync || b.InSync
	for _, e := range b.Events {
		if e.Key.Kind != "IPAMBlock" {
			continue
		}
		now := k.w.heldOn(e.Object)
		for a, h := range k.blocks[e.Key] {
			changed = changed || now[a] != h
		}
		if delete(k.blocks, e.Key); len(now) > 0 {
			k.blocks[e.Key] = now
		}
	}
	if changed {
		k.kick()
	}
}

func (k *Keeper) kick() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// heldOn is the addresses of a block that are held by this node's workloads, and their handles.
func (w *Workloads) heldOn(o api.Object) map[netip.Addr]string {
	b, ok := o.(*api.IPAMBlock)
	if !ok {
		return nil
	}
	var held map[netip.Addr]string
	prefix, err := api.ParsePrefix(b.Spec.CIDR)
	if err != nil {
		return nil
	}
	a := prefix.Addr()
	for _, at := range b.Spec.Allocations {
		if at >= 0 && at < len(b.Spec.Attributes) && b.Spec.Attributes[at].ReleasedAt == nil {
			x := b.Spec.Attributes[at]
			if owner := api.OwnerOf(x.Secondary, b.Spec.Affinity); owner.Node == w.o.Node && owner.Pod != "" {
				if held == nil {
					held = map[netip.Addr]string{}
				}
				held[a] = x.HandleID
			}
		}
		a = a.Next()
	}
	return held
}

// Run keeps until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	retry := backoff.Backoff{Min: time.Second, Max: keepInterval}
	for ctx.Err() == nil {
		var wait time.Duration
		if err := k.look(ctx); err != nil {
			k.w.o.Log.Info("looking whether workloads hold their addresses", "err", err)
			wait = retry.Next()
		} else {
			wait = k.pause(time.Now())
			retry.Reset()
		}
		t := time.NewTimer(wait)
		select {
		case <-k.wake:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// look looks at all workloads.
func (k *Keeper) look(ctx context.Context) error {
	entries := slices.DeleteFunc(k.w.o.Ledger.List(), func(e ledger.Entry) bool { return !kept(e) })
	pools, err := k.pools(ctx, entries)
	if err != nil {
		return err
	}
	for _, e := range k.due(entries, pools, time.Now()) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := k.keep(ctx, e, pools); err != nil {
			k.w.o.Log.Info("a workload does not hold its address yet", "endpoint", e.Namespace+"/"+e.Name, "addresses", e.Addrs, "err", err)
		}
		k.tried(e.ID(), time.Now())
	}
	return nil
}

// pools are those that there are; none if that is of no interest yet.
func (k *Keeper) pools(ctx context.Context, entries []ledger.Entry) ([]*api.IPPool, error) {
	k.mu.Lock()
	inSync := k.inSync
	k.mu.Unlock()
	if !inSync || len(entries) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	return k.w.o.Addresses.Pools(ctx, func([]*api.IPPool) bool { return true })
}

// inPools are the addresses of e that a pool gives: no block holds the others.
func inPools(e ledger.Entry, pools []*api.IPPool) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(e.Addrs), func(a netip.Addr) bool { return !holds(pools, a) })
}

// due are the entries to look into now: whose addresses have not been their own for a while, and those that are closed.
func (k *Keeper) due(entries []ledger.Entry, pools []*api.IPPool, now time.Time) (out []ledger.Entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.inSync {
		return nil
	}
	concerns, shut := map[drivers.EndpointID]*concern{}, map[drivers.EndpointID][]netip.Addr{}
	for _, e := range entries {
		id := e.ID()
		addrs, isShut := k.shut[id]
		if isShut {
			shut[id] = addrs
		}
		if k.holds(e, inPools(e, pools)) && !isShut && e.Closed == "" {
			continue
		}
		c := k.concerns[id]
		if c == nil {
			c = &concern{due: now.Add(keepAfter), retry: backoff.Backoff{Min: keepAfter, Max: keepInterval}}
		}
		if concerns[id] = c; !now.Before(c.due) {
			out = append(out, e)
		}
	}
	k.concerns, k.shut = concerns, shut // without those that are well, or have been detached
	return out
}

// tried says when a workload is looked into again, should that be necessary then.
func (k *Keeper) tried(id drivers.EndpointID, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.concerns[id]; c != nil {
		c.due = now.Add(c.retry.Next())
	}
}

// pause is how long nothing is due.
func (k *Keeper) pause(now time.Time) time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := keepInterval
	for _, c := range k.concerns {
		d = min(d, c.due.Sub(now))
	}
	return max(d, 0)
}

func kept(e ledger.Entry) bool { return e.Phase == ledger.Plugged && e.Allocated && len(e.Addrs) > 0 }

// holds says whether the watch tells that addrs are e's own.
func (k *Keeper) holds(e ledger.Entry, addrs []netip.Addr) bool {
	handle := ipam.HandleOf(e.Sandbox, e.Interface)
	return !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return k.holder(a) != handle })
}

func (k *Keeper) holder(a netip.Addr) string {
	for _, held := range k.blocks {
		if h, ok := held[a]; ok {
			return h
		}
	}
	return ""
}

// keep has a workload's addresses be its own again, or closes it.
func (k *Keeper) keep(ctx context.Context, e ledger.Entry, pools []*api.IPPool) error {
	ctx, cancel := context.WithTimeout(ctx, undoTimeout)
	defer cancel()
	unlock, err := k.w.locks.lock(ctx, e.ID())
	if err != nil {
		return err
	}
	defer unlock()
	e, ok := k.w.o.Ledger.Get(e.ID())
	if !ok || !kept(e) {
		return nil
	}
	if _, err := k.w.o.Store(); err != nil {
		return err
	}
	addrs := inPools(e, pools)
	wanted, _ := k.isShut(e.ID())
	if len(addrs) == 0 || k.w.gone.has(e.ID()) ||
		slices.ContainsFunc(wanted, func(a netip.Addr) bool { return !slices.Contains(addrs, a) }) {
		return nil // if it is closed it stays so: nobody can say whose its addresses are now
	}
	if err := k.evict(ctx, e, addrs); err != nil {
		return err
	}
	_, err = k.w.o.Addresses.Assign(ctx, ipam.Request{Handle: ipam.HandleOf(e.Sandbox, e.Interface), Addrs: addrs,
		Owner: api.Owner{Namespace: e.Namespace, Pod: podOf(k.w.o.Node, e), UID: e.UID, Node: k.w.o.Node}})
	switch {
	case err == nil:
		k.w.o.Log.Warn("a workload's addresses were not its own any more: they are again", "endpoint", e.Namespace+"/"+e.Name, "addresses", addrs)
		return k.open(ctx, e)
	case errors.Is(err, ipam.ErrTaken):
		return errors.Join(err, k.close(ctx, e, addrs))
	}
	return err
}

// podOf is the pod in the name of its WorkloadEndpoint.
func podOf(node string, e ledger.Entry) string {
	const mark = "\x00"
	before, after, _ := strings.Cut(api.WorkloadEndpointName(node, orchestratorKubernetes, mark, podInterface), mark)
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(e.Name, before), after), "--", "-")
}

// evict releases what the store holds of e's addresses addrs for sandboxes of this node that are gone: e could not have them
// otherwise.
func (k *Keeper) evict(ctx context.Context, e ledger.Entry, addrs []netip.Addr) error {
	mine := ipam.HandleOf(e.Sandbox, e.Interface)
	known := map[string]bool{}
	for _, x := range k.w.o.Ledger.List() {
		known[ipam.HandleOf(x.Sandbox, x.Interface)] = true
	}
	for _, a := range addrs {
		k.mu.Lock()
		handle := k.holder(a)
		k.mu.Unlock()
		if handle == "" || handle == mine || known[handle] {
			continue
		}
		k.w.o.Log.Warn("an address is held for a sandbox that is gone, and used by another one", "address", a, "handle", handle,
			"endpoint", e.Namespace+"/"+e.Name)
		if _, err := k.w.o.Addresses.Release(ctx, handle, ipam.ReleaseOptions{Everywhere: true}); err != nil { // also if it once was released
			return err
		}
	}
	return nil
}

// close closes a workload of whose addresses addrs one is another one's, also for agents to come. The caller holds its lock.
func (k *Keeper) close(ctx context.Context, e ledger.Entry, addrs []netip.Addr) error {
	const why = "its address is another one's by now"
	_, was := k.isShut(e.ID())
	if e.Closed != "" && was {
		return nil
	}
	if !was {
		k.w.o.Log.Error("a workload's address is another one's by now: it is closed; delete it to have it made anew", "endpoint", e.Namespace+"/"+e.Name,
			"addresses", addrs)
	}
	// Again, if only the ledger does not know yet: another attach may have let it in meanwhile.
	if err := k.w.closed(ctx, e, why); err != nil {
		return err
	}
	k.mu.Lock()
	k.shut[e.ID()] = addrs
	k.mu.Unlock()
	e.Closed, e.ClosedFor = why, addrs
	return k.w.o.Ledger.Put(e)
}

// open lets a workload in again that was closed. The caller holds its lock.
func (k *Keeper) open(ctx context.Context, e ledger.Entry) error {
	wasClosed := e.Closed != ""
	e.Closed, e.ClosedFor = "", nil
	if _, was := k.isShut(e.ID()); was {
		if _, err := k.w.o.Graph.Attached(ctx, e.ID(), graphEntry(e)); err != nil {
			return err
		}
		k.mu.Lock()
		delete(k.shut, e.ID())
		k.mu.Unlock()
	}
	if !wasClosed {
		return nil
	}
	return k.w.o.Ledger.Put(e)
}

// isShut says whether the graph has closed a workload, and what it has to hold again then.
func (k *Keeper) isShut(id drivers.EndpointID) (addrs []netip.Addr, is bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	addrs, is = k.shut[id]
	return addrs, is
}
