package convert

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
	networkingv1 "k8s.io/api/networking/v1"
	kjson "sigs.k8s.io/json"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// FuzzNetworkPolicy: whatever a server says, what comes out can be used, and what Kubernetes' own types don't take is noted.
func FuzzNetworkPolicy(f *testing.F) {
	for i := range uint64(20) {
		g := &generator{Rand: rand.New(rand.NewPCG(i, 2)), ends: map[netip.Addr]drivers.Place{}}
		p := g.policy(0)
		f.Add(encode(f, &p.NetworkPolicy, p.oddIngress, p.oddEgress))
	}
	f.Add([]byte(`{"metadata":{"name":"a","namespace":"n"},"spec":{"podSelector":{"matchExpressions":[{"key":"a","operator":"In","values":["x"]}]},"policyTypes":["Egress","Egress"],"egress":[null,{"to":[{"ipBlock":{"cidr":"::/0","except":["fd00::/8"]}}],"ports":[{"port":"web"},{"port":1,"endPort":9}]}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, problems, err := NetworkPolicy(data)
		if err != nil {
			if p != nil {
				t.Fatalf("an error, %v, and a policy", err)
			}
			return
		}
		if len(p.Spec.Types) == 0 {
			t.Error("the policy governs nothing")
		}
		noticed := usable(t, p, p.Namespace, slices.Concat(p.Spec.Ingress, p.Spec.Egress))
		for _, r := range slices.Concat(p.Spec.Ingress, p.Spec.Egress) {
			if r.Action != api.Allow {
				t.Errorf("a rule of a NetworkPolicy is %s", r.Action)
			}
		}
		if len(problems) == 0 && (noticed || odd(data, &networkingv1.NetworkPolicySpec{})) {
			t.Errorf("nothing was noted of %s", data)
		}
	})
}

// FuzzClusterNetworkPolicy: as FuzzNetworkPolicy.
func FuzzClusterNetworkPolicy(f *testing.F) {
	for i := range uint64(20) {
		g := &generator{Rand: rand.New(rand.NewPCG(i, 2)), ends: map[netip.Addr]drivers.Place{}}
		p := g.clusterPolicy(0, 7)
		f.Add(encode(f, &p.ClusterNetworkPolicy, p.oddIngress, p.oddEgress))
	}
	f.Add([]byte(`{"metadata":{"name":"a"},"spec":` + spec(`"ingress":[null,{"action":"Pass","from":[{"pods":{"namespaceSelector":{},"podSelector":{}}}],"protocols":[{"tcp":{"destinationPort":{"range":{"start":1,"end":2}}}}]}]`) + `}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, problems, err := ClusterNetworkPolicy(data)
		if err != nil {
			if p != nil {
				t.Fatalf("an error, %v, and a policy", err)
			}
			return
		}
		noticed := usable(t, p, "", slices.Concat(p.Spec.Ingress, p.Spec.Egress))
		if len(p.Spec.Types) == 0 && len(p.Spec.Ingress)+len(p.Spec.Egress) > 0 {
			t.Error("the policy has rules of directions that it does not govern")
		}
		if len(problems) == 0 && (noticed || odd(data, &cnp.ClusterNetworkPolicySpec{})) {
			t.Errorf("nothing was noted of %s", data)
		}
	})
}

// usable checks what the graph relies on, and reports whether a rule says that it is unreadable.
func usable(t *testing.T, o api.Object, namespace string, rules []api.Rule) (unreadable bool) {
	t.Helper()
	if _, err := api.SubjectSelector(o); err != nil {
		t.Errorf("subject: %v", err)
	}
	for _, r := range rules {
		for _, e := range []*api.EntityRule{&r.Source, &r.Destination} {
			if _, err := api.EntitySelector(namespace, e); err != nil {
				t.Errorf("a rule's peer: %v", err)
			}
			for _, n := range slices.Concat(e.Nets, e.NotNets) {
				if _, err := netip.ParsePrefix(n); err != nil {
					t.Errorf("a rule's network: %v", err)
				}
			}
		}
		unreadable = unreadable || len(r.Unreadable) > 0
	}
	return unreadable
}

// odd reports whether the spec in data is not one of Kubernetes' type.
func odd(data []byte, into any) bool {
	var parts map[string]json.RawMessage
	if json.Unmarshal(data, &parts) != nil || bytes.Contains(data, []byte("null")) || parts["spec"] == nil {
		return false
	}
	strict, err := kjson.UnmarshalStrict(parts["spec"], into)
	return len(strict) > 0 || err != nil
}
