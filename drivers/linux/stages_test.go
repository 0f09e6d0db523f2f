package linux

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// inForce is what packets can meet of a program: what base chains lead to, as text.
func inForce(p Program) map[Key]string {
	all, found := objects(p), map[Key]string{}
	var visit func(k Key)
	visit = func(k Key) {
		if _, seen := found[k]; seen || all[k] == "" {
			return
		}
		found[k] = all[k]
		if s := p.Sets[k]; s != nil {
			for e := range s.Content.All() {
				if e.Chain != "" {
					visit(Key{k.Table, e.Chain})
				}
			}
		}
		if c := p.Chains[k]; c != nil {
			for _, r := range c.Rules {
				for _, m := range r.Matches {
					visit(Key{k.Table, m.Set})
				}
				for _, a := range r.Actions {
					visit(Key{k.Table, a.Chain})
					visit(Key{k.Table, a.VMap})
				}
			}
		}
	}
	for k, c := range p.Chains {
		if c.Hook != nil {
			visit(k)
		}
	}
	return found
}

// TestStages: of the transactions of a change one changes what is in force, and what it needs has all of its rules before;
// what it needs no more is there until after it.
func TestStages(t *testing.T) {
	t.Parallel()
	seeds, ahead, behind := uint64(6), 0, 0
	if testing.Short() {
		seeds = 3
	}
	for seed := range seeds {
		crowd, c, d, have := newCrowd(seed), newCompiler(), newDesk(), noTables()
		c.limits = crowdLimits()[seed%3]
		c.update(crowd.s.Clone(), nil)
		if n := len(stages(plan(&c.prog, have, allKeys(&c.prog, &have.Program), nil), &c.prog, have)); n != 1 {
			t.Errorf("seed %d: the tables are made in %d transactions", seed, n)
		}
		keys, ch := allKeys(&c.prog, &have.Program), crowd.step()
		for i := range 30 {
			what := fmt.Sprintf("seed %d, step %d", seed, i)
			ops := plan(&c.prog, have, keys, nil)
			ss := stages(ops, &c.prog, have)
			if n := len(slices.Concat(ss...)); n != len(ops) {
				t.Fatalf("%s: %d of %d ops", what, n, len(ops))
			}
			old, want, switched := inForce(d.program()), inForce(c.prog), len(ops) == 0
			for n, stage := range ss {
				before := d.program()
				for j := range stage {
					if err := d.do(&stage[j]); err != nil {
						t.Fatalf("%s: stage %d, op %d, %s: %v", what, n, j, stage[j].String(), err)
					}
				}
				now := inForce(d.program())
				switch {
				case cmp.Equal(now, want):
					if !switched && len(before.Chains) > 0 {
						neverAsksAnew(t, what, before, d.program())
					}
					if switched {
						behind++
					}
					switched = true
				case !switched && cmp.Equal(now, old):
					ahead++
				default:
					t.Fatalf("%s: after stage %d of %d neither the old nor the new is in force (-want +got):\n%s", what, n, len(ss), cmp.Diff(want, now))
				}
				have.wrote(&c.prog, opKeys(stage))
			}
			d.commit(t, &c.prog, nil, what)
			have.wrote(&c.prog, keys)
			c.touched = map[Key]struct{}{}
			c.update(crowd.s.Clone(), ch)
			keys, ch = c.touched, crowd.step()
		}
	}
	if ahead < 5 || behind < 5 {
		t.Errorf("%d transactions ahead and %d behind: this proves little", ahead, behind)
	}
}

// neverAsksAnew sees that a packet which began with the rules of before finds nothing wrong though it asks the maps and sets
// of after: where an element leads to a chain the chain had its rules, and each set that a rule asks is there.
func neverAsksAnew(t *testing.T, what string, before, after Program) {
	t.Helper()
	old := inForce(before)
	for k := range old {
		if s := after.Sets[k]; s != nil {
			for e := range s.Content.All() {
				if e.Chain != "" && before.Chains[Key{k.Table, e.Chain}] == nil {
					t.Errorf("%s: an element of %s leads to %s, which had no rules yet", what, k.Name, e.Chain)
				}
			}
		} else if before.Sets[k] != nil {
			t.Errorf("%s: %s is gone while an old rule may ask it", what, k.Name)
		}
	}
}
