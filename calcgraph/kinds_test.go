package calcgraph

import (
	"slices"
	"testing"

	"github.com/tortie/tortie/api"
)

// TestKinds: who watches these kinds misses nothing that a Graph is made of, and what it is not made of is left out.
func TestKinds(t *testing.T) {
	known := Kinds()
	for _, k := range []string{"NetworkPolicy", "WorkloadEndpoint", "Node", "EndpointSlice", "FelixConfiguration", "Tier", "IPPool"} {
		if !slices.Contains(known, k) {
			t.Errorf("%s is left out", k)
		}
	}
	for _, k := range []string{"IPAMHandle", "CalicoNodeStatus"} {
		if slices.Contains(known, k) {
			t.Errorf("%s is there", k)
		}
	}
	for _, k := range api.Kinds() {
		g := New(Default("n1"))
		g.Flush()
		o := k.New()
		o.SetName("x")
		key := api.Key{Kind: k.Kind, Name: "x"}
		if k.Namespaced {
			o.SetNamespace("ns")
			key.Namespace = "ns"
		}
		g.Update(key, o)
		if u := g.Flush(); !slices.Contains(known, k.Kind) && (u != nil && len(u.Endpoints)+len(u.Policies)+len(u.Sets)+len(u.Routes) > 0 || len(g.Problems()) > 0) {
			t.Errorf("%s, which is left out, does something: %v, %v", k.Kind, u, g.Problems())
		}
	}
}
