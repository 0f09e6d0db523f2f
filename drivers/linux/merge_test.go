package linux

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
)

// TestMergedDeltas follows a random walk; what the exact changes of a merged set say must be what its contents say.
func TestMergedDeltas(t *testing.T) {
	t.Parallel()
	exact := 0
	for seed := range uint64(10) {
		w := newWalker(seed)
		c := newCompiler()
		c.limits = mergeAll()
		c.update(w.s, nil)
		for i := range 200 {
			have := noTables()
			have.wrote(&c.prog, allKeys(&c.prog, &have.Program))
			clear(c.touched)
			w.step()
			c.update(w.s, w.ch)
			deltas := deltasOf(c, w.ch)
			for k, d := range deltas {
				m, ok := c.prog.Sets[k].Content.(*merged)
				if !ok {
					continue
				}
				exact++
				got := elems{}
				for e := range have.Sets[k].Content.All() {
					got.put(Elem{Key: e.Key})
				}
				for _, e := range d.del {
					if _, there := got[e.Key]; !there {
						t.Fatalf("seed %d, step %d: %q is removed from %s, where it is not", seed, i, e.Key, k.Name)
					}
					delete(got, e.Key)
				}
				for _, e := range d.add {
					got.put(Elem{Key: e.Key})
				}
				want := elems{}
				for e := range m.All() {
					want.put(Elem{Key: e.Key})
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("seed %d, step %d: %s: %s", seed, i, k.Name, diff)
				}
			}
		}
	}
	if exact < 20 {
		t.Errorf("%d exact changes: this proves little", exact)
	}
}

// TestMergeScale: what merging makes of 10,000 policies, and what one change of one of them writes.
func TestMergeScale(t *testing.T) {
	t.Parallel()
	s := scaleState(3, 10000, 2, true)
	c := newCompiler()
	c.update(s, nil)
	if n := c.prog.Size(); n > 2500 {
		t.Errorf("%d rules", n)
	}
	have := noTables()
	have.wrote(&c.prog, allKeys(&c.prog, &have.Program))
	writes := func(ch *drivers.Changes) (ops []op, elements int) {
		clear(c.touched)
		c.update(s, ch)
		ops = plan(&c.prog, have, c.touched, deltasOf(c, ch))
		have.wrote(&c.prog, c.touched)
		for _, o := range ops {
			elements += len(o.elems)
		}
		return ops, elements
	}
	p := scalePolicy(77, 5)
	s.Policies[p.ID] = p
	ch := drivers.NewChanges()
	ch.Policies[p.ID] = struct{}{}
	if ops, n := writes(ch); len(ops) != 4 || n != 8 { // another port: two members of each family come and go
		t.Errorf("a policy changed: %d elements, %v", n, ops)
	}
	m := drivers.AddrMember(addr("172.16.0.1"))
	ch = drivers.NewChanges()
	s.Sets["s:9"] = s.Sets["s:9"].With([]drivers.Member{m}, nil)
	ch.Sets["s:9"] = &drivers.SetChange{Added: map[drivers.Member]struct{}{m: {}}}
	if ops, n := writes(ch); len(ops) != 2 || n != 2 { // ingress and egress
		t.Errorf("a member came: %d elements, %v", n, ops)
	}
}
