package revkv

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func entries(r *revs) map[string]int64 {
	m := map[string]int64{}
	for c := r.cursor(); c.ok; c.next() {
		m[c.key] = c.rev
	}
	return m
}

func randomKey(rnd *rand.Rand) string {
	kinds := []string{"NetworkPolicy", "WorkloadEndpoint", "Tier"}
	k := kinds[rnd.IntN(len(kinds))]
	return fmt.Sprintf("/tortie/v1/%s/ns-%d/%x", k, rnd.IntN(5), rnd.IntN(200))
}

// TestRevsAgainstMap compares every operation with a map's.
func TestRevsAgainstMap(t *testing.T) {
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var r revs
		want := map[string]int64{}
		for i := range 2000 {
			key := randomKey(rnd)
			_, had := want[key]
			if rnd.IntN(3) == 0 {
				if got := r.del(key); got != had {
					t.Fatalf("seed %d step %d: del(%s) = %v, want %v", seed, i, key, got, had)
				}
				delete(want, key)
			} else {
				rev := rnd.Int64N(1 << 40)
				if got := r.set(key, rev); got != had {
					t.Fatalf("seed %d step %d: set(%s) = %v, want %v", seed, i, key, got, had)
				}
				want[key] = rev
			}
			probe := randomKey(rnd)
			rev, ok := r.get(probe)
			if wantRev, wantOK := want[probe]; rev != wantRev && ok || ok != wantOK {
				t.Fatalf("seed %d step %d: get(%s) = %d, %v, want %d, %v", seed, i, probe, rev, ok, wantRev, wantOK)
			}
		}
		if diff := cmp.Diff(want, entries(&r)); diff != "" || r.len() != len(want) {
			t.Fatalf("seed %d: %d entries, want %d: %s", seed, r.len(), len(want), diff)
		}
	}
}

func TestRevsCursorIsOrdered(t *testing.T) {
	var r revs
	rnd := rand.New(rand.NewPCG(7, 7))
	for range 3000 {
		r.set(randomKey(rnd), 1)
	}
	var keys []string
	for c := r.cursor(); c.ok; c.next() {
		keys = append(keys, c.key)
	}
	if !slices.IsSorted(keys) || len(keys) != r.len() || len(keys) == 0 {
		t.Fatalf("%d keys of %d, sorted: %v", len(keys), r.len(), slices.IsSorted(keys))
	}
}

func TestRevBuilder(t *testing.T) {
	for _, n := range []int{0, 1, blockFill - 1, blockFill, blockFill + 1, 1000} {
		var b revBuilder
		want := map[string]int64{}
		for i := range n {
			key := fmt.Sprintf("/k/%06d", i)
			b.add(key, int64(i))
			want[key] = int64(i)
		}
		r := b.done()
		if diff := cmp.Diff(want, entries(&r)); diff != "" || r.len() != n {
			t.Errorf("n=%d: len %d: %s", n, r.len(), diff)
		}
		if _, ok := r.get("/k/0000000"); ok {
			t.Errorf("n=%d: found what was not added", n)
		}
	}
}

// TestRevsArePacked holds the size to what the type's comment says.
func TestRevsArePacked(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var r revs
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 100_000 {
		r.set(fmt.Sprintf("/tortie/v1/WorkloadEndpoint/namespace-%d/node%d-k8s-app--%08x-eth0", i%100, i%250, rnd.Uint32()), int64(1e6+i))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / int64(r.len()); each > 40 {
		t.Errorf("%d bytes for each key, want at most 40", each)
	} else {
		t.Logf("%d bytes for each key", each)
	}
	runtime.KeepAlive(&r)
}

func BenchmarkRevsSet(b *testing.B) {
	var r revs
	for i := range 250_000 {
		r.set(fmt.Sprintf("/tortie/v1/WorkloadEndpoint/namespace-%d/pod-%d", i%100, i), int64(i))
	}
	i := 0
	for b.Loop() {
		i += 7919
		r.set(fmt.Sprintf("/tortie/v1/WorkloadEndpoint/namespace-%d/pod-%d", i%100, i%250_000), int64(i))
	}
}
