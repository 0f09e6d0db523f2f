package convert

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/tortie/tortie/drivers"
)

func BenchmarkPod(b *testing.B) {
	p := running()
	b.ReportAllocs()
	for b.Loop() {
		Pod(p)
	}
}

func BenchmarkNetworkPolicy(b *testing.B) {
	data := []byte(`{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"np","namespace":"red","uid":"u","resourceVersion":"1"},"spec":{"podSelector":{"matchLabels":{"app":"db"}},
		"policyTypes":["Ingress"],"ingress":[{"from":[{"podSelector":{"matchLabels":{"app":"web"}}},{"namespaceSelector":{"matchLabels":{"team":"ops"}}}],"ports":[{"protocol":"TCP","port":5432}]}]}}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, problems, err := NetworkPolicy(data); err != nil || len(problems) > 0 {
			b.Fatal(problems, err)
		}
	}
}

func BenchmarkClusterNetworkPolicy(b *testing.B) {
	g := &generator{Rand: rand.New(rand.NewPCG(1, 1)), ends: map[netip.Addr]drivers.Place{}}
	data := encode(b, &g.clusterPolicy(0, 1).ClusterNetworkPolicy, nil, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := ClusterNetworkPolicy(data); err != nil {
			b.Fatal(err)
		}
	}
}
