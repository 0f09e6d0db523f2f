package calcgraph

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// kinds are what the inputs hold things of.
var kinds = []string{
	"Tier", "NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy",
	"Profile", "NetworkSet", "GlobalNetworkSet", "WorkloadEndpoint", "HostEndpoint", "Node", "IPPool", "BlockAffinity", "EndpointSlice",
	"FelixConfiguration", "attached", "host", "learned",
}

// pairsOfKinds is how many pairs of things are tried of each pair of kinds.
const pairsOfKinds = 1

// TestEveryPairOfKinds takes a thing away from a world in which everything refers to everything that it can, while a thing
// of each other kind stays, changes, goes and comes back: "A removed while B refers to it" for every A and B.
func TestEveryPairOfKinds(t *testing.T) {
	lib := loadLibrary(t)
	full, others := inputs{}, map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(lib)) {
		switch key := lib[name].key; {
		case hasBadInput(inputs{key: name}):
		case full[key] == "":
			full[key] = name
		default:
			others[key] = name
		}
	}
	ofKind := map[string][]string{}
	for _, key := range slices.Sorted(maps.Keys(full)) {
		ofKind[kindOf(key)] = append(ofKind[kindOf(key)], key)
	}
	for k := range ofKind {
		if !slices.Contains(kinds, k) {
			t.Errorf("the library has a %s, which is not among the kinds", k)
		}
	}
	for _, a := range kinds {
		t.Run(a, func(t *testing.T) {
			t.Parallel()
			r := newRunner(t, lib)
			r.run(batches([]inputs{full}), strategies["flush after each state"])
			p := pairs{runner: r, full: full, others: others, state: r.state.String()}
			for i, b := range kinds {
				if len(ofKind[a]) == 0 || len(ofKind[b]) == 0 {
					t.Fatalf("the library has no %s or no %s", a, b)
				}
				for n := range pairsOfKinds {
					x, y := ofKind[a][(i+n)%len(ofKind[a])], ofKind[b][(2*i+n)%len(ofKind[b])]
					if x != y {
						p.try(x, y)
					}
				}
			}
			r.clear()
		})
	}
}

type pairs struct {
	*runner
	full   inputs
	others map[string]string // another value of a key
	state  string            // of full
}

// try takes a away, with b there, another one, and gone.
func (p *pairs) try(a, b string) {
	p.t.Helper()
	check := func(what string) {
		p.t.Helper()
		p.flush()
		want := p.state
		if what != "" {
			want = p.w.state(p.c).String()
		}
		if d := cmp.Diff(want, p.runner.state.String()); d != "" {
			p.t.Fatalf("%s and %s, %s (-want +graph):\n%s", a, b, what, d)
		}
	}
	p.do(move{a, ""})
	check("the first is gone")
	p.do(move{b, p.others[b]}) // gone, if there is no other
	check("the second has changed since")
	p.do(move{b, p.full[b]})
	p.do(move{a, p.full[a]})
	check("")
	p.do(move{b, ""})
	p.do(move{a, ""})
	check("both are gone")
	p.do(move{a, p.full[a]})
	check("the first is back")
	p.do(move{b, p.full[b]})
	check("")
}

// TestOverlapsInAllOrders adds things whose addresses overlap in every order, and takes them away in every order. At each
// step the set holds what a set that is made at once does.
func TestOverlapsInAllOrders(t *testing.T) {
	labels := map[string]string{"set": "yes"}
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Labels: labels} }
	set := func(name string, nets ...string) api.Object {
		return &api.GlobalNetworkSet{ObjectMeta: meta(name), Spec: api.NetworkSetSpec{Nets: nets}}
	}
	workload := &api.WorkloadEndpoint{ObjectMeta: meta("w"), Spec: api.WorkloadEndpointSpec{Node: "n2", IPNetworks: []string{"10.1.2.3/32", "fd00::1/128"}}}
	workload.Namespace = "n0"
	things := []api.Object{
		set("wide", "10.0.0.0/8", "fd00::/16"),
		set("middle", "10.1.0.0/16", "10.2.0.0/16", "fd00::/64"),
		set("narrow", "10.1.2.0/24", "10.1.2.3", "10.1.0.0/16"),
		set("beside", "10.1.2.3/32", "11.0.0.0/8", "10.2.0.0/16"),
		workload,
	}
	for i, adding := range permutations(len(things)) {
		g := New(Default("me"))
		p := benchPolicy("p", "all()", "set == 'yes'")
		g.Update(p.key, p.object)
		g.Attached(drivers.EndpointID{Sandbox: "s"}, &LedgerEntry{Name: api.Key{Kind: "WorkloadEndpoint", Namespace: "n0", Name: "me"}, Iface: "tort1"})
		g.Update(api.Key{Kind: "WorkloadEndpoint", Namespace: "n0", Name: "me"},
			&api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "n0", Name: "me"}, Spec: api.WorkloadEndpointSpec{Node: "me"}})
		s, there := drivers.NewState(), map[int]bool{}
		s.Merge(g.Flush(), nil)
		step := func(n int, is bool) {
			if there[n] = is; is {
				g.Update(api.KeyOf(things[n]), things[n])
			} else {
				g.Update(api.KeyOf(things[n]), nil)
			}
			u := g.Flush()
			for id, su := range u.Sets {
				if err := checkSetUpdate(s.Sets[id], su); err != nil {
					t.Fatalf("adding %v, at %d %v: %v", adding, n, is, err)
				}
			}
			s.Merge(u, nil)
			if err := holds(s, things, there); err != nil {
				t.Fatalf("adding %v, at %d %v: %v", adding, n, is, err)
			}
		}
		for j, removing := range permutations(len(things)) {
			if (i+j)%3 != 0 { // every order of taking away, each after a third of the orders of adding
				continue
			}
			for _, n := range adding {
				step(n, true)
			}
			for _, n := range removing {
				step(n, false)
			}
		}
	}
}

// holds compares the only set of s with one of what is there.
func holds(s *drivers.State, things []api.Object, there map[int]bool) error {
	var ms []drivers.Member
	for n, o := range things {
		if ps, _, _ := nets(o); there[n] {
			for _, p := range ps {
				ms = append(ms, drivers.NetMember(p))
			}
		}
	}
	want := drivers.NewSet(drivers.SetNet, ms...)
	for id, got := range s.Sets {
		if !got.Equal(want) {
			return fmt.Errorf("set %s holds %v, want %v", id, slices.Collect(got.All()), slices.Collect(want.All()))
		}
	}
	if len(s.Sets) != 1 {
		return fmt.Errorf("%d sets", len(s.Sets))
	}
	return nil
}

// permutations returns all orders of 0 to n-1.
func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var out [][]int
	for _, p := range permutations(n - 1) {
		for at := range n {
			out = append(out, slices.Insert(slices.Clone(p), at, n-1))
		}
	}
	return out
}
