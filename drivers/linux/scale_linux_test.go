package linux

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// BenchmarkScale measures the budget on the kernel.
func BenchmarkScale(b *testing.B) {
	ctx := context.Background()
	s := scaleState(250, 10000, 10, false)
	ns := netnstest.New(b)
	d := openDriver(b, ns, nil)
	start := time.Now()
	if err := d.Apply(ctx, s, nil); err != nil {
		b.Fatal(err)
	}
	b.Logf("first programming: %v, %d rules", time.Since(start), d.comp.prog.Size())
	start = time.Now()
	before := d.Writes()
	if err := d.Apply(ctx, s, nil); err != nil {
		b.Fatal(err)
	}
	b.Logf("resync with nothing to do: %v, %d writes", time.Since(start), d.Writes()-before)
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	b.Logf("heap: %d MB", mem.HeapAlloc>>20)
	b.Run("member", func(b *testing.B) {
		m := drivers.AddrMember(addr("172.16.0.1"))
		set := s.Sets["s:5"]
		for i := 0; b.Loop(); i++ {
			ch := drivers.NewChanges()
			sc := &drivers.SetChange{}
			if i%2 == 0 {
				set = set.With([]drivers.Member{m}, nil)
				sc.Added = map[drivers.Member]struct{}{m: {}}
			} else {
				set = set.With(nil, []drivers.Member{m})
				sc.Removed = map[drivers.Member]struct{}{m: {}}
			}
			ch.Sets["s:5"], s.Sets["s:5"] = sc, set
			if err := d.Apply(ctx, s, ch); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("policy", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			ch := drivers.NewChanges()
			p := scalePolicy(77, uint16(i))
			s.Policies[p.ID] = p
			ch.Policies[p.ID] = struct{}{}
			if err := d.Apply(ctx, s, ch); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("endpoint", func(b *testing.B) {
		id := drivers.EndpointID{Sandbox: "5", Interface: "eth0"}
		e := s.Endpoints[id]
		for i := 0; b.Loop(); i++ {
			ch := drivers.NewChanges()
			ch.Endpoints[id] = struct{}{}
			if i%2 == 0 {
				delete(s.Endpoints, id)
			} else {
				s.Endpoints[id] = e
			}
			if err := d.Apply(ctx, s, ch); err != nil {
				b.Fatal(err)
			}
		}
	})
}
