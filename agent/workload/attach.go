package workload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

const (
	orchestratorKubernetes = "k8s"
	orchestratorDefault    = "cni"
	namespaceDefault       = "default"
	maxAddrs               = 16
)

// Attach plugs a workload in, and answers once its policy is enforced.
func (w *Workloads) Attach(ctx context.Context, r agentapi.AttachRequest, netns *os.File) (resp agentapi.AttachResponse, err error) {
	want, o, err := w.plan(r, netns)
	if err != nil {
		return agentapi.AttachResponse{}, agentapi.Errorf(agentapi.CodeBadRequest, "attach: %v", err)
	}
	if w.o.Attacher == nil {
		return agentapi.AttachResponse{}, agentapi.Errorf(agentapi.CodeUnsupported, "attach: this driver can't plug workloads in")
	}
	if missing := w.o.Ready(); missing != "" {
		return agentapi.AttachResponse{}, agentapi.Errorf(agentapi.CodeUnavailable, "the agent is not ready (%s): try again", missing)
	}
	clock := w.o.Metrics.start()
	defer func() {
		err = interrupted(ctx, err)
		clock.log(w.o.Log, r.Sandbox, err)
	}()
	var wish wishes
	if w.o.Pods != nil {
		if r, wish, err = w.ofPod(ctx, r, want); err != nil {
			return agentapi.AttachResponse{}, err
		}
		if want, o, err = w.plan(r, netns); err != nil {
			return agentapi.AttachResponse{}, agentapi.Errorf(agentapi.CodeBadRequest, "attach: %v", err)
		}
		clock.done(stepPod)
	}
	if r.Chained {
		if err := w.chained(ctx, &want, o, netns); err != nil {
			return agentapi.AttachResponse{}, err
		}
	}
	unlock, err := w.locks.lock(ctx, want.ID())
	if err != nil {
		return agentapi.AttachResponse{}, waitError("attach: waiting for another request about this workload", err)
	}
	defer unlock()
	if _, err := w.o.Store(); err != nil {
		return agentapi.AttachResponse{}, storeError("attach: nothing was done, try again", err)
	}
	if err := w.settle(ctx, want.ID()); err != nil {
		return agentapi.AttachResponse{}, fmt.Errorf("attach: detaching what was noted before: %w", err)
	}
	clock.done(stepWait)
	addAsked.Hit()
	j := job{entry: want, endpoint: o, pools: wish.pools, noIPAM: len(wish.noIPAM) > 0, netns: netns, clock: clock}
	if err = w.enter(ctx, r, &j); err == nil {
		resp, err = w.plug(ctx, &j)
	}
	if err == nil || !j.fresh || agentapi.CodeOf(err) == agentapi.CodeNotEnforced {
		return resp, err
	}
	if uErr := w.undo(ctx, j); uErr != nil {
		w.o.Log.Error("undoing an attach that failed; it is tried again", "sandbox", want.Sandbox, "err", uErr)
	}
	w.Kick()
	return agentapi.AttachResponse{}, err
}

// job is an attach on its way.
type job struct {
	entry    ledger.Entry
	endpoint *api.WorkloadEndpoint
	pools    byFamily // that the pod or its namespace asks for
	noIPAM   bool     // the addresses are the pod's own word
	netns    *os.File
	clock    *watch
	fresh    bool                  // the ledger did not have it
	written  bool                  // something of it may be in the store
	stored   *api.WorkloadEndpoint // as written with its addresses; nil = not yet
	told     uint64                // the Offer that has it in
}

// plan checks a request, and makes the ledger entry and the WorkloadEndpoint of it.
func (w *Workloads) plan(r agentapi.AttachRequest, netns *os.File) (ledger.Entry, *api.WorkloadEndpoint, error) {
	var none ledger.Entry
	id := r.Workload
	if id.Orchestrator == "" {
		id.Orchestrator = orchestratorDefault
	}
	if id.Namespace == "" {
		id.Namespace = namespaceDefault
	}
	if id.Name == "" {
		id.Name = r.Sandbox
	}
	switch {
	case r.Sandbox == "" || len(r.Sandbox) > 253:
		return none, nil, errors.New("sandbox: want an id of 1 to 253 letters")
	case r.Interface == "" || len(r.Interface) > 15:
		return none, nil, errors.New("interface: want a name of 1 to 15 letters")
	case netns == nil:
		return none, nil, errors.New("no network namespace came with the request")
	case r.Chained && planChained(r) != nil:
		return none, nil, planChained(r)
	case len(given(r)) > maxAddrs:
		return none, nil, fmt.Errorf("addresses: want at most %d", maxAddrs)
	case r.MTU < 0 || r.MTU > 65535:
		return none, nil, fmt.Errorf("mtu: %d is not between 0 and 65535", r.MTU)
	}
	iface := r.Interface
	if w.o.Pods != nil {
		iface = podInterface
	}
	e := ledger.Entry{
		Sandbox: r.Sandbox, Interface: r.Interface, HostIface: ledger.HostIface(w.o.Prefix, r.Sandbox, r.Interface),
		MAC: ledger.MAC(r.Sandbox, r.Interface), MTU: r.MTU, Namespace: id.Namespace, Name: api.WorkloadEndpointName(w.o.Node, id.Orchestrator, id.Name, iface),
		Network: r.Network, UID: id.UID, BootID: w.o.BootID, Created: time.Now().UTC(),
	}
	for _, a := range given(r) {
		a = a.Unmap()
		if !a.IsValid() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() {
			return none, nil, fmt.Errorf("addresses: %s is no address for a workload", a)
		}
		if !slices.Contains(e.Addrs, a) {
			e.Addrs = append(e.Addrs, a)
		}
	}
	if r.MAC != "" {
		m, err := net.ParseMAC(r.MAC)
		if err != nil || len(m) != len(e.MAC) || m[0]&1 != 0 {
			return none, nil, fmt.Errorf("mac: %q is no address of one interface", r.MAC)
		}
		e.MAC = drivers.MAC(m)
	}
	for _, p := range id.SourcePrefixes {
		if !p.IsValid() {
			return none, nil, errors.New("sourcePrefixes: a prefix is missing")
		}
	}
	o := newEndpoint(w.o.Node, e, id)
	if err := api.Validate(o).ToAggregate(); err != nil {
		return none, nil, err
	}
	return e, o, nil
}

// given is the addresses that a request names.
func given(r agentapi.AttachRequest) []netip.Addr {
	if len(r.Addresses) == 0 && r.Allocate != nil {
		return r.Allocate.Addresses
	}
	return r.Addresses
}

// enter gets the addresses, and puts the entry into the ledger, unless an attach of before has.
func (w *Workloads) enter(ctx context.Context, r agentapi.AttachRequest, j *job) error {
	want := j.entry
	w.gone.remove(want.ID())
	had, ok := w.o.Ledger.Get(want.ID())
	if ok && had.Phase == ledger.Plugged {
		if len(want.Addrs) == 0 && had.Allocated {
			want.Addrs = had.Addrs
		}
		if !sameAs(had, want) {
			return agentapi.Errorf(agentapi.CodeConflict,
				"interface %s of sandbox %s is plugged in already, as %s/%s with %v: detach it first", had.Interface, had.Sandbox,
				had.Namespace, had.Name, had.Addrs)
		}
		if had.Closed != "" {
			return agentapi.Errorf(agentapi.CodeConflict, "interface %s of sandbox %s (%s/%s) is closed: %s: detach it first",
				had.Interface, had.Sandbox, had.Namespace, had.Name, had.Closed)
		}
		j.entry = had
		j.endpoint.Spec.IPNetworks = networks(had.Addrs)
		return nil
	}
	if ok { // what was unfinished comes first
		if err := w.end(ctx, had); err != nil {
			return err
		}
		if left, ok := w.o.Ledger.Get(want.ID()); ok {
			return agentapi.Errorf(agentapi.CodeUnavailable, "attach: %s/%s of before could not be deleted from the store: try again",
				left.Namespace, left.Name)
		}
	}
	demand, err := w.demand(ctx, r, j)
	if err != nil {
		return err
	}
	if len(demand) > 0 {
		// Before anything is in the store the ledger knows of it, and before anything is on the host it knows all.
		j.entry.Allocated = true
		intent := j.entry
		intent.Phase, intent.Addrs = ledger.Allocating, nil
		if err := w.o.Ledger.Put(intent); err != nil {
			return err
		}
		j.fresh = true
		j.clock.done(stepIntent)
		addIntent.Hit()
		if err := w.allocate(ctx, j, demand); err != nil {
			j.written = j.written && !refused(err)
			return err
		}
		j.clock.done(stepAllocate)
		addAllocated.Hit()
	}
	j.entry.OldFlows = true
	err = w.o.Ledger.Put(j.entry)
	var used *ledger.InUse
	switch {
	case errors.As(err, &used) && used.Holder.Phase == ledger.Detaching:
		return agentapi.Errorf(agentapi.CodeUnavailable, "attach: %v, which is being unplugged: try again", err)
	case errors.As(err, &used):
		return agentapi.Errorf(agentapi.CodeConflict, "attach: %v", err)
	}
	j.fresh = j.fresh || err == nil
	j.clock.done(stepLedger)
	addLedger.Hit()
	return err
}

// plug does what the ledger says.
func (w *Workloads) plug(ctx context.Context, j *job) (agentapi.AttachResponse, error) {
	var none agentapi.AttachResponse
	e := j.entry
	cut := w.startCut(ctx, e)
	made, err := w.attacher(e).Attach(ctx, attachment(e, fmt.Sprintf("/proc/self/fd/%d", j.netns.Fd())))
	j.clock.done(stepLink)
	addLink.Hit()
	cutErr := <-cut
	j.clock.done(stepCut)
	addCut.Hit()
	switch {
	case err != nil:
		return none, fmt.Errorf("attach: making the interface: %w", err)
	case cutErr != nil:
		return none, waitError("attach: cutting old flows", cutErr)
	}
	// That they are cut is on the disk before anybody is told that the workload is plugged in: a restart must not cut those
	// that it has made since.
	noted := w.noteCut(e)
	resp, err := w.admit(ctx, j, made)
	nErr := <-noted
	j.clock.done(stepNote)
	addNoted.Hit()
	if nErr != nil {
		return none, nErr
	}
	if err == nil && e.Chained {
		if err := w.cutBegun(ctx, e); err != nil {
			return none, err
		}
		j.clock.done(stepCut)
	}
	return resp, err
}

// startCut begins to cut the flows that earlier owners of the addresses have left: no packet of the new one may ride on
// them. It can be done while the interface is made, which passes no packet yet.
func (w *Workloads) startCut(ctx context.Context, e ledger.Entry) <-chan error {
	done := make(chan error, 1)
	if !e.OldFlows {
		done <- nil
		return done
	}
	go func() { done <- w.o.Plane.CutFlows(ctx, e.Addrs) }()
	return done
}

// admit lets the workload in, and waits until its policy is enforced.
func (w *Workloads) admit(ctx context.Context, j *job, made drivers.Attached) (agentapi.AttachResponse, error) {
	var none agentapi.AttachResponse
	e := j.entry
	err := w.replaceLost(ctx, e)
	if err != nil {
		return none, waitError("attach", err)
	}
	if j.told, err = w.o.Graph.Attached(ctx, e.ID(), graphEntry(e)); err != nil {
		return none, waitError("attach", err)
	}
	j.clock.done(stepGraph)
	addTold.Hit()
	if j.stored == nil && w.o.Pods == nil {
		s, err := w.o.Store()
		if err != nil {
			return none, storeError("attach: nothing was done, try again", err)
		}
		j.written = true // an answer may get lost on its way
		if j.stored, err = putEndpoint(ctx, s, j.endpoint); err != nil {
			return none, storeError("attach: writing the WorkloadEndpoint, try again", err)
		}
		j.clock.done(stepStore)
		addStored.Hit()
	}
	if made.Made && !j.fresh {
		// Somebody has removed the interface, or it was in another namespace, and the routes to it have gone with it. The
		// graph knows nothing of that.
		if err := w.o.Plane.Renew(ctx); err != nil {
			return none, waitError("attach: restoring what led to the interface", err)
		}
	}
	if err := w.await(ctx, j); err != nil {
		return none, err
	}
	return agentapi.AttachResponse{
		HostIface: made.HostIface, HostMAC: macText(made.HostMAC), MAC: made.MAC.String(), MTU: made.MTU, Addresses: e.Addrs,
		Gateways: made.Gateways, Endpoint: e.Namespace + "/" + e.Name,
	}, nil
}

// noteCut writes into the ledger that there are no old flows any more. The error comes when that is done.
func (w *Workloads) noteCut(e ledger.Entry) <-chan error {
	done := make(chan error, 1)
	if !e.OldFlows || e.Chained {
		done <- nil
		return done
	}
	e.OldFlows = false
	go func() { done <- w.o.Ledger.Put(e) }()
	return done
}

// cutBegun cuts the flows of a workload whose interface another plugin has made, once its policy is enforced. It has passed
// packets before: what they began, and what earlier owners of the addresses have left, would be established and never judged.
func (w *Workloads) cutBegun(ctx context.Context, e ledger.Entry) error {
	if err := w.o.Plane.CutFlows(ctx, e.Addrs); err != nil {
		return waitError("attach: cutting flows that began before its policy", err)
	}
	if !e.OldFlows {
		return nil
	}
	e.OldFlows = false
	return w.o.Ledger.Put(e)
}

func macText(m drivers.MAC) string {
	if m == (drivers.MAC{}) {
		return ""
	}
	return m.String()
}

// await waits until the policy of a workload is in the dataplane.
func (w *Workloads) await(ctx context.Context, j *job) error {
	since, generation := j.told, uint64(0) // a pod has been seen before it was attached
	var err error
	if j.stored != nil {
		generation = uint64(j.stored.Generation)
		since, err = w.o.Graph.WaitSeen(ctx, api.KeyOf(j.stored), j.stored.ResourceVersion)
	} else {
		w.member(ctx, j.entry)
	}
	if err == nil {
		j.clock.done(stepSeen)
		addSeen.Hit()
		err = w.o.Plane.WaitEnforced(ctx, j.entry.ID(), generation, since)
	}
	if err != nil {
		return agentapi.Errorf(agentapi.CodeNotEnforced, "%s is plugged in, but %v", j.entry.Namespace+"/"+j.entry.Name, err)
	}
	j.clock.done(stepEnforce)
	addEnforced.Hit()
	return nil
}

// undo takes back an attach that has failed: nothing of it stays.
func (w *Workloads) undo(ctx context.Context, j job) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	e, ok := w.o.Ledger.Get(j.entry.ID())
	if !ok {
		return nil
	}
	if e.Phase == ledger.Plugged {
		e.Phase = ledger.Detaching
		if err := w.o.Ledger.Put(e); err != nil {
			return err
		}
		if err := w.unplug(ctx, e); err != nil {
			return err
		}
	}
	if !j.written {
		return w.o.Ledger.Remove(e.ID())
	}
	return w.forget(ctx, e)
}
