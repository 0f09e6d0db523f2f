package workload

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/ipam"
)

func annotated(pairs ...string) map[string]string {
	out := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		out[annotationPrefix+pairs[i]] = pairs[i+1]
	}
	return out
}

// TestAnnotations is what pods and namespaces ask for, over what the network configuration does.
func TestAnnotations(t *testing.T) {
	for _, c := range []struct {
		name      string
		pod       map[string]string
		namespace map[string]string
		conf      *agentapi.Allocate
		given     []netip.Addr
		allowed   bool   // the agent's settings allow it
		want      string // prefixes that the addresses are of, in order
		mac       string
		code      agentapi.Code
		says      string
	}{
		{name: "none", want: "10.65. fd65:"},
		{name: "unknown ones", pod: annotated("podIP", "1.2.3.4", "ipv5pools", "x"), want: "10.65. fd65:"},
		{name: "the pod's pool", pod: annotated("ipv4pools", `["blue"]`), want: "10.66. fd65:"},
		{name: "by prefix, in both families", pod: annotated("ipv4pools", `["10.66.0.0/24"]`, "ipv6pools", `["fd66::/112"]`), want: "10.66. fd66:"},
		{name: "the namespace's pool", namespace: annotated("ipv4pools", `["blue"]`), want: "10.66. fd65:"},
		{name: "the pod's before the namespace's", pod: annotated("ipv4pools", `["v4"]`), namespace: annotated("ipv4pools", `["blue"]`), want: "10.65. fd65:"},
		{name: "each by itself", pod: annotated("ipv6pools", `["blue6"]`), namespace: annotated("ipv4pools", `["blue"]`), want: "10.66. fd66:"},
		{name: "before the configuration's", pod: annotated("ipv4pools", `["blue"]`), conf: &agentapi.Allocate{Pools: []string{"v4", "v6"}}, want: "10.66. fd65:"},
		{name: "the configuration's families", pod: annotated("ipv4pools", `["blue"]`), conf: &agentapi.Allocate{V4: true}, want: "10.66."},
		{name: "the configuration's pool of another family", pod: annotated("ipv4pools", `["blue"]`), conf: &agentapi.Allocate{Pools: []string{"v6"}}, want: "10.66. fd65:"},
		{name: "the configuration's pool of the same family only", pod: annotated("ipv4pools", `["blue"]`), conf: &agentapi.Allocate{Pools: []string{"v4"}}, want: "10.66."},
		{name: "families", pod: annotated("ipFamilies", `["IPv6"]`), want: "fd65:"},
		{name: "the namespace's families", namespace: annotated("ipFamilies", `["IPv4"]`), conf: &agentapi.Allocate{V4: true, V6: true}, want: "10.65."},
		{name: "families and a pool", pod: annotated("ipFamilies", `["IPv4","IPv6"]`, "ipv6pools", `["blue6"]`), want: "10.65. fd66:"},
		{name: "addresses", pod: annotated("ipAddrs", `["10.65.0.77","fd65::77"]`), want: "10.65.0.77 fd65::77"},
		{name: "an address of a namespace", namespace: annotated("ipAddrs", `["10.65.0.77"]`), want: "10.65. fd65:"},
		{name: "a MAC", pod: annotated("hwAddr", "02:00:00:00:00:07"), want: "10.65. fd65:", mac: "02:00:00:00:00:07"},

		{name: "no such pool", pod: annotated("ipv4pools", `["gone"]`), code: agentapi.CodeNoAddress, says: "gone"},
		{name: "a pool of the other family", pod: annotated("ipv4pools", `["v6"]`), code: agentapi.CodeBadRequest, says: "v6"},
		{name: "a pool that is disabled: not just the other family", pod: annotated("ipv4pools", `["off"]`), code: agentapi.CodeNoAddress, says: "off"},
		{name: "no list", pod: annotated("ipv4pools", `blue`), code: agentapi.CodeBadRequest, says: "ipv4pools"},
		{name: "no list, at the namespace", namespace: annotated("ipv6pools", `{}`), code: agentapi.CodeBadRequest, says: "of its namespace"},
		{name: "an empty list", pod: annotated("ipv4pools", `[]`), code: agentapi.CodeBadRequest, says: "ipv4pools"},
		{name: "a family that there is not", pod: annotated("ipFamilies", `["IPv5"]`), code: agentapi.CodeBadRequest, says: "IPv5"},
		{name: "no address", pod: annotated("ipAddrs", `["ten"]`), code: agentapi.CodeBadRequest, says: "ipAddrs"},
		{name: "two addresses of a family", pod: annotated("ipAddrs", `["10.65.0.7","10.65.0.8"]`), code: agentapi.CodeBadRequest, says: "at most one"},
		{name: "an address of no pool", pod: annotated("ipAddrs", `["10.99.0.7"]`), code: agentapi.CodeNoAddress, says: "10.99.0.7"},
		{name: "an address where another plugin gives them", pod: annotated("ipAddrs", `["10.65.0.7"]`), given: addrs("10.65.0.8"), code: agentapi.CodeBadRequest, says: "another plugin"},
		{name: "source prefixes", pod: annotated("allowedSourcePrefixes", `["192.0.2.0/24"]`), want: "10.65. fd65:"},
		{name: "source prefixes that can't be read", pod: annotated("allowedSourcePrefixes", `["192.0.2.0/33"]`), code: agentapi.CodeBadRequest, says: "allowedSourcePrefixes"},
		{name: "a bad MAC", pod: annotated("hwAddr", "ff:ff:ff:ff:ff:ff"), code: agentapi.CodeBadRequest, says: "mac"},
		{name: "addresses without IPAM, which the settings do not allow", pod: annotated("ipAddrsNoIpam", `["10.99.0.7"]`), code: agentapi.CodeBadRequest, says: "ipAddrsNoIpam: true would"},
		{name: "addresses without IPAM", allowed: true, pod: annotated("ipAddrsNoIpam", `["10.99.0.7", "fd99::7"]`), want: "10.99.0.7 fd99::7"},
		{name: "addresses without IPAM, whatever the namespace's pool", allowed: true, pod: annotated("ipAddrsNoIpam", `["10.99.0.7"]`),
			namespace: annotated("ipv4pools", `["blue"]`, "ipFamilies", `["IPv6"]`), want: "10.99.0.7"},
		{name: "addresses without IPAM, of a namespace", allowed: true, namespace: annotated("ipAddrsNoIpam", `["10.99.0.7"]`), want: "10.65. fd65:"},
		{name: "addresses without IPAM, of a pool", allowed: true, pod: annotated("ipAddrsNoIpam", `["fd99::7", "10.65.0.7"]`), code: agentapi.CodeBadRequest, says: "10.65.0.7 is in IPPool v4: ask for it by cni.projectcalico.org/ipAddrs"},
		{name: "addresses without IPAM, of a disabled pool", allowed: true, pod: annotated("ipAddrsNoIpam", `["10.67.0.7"]`), code: agentapi.CodeBadRequest, says: "10.67.0.7 is in IPPool off"},
		{name: "addresses with and without IPAM", allowed: true, pod: annotated("ipAddrsNoIpam", `["10.99.0.7"]`, "ipAddrs", `["10.65.0.7"]`), code: agentapi.CodeBadRequest, says: "can't have both"},
		{name: "addresses without IPAM, unreadable", allowed: true, pod: annotated("ipAddrsNoIpam", `10.99.0.7`), code: agentapi.CodeBadRequest, says: "ipAddrsNoIpam"},
		{name: "two addresses of a family without IPAM", allowed: true, pod: annotated("ipAddrsNoIpam", `["10.99.0.7","10.99.0.8"]`), code: agentapi.CodeBadRequest, says: "at most one"},
		{name: "no address for a workload", allowed: true, pod: annotated("ipAddrsNoIpam", `["127.0.0.1"]`), code: agentapi.CodeBadRequest, says: "127.0.0.1"},
		{name: "an address without IPAM where another plugin gives them", allowed: true, pod: annotated("ipAddrsNoIpam", `["10.99.0.7"]`), given: addrs("10.65.0.8"), code: agentapi.CodeBadRequest, says: "another plugin"},
		{name: "floating addresses, which the settings do not allow", pod: annotated("floatingIPs", `["192.0.2.7"]`), code: agentapi.CodeBadRequest, says: "floatingIPs: true would"},
		{name: "floating addresses", allowed: true, pod: annotated("floatingIPs", `["192.0.2.7"]`), want: "10.65. fd65:"},
		{name: "floating addresses that can't be read", allowed: true, pod: annotated("floatingIPs", `192.0.2.7`), code: agentapi.CodeBadRequest, says: "floatingIPs"},
		{name: "the pod's families before the namespace's", pod: annotated("ipFamilies", `["IPv6"]`), namespace: annotated("ipFamilies", `["IPv4"]`), want: "fd65:"},
		{name: "families of a namespace that can't be read", namespace: annotated("ipFamilies", `IPv4`), code: agentapi.CodeBadRequest, says: "ipFamilies of its namespace"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := kubeHost(true)(t)
			h.pool("blue", "10.66.0.0/24", func(s *api.IPPoolSpec) { s.AssignmentMode = "Manual" })
			h.pool("blue6", "fd66::/112", func(s *api.IPPoolSpec) { s.NodeSelector = "elsewhere == 'yes'" })
			h.pool("off", "10.67.0.0/24", func(s *api.IPPoolSpec) { s.Disabled = true })
			h.pod = Pod{Annotations: c.pod, Namespace: c.namespace}
			w := h.begin()
			w.o.NoIPAM, w.o.FloatingIPs = c.allowed, c.allowed
			got, err := h.ask(w, agentapi.AttachRequest{Sandbox: "s1", Workload: db0(), Allocate: c.conf, Addresses: c.given})
			if agentapi.CodeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Fatalf("%v, want %q and %q", err, c.code, c.says)
			}
			if err != nil {
				h.nothing(w, "after a refusal")
				h.audit("after a refusal")
				return
			}
			want := strings.Fields(c.want)
			if len(got.Addresses) != len(want) || c.mac != "" && got.MAC != c.mac {
				t.Fatalf("%+v, want %v", got, want)
			}
			for i, a := range got.Addresses {
				if !strings.HasPrefix(a.String(), want[i]) {
					t.Errorf("%v, want %v", got.Addresses, want)
				}
			}
			h.auditPod(w, c.pod)
		})
	}
}

// auditPod checks that IPAM knows of the pod's addresses, and if they are the pod's own word, of none; not at its end either.
func (h *host) auditPod(w *Workloads, pod map[string]string) {
	h.t.Helper()
	if pod[annotationNoIPAM] == "" {
		h.audit("in the end")
		return
	}
	none := func(when string) {
		r, err := newPools(h.store).Audit(h.t.Context(), ipam.AuditOptions{})
		if err != nil || r.Allocated != 0 {
			h.t.Errorf("%s: %+v, %v", when, r, err)
		}
	}
	none("addresses without IPAM")
	if e := w.o.Ledger.List(); len(e) != 1 || e[0].Allocated {
		h.t.Errorf("%+v", e)
	}
	if err := w.Detach(h.t.Context(), agentapi.DetachRequest{Sandbox: "s1", Interface: "eth0"}); err != nil {
		h.t.Error(err)
	}
	none("after their end")
	h.nothing(w, "after their end")
}

// nowhere is Pods that never come.
type nowhere struct{}

func (nowhere) WaitPod(ctx context.Context, _ api.Key, _ string) (Pod, error) {
	<-ctx.Done()
	return Pod{}, fmt.Errorf("none has come: %w", ctx.Err())
}

func (nowhere) WaitMember(ctx context.Context, _ api.Key, _ string, _ []netip.Addr) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestPodThatNeverComes: an attach waits ten seconds for its pod, and says then that the caller should try again; nothing was
// done.
func TestPodThatNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := kubeHost(true)(t)
		w := h.begin()
		w.o.Pods = nowhere{}
		start := time.Now()
		err := h.attach(w, "s1")
		if agentapi.CodeOf(err) != agentapi.CodeUnknownPod || !strings.Contains(err.Error(), "shop/db-0") || !strings.Contains(err.Error(), "try again") {
			t.Error(err)
		}
		if took := time.Since(start); took != podPatience {
			t.Errorf("it took %v", took)
		}
		h.nothing(w, "after an attach without a pod")

		// While the API server is away nobody can know: then it is not the pod's fault.
		w.o.Store = func() (datastore.Store, error) { return nil, datastore.ErrUnavailable }
		if err := h.attach(w, "s1"); agentapi.CodeOf(err) != agentapi.CodeUnavailable {
			t.Error(err)
		}
		asked := 0
		w.o.Store = func() (datastore.Store, error) {
			if asked++; asked > 1 { // it goes away meanwhile
				return nil, datastore.ErrUnavailable
			}
			return h.store, nil
		}
		if err := h.attach(w, "s1"); agentapi.CodeOf(err) != agentapi.CodeUnavailable || asked != 2 {
			t.Errorf("%v after %d looks", err, asked)
		}
		w.o.Store = func() (datastore.Store, error) { return h.store, nil }

		// The request may be shorter than that; and a caller that ends is told nothing else.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := w.ofPod(ctx, agentapi.AttachRequest{Workload: db0()}, ledger.Entry{}); agentapi.CodeOf(err) != agentapi.CodeUnavailable {
			t.Error(err)
		}
	})
}

// memberless is Pods that are seen, but never with their addresses.
type memberless struct{ nowhere }

func (memberless) WaitPod(context.Context, api.Key, string) (Pod, error) { return Pod{}, nil }

// TestMembershipIsNotWaitedForForEver: a pod whose own policy is enforced is let go, though others may not know it yet.
func TestMembershipIsNotWaitedForForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := kubeHost(true)(t)
		w := h.begin()
		w.o.Pods = memberless{}
		start := time.Now()
		if err := h.attach(w, "s1"); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took != memberPatience {
			t.Errorf("it took %v", took)
		}
		h.plugged(w, "s1", "in the end")
	})
}

// TestDerivedEndpointsAreNoStrays: what Kubernetes has by itself is nobody's to delete.
func TestDerivedEndpointsAreNoStrays(t *testing.T) {
	h := kubeHost(true)(t)
	w := h.begin()
	o := &api.WorkloadEndpoint{}
	o.Namespace, o.Name, o.UID = "shop", "node1-k8s-db--0-eth0", "uid-1"
	o.Spec = api.WorkloadEndpointSpec{Node: "node1", Orchestrator: "k8s", Pod: "db-0", Endpoint: "eth0"}
	w.Saw(o)
	if len(w.strays.all()) != 0 {
		t.Errorf("%v", w.strays.all())
	}
	if w.finish(t.Context()) {
		t.Error("not finished")
	}
}

// TestUnknownSandbox: a sandbox that the ledger does not know gives its addresses back, and nothing else is looked for.
func TestUnknownSandbox(t *testing.T) {
	h := kubeHost(true)(t)
	w := h.begin()
	if err := h.attach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	if err := w.o.Ledger.Remove(endpointID("s1")); err != nil {
		t.Fatal(err)
	}
	delete(h.attached, endpointID("s1"))
	h.dirty = map[netip.Addr]bool{}
	if err := h.detach(w, "s1"); err != nil {
		t.Fatal(err)
	}
	h.nothing(w, "in the end")
	h.audit("in the end")
}

func TestPoolsOf(t *testing.T) {
	if _, err := poolsOf(nil, nil, byFamily{}); err != nil {
		t.Error(err)
	}
	got, err := poolsOf(nil, []string{"x"}, byFamily{{"a"}, {"b"}})
	if err != nil || !slices.Equal(got, []string{"a", "b", "x"}) {
		t.Errorf("%v, %v: a name that nobody knows stays, for whoever knows it to refuse", got, err)
	}
}
