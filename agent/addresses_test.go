package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/ipam"
)

func ipPool(name, cidr string) *api.IPPool {
	o := &api.IPPool{TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "IPPool"}, ObjectMeta: metav1.ObjectMeta{Name: name}}
	o.Spec.CIDR = cidr
	api.Default(o)
	return o
}

// TestAttachFromPools: a pool counts from the moment on that it is written, and addresses come back.
func TestAttachFromPools(t *testing.T) {
	n := newNode(t)
	n.start()
	n.ready()
	r := request("web", "10.65.0.2")
	r.Addresses = nil
	if _, err := n.attach(r); agentapi.CodeOf(err) != agentapi.CodeNoAddress || !strings.Contains(err.Error(), "create an IPPool") {
		t.Fatalf("without a pool: %v", err)
	}
	small := ipPool("v4", "10.65.0.0/30")
	small.Spec.BlockSize = 30
	n.create(small)
	first, err := n.attach(r)
	if err != nil || len(first.Addresses) != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	st := n.status()
	if len(st.Endpoints) != 1 || !st.Endpoints[0].Enforced || fmt.Sprint(st.Endpoints[0].Addresses) != fmt.Sprint(first.Addresses) {
		t.Errorf("%+v", st.Endpoints)
	}
	if _, err := n.store.Get(t.Context(), api.Key{Kind: "WorkloadEndpoint", Namespace: "shop", Name: "node1-cni-web-eth0"}); err != nil {
		t.Error(err)
	}
	n.restart()
	n.ready()
	if again, err := n.attach(r); err != nil || fmt.Sprint(again.Addresses) != fmt.Sprint(first.Addresses) {
		t.Errorf("after a restart: %v, %v", again.Addresses, err)
	}
	for i := range 3 {
		o := request(fmt.Sprintf("o%d", i), "10.65.0.2")
		o.Addresses = nil
		if _, err := n.attach(o); err != nil {
			t.Fatal(err)
		}
	}
	last := request("last", "10.65.0.2")
	last.Addresses = nil
	if _, err := n.attach(last); agentapi.CodeOf(err) != agentapi.CodeNoAddress || !strings.Contains(err.Error(), "add a pool") {
		t.Errorf("the pool is used up: %v", err)
	}
	if _, metrics := get(t, "http://"+n.cfg.Listen+"/metrics"); !strings.Contains(metrics, `tortie_agent_addresses_errors_total{reason="full",verb="assign"} 1`) {
		t.Errorf("metrics:\n%s", metrics)
	}
	if err := n.Detach(t.Context(), agentapi.DetachRequest{Sandbox: r.Sandbox, Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if got, err := n.attach(last); err != nil || fmt.Sprint(got.Addresses) != fmt.Sprint(first.Addresses) {
		t.Errorf("what was given back: %v, %v", got.Addresses, err)
	}
	report, err := ipam.New(ipam.Config{Store: n.store, Node: "auditor"}).Audit(t.Context(), ipam.AuditOptions{})
	if err != nil || report.Allocated != 4 || len(report.Leaked)+len(report.Missing)+len(report.Double)+len(report.Objects) > 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestSettings: what the watch has told is believed, unless it can't be all.
func TestSettings(t *testing.T) {
	s := mem.New()
	l := newLink(nil, slog.New(slog.DiscardHandler))
	a, err := newAddresses("node1", l, false, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	pools := func() string {
		got, err := a.Settings(t.Context())
		if errors.Is(err, datastore.ErrUnavailable) {
			return "unavailable"
		} else if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range got.Pools {
			names = append(names, p.Name)
		}
		return strings.Join(names, " ")
	}
	expect := func(when, want string) {
		t.Helper()
		if got := pools(); got != want {
			t.Errorf("%s: %q, want %q", when, got, want)
		}
	}
	event := func(o api.Object) datastore.Event { return datastore.Event{Key: api.KeyOf(o), Object: o} }
	expect("before there is a store", "unavailable")
	l.store, l.status.Connected = s, true
	if _, err := s.Create(context.Background(), ipPool("stored", "10.1.0.0/16")); err != nil {
		t.Fatal(err)
	}
	a.take(datastore.Batch{Events: []datastore.Event{event(ipPool("b", "10.3.0.0/16"))}})
	expect("before the snapshot is complete", "stored")
	a.take(datastore.Batch{Events: []datastore.Event{event(ipPool("a", "10.2.0.0/16"))}, InSync: true})
	expect("in sync", "a b")
	reservation := api.Key{Kind: "IPReservation", Name: "r"}
	a.take(datastore.Batch{Events: []datastore.Event{{Key: reservation, Problem: datastore.ErrUnreadable}}})
	expect("with a reservation that can't be read", "stored")
	a.take(datastore.Batch{Events: []datastore.Event{{Key: reservation}}})
	expect("it is gone", "a b")
	a.take(datastore.Batch{Events: []datastore.Event{{Key: api.Key{Kind: "IPPool", Name: "a"}}}})
	expect("a pool is gone", "b")

	// A pool that the watch has not told of yet.
	got, err := a.Assign(t.Context(), ipam.Request{Handle: "h", V4: true, Pools: []string{"stored"}})
	if err != nil || len(got.Addrs) != 1 || got.Addrs[0].Pool != "stored" {
		t.Errorf("%+v, %v", got, err)
	}
	expect("after that", "b")
}

// counted counts what is read.
type counted struct {
	datastore.Store
	reads int
}

func (c *counted) List(ctx context.Context, kind, namespace string) ([]api.Object, error) {
	c.reads++
	return c.Store.List(ctx, kind, namespace)
}

// TestPoolsBehindWatch: a pool that was applied a moment ago gives addresses though the watch has not told of it. What
// the watch has told is enough otherwise, and costs no request.
func TestPoolsBehindWatch(t *testing.T) {
	s := &counted{Store: mem.New()}
	l := newLink(nil, slog.New(slog.DiscardHandler))
	l.store, l.status.Connected = s, true
	a, err := newAddresses("node1", l, false, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	create := func(name, cidr string) api.Object {
		p := ipPool(name, cidr)
		p.Spec.BlockSize = 32
		o, err := s.Create(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	tell := func(objects ...api.Object) {
		b := datastore.Batch{InSync: true}
		for _, o := range objects {
			b.Events = append(b.Events, datastore.Event{Key: api.KeyOf(o), Object: o})
		}
		a.take(b)
	}
	pools := func(enough func([]*api.IPPool) bool) (names []string, reads int) {
		t.Helper()
		before := s.reads
		got, err := a.Pools(t.Context(), enough)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range got {
			names = append(names, p.Name)
		}
		return names, s.reads - before
	}
	assign := func(handle string) (string, error) {
		got, err := a.Assign(t.Context(), ipam.Request{Handle: handle, V4: true})
		if err != nil {
			return "", err
		}
		return got.Addrs[0].Pool, nil
	}
	all := func(p []*api.IPPool) bool { return len(p) > 0 }
	whatever := func([]*api.IPPool) bool { return true }
	if _, reads := pools(whatever); reads == 0 {
		t.Error("nothing is asked before the watch has told anything")
	}
	tell()
	if got, reads := pools(whatever); len(got) != 0 || reads != 0 {
		t.Errorf("there are none, and that will do: %v, %d reads", got, reads)
	}
	first := create("first", "10.1.0.0/32")
	if got, _ := pools(all); fmt.Sprint(got) != "[first]" {
		t.Errorf("the watch knows of no pool: %v", got)
	}
	tell(first)
	if got, reads := pools(all); fmt.Sprint(got) != "[first]" || reads != 0 {
		t.Errorf("the watch knows: %v, %d reads", got, reads)
	}
	if got, err := assign("a"); got != "first" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := assign("b"); !errors.Is(err, ipam.ErrFull) {
		t.Errorf("all are full: %v", err)
	}
	create("second", "10.2.0.0/32")
	if got, _ := pools(func(p []*api.IPPool) bool { return len(p) > 1 }); fmt.Sprint(got) != "[first second]" {
		t.Errorf("one is not enough: %v", got)
	}
	if got, err := assign("b"); got != "second" {
		t.Errorf("a pool that the watch does not know: %q, %v", got, err)
	}
	if _, err := assign("c"); !errors.Is(err, ipam.ErrFull) {
		t.Errorf("both are full: %v", err)
	}
}

// TestNamespaceSelectorOfPools: a pool that selects namespaces gives addresses to workloads of those, by the labels that the
// namespace's profile hands on, or by its name; labels that have just changed count.
func TestNamespaceSelectorOfPools(t *testing.T) {
	n := newNode(t)
	for name, sel := range map[string]string{"prod": "env == 'prod'", "lab": "projectcalico.org/name == 'lab'"} {
		p := ipPool(name, map[string]string{"prod": "10.1.0.0/24", "lab": "10.2.0.0/24"}[name])
		p.Spec.NamespaceSelector = sel
		n.create(p)
	}
	profile := func(env string) *api.Profile {
		p := &api.Profile{TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "Profile"}, ObjectMeta: metav1.ObjectMeta{Name: "kns.shop"}}
		p.Spec.LabelsToApply = map[string]string{"pcns.env": env, "env": "prod"} // the second is not the namespace's own
		return p
	}
	n.create(profile("test"))
	n.start()
	n.ready()
	ask := func(namespace, name string) string {
		t.Helper()
		r := request(name, "10.65.0.2")
		r.Addresses, r.Workload.Namespace = nil, namespace
		got, err := n.attach(r)
		switch {
		case agentapi.CodeOf(err) == agentapi.CodeNoAddress && strings.Contains(err.Error(), "namespaceSelector"):
			return "none"
		case err != nil:
			t.Fatal(err)
		}
		return netip.PrefixFrom(got.Addresses[0], 24).Masked().String()
	}
	if got := ask("shop", "a"); got != "none" {
		t.Errorf("env is test: %s", got)
	}
	if got := ask("lab", "b"); got != "10.2.0.0/24" {
		t.Errorf("by name: %s", got)
	}
	if got := ask("elsewhere", "c"); got != "none" {
		t.Errorf("a namespace that nobody has described: %s", got)
	}
	if _, err := n.store.Update(t.Context(), profile("prod")); err != nil {
		t.Fatal(err)
	}
	if got := ask("shop", "d"); got != "10.1.0.0/24" { // the watch may not have told of it yet
		t.Errorf("env is prod: %s", got)
	}
}
