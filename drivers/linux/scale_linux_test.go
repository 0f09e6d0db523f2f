package linux

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// latencies are how long single operations took.
type latencies []time.Duration

func (l *latencies) time(b *testing.B, fn func() error) {
	b.Helper()
	start := time.Now()
	if err := fn(); err != nil {
		b.Fatal(err)
	}
	*l = append(*l, time.Since(start))
}

// report gives the smallest, the median and the 99th percentile in milliseconds.
func (l latencies) report(b *testing.B, name string) {
	slices.Sort(l)
	if len(l) == 0 {
		return
	}
	at := func(share float64) float64 { return float64(l[int(share*float64(len(l)-1))].Microseconds()) / 1000 }
	b.ReportMetric(at(0), name+"min-ms")
	b.ReportMetric(at(0.5), name+"p50-ms")
	b.ReportMetric(at(0.99), name+"p99-ms")
}

// BenchmarkFirstProgramming is the budget: 250 endpoints with all of 10,000 policies on each.
func BenchmarkFirstProgramming(b *testing.B) {
	for _, both := range []bool{false, true} {
		name := map[bool]string{false: "IPv4", true: "dual"}[both]
		b.Run(name, func(b *testing.B) {
			s := scaleState(250, 10000, 10, both)
			var l, again latencies
			var d *Driver
			for b.Loop() {
				d = openDriver(b, netnstest.New(b), nil)
				l.time(b, func() error { return d.Apply(b.Context(), s, nil) })
				again.time(b, func() error { return d.Apply(b.Context(), s, nil) })
			}
			l.report(b, "")
			again.report(b, "resync-")
			b.ReportMetric(float64(d.comp.prog.Size()), "rules")
			runtime.GC()
			var mem runtime.MemStats
			runtime.ReadMemStats(&mem)
			b.ReportMetric(float64(mem.HeapAlloc>>20), "heap-MB")
		})
	}
}

// busyTime reports, when what it returns is called, the processor time that an operation has taken of this process and the
// kernel on its behalf: other programs on the machine don't show in it.
func busyTime(b *testing.B) func() {
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64((used()-before).Microseconds())/1000/float64(b.N), "cpu-ms/op") }
}

// scaled is a driver that has programmed a large State.
type scaled struct {
	*Driver
	s     *drivers.State
	queue []drivers.SetID // that the resync has yet to come to
}

// openScaled programs 250 endpoints with 10,000 policies about sets of so many members on each.
func openScaled(b *testing.B, members int) *scaled {
	b.Helper()
	s := scaleState(250, 10000, members, false)
	d := openDriver(b, netnstest.New(b), nil)
	if err := d.Apply(b.Context(), s, nil); err != nil {
		b.Fatal(err)
	}
	return &scaled{Driver: d, s: s}
}

func (d *scaled) policy(i int) func() error {
	ch := drivers.NewChanges()
	p := scalePolicy(77+i%5000, uint16(20000+i))
	d.s.Policies[p.ID], ch.Policies[p.ID] = p, struct{}{}
	return func() error { return d.Apply(context.Background(), d.s, ch) }
}

func (d *scaled) member(i int) func() error {
	ch := drivers.NewChanges()
	id := drivers.SetID(fmt.Sprintf("s:%d", i/2%5000))
	m := drivers.AddrMember(addr("172.16.0.1"))
	sc := &drivers.SetChange{}
	if set := d.s.Sets[id]; i%2 == 0 {
		d.s.Sets[id], sc.Added = set.With([]drivers.Member{m}, nil), map[drivers.Member]struct{}{m: {}}
	} else {
		d.s.Sets[id], sc.Removed = set.With(nil, []drivers.Member{m}), map[drivers.Member]struct{}{m: {}}
	}
	ch.Sets[id] = sc
	return func() error { return d.Apply(context.Background(), d.s, ch) }
}

// slice is what the owner marks with a tick of its rolling resync: one of sixty parts of all that there is.
func (d *scaled) slice() func() error {
	ch := drivers.NewChanges()
	if len(d.queue) == 0 {
		for id := range d.s.Sets {
			d.queue = append(d.queue, id)
		}
	}
	n := min(len(d.queue), (len(d.s.Sets)+59)/60)
	for _, id := range d.queue[:n] {
		ch.Sets[id] = &drivers.SetChange{Full: true}
	}
	d.queue = d.queue[n:]
	for id := range d.s.Policies {
		if ch.Policies[id] = struct{}{}; len(ch.Policies) > len(d.s.Policies)/60 {
			break
		}
	}
	for id := range d.s.Endpoints {
		if ch.Endpoints[id] = struct{}{}; len(ch.Endpoints) > len(d.s.Endpoints)/60 {
			break
		}
	}
	return func() error { return d.Apply(context.Background(), d.s, ch) }
}

// changesPerSlice is how many changes are made for each slice of the resync; the first of them comes while the slice is
// being done, and waits for it. (A round of the resync takes minutes, so that hardly one in a hundred meets one.)
const changesPerSlice = 50

// turn makes a policy allow and deny by turns: what it is merged with is another thing each time.
func (d *scaled) turn(i int) func() error {
	ch := drivers.NewChanges()
	p := scalePolicy(77, 77)
	p.In[0].Action = drivers.Action(i % 2)
	p.SetRuleIDs()
	d.s.Policies[p.ID], ch.Policies[p.ID] = p, struct{}{}
	return func() error { return d.Apply(context.Background(), d.s, ch) }
}

func benchmarkChange(b *testing.B, change func(d *scaled, i int) func() error) {
	b.Run("quiet", func(b *testing.B) {
		d := openScaled(b, 10)
		var l latencies
		busy := busyTime(b)
		for i := 0; b.Loop(); i++ {
			l.time(b, change(d, i))
		}
		busy()
		l.report(b, "")
	})
	b.Run("resync", func(b *testing.B) {
		d := openScaled(b, 100)
		var l, slices latencies
		for i := 0; b.Loop(); i++ {
			if one := change(d, i); i%changesPerSlice != 0 {
				l.time(b, one)
			} else {
				slice := d.slice()
				slices.time(b, slice)
				l.time(b, one)
				l[len(l)-1] += slices[len(slices)-1]
			}
		}
		l.report(b, "")
		slices.report(b, "slice-")
	})
}

// BenchmarkPolicyChange is one rule of one of 10,000 policies on 250 endpoints, from Apply to its return: alone, and while
// the rolling resync goes round a million members.
func BenchmarkPolicyChange(b *testing.B) { benchmarkChange(b, (*scaled).policy) }

// BenchmarkPolicyTurn is a policy that allows and denies by turns, among others that allow.
func BenchmarkPolicyTurn(b *testing.B) { benchmarkChange(b, (*scaled).turn) }

// BenchmarkMemberChange is one member that comes or goes in one of 10,000 sets.
func BenchmarkMemberChange(b *testing.B) { benchmarkChange(b, (*scaled).member) }

// BenchmarkPolicyAdd is a policy that comes or goes: each of 250 endpoints has another list then.
func BenchmarkPolicyAdd(b *testing.B) {
	d := openScaled(b, 10)
	var l latencies
	busy := busyTime(b)
	for i := 0; b.Loop(); i++ {
		ch := drivers.NewChanges()
		var list *drivers.TierList
		p := scalePolicy(20000, 80)
		p.In[0].Match.Src.Sets = []drivers.SetID{"s:17"}
		p.Out = nil
		ch.Policies[p.ID] = struct{}{}
		for id, e := range d.s.Endpoints {
			if list == nil {
				old := e.Policy.Normal.In.Tiers[0].Policies
				at := len(old) / 3
				if i%2 == 0 {
					d.s.Policies[p.ID], old = p, slices.Insert(slices.Clone(old), at, p.ID)
				} else {
					delete(d.s.Policies, p.ID)
					old = slices.Delete(slices.Clone(old), at, at+1)
				}
				list = &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default", Policies: old}}}
			}
			n := *e
			n.Policy.Normal.In = list
			d.s.Endpoints[id], ch.Endpoints[id] = &n, struct{}{}
		}
		l.time(b, func() error { return d.Apply(b.Context(), d.s, ch) })
	}
	busy()
	l.report(b, "")
}

// BenchmarkEndpointChange is a workload that comes or goes.
func BenchmarkEndpointChange(b *testing.B) {
	d := openScaled(b, 10)
	id := drivers.EndpointID{Sandbox: "5", Interface: "eth0"}
	e := d.s.Endpoints[id]
	var l latencies
	busy := busyTime(b)
	for i := 0; b.Loop(); i++ {
		ch := drivers.NewChanges()
		ch.Endpoints[id] = struct{}{}
		if d.s.Endpoints[id] = e; i%2 == 0 {
			delete(d.s.Endpoints, id)
		}
		l.time(b, func() error { return d.Apply(b.Context(), d.s, ch) })
	}
	busy()
	l.report(b, "")
}
