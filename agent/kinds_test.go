package agent

import (
	"slices"
	"testing"

	"github.com/tortie/tortie/agent/workload"
	"github.com/tortie/tortie/calcgraph"
)

// TestKinds: what an agent watches is what its parts are made of. A Keeper that is told of no blocks would take every address
// for one that is not held.
func TestKinds(t *testing.T) {
	plain, kube := (&agent{}).kinds(), (&agent{keeper: &workload.Keeper{}}).kinds()
	for _, k := range append(calcgraph.Kinds(), "IPPool", "IPReservation", "IPAMConfiguration", "Profile") {
		if !slices.Contains(plain, k) || !slices.Contains(kube, k) {
			t.Errorf("%s is not watched: %q, in Kubernetes %q", k, plain, kube)
		}
	}
	if slices.Contains(plain, "IPAMBlock") || !slices.Contains(kube, "IPAMBlock") {
		t.Errorf("blocks are watched in Kubernetes: %q, elsewhere %q", kube, plain)
	}
	if slices.Contains(kube, "IPAMHandle") {
		t.Errorf("what nobody looks at is watched: %q", kube)
	}
	if !slices.Equal(kube, slices.Compact(slices.Sorted(slices.Values(kube)))) {
		t.Errorf("a kind is watched twice: %q", kube)
	}
}
