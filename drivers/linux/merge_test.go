package linux

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
)

// TestMergedDeltas follows a random walk; what the exact changes of a merged set say must be what its contents say.
func TestMergedDeltas(t *testing.T) {
	t.Parallel()
	exact, compared, mixed := 0, 0, 0
	for seed := range uint64(10) {
		w := newWalker(seed)
		w.plain = seed%2 == 1
		l := &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "all"}}}
		for i := range 8 {
			l.Tiers[0].Policies = append(l.Tiers[0].Policies, w.policy(i).ID)
		}
		e := *w.s.Endpoints[drivers.EndpointID{Sandbox: "torta", Interface: "eth0"}]
		e.Policy.Normal.In = l
		w.s.Endpoints[e.ID] = &e
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
			for k := range c.touched {
				if c.prog.Sets[k] == nil || have.Sets[k] == nil {
					continue
				}
				m, ok := c.prog.Sets[k].Content.(*merged)
				if !ok {
					continue
				}
				was, want := spelledOut(have.Sets[k].Content), spelledOut(m)
				d, known := deltas[k]
				if known {
					exact++
				} else {
					d.add, d.del = m.Diff(have.Sets[k].Content)
					compared++
				}
				if m.ranks != nil {
					mixed++
				}
				if err := d.follow(was); err != nil {
					t.Fatalf("seed %d, step %d: %s: %v", seed, i, k.Name, err)
				}
				if diff := cmp.Diff(want, was); diff != "" {
					t.Fatalf("seed %d, step %d: %s: %s", seed, i, k.Name, diff)
				}
				if add, del := m.Diff(want); len(add)+len(del) != 0 {
					t.Fatalf("seed %d, step %d: %s differs from itself, read back: %v, %v", seed, i, k.Name, add, del)
				}
			}
		}
	}
	if exact < 20 || compared < 100 || mixed < 20 {
		t.Errorf("%d exact changes, %d compared, %d of maps: this proves little", exact, compared, mixed)
	}
}

// spelledOut is a content as the kernel would give it.
func spelledOut(c Content) elems {
	es := elems{}
	for e := range c.All() {
		es.put(Elem{Key: e.Key, Kind: e.Kind})
	}
	return es
}

// follow makes of es what the kernel would, which removes first, and only what is there.
func (d delta) follow(es elems) error {
	for _, e := range d.del {
		if es[e.Key] != (Elem{Key: e.Key, Kind: e.Kind}) {
			return fmt.Errorf("%q is removed, and there is %v", e.Key, es[e.Key])
		}
		delete(es, e.Key)
	}
	for _, e := range d.add {
		if have, there := es[e.Key]; there && have.Kind != e.Kind {
			return fmt.Errorf("%q is added, and there is %v", e.Key, have)
		}
		es.put(Elem{Key: e.Key, Kind: e.Kind})
	}
	return nil
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
