package calcgraph

import (
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// told is an input of a benchmark.
type told struct {
	key    api.Key
	object api.Object
	id     drivers.EndpointID
	entry  *LedgerEntry
}

// markers are 29 labels of which each endpoint has one, the first two of them twice as often.
func markers() []string {
	var out []string
	for _, p := range []string{"", "x", "yx"} {
		for _, m := range []string{"red", "blue", "cost/center", "cost/owner", "team/a", "team/b", "team/c", "stage", "ring", "release"} {
			out = append(out, p+m)
		}
	}
	out[len(out)-1] = "red"
	return append(out, "blue")
}

// benchLabels are six labels, each with strings of its own, as a decoder makes them.
func benchLabels(n int, markers []string) map[string]string {
	m := map[string]string{}
	for _, of := range []int{10, 11, 20, 30, 40} {
		m[fmt.Sprintf("one-in-%d", of)] = fmt.Sprintf("value-%d", n%of)
	}
	m[strings.Clone(markers[n%len(markers)])] = strings.Clone("true")
	return m
}

func benchWorkload(n int, node string, labels map[string]string) *api.WorkloadEndpoint {
	ns := fmt.Sprintf("namespace-%d", n%100)
	return &api.WorkloadEndpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("%s-wep-%d", node, n), Labels: labels},
		Spec: api.WorkloadEndpointSpec{
			Node: strings.Clone(node), Profiles: []string{"kns." + ns},
			IPNetworks: []string{fmt.Sprintf("10.%d.%d.%d/32", n>>16&0x7f|map[bool]int{true: 0x80}[node == "me"], n>>8&0xff, n&0xff)},
		},
	}
}

// benchWorkloads makes total workloads of other nodes and local ones of this.
func benchWorkloads(total, local int, labels func(n int) map[string]string) (out []told) {
	for n := range total {
		o := benchWorkload(n, "other", labels(n))
		out = append(out, told{key: api.KeyOf(o), object: o})
	}
	for n := range local {
		o := benchWorkload(n, "me", labels(total+n))
		out = append(out, told{key: api.KeyOf(o), object: o})
		out = append(out, told{
			id: drivers.EndpointID{Sandbox: fmt.Sprint(n), Interface: "eth0"},
			entry: &LedgerEntry{Name: api.KeyOf(o), Iface: fmt.Sprintf("tort%d", n),
				Addrs: []netip.Addr{netip.MustParsePrefix(o.Spec.IPNetworks[0]).Addr()}},
		})
	}
	return out
}

func benchNamespaces() (out []told) {
	for n := range 100 {
		name := fmt.Sprintf("namespace-%d", n)
		o := &api.Profile{ObjectMeta: metav1.ObjectMeta{Name: "kns." + name}}
		o.Spec.LabelsToApply = map[string]string{"pcns.projectcalico.org/name": name}
		out = append(out, told{key: api.KeyOf(o), object: o})
	}
	return out
}

func benchPolicy(name, subject string, sources ...string) told {
	o := &api.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	o.Spec.Selector, o.Spec.Types = subject, []api.PolicyType{api.Ingress}
	for _, s := range sources {
		o.Spec.Ingress = append(o.Spec.Ingress, api.Rule{Action: api.Allow, Source: api.EntityRule{Selector: s}})
	}
	return told{key: api.KeyOf(o), object: o}
}

func tell(g *Graph, in []told) {
	for i := range in {
		if in[i].entry != nil {
			g.Attached(in[i].id, in[i].entry)
		} else {
			g.Update(in[i].key, in[i].object)
		}
	}
}

// snapshot measures a graph that is told of everything at once: seconds, allocations, and the heap that is alive when
// only the graph and its State are left.
func snapshot(b *testing.B, sets int, make func() []told) {
	b.ReportAllocs()
	var spent time.Duration
	var live uint64
	rounds := 0
	for b.Loop() {
		b.StopTimer()
		base := liveHeap()
		in := make()
		g, s := New(Default("me")), drivers.NewState()
		runtime.GC()
		b.StartTimer()
		start := time.Now()
		tell(g, in)
		s.Merge(g.Flush(), nil)
		spent += time.Since(start)
		b.StopTimer()
		if len(s.Sets) != sets {
			b.Fatalf("%d sets, want %d", len(s.Sets), sets)
		}
		in = nil
		live += liveHeap() - base
		rounds++
		runtime.KeepAlive(g)
		runtime.KeepAlive(s)
		b.StartTimer()
	}
	b.ReportMetric(spent.Seconds()/float64(rounds), "s/snapshot")
	b.ReportMetric(float64(live)/float64(rounds)/1e6, "live-MB")
}

// changes runs loop, which makes changes to a graph that build has made, and reports how long one takes and the heap that
// is alive with the graph and what it has said.
func changes(b *testing.B, build func() *Graph, loop func(*Graph)) {
	base := liveHeap()
	g := build()
	s := drivers.NewState()
	s.Merge(g.Flush(), nil)
	b.ReportAllocs()
	loop(g)
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/change")
	b.ReportMetric(float64(liveHeap()-base)/1e6, "live-MB")
	runtime.KeepAlive(g)
	runtime.KeepAlive(s)
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkSnapshot250k: 250k endpoints in 100 namespaces, 10k policies of five rules that select by one of 29 labels,
// 200 local endpoints.
func BenchmarkSnapshot250k(b *testing.B) {
	snapshot(b, 29, func() []told {
		marks := markers()
		var in []told
		for n := range 10_000 {
			var sources []string
			for j := range 5 {
				sources = append(sources, fmt.Sprintf("has(%s)", marks[(n+j)%len(marks)]))
			}
			in = append(in, benchPolicy(fmt.Sprintf("policy-%d", n), fmt.Sprintf("has(%s)", marks[n%len(marks)]), sources...))
		}
		in = append(in, benchNamespaces()...)
		return append(in, benchWorkloads(250_000, 200, func(n int) map[string]string { return benchLabels(n, marks) })...)
	})
}

// benchNetsets is network sets of 1, 1, 1, 1, 2, 3, 4, 5, 100 and 1000 addresses in turn, each in a rule of a policy on
// every local endpoint.
func benchNetsets(b *testing.B, netsets int) {
	sizes := []int{1, 1, 1, 1, 2, 3, 4, 5, 100, 1000}
	snapshot(b, netsets, func() []told {
		marks, next := markers(), 0
		in := benchNamespaces()
		in = append(in, benchWorkloads(10_000, 200, func(n int) map[string]string { return benchLabels(n, marks) })...)
		for n := range netsets {
			name := fmt.Sprintf("set-%d", n)
			o := &api.GlobalNetworkSet{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}}}
			for range sizes[n%len(sizes)] {
				o.Spec.Nets = append(o.Spec.Nets, fmt.Sprintf("11.%d.%d.%d", next>>16, next>>8&0xff, next&0xff))
				next++
			}
			in = append(in, told{key: api.KeyOf(o), object: o})
			in = append(in, benchPolicy("policy-"+name, "all()", fmt.Sprintf("name == '%s'", name)))
		}
		return in
	})
}

func BenchmarkSnapshotNetsets10k(b *testing.B) { benchNetsets(b, 10_000) }
func BenchmarkSnapshotNetsets1k(b *testing.B)  { benchNetsets(b, 1_000) }

// BenchmarkSnapshotMembership: 250k endpoints, 5k selectors, each endpoint in 10 sets: 2.5M members.
func BenchmarkSnapshotMembership(b *testing.B) {
	snapshot(b, 5_000, func() []told {
		in := benchNamespaces()
		in = append(in, benchWorkloads(250_000, 1, func(n int) map[string]string {
			m := map[string]string{}
			for k := range 10 {
				m[fmt.Sprintf("group-%d", k)] = fmt.Sprint((n / (k + 1)) % 500)
			}
			return m
		})...)
		for n := range 500 {
			var sources []string
			for k := range 10 {
				sources = append(sources, fmt.Sprintf("group-%d == '%d'", k, n))
			}
			in = append(in, benchPolicy(fmt.Sprintf("policy-%d", n), "all()", sources...))
		}
		return in
	})
}

// BenchmarkLabelChange10kSelectors: one label of a workload comes and goes, under 10k selectors that demand it and one
// of 10k others; as many of those as the name says it has, and so many sets flip.
func BenchmarkLabelChange10kSelectors(b *testing.B) {
	build := func() *Graph {
		g := New(Default("me"))
		tell(g, benchWorkloads(1000, 1, func(n int) map[string]string { return map[string]string{"alpha": "beta"} }))
		for n := range 1000 {
			var sources []string
			for k := range 10 {
				sources = append(sources, fmt.Sprintf("alpha == 'beta' && has(x%d)", 10*n+k))
			}
			tell(g, []told{benchPolicy(fmt.Sprintf("policy-%d", n), "all()", sources...)})
		}
		return g
	}
	for _, flips := range []int{0, 1, 10, 100} {
		b.Run(fmt.Sprint(flips), func(b *testing.B) {
			changes(b, build, func(g *Graph) {
				var w [2]*api.WorkloadEndpoint
				for i, v := range []string{"beta", "gamma"} {
					w[i] = benchWorkload(7, "other", map[string]string{"alpha": v})
					for x := range flips {
						w[i].Labels[fmt.Sprintf("x%d", x)] = ""
					}
				}
				g.Update(api.KeyOf(w[1]), w[1])
				g.Flush()
				n := 0
				for b.Loop() {
					o := w[n%2]
					n++
					g.Update(api.KeyOf(o), o)
					if u := g.Flush(); len(u.Sets) != flips {
						b.Fatalf("%d sets flip, want %d", len(u.Sets), flips)
					}
				}
			})
		})
	}
}

// manyEndpoints is a graph of 250k endpoints in 100 namespaces, 200 of which are of this node.
func manyEndpoints() *Graph {
	g := New(Default("me"))
	marks := markers()
	tell(g, benchNamespaces())
	tell(g, benchWorkloads(250_000, 200, func(n int) map[string]string { return benchLabels(n, marks) }))
	return g
}

// BenchmarkNamespaceLabel: a label of a namespace with 2,500 pods comes and goes, which are all members of a set then.
func BenchmarkNamespaceLabel(b *testing.B) {
	changes(b, func() *Graph {
		g := manyEndpoints()
		for n := range 1000 {
			tell(g, []told{benchPolicy(fmt.Sprintf("policy-%d", n), "all()", fmt.Sprintf("pcns.env == 'prod' && one-in-40 == 'value-%d'", n%40), "pcns.env == 'prod'")})
		}
		return g
	}, func(g *Graph) {
		n := 0
		for b.Loop() {
			o := &api.Profile{ObjectMeta: metav1.ObjectMeta{Name: "kns.namespace-7"}}
			o.Spec.LabelsToApply = map[string]string{"pcns.projectcalico.org/name": "namespace-7", "pcns.env": []string{"prod", "test"}[n%2]}
			n++
			g.Update(api.KeyOf(o), o)
			if u := g.Flush(); len(u.Sets) == 0 {
				b.Fatal("no set has changed")
			}
		}
	})
}

// BenchmarkNewSelector: a policy whose rule has a selector that is new, on a label that no selector has named, among
// 250k endpoints.
func BenchmarkNewSelector(b *testing.B) {
	changes(b, manyEndpoints, func(g *Graph) {
		p := benchPolicy("policy", "all()", "one-in-40 == 'value-7'")
		for b.Loop() {
			g.Update(p.key, p.object)
			if u := g.Flush(); len(u.Sets) != 1 {
				b.Fatalf("%d sets", len(u.Sets))
			}
			b.StopTimer()
			g.Update(p.key, nil)
			g.Flush()
			b.StartTimer()
		}
	})
}
