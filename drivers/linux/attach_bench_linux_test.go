package linux

import (
	"testing"

	"github.com/tortie/tortie/internal/netns/netnstest"
)

// BenchmarkAttach plugs one workload in and out.
func BenchmarkAttach(b *testing.B) {
	n := newTestNode(b)
	r := attachment(1, netnstest.New(b))
	for b.Loop() {
		if _, err := n.Attach(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := n.Detach(b.Context(), r); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
