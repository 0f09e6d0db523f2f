package linux

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// tables is what we believe our tables to hold: the objects of a Program, by the values with which they were written, or
// read back.
type tables struct {
	exist  map[Table]bool
	remake map[Table]bool // tables to delete first
	Program
}

func noTables() *tables {
	return &tables{exist: map[Table]bool{}, remake: map[Table]bool{}, Program: Program{Chains: map[Key]*Chain{}, Sets: map[Key]*SetObject{}}}
}

// planner works out the writes that lead from have to want.
type planner struct {
	want   *Program
	have   *tables
	deltas map[Key]delta // exact changes of sets, where they are known

	tables, newSets, plain, newChains, rules, verdicts, flushes, oldSets, oldChains []op
}

// delta is what came and went in a set since have.
type delta struct{ add, del []Elem }

// deltasOf are the exact changes of sets that ch knows.
func deltasOf(c *compiler, ch *drivers.Changes) map[Key]delta {
	if ch == nil {
		return nil
	}
	deltas := map[Key]delta{}
	for id, sc := range ch.Sets {
		u := c.sets[id]
		if u == nil || sc.Full {
			continue
		}
		for k := range u.keys {
			if m, ok := c.prog.Sets[k].Content.(members); ok {
				deltas[k] = delta{add: m.delta(sc.Added), del: m.delta(sc.Removed)}
			}
		}
	}
	for k, changes := range c.exact {
		if m, ok := c.prog.Sets[k].Content.(*merged); ok && m.ranks == nil {
			deltas[k] = m.delta(changes)
		}
	}
	return deltas
}

// plan gives the writes for the objects in touched, in an order in which nothing refers to what is not there yet, or not
// there any more, and in which an interval leaves before one that overlaps it comes.
func plan(want *Program, have *tables, touched map[Key]struct{}, deltas map[Key]delta) []op {
	p := &planner{want: want, have: have, deltas: deltas}
	for _, t := range []Table{Inet, ARP} {
		if have.remake[t] {
			p.tables = append(p.tables, op{kind: opDelTable, table: t})
		}
		if !have.exist[t] || have.remake[t] {
			p.tables = append(p.tables, op{kind: opAddTable, table: t})
		}
	}
	keys := slices.SortedFunc(maps.Keys(touched), compareKeys)
	for _, k := range keys {
		p.set(k)
	}
	for _, k := range keys {
		p.chain(k)
	}
	return slices.Concat(p.tables, p.newSets, p.plain, p.newChains, p.rules, p.verdicts, p.flushes, p.oldSets, p.oldChains)
}

func (p *planner) set(k Key) {
	want, have := p.want.Sets[k], p.have.Sets[k]
	switch {
	case want == nil && have == nil:
		return
	case want == nil:
		// Emptied first: kernels before 6.4 hold the chains that a map's elements name until its end.
		p.flushes = append(p.flushes, op{kind: opFlushSet, table: k.Table, set: have})
		p.oldSets = append(p.oldSets, op{kind: opDelSet, table: k.Table, set: have})
		return
	}
	var add, del []Elem
	if d, ok := p.deltas[k]; ok && have != nil {
		add, del = d.add, d.del
	} else {
		var old Content = elems{}
		if have != nil {
			old = have.Content
		}
		add, del = want.Content.Diff(old)
	}
	if have == nil {
		p.newSets = append(p.newSets, op{kind: opAddSet, table: k.Table, set: want})
	}
	to := &p.plain
	if want.Verdict {
		to = &p.verdicts // they name chains
	}
	if have != nil && have.unread {
		*to = append(*to, op{kind: opFlushSet, table: k.Table, set: want})
	}
	if len(del) > 0 {
		*to = append(*to, op{kind: opDelElems, table: k.Table, set: want, elems: del})
	}
	for run := range runs(add) {
		*to = append(*to, op{kind: opAddElems, table: k.Table, set: want, elems: run, blame: run[0].Owner})
	}
}

// runs cuts elements into those with one owner, side by side.
func runs(es []Elem) iter.Seq[[]Elem] {
	return func(yield func([]Elem) bool) {
		for len(es) > 0 {
			n := 1
			for n < len(es) && es[n].Owner == es[0].Owner {
				n++
			}
			if !yield(es[:n]) {
				return
			}
			es = es[n:]
		}
	}
}

func (p *planner) chain(k Key) {
	want, have := p.want.Chains[k], p.have.Chains[k]
	switch {
	case want == nil && have == nil:
		return
	case want == nil:
		p.flushes = append(p.flushes, op{kind: opFlushChain, table: k.Table, chain: have})
		p.oldChains = append(p.oldChains, op{kind: opDelChain, table: k.Table, chain: have})
		return
	case have == want || have != nil && have.equal(want):
		return
	case have == nil:
		p.newChains = append(p.newChains, op{kind: opAddChain, table: k.Table, chain: want})
	default:
		p.rules = append(p.rules, op{kind: opFlushChain, table: k.Table, chain: want})
	}
	for i := range want.Rules {
		p.rules = append(p.rules, op{kind: opAddRule, table: k.Table, chain: want, rule: i, blame: want.Rules[i].Owner})
	}
}

// wrote brings the tables up to date after the plan for touched has been carried out. Contents that go on changing are
// copied.
func (w *tables) wrote(want *Program, touched map[Key]struct{}) {
	w.exist = map[Table]bool{Inet: true, ARP: true}
	clear(w.remake)
	for k := range touched {
		if c := want.Chains[k]; c != nil {
			w.Chains[k] = c
		} else {
			delete(w.Chains, k)
		}
		s := want.Sets[k]
		if s == nil {
			delete(w.Sets, k)
			continue
		}
		held := *s
		if e, ok := s.Content.(elems); ok {
			held.Content = maps.Clone(e)
		}
		w.Sets[k] = &held
	}
}

// allKeys names every object of either.
func allKeys(a, b *Program) map[Key]struct{} {
	ks := map[Key]struct{}{}
	for _, p := range []*Program{a, b} {
		for k := range p.Chains {
			ks[k] = struct{}{}
		}
		for k := range p.Sets {
			ks[k] = struct{}{}
		}
	}
	return ks
}

// String says what the op writes, for logs and tests.
func (o *op) String() string {
	what := opNames[o.kind] + " " + tableNames[o.table]
	switch {
	case o.kind == opAddRule:
		return fmt.Sprintf("%s %s %d (%s)", what, o.chain.Name, o.rule, o.owner())
	case o.chain != nil:
		return fmt.Sprintf("%s %s (%s)", what, o.chain.Name, o.chain.Owner)
	case o.blame != nil:
		return fmt.Sprintf("%s %s (%s)", what, o.set.Name, *o.blame)
	case o.set != nil:
		return fmt.Sprintf("%s %s (%s)", what, o.set.Name, o.set.Owner)
	}
	return what
}

var opNames = map[opKind]string{
	opAddTable: "add table", opDelTable: "delete table", opAddSet: "add set", opDelElems: "delete elements",
	opAddElems: "add elements", opAddChain: "add chain", opFlushChain: "flush chain", opAddRule: "add rule",
	opDelChain: "delete chain", opFlushSet: "flush set", opDelSet: "delete set",
}

// owner is the object of the State that the op is about. Nothing that only removes is about one.
func (o *op) owner() drivers.ObjectRef {
	switch {
	case o.kind == opFlushChain || o.kind == opDelChain || o.kind == opFlushSet || o.kind == opDelSet:
		return nodeRef()
	case o.blame != nil:
		return *o.blame
	case o.chain != nil:
		return o.chain.Owner
	case o.set != nil:
		return o.set.Owner
	}
	return nodeRef()
}
