package kube

import (
	"errors"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// TestNames: from what an object may have been made, by its name.
func TestNames(t *testing.T) {
	s := newFake(t).open()
	for _, c := range []struct {
		kind, namespace, name string
		want                  string // source and object; "" if none
		writable              bool
	}{
		{"WorkloadEndpoint", "ns", "n1-k8s-a--b-eth0", "pods ns/a-b", false},
		{"WorkloadEndpoint", "ns", api.WorkloadEndpointName("node-1", "k8s", "a--b", "eth0"), "pods ns/a--b", false},
		{"WorkloadEndpoint", "ns", "odd", "", false},
		{"Profile", "", "kns.default", "namespaces default", false},
		{"Profile", "", "ksa.default.a.b", "serviceaccounts default/a.b", false},
		{"Profile", "", "ksa.default", "", false},
		{"Profile", "", "projectcalico-default-allow", "", false},
		{"Node", "", "n1", "nodes n1", false},
		{"EndpointSlice", "ns", "svc-1", "endpointslices ns/svc-1", false},
		{"NetworkPolicy", "ns", "knp.default.a.b", "networkpolicies.networking.k8s.io ns/a.b", false},
		{"NetworkPolicy", "ns", "knp.default.", "", true},
		{"NetworkPolicy", "ns", "x", "", true},
		{"GlobalNetworkPolicy", "", "kcnp.admin.a.b", "clusternetworkpolicies.policy.networking.k8s.io a.b", false},
		{"GlobalNetworkPolicy", "", "kcnp.baseline.a", "clusternetworkpolicies.policy.networking.k8s.io a", false},
		{"GlobalNetworkPolicy", "", "kcnp.other", "", true},
		{"Tier", "", "x", "", true},
	} {
		key := api.Key{Kind: c.kind, Namespace: c.namespace, Name: c.name}
		got := ""
		for _, src := range s.sources {
			if src.kind != c.kind || src.path == "/apis/"+api.GroupVersion {
				continue
			}
			for _, from := range src.names(key) {
				got += src.name + " " + from
			}
		}
		if got != c.want {
			t.Errorf("%v is made of %q, want %q", key, got, c.want)
		}
		err := s.writable(key)
		if (err == nil) != c.writable || err != nil && !errors.Is(err, datastore.ErrInvalid) {
			t.Errorf("%v: writable %v, want %v", key, err, c.writable)
		}
	}
}
