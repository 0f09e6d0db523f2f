package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/ipam"
)

// Addresses gives addresses of pools, and takes them back.
type Addresses interface {
	// Pools returns the pools that there are: those that are known without asking the store if they are enough for what
	// they are wanted for, or else what the store says now. A pool may be so new that this node has not been told of it.
	Pools(ctx context.Context, enough func([]*api.IPPool) bool) ([]*api.IPPool, error)
	Assign(ctx context.Context, r ipam.Request) (ipam.Result, error)
	Release(ctx context.Context, handle string, o ipam.ReleaseOptions) ([]netip.Addr, error)
	// Announce says that a Release comes soon, for others to share its write.
	Announce() *ipam.Coming
}

// demand is what an attach wants of the pools: the first of these that there are pools for. None: all of its addresses
// are allocated by somebody else.
func (w *Workloads) demand(ctx context.Context, r agentapi.AttachRequest, j *job) ([]ipam.Request, error) {
	req := ipam.Request{
		Handle: ipam.HandleOf(r.Sandbox, r.Interface),
		Owner:  api.Owner{Namespace: j.entry.Namespace, Pod: j.endpoint.Spec.Workload, UID: j.entry.UID, Node: w.o.Node},
	}
	if j.noIPAM {
		return nil, w.outside(ctx, j.entry.Addrs)
	}
	if w.o.Addresses == nil {
		if len(r.Addresses) > 0 {
			return nil, nil
		}
		return nil, agentapi.Errorf(agentapi.CodeNoAddress, "attach: this agent allocates no addresses: give some")
	}
	if len(r.Addresses) > 0 {
		return w.demandGiven(ctx, req, j.entry.Addrs)
	}
	want := r.Allocate
	if want == nil {
		want = &agentapi.Allocate{}
	}
	if len(want.Addresses) > 0 {
		req.Pools, req.Addrs = want.Pools, j.entry.Addrs
		return []ipam.Request{req}, nil
	}
	if len(j.pools[0])+len(j.pools[1]) == 0 && (want.V4 || want.V6) {
		req.Pools, req.V4, req.V6 = want.Pools, want.V4, want.V6
		return []ipam.Request{req}, nil
	}
	pools, err := w.pools(ctx, func(pools []*api.IPPool) bool {
		has4, has6 := familiesOf(pools, want.Pools, j.pools)
		return len(pools) > 0 && (has4 || has6)
	})
	if err != nil {
		return nil, err
	}
	if len(pools) == 0 {
		return nil, agentapi.Errorf(agentapi.CodeNoAddress,
			"attach: there are no address pools: create an IPPool, or give an address")
	}
	if req.Pools, err = poolsOf(pools, want.Pools, j.pools); err != nil {
		return nil, agentapi.Errorf(agentapi.CodeBadRequest, "attach: %v", err)
	}
	if want.V4 || want.V6 {
		req.V4, req.V6 = want.V4, want.V6
		return []ipam.Request{req}, nil
	}
	has4, has6 := familiesOf(pools, want.Pools, j.pools)
	return families(req, has4, has6, j.pools), nil
}

// demandGiven is demand for addresses that somebody else gives: those that are in pools are marked as taken there. In
// Kubernetes that is another plugin, which gives all of the node's: what the watch has told of pools is enough then, since a
// pool that is newer finds others of its addresses in use that nobody has marked, too.
func (w *Workloads) demandGiven(ctx context.Context, req ipam.Request, addrs []netip.Addr) ([]ipam.Request, error) {
	outside := func(pools []*api.IPPool) func(netip.Addr) bool {
		return func(a netip.Addr) bool { return !holds(pools, a) }
	}
	pools, err := w.pools(ctx, func(pools []*api.IPPool) bool {
		return w.o.Pods != nil || !slices.ContainsFunc(addrs, outside(pools))
	})
	if err != nil {
		return nil, err
	}
	// Whoever gave them may give those of a pool that is disabled: that pool gives none itself.
	req.Addrs = slices.DeleteFunc(slices.Clone(addrs), outside(pools))
	if len(req.Addrs) == 0 {
		return nil, nil
	}
	return []ipam.Request{req}, nil
}

func (w *Workloads) pools(ctx context.Context, enough func([]*api.IPPool) bool) ([]*api.IPPool, error) {
	pools, err := w.o.Addresses.Pools(ctx, enough)
	if err != nil {
		return nil, storeError("attach: reading what pools of addresses there are", err)
	}
	return pools, nil
}

// families asks for an address of each family that there are pools of. Those may not be for this node or workload: then
// it is asked for one family alone, if no pool of the other was asked for.
func families(req ipam.Request, has4, has6 bool, asked byFamily) []ipam.Request {
	v4, v6, both := req, req, req
	v4.V4, v6.V6, both.V4, both.V6 = true, true, true, true
	must4, must6 := len(asked[0]) > 0, len(asked[1]) > 0
	var out []ipam.Request
	if has4 && has6 {
		out = append(out, both)
	}
	if has4 && !must6 {
		out = append(out, v4)
	}
	if has6 && !must4 {
		out = append(out, v6)
	}
	if len(out) == 0 {
		return []ipam.Request{v4} // or the reason why there is none
	}
	return out
}

// familiesOf says of which families there are pools: of those that are asked for, or else of those that are named if any
// are.
func familiesOf(pools []*api.IPPool, named []string, asked byFamily) (has4, has6 bool) {
	has := [2]bool{len(asked[0]) > 0, len(asked[1]) > 0}
	for _, p := range pools {
		prefix, err := api.ParsePrefix(p.Spec.CIDR)
		if err != nil {
			continue
		}
		if f := familyOf(prefix); len(asked[f]) == 0 && serves(p, prefix, named) {
			has[f] = true
		}
	}
	return has[0], has[1]
}

// familyOf is the place of a family in a byFamily.
func familyOf(p netip.Prefix) int {
	if p.Addr().Is4() {
		return 0
	}
	return 1
}

// poolsOf are the pools that addresses may be of: those that are asked for, and of a family that none is asked for of those
// that are named. Nothing means all that serve anybody.
func poolsOf(pools []*api.IPPool, named []string, asked byFamily) ([]string, error) {
	find := func(name string) (family int, known bool) {
		for _, p := range pools {
			if prefix, err := api.ParsePrefix(p.Spec.CIDR); err == nil && isNamed(p, prefix, name) {
				return familyOf(prefix), true
			}
		}
		return 0, false
	}
	var out []string
	for f, names := range asked {
		for _, n := range names {
			if is, known := find(n); known && is != f {
				return nil, fmt.Errorf("pool %q is asked for as one of %s addresses, which it is not", n, [...]string{familyIPv4, familyIPv6}[f])
			}
			out = append(out, n)
		}
	}
	for _, n := range named {
		if f, known := find(n); !known || len(asked[f]) == 0 {
			out = append(out, n)
		}
	}
	return out, nil
}

func isNamed(p *api.IPPool, prefix netip.Prefix, name string) bool {
	want, err := netip.ParsePrefix(name)
	return name == p.Name || err == nil && want.Masked() == prefix
}

func serves(p *api.IPPool, prefix netip.Prefix, named []string) bool {
	if len(named) > 0 {
		return slices.ContainsFunc(named, func(n string) bool { return isNamed(p, prefix, n) })
	}
	return !p.Spec.Disabled && p.Spec.AssignmentMode != "Manual" &&
		(len(p.Spec.AllowedUses) == 0 || slices.Contains(p.Spec.AllowedUses, ipam.UseWorkload))
}

// holds says whether a pool gives addresses among which a is.
func holds(pools []*api.IPPool, a netip.Addr) bool {
	return slices.ContainsFunc(pools, func(p *api.IPPool) bool {
		prefix, err := api.ParsePrefix(p.Spec.CIDR)
		return err == nil && !p.Spec.Disabled && !p.Spec.OnlyTunnels() && prefix.Contains(a)
	})
}

// allocate gets the addresses of j, and writes its WorkloadEndpoint with them, if it is for this agent to write, in one write.
func (w *Workloads) allocate(ctx context.Context, j *job, demand []ipam.Request) error {
	var err error
	for _, req := range demand {
		if err = w.assign(ctx, j, req); !errors.Is(err, ipam.ErrNoPool) {
			break
		}
	}
	if err != nil {
		return addressError(err)
	}
	if w.o.Pods != nil {
		return nil
	}
	s, err := w.o.Store()
	if err != nil {
		return storeError("attach: try again", err)
	}
	o, err := s.Get(ctx, api.KeyOf(j.endpoint))
	if err != nil {
		return storeError("attach: reading the WorkloadEndpoint back, try again", err)
	}
	j.stored, err = asEndpoint(o)
	return err
}

func (w *Workloads) assign(ctx context.Context, j *job, req ipam.Request) error {
	given := j.entry.Addrs
	if w.o.Pods != nil {
		j.written = true // an answer may get lost on its way
		r, err := w.o.Addresses.Assign(ctx, req)
		if err == nil && len(given) == 0 {
			j.entry.Addrs = heldAddrs(r)
		}
		return err
	}
	var was *api.WorkloadEndpoint // that is in the way
	var err error
	for range writeTries {
		j.written = true // an answer may get lost on its way
		addrs := given
		req.Ops = func(r ipam.Result) []datastore.Op {
			if len(given) == 0 {
				addrs = heldAddrs(r)
			}
			o := *j.endpoint
			o.Spec.IPNetworks = networks(addrs)
			if was == nil {
				return []datastore.Op{{Verb: datastore.Create, Object: &o}}
			}
			o.ResourceVersion = was.ResourceVersion
			return []datastore.Op{{Verb: datastore.Update, Object: &o}}
		}
		if _, err = w.o.Addresses.Assign(ctx, req); err == nil {
			j.entry.Addrs = addrs
			j.endpoint.Spec.IPNetworks = networks(addrs)
			return nil
		}
		if !changed(err) {
			return err
		}
		s, sErr := w.o.Store()
		if sErr != nil {
			return sErr
		}
		o, gErr := s.Get(ctx, api.KeyOf(j.endpoint))
		if gErr != nil && !errors.Is(gErr, datastore.ErrNotFound) && !errors.Is(gErr, datastore.ErrUnreadable) {
			return gErr
		}
		was, _ = asEndpoint(o)
		if errors.Is(gErr, datastore.ErrUnreadable) {
			was = &api.WorkloadEndpoint{} // replaced as it is
		}
	}
	return err
}

func heldAddrs(r ipam.Result) []netip.Addr {
	var out []netip.Addr
	for _, h := range r.Addrs {
		out = append(out, h.Addr)
	}
	return out
}

// changed says that something is not as it was when it was looked at.
func changed(err error) bool {
	return errors.Is(err, datastore.ErrExists) || errors.Is(err, datastore.ErrConflict) || errors.Is(err, datastore.ErrNotFound)
}

// addressError puts an error of the allocator into words for a client.
func addressError(err error) error {
	for _, c := range []struct {
		is   error
		code agentapi.Code
	}{
		{ipam.ErrNoPool, agentapi.CodeNoAddress},
		{ipam.ErrFull, agentapi.CodeNoAddress},
		{ipam.ErrTaken, agentapi.CodeConflict},
		{ipam.ErrInvalid, agentapi.CodeBadRequest},
	} {
		if errors.Is(err, c.is) {
			return agentapi.Errorf(c.code, "attach: %v", err)
		}
	}
	return storeError("attach: no address was allocated, try again", err)
}

// refused says that an error of allocate is about the request: then nothing was written.
func refused(err error) bool {
	switch agentapi.CodeOf(err) {
	case agentapi.CodeNoAddress, agentapi.CodeConflict, agentapi.CodeBadRequest:
		return true
	}
	return false
}

// reclaim takes back the addresses of an attachment that the ledger does not know: its entry was damaged, say. If that
// can't be done now, the ledger has it from now on.
func (w *Workloads) reclaim(ctx context.Context, id drivers.EndpointID) error {
	if w.o.Addresses == nil {
		return nil
	}
	tctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	err := w.releaseUnknown(tctx, id)
	if err == nil {
		return nil
	}
	w.o.Log.Info("addresses are released later", "sandbox", id.Sandbox, "interface", id.Interface, "err", err)
	return w.o.Ledger.Put(ledger.Entry{Sandbox: id.Sandbox, Interface: id.Interface, BootID: w.o.BootID, Allocated: true, Phase: ledger.Gone})
}

// releaseUnknown releases what an attachment has whose WorkloadEndpoint has no known name.
func (w *Workloads) releaseUnknown(ctx context.Context, id drivers.EndpointID) error {
	addrs, err := w.o.Addresses.Release(ctx, ipam.HandleOf(id.Sandbox, id.Interface), ipam.ReleaseOptions{})
	if err != nil || len(addrs) == 0 {
		return err
	}
	w.o.Log.Info("released addresses of a workload that was not in the ledger", "sandbox", id.Sandbox, "addresses", addrs)
	if w.o.Pods != nil {
		return nil
	}
	s, err := w.o.Store()
	if err != nil {
		return err
	}
	all, err := s.List(ctx, "WorkloadEndpoint", "")
	if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
		return err
	}
	for _, o := range all {
		e, err := asEndpoint(o)
		if err != nil || e.Spec.Node != w.o.Node || e.Spec.ContainerID != id.Sandbox || cmp.Or(e.Spec.Endpoint, "eth0") != id.Interface {
			continue
		}
		if err := s.Delete(ctx, api.KeyOf(e), e.ResourceVersion); err != nil && !changed(err) {
			return fmt.Errorf("deleting %s: %w", api.KeyOf(e), err)
		}
	}
	return nil
}

// networks is addresses as a WorkloadEndpoint has them.
func networks(addrs []netip.Addr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()).String())
	}
	return out
}
