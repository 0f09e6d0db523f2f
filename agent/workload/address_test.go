package workload

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/ipam"
)

// pools is an allocator that asks the store for its rules.
type pools struct {
	*ipam.Allocator
	store ipam.Store
}

func newPools(s ipam.Store, oneByOne ...bool) pools {
	return pools{ipam.New(ipam.Config{Store: s, Node: "node1", OneByOne: slices.Contains(oneByOne, true)}), s}
}

func (p pools) Pools(ctx context.Context, _ func([]*api.IPPool) bool) ([]*api.IPPool, error) {
	s, err := ipam.ReadSettings(ctx, p.store, slog.New(slog.DiscardHandler))
	return s.Pools, err
}

func (h *host) pool(name, cidr string, change ...func(*api.IPPoolSpec)) {
	h.t.Helper()
	o := &api.IPPool{TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "IPPool"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
	o.Spec.CIDR = cidr
	api.Default(o)
	for _, c := range change {
		c(&o.Spec)
	}
	if _, err := h.store.Create(h.t.Context(), o); err != nil {
		h.t.Fatal(err)
	}
}

// poolHost is a host with a pool of each family.
func poolHost(choose bool) func(*testing.T) *host {
	return func(t *testing.T) *host {
		h := newHost(t)
		h.pools, h.choose = true, choose
		h.pool("v4", "10.65.0.0/24")
		h.pool("v6", "fd65::/112")
		node := &api.Node{TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
		if _, err := h.store.Create(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		return h
	}
}

// kubeHost is a host with pools whose store is Kubernetes'.
func kubeHost(choose bool) func(*testing.T) *host {
	return func(t *testing.T) *host {
		h := poolHost(choose)(t)
		h.kube = true
		return h
	}
}

func withAndWithoutPools(t *testing.T, fn func(*testing.T, func(*testing.T) *host)) {
	for name, newHost := range map[string]func(*testing.T) *host{
		"addresses that no pool has": newHost, "given addresses of a pool": poolHost(false), "allocated addresses": poolHost(true),
		"pods of Kubernetes": kubeHost(true),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, newHost)
		})
	}
}

// audit checks that who uses an address has it, and nobody else has any.
func (h *host) audit(when string) {
	h.t.Helper()
	if !h.pools {
		return
	}
	r, err := newPools(h.store).Audit(h.t.Context(), ipam.AuditOptions{})
	if err != nil {
		h.t.Fatal(err)
	}
	if h.kube { // where nothing in the store says who uses an address
		var used []netip.Addr
		for _, e := range h.begun.o.Ledger.List() {
			used = append(used, e.Addrs...)
		}
		if r.Allocated != len(used) {
			h.t.Errorf("%s: %d addresses are allocated, but %v used", when, r.Allocated, used)
		}
		return
	}
	if len(r.Leaked)+len(r.Missing)+len(r.Double) > 0 {
		h.t.Errorf("%s: leaked %v, missing %v, double %v", when, r.Leaked, r.Missing, r.Double)
	}
	if r.Allocated != r.Used {
		h.t.Errorf("%s: %d addresses are allocated, %d used", when, r.Allocated, r.Used)
	}
}

func (h *host) ask(w *Workloads, r agentapi.AttachRequest) (agentapi.AttachResponse, error) {
	h.t.Helper()
	f, err := os.Open(os.DevNull)
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	if r.Interface == "" {
		r.Interface = "eth0"
	}
	return w.Attach(h.t.Context(), r, f)
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestAllocateHasNoPools(t *testing.T) {
	for _, withAllocator := range []bool{false, true} {
		h := newHost(t)
		h.pools = withAllocator
		w := h.begin()
		for _, r := range []agentapi.AttachRequest{{Sandbox: "s1"}, {Sandbox: "s1", Allocate: &agentapi.Allocate{V4: true}}} {
			if _, err := h.ask(w, r); agentapi.CodeOf(err) != agentapi.CodeNoAddress {
				t.Errorf("%v", err)
			}
			h.nothing(w, "after an attach without an address")
		}
	}
}

// told is an allocator that has been told of some pools.
type told struct {
	pools
	known []*api.IPPool
}

func (p told) Pools(ctx context.Context, enough func([]*api.IPPool) bool) ([]*api.IPPool, error) {
	if enough(p.known) {
		return p.known, nil
	}
	return p.pools.Pools(ctx, enough)
}

// TestNewPool: a pool that the agent has not been told of counts, if those that it knows won't do.
func TestNewPool(t *testing.T) {
	known := func(cidr, mode string) []*api.IPPool {
		p := &api.IPPool{}
		p.Name, p.Spec.CIDR, p.Spec.AssignmentMode = "known", cidr, mode
		return []*api.IPPool{p}
	}
	for _, c := range []struct {
		name  string
		known []*api.IPPool
		r     agentapi.AttachRequest
	}{
		{"it knows none", nil, agentapi.AttachRequest{}},
		{"those that it knows give no address of themselves", known("10.1.0.0/24", "Manual"), agentapi.AttachRequest{}},
		{"those that it knows are others than are named", known("10.1.0.0/24", "Automatic"), agentapi.AttachRequest{Allocate: &agentapi.Allocate{Pools: []string{"new"}}}},
		{"a given address is in none that it knows", known("10.1.0.0/24", "Automatic"), agentapi.AttachRequest{Addresses: addrs("fd65::7")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			h.pools = true
			h.pool("new", "fd65::/112")
			w := h.begin()
			w.o.Addresses = told{newPools(h.store), c.known}
			c.r.Sandbox = "s1"
			got, err := h.ask(w, c.r)
			if err != nil || len(got.Addresses) != 1 || !netip.MustParsePrefix("fd65::/112").Contains(got.Addresses[0]) {
				t.Fatalf("%v, %v", got.Addresses, err)
			}
			h.audit("after the attach")
		})
	}
}

// TestGivenInKubernetes: where another plugin gives the addresses, what the watch has told of pools will do.
func TestGivenInKubernetes(t *testing.T) {
	for _, known := range [][]*api.IPPool{nil, {{Spec: api.IPPoolSpec{CIDR: "10.1.0.0/24"}}}} {
		h := newHost(t)
		h.pools, h.kube = true, true
		h.pool("new", "10.88.0.0/24")
		w := h.begin()
		w.o.Addresses = told{newPools(h.store, true), known}
		got, err := h.ask(w, agentapi.AttachRequest{Sandbox: "s1", Workload: db0(), Addresses: addrs("10.88.0.7")})
		if e, _ := w.o.Ledger.Get(endpointID("s1")); err != nil || len(got.Addresses) != 1 || e.Allocated {
			t.Errorf("%v, %v, %+v", got.Addresses, err, e)
		}
	}
}

// TestFamilies: without a word on it, an attach gets an address of each family that there are pools for.
func TestFamilies(t *testing.T) {
	elsewhere := func(s *api.IPPoolSpec) { s.NodeSelector = "elsewhere == 'yes'" }
	for _, c := range []struct {
		name   string
		v4, v6 []func(*api.IPPoolSpec)
		ask    *agentapi.Allocate
		want   string // families
		code   agentapi.Code
	}{
		{name: "both", want: "46"},
		{name: "both, asked for one", ask: &agentapi.Allocate{V6: true}, want: "6"},
		{name: "a pool of one that is disabled", v6: []func(*api.IPPoolSpec){func(s *api.IPPoolSpec) { s.Disabled = true }}, want: "4"},
		{name: "a pool of one that is for other nodes", v4: []func(*api.IPPoolSpec){elsewhere}, want: "6"},
		{name: "none is for this node", v4: []func(*api.IPPoolSpec){elsewhere}, v6: []func(*api.IPPoolSpec){elsewhere}, code: agentapi.CodeNoAddress},
		{name: "asked for what is for other nodes", v4: []func(*api.IPPoolSpec){elsewhere}, ask: &agentapi.Allocate{V4: true, V6: true}, code: agentapi.CodeNoAddress},
		{name: "one by name", ask: &agentapi.Allocate{Pools: []string{"v6"}}, want: "6"},
		{name: "one by prefix", ask: &agentapi.Allocate{Pools: []string{"10.65.0.0/24"}}, want: "4"},
		{name: "a pool that is not there", ask: &agentapi.Allocate{Pools: []string{"v5"}}, code: agentapi.CodeNoAddress},
		{name: "an address", ask: &agentapi.Allocate{Addresses: addrs("10.65.0.77")}, want: "4"},
		{name: "an address of no pool", ask: &agentapi.Allocate{Addresses: addrs("10.99.0.77")}, code: agentapi.CodeNoAddress},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			h.pools = true
			h.pool("v4", "10.65.0.0/24", c.v4...)
			h.pool("v6", "fd65::/112", c.v6...)
			w := h.begin()
			got, err := h.ask(w, agentapi.AttachRequest{Sandbox: "s1", Allocate: c.ask})
			if agentapi.CodeOf(err) != c.code {
				t.Fatal(err)
			}
			families := ""
			for _, a := range got.Addresses {
				families += map[bool]string{true: "4", false: "6"}[a.Is4()]
			}
			if families != c.want {
				t.Errorf("got %v, want %q", got.Addresses, c.want)
			}
			if err != nil {
				h.nothing(w, "after a refusal")
			}
			h.audit("in the end")
		})
	}
}

// TestGivenAddresses: those of a pool are taken out of it, the others are none of ours.
func TestGivenAddresses(t *testing.T) {
	h := newHost(t)
	h.pools = true
	h.pool("v4", "10.65.0.0/24")
	h.pool("off", "10.66.0.0/24", func(s *api.IPPoolSpec) { s.Disabled = true })
	h.pool("lb", "10.67.0.0/24", func(s *api.IPPoolSpec) { s.AllowedUses = []string{ipam.UseLoadBalancer} })
	h.pool("tunnels", "10.68.0.0/24", func(s *api.IPPoolSpec) { s.AllowedUses = []string{ipam.UseTunnel} })
	other := ipam.New(ipam.Config{Store: h.store, Node: "node2"})
	if _, err := other.Assign(t.Context(), ipam.Request{Handle: "theirs", Owner: api.Owner{Namespace: "shop", Pod: "db-7"},
		Addrs: addrs("10.65.0.9")}); err != nil {
		t.Fatal(err)
	}
	w := h.begin()
	for _, c := range []struct {
		sandbox string
		addrs   []netip.Addr
		code    agentapi.Code
		says    string
		claimed bool
	}{
		{sandbox: "mixed", addrs: addrs("10.65.0.5", "10.99.0.5"), claimed: true},
		{sandbox: "outside", addrs: addrs("10.99.0.6")},
		{sandbox: "disabled", addrs: addrs("10.66.0.6")},
		{sandbox: "taken", addrs: addrs("10.65.0.9"), code: agentapi.CodeConflict, says: "shop/db-7 on node node2"},
		{sandbox: "tunnels", addrs: addrs("10.68.0.6")},
		{sandbox: "lb", addrs: addrs("10.67.0.9"), code: agentapi.CodeNoAddress, says: "allowedUses"},
		{sandbox: "mine", addrs: addrs("10.65.0.5"), code: agentapi.CodeConflict, says: "mixed"},
	} {
		got, err := h.ask(w, agentapi.AttachRequest{Sandbox: c.sandbox, Addresses: c.addrs})
		if agentapi.CodeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.sandbox, err)
			continue
		}
		e, there := w.o.Ledger.Get(endpointID(c.sandbox))
		if there != (err == nil) || err == nil && (!slices.Equal(got.Addresses, c.addrs) || e.Allocated != c.claimed) {
			t.Errorf("%s: %v, %+v", c.sandbox, got, e)
		}
	}
	for _, s := range []string{"mixed", "outside", "disabled", "tunnels"} {
		if err := h.detach(w, s); err != nil {
			t.Error(err)
		}
	}
	h.nothing(w, "in the end")
	if got, err := other.Release(t.Context(), "theirs", ipam.ReleaseOptions{}); err != nil || len(got) != 1 {
		t.Errorf("what others have: %v, %v", got, err)
	}
	h.audit("in the end")
}

// counting counts the writes of a store.
type counting struct {
	datastore.Store
	writes int
}

func (c *counting) Create(ctx context.Context, o api.Object) (api.Object, error) {
	c.writes++
	return c.Store.Create(ctx, o)
}

func (c *counting) Update(ctx context.Context, o api.Object) (api.Object, error) {
	c.writes++
	return c.Store.Update(ctx, o)
}

func (c *counting) Delete(ctx context.Context, key api.Key, revision string) error {
	c.writes++
	return c.Store.Delete(ctx, key, revision)
}

func (c *counting) Txn(ctx context.Context, ops ...datastore.Op) error {
	c.writes++
	return c.Store.Txn(ctx, ops...)
}

// TestOneWrite: an attach is one write, its repetition none, and its detach one.
func TestOneWrite(t *testing.T) {
	h := poolHost(true)(t)
	w := h.begin()
	c := &counting{Store: h.store}
	w.o.Addresses, w.o.Store = newPools(c), func() (datastore.Store, error) { return c, nil }
	if _, err := h.ask(w, agentapi.AttachRequest{Sandbox: "first"}); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"s1", "s2"} {
		c.writes = 0
		first, err := h.ask(w, agentapi.AttachRequest{Sandbox: s})
		if err != nil || c.writes != 1 {
			t.Errorf("attach: %d writes, %v", c.writes, err)
		}
		again, err := h.ask(w, agentapi.AttachRequest{Sandbox: s})
		if err != nil || !slices.Equal(again.Addresses, first.Addresses) {
			t.Errorf("again: %v after %v, %v", again.Addresses, first.Addresses, err)
		}
	}
	h.audit("attached")
	for _, s := range []string{"s1", "s2"} {
		c.writes = 0
		if err := h.detach(w, s); err != nil || c.writes != 1 {
			t.Errorf("detach: %d writes, %v", c.writes, err)
		}
		c.writes = 0
		if err := h.detach(w, s); err != nil || c.writes != 0 {
			t.Errorf("detach of the unknown: %d writes, %v", c.writes, err)
		}
	}
	h.audit("detached")
}

// TestStoreAway: what a detach can't release is released later, also if the ledger did not know of it.
func TestStoreAway(t *testing.T) {
	h := poolHost(true)(t)
	w := h.begin()
	for _, s := range []string{"known", "unknown"} {
		if _, err := h.ask(w, agentapi.AttachRequest{Sandbox: s}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.o.Ledger.Remove(endpointID("unknown")); err != nil {
		t.Fatal(err)
	}
	h.store.Fail(datastore.ErrUnavailable)
	for _, s := range []string{"known", "unknown"} {
		delete(h.attached, endpointID("unknown")) // as after a start without its entry
		if err := h.detach(w, s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	if _, err := h.ask(w, agentapi.AttachRequest{Sandbox: "new"}); agentapi.CodeOf(err) != agentapi.CodeUnavailable {
		t.Errorf("attach while the store is away: %v", err)
	}
	if n := w.Backlog(); n != 2 {
		t.Errorf("backlog: %d", n)
	}
	h.store.Fail(nil)
	w = h.begin() // the backlog outlives the agent
	if w.finish(t.Context()) {
		t.Error("not finished")
	}
	h.links = nil // the interface of what nobody knew was none of the World's
	h.nothing(w, "in the end")
	h.audit("in the end")
}

// TestAllocatingIsNoAttachment: who has no interface yet is not listed, and not handed to anybody's garbage collection.
func TestAllocatingIsNoAttachment(t *testing.T) {
	h := newHost(t)
	w := h.begin()
	if err := w.o.Ledger.Put(ledger.Entry{Sandbox: "s1", Interface: "eth0", Phase: ledger.Allocating}); err != nil {
		t.Fatal(err)
	}
	if got := w.List(agentapi.ListRequest{}); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// TestStrayGivesBack: addresses and WorkloadEndpoint that were written late, after their own undoing.
func TestStrayGivesBack(t *testing.T) {
	h := poolHost(true)(t)
	w := h.begin()
	for _, s := range []string{"late", "there"} {
		if _, err := h.ask(w, agentapi.AttachRequest{Sandbox: s}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.o.Ledger.Remove(endpointID("late")); err != nil {
		t.Fatal(err)
	}
	for _, o := range h.weps() {
		w.Saw(o)
	}
	if w.finish(t.Context()) {
		t.Error("not finished")
	}
	if got := h.weps(); len(got) != 1 || got[0].(*api.WorkloadEndpoint).Spec.ContainerID != "there" {
		t.Errorf("left: %v", got)
	}
	h.audit("in the end")
}

// lostTxn loses the answer to the first Txn.
type lostTxn struct {
	*mem.Store
	lost bool
}

func (s *lostTxn) Txn(ctx context.Context, ops ...datastore.Op) error {
	err := s.Store.Txn(ctx, ops...)
	if !s.lost && err == nil {
		s.lost, err = true, datastore.ErrUnavailable
	}
	return err
}

// TestLostAnswerOfAllocation: the store has given addresses, but says that it can't be reached; it is asked again.
func TestLostAnswerOfAllocation(t *testing.T) {
	h := poolHost(true)(t)
	w := h.begin()
	if _, err := h.ask(w, agentapi.AttachRequest{Sandbox: "first"}); err != nil { // the node has blocks now
		t.Fatal(err)
	}
	if err := h.detach(w, "first"); err != nil {
		t.Fatal(err)
	}
	w.o.Addresses = newPools(&lostTxn{Store: h.store})
	if _, err := h.ask(w, agentapi.AttachRequest{Sandbox: "s1"}); agentapi.CodeOf(err) != agentapi.CodeUnavailable {
		t.Errorf("attach: %v", err)
	}
	if w.finish(t.Context()) {
		t.Error("not finished")
	}
	h.nothing(w, "after an answer that was lost")
	h.audit("after an answer that was lost")
}
