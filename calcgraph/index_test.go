package calcgraph

import (
	"fmt"
	"testing"

	"github.com/tortie/tortie/api"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// looked returns how many selectors the index of all things evaluates when a workload becomes what it is not yet.
func looked(g *Graph, o *api.WorkloadEndpoint) (n int) {
	moved := g.things.moved
	defer func() { g.things.moved = moved }()
	g.things.moved = func(c *change) {
		ix := g.sets.index
		ix.diff = diffLabels(ix.diff[:0], c.old, c.new)
		for _, b := range ix.candidates(c) {
			n += len(b.places)
		}
		moved(c)
	}
	g.Update(api.KeyOf(o), o)
	return n
}

// TestFewSelectorsAreEvaluated counts work instead of time: whatever the selectors have in common, a changed thing meets
// those that it can concern and hardly any other.
func TestFewSelectorsAreEvaluated(t *testing.T) {
	const n = 10_000
	for _, tt := range []struct {
		name     string
		selector string // %d is its number
		old, new map[string]string
		most     int
	}{
		{"a common label and one of its own; its own comes", "alpha == 'beta' && has(x%d)",
			map[string]string{"alpha": "beta"}, map[string]string{"alpha": "beta", "x7": ""}, 10},
		{"a common label and one of its own; the common one goes", "alpha == 'beta' && has(x%d)",
			map[string]string{"alpha": "beta", "x7": "", "x8": ""}, map[string]string{"x7": "", "x8": ""}, 20},
		{"values of one label", "app == 'a%d'", map[string]string{"app": "a1"}, map[string]string{"app": "a2"}, 10},
		{"values in a namespace", "ns == 'one' && app == 'a%d'", map[string]string{"ns": "one", "app": "a1"}, map[string]string{"ns": "one", "app": "a2"}, 20},
		{"not a value", "app != 'a%d'", map[string]string{"app": "a1"}, map[string]string{"app": "a2"}, 10},
		{"not in values", "ns == 'one' && app not in {'a%d'}", map[string]string{"ns": "one", "app": "a1"}, map[string]string{"ns": "one", "app": "a2"}, 10},
		{"another label", "app != 'a%d'", map[string]string{"app": "a1", "b": "x"}, map[string]string{"app": "a1", "b": "y"}, 0},
		{"one of several", "app in {'a%[1]d', 'b%[1]d'}", map[string]string{"app": "a1"}, map[string]string{"app": "b7"}, 10},
		{"either of two", "app == 'a%[1]d' || app == 'b%[1]d'", map[string]string{"app": "a1"}, map[string]string{"app": "b7"}, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := New(Default("me"))
			tell(g, benchWorkloads(0, 1, func(int) map[string]string { return nil }))
			for i := range n / 100 {
				var sources []string
				for j := range 100 {
					sources = append(sources, fmt.Sprintf(tt.selector, 100*i+j))
				}
				tell(g, []told{benchPolicy(fmt.Sprint(i), "all()", sources...)})
			}
			w := func(labels map[string]string) *api.WorkloadEndpoint {
				return &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "w", Labels: labels}}
			}
			o := w(tt.old)
			g.Update(api.KeyOf(o), o)
			g.Flush()
			if got := looked(g, w(tt.new)); got > tt.most {
				t.Errorf("%d of %d selectors were evaluated, want at most %d", got, n, tt.most)
			}
		})
	}
}

// TestUnmentionedLabelsAreNotIndexed makes sure that labels which no selector demands cost no posting lists, and that
// lists go with the last selector that needs them.
func TestUnmentionedLabelsAreNotIndexed(t *testing.T) {
	g := New(Default("me"))
	tell(g, benchWorkloads(1000, 1, func(n int) map[string]string {
		return map[string]string{"name": fmt.Sprint(n), "app": fmt.Sprint(n % 10), "tier": "x"}
	}))
	indexed := func() (n int) {
		for _, e := range g.sets.index.keys {
			if e != nil && e.lists != nil {
				n++
			}
		}
		return n
	}
	a := benchPolicy("a", "all()", "app == '1' && tier != 'y'", "!has(name)")
	b := benchPolicy("b", "all()", "app == '2'")
	tell(g, []told{a, b})
	g.Flush()
	if got := indexed(); got != 1 {
		t.Errorf("%d labels are indexed, want app alone", got)
	}
	g.Update(a.key, nil)
	g.Flush()
	if got := indexed(); got != 1 {
		t.Errorf("%d labels are indexed after one of two has gone, want app", got)
	}
	g.Update(b.key, nil)
	g.Flush()
	if got := indexed(); got != 0 {
		t.Errorf("%d labels are indexed for nobody", got)
	}
}

// TestNumbersAreReusedAfterTheFlush makes sure that what is said of a thing in a batch can't be taken for another.
func TestNumbersAreReusedAfterTheFlush(t *testing.T) {
	g := New(Default("me"))
	w := func(name string) (api.Key, *api.WorkloadEndpoint) {
		o := &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}}
		return api.KeyOf(o), o
	}
	a, ao := w("a")
	b, bo := w("b")
	c, co := w("c")
	g.Update(a, ao)
	first, _ := g.things.find(a)
	g.Update(a, nil)
	g.Update(b, bo)
	if id, _ := g.things.find(b); id == first {
		t.Errorf("number %d was used again in the batch that freed it", id)
	}
	g.Flush()
	g.Update(c, co)
	if id, _ := g.things.find(c); id != first {
		t.Errorf("number %d was not used again after the flush, but %d", first, id)
	}
}
