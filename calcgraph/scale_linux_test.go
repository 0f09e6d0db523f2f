package calcgraph

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

var scale = flag.Bool("scale", false, "measure what the graph costs with up to a million endpoints, and draw docs/graph-scale.svg")

// costs is what a graph of some size costs. Times are the processor's for the goroutine that owns the graph, so that other
// work on the machine does not count.
type costs struct {
	endpoints int
	snapshot  time.Duration // the first State, from everything at once
	selector  time.Duration // a policy with a selector that is new
	label     time.Duration // one label of one workload: one set gains or loses a member
	flip      time.Duration // one workload: four sets gain or lose a member
	live      float64       // bytes of the heap, graph and State
}

// measure is the least of some rounds each, of a graph like that of BenchmarkSnapshot250k: 10k policies of five rules on 29
// sets, 100 namespaces, 200 local endpoints.
func measure(t *testing.T, endpoints, policies int) costs {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := costs{endpoints: endpoints}
	marks := markers()
	base := liveHeap()
	in := benchNamespaces()
	for n := range policies {
		var sources []string
		for j := range 5 {
			sources = append(sources, fmt.Sprintf("has(%s)", marks[(n+j)%len(marks)]))
		}
		in = append(in, benchPolicy(fmt.Sprintf("policy-%d", n), fmt.Sprintf("has(%s)", marks[n%len(marks)]), sources...))
	}
	in = append(in, benchWorkloads(endpoints, 200, func(n int) map[string]string { return benchLabels(n, marks) })...)
	g, s := New(Default("me")), drivers.NewState()
	flush := func() (sets int) {
		u := g.Flush()
		s.Merge(u, nil)
		return len(u.Sets)
	}
	for round := range 3 {
		g, s = New(Default("me")), drivers.NewState()
		runtime.GC()
		start := threadTime(t)
		tell(g, in)
		flush()
		c.snapshot = least(c.snapshot, threadTime(t)-start, round)
	}
	in = nil
	c.live = float64(liveHeap() - base)

	fresh := benchPolicy("fresh", "all()", "one-in-40 == 'value-7'")
	for round := range 7 {
		start := threadTime(t)
		g.Update(fresh.key, fresh.object)
		flush()
		c.selector = least(c.selector, threadTime(t)-start, round)
		g.Update(fresh.key, nil)
		flush()
	}
	change := func(keys ...string) time.Duration {
		const changes = 20 // in one measurement
		with := map[string]string{}
		for _, k := range keys {
			with[k] = "true"
		}
		objects := []*api.WorkloadEndpoint{benchWorkload(7, "other", nil), benchWorkload(7, "other", with)}
		g.Update(api.KeyOf(objects[1]), objects[1])
		flush()
		best := time.Duration(0)
		for round := range 50 {
			start := threadTime(t)
			for n := range changes {
				o := objects[n%2]
				g.Update(api.KeyOf(o), o)
				if sets := flush(); sets != len(keys) {
					t.Fatalf("%d sets have changed, want %d", sets, len(keys))
				}
			}
			best = least(best, (threadTime(t)-start)/changes, round)
		}
		return best
	}
	c.label, c.flip = change("ring"), change("ring", "stage", "release", "xblue")
	runtime.KeepAlive(s)
	return c
}

// threadTime is how much time the processor has given to this thread.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

func least(best, d time.Duration, round int) time.Duration {
	if round == 0 || d < best {
		return d
	}
	return best
}

// TestScale draws what the graph costs against its size: small ones, to see that there is something to draw, or with -scale
// up to a million endpoints.
func TestScale(t *testing.T) {
	sizes, policies, path := []int{100, 1000}, 100, filepath.Join(t.TempDir(), "scale.svg")
	if *scale {
		sizes, policies, path = []int{1000, 10_000, 100_000, 1_000_000}, 10_000, "../docs/graph-scale.svg"
	}
	var all []costs
	for _, n := range sizes {
		c := measure(t, n, policies)
		t.Logf("%7d endpoints: snapshot %v, new selector %v, one label %v, four sets %v, %.1f MB", n, c.snapshot, c.selector, c.label, c.flip, c.live/1e6)
		all = append(all, c)
	}
	var b bytes.Buffer
	drawCosts(&b, all, policies)
	if err := wellFormed(b.Bytes()); err != nil {
		t.Fatalf("the picture: %v", err)
	}
	for _, want := range []string{"endpoints", "1,000", "MB", "first State", "a new selector", "one label changed"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the picture does not say %q", want)
		}
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func wellFormed(b []byte) error {
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// TestScaleIsNotLinear: what one change costs does not grow with the cluster.
func TestScaleIsNotLinear(t *testing.T) {
	count := func(endpoints int) (visits int) {
		g := New(Default("me"))
		tell(g, benchNamespaces())
		tell(g, benchWorkloads(endpoints, 1, func(n int) map[string]string { return benchLabels(n, markers()) }))
		for n, m := range markers() {
			tell(g, []told{benchPolicy(fmt.Sprintf("policy-%d", n), "all()", fmt.Sprintf("has(%s)", m))})
		}
		g.Flush()
		visit := g.sets.index.visit
		g.sets.index.visit = func(c *change, s *sel[selSets], was, is bool) {
			visits++
			visit(c, s, was, is)
		}
		o := benchWorkload(7, "other", map[string]string{"ring": "true"})
		o.ObjectMeta = metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name, Labels: o.Labels}
		g.Update(api.KeyOf(o), o)
		if u := g.Flush(); len(u.Sets) == 0 {
			t.Fatal("no set has changed")
		}
		return visits
	}
	if few, many := count(100), count(10_000); few != many || few > 4 {
		t.Errorf("%d selectors were told of one change among 100 endpoints, %d among 10,000", few, many)
	}
}
