package linux

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// desk plays nf_tables on paper: it takes one op after another and refuses what the kernel would, above all what refers to
// something that is not there, or takes away what something refers to.
type desk struct {
	tables map[Table]bool
	sets   map[Key]*SetObject
	elems  map[Key]elems
	chains map[Key]*Chain
	rules  map[Key][]Rule
}

func newDesk() *desk {
	return &desk{tables: map[Table]bool{}, sets: map[Key]*SetObject{}, elems: map[Key]elems{}, chains: map[Key]*Chain{}, rules: map[Key][]Rule{}}
}

func (d *desk) do(o *op) error {
	switch o.kind {
	case opAddTable, opDelTable:
		return d.table(o)
	case opAddSet, opDelSet, opFlushSet, opAddElems, opDelElems:
		return d.set(o)
	}
	return d.chain(o)
}

func (d *desk) table(o *op) error {
	if d.tables[o.table] == (o.kind == opAddTable) {
		return fmt.Errorf("is there: %t", d.tables[o.table])
	}
	d.tables[o.table] = o.kind == opAddTable
	if o.kind == opDelTable {
		for k := range d.sets {
			if k.Table == o.table {
				delete(d.sets, k)
				delete(d.elems, k)
			}
		}
		for k := range d.chains {
			if k.Table == o.table {
				delete(d.chains, k)
				delete(d.rules, k)
			}
		}
	}
	return nil
}

func (d *desk) set(o *op) error {
	k := o.set.Key
	_, there := d.sets[k]
	switch {
	case !d.tables[o.table] || o.table != k.Table:
		return fmt.Errorf("there is no table for it")
	case there == (o.kind == opAddSet):
		return fmt.Errorf("is there: %t", there)
	}
	switch o.kind {
	case opAddSet:
		d.sets[k], d.elems[k] = o.set, elems{}
	case opFlushSet:
		d.elems[k] = elems{}
	case opDelSet:
		if by := d.uses(k, ""); by != "" {
			return fmt.Errorf("chain %s uses it", by)
		}
		delete(d.sets, k)
		delete(d.elems, k)
	case opDelElems:
		for _, e := range o.elems {
			if _, ok := d.elems[k][e.Key]; !ok {
				return fmt.Errorf("element %x is not there", e.Key)
			}
			delete(d.elems[k], e.Key)
		}
	case opAddElems:
		for _, e := range o.elems {
			if err := d.add(k, o.set, e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *desk) add(k Key, s *SetObject, e Elem) error {
	if was, ok := d.elems[k][e.Key]; ok {
		if !s.Interval && was.Kind == e.Kind && was.Chain == e.Chain {
			return nil
		}
		return fmt.Errorf("element %x is there", e.Key)
	}
	if s.Interval {
		for _, x := range d.elems[k] {
			if x.Key <= e.Last && e.Key <= x.Last {
				return fmt.Errorf("%x-%x overlaps %x-%x", e.Key, e.Last, x.Key, x.Last)
			}
		}
	}
	if s.Verdict && (e.Kind == ActJump || e.Kind == ActGoto) && d.chains[Key{k.Table, e.Chain}] == nil {
		return fmt.Errorf("element %x leads to %s, which is not there", e.Key, e.Chain)
	}
	d.elems[k][e.Key] = e
	return nil
}

func (d *desk) chain(o *op) error {
	k := o.chain.Key
	there := d.chains[k] != nil
	switch {
	case !d.tables[o.table] || o.table != k.Table:
		return fmt.Errorf("there is no table for it")
	case there == (o.kind == opAddChain):
		return fmt.Errorf("is there: %t", there)
	}
	switch o.kind {
	case opAddChain:
		d.chains[k] = o.chain
	case opFlushChain:
		d.rules[k] = nil
	case opAddRule:
		r := o.chain.Rules[o.rule]
		d.rules[k] = append(d.rules[k], r)
		return d.resolves(k.Table, &r)
	case opDelChain:
		if len(d.rules[k]) > 0 {
			return fmt.Errorf("it has rules")
		}
		if by := d.uses(Key{}, k.Name); by != "" {
			return fmt.Errorf("%s leads to it", by)
		}
		delete(d.chains, k)
		delete(d.rules, k)
	}
	return nil
}

// resolves reports what a rule names that is not there.
func (d *desk) resolves(t Table, r *Rule) error {
	for _, m := range r.Matches {
		if m.Set != "" && d.sets[Key{t, m.Set}] == nil {
			return fmt.Errorf("set %s is not there", m.Set)
		}
	}
	for _, a := range r.Actions {
		if a.Chain != "" && d.chains[Key{t, a.Chain}] == nil {
			return fmt.Errorf("chain %s is not there", a.Chain)
		}
		if a.VMap != "" && d.sets[Key{t, a.VMap}] == nil {
			return fmt.Errorf("map %s is not there", a.VMap)
		}
	}
	return nil
}

// uses names something that refers to a set, or to a chain.
func (d *desk) uses(set Key, chain string) string {
	for k, rules := range d.rules {
		for _, r := range rules {
			if slices.ContainsFunc(r.Matches, func(m Match) bool { return m.Set != "" && (Key{k.Table, m.Set}) == set }) ||
				slices.ContainsFunc(r.Actions, func(a Action) bool {
					return chain != "" && a.Chain == chain || a.VMap != "" && (Key{k.Table, a.VMap}) == set
				}) {
				return k.Name
			}
		}
	}
	for k, es := range d.elems {
		for _, e := range es {
			if chain != "" && e.Chain == chain {
				return k.Name
			}
		}
	}
	return ""
}

// program writes what is on the desk as a Program would be written.
func (d *desk) program() Program {
	p := Program{Chains: map[Key]*Chain{}, Sets: map[Key]*SetObject{}}
	for k, c := range d.chains {
		p.Chains[k] = &Chain{Key: k, Hook: c.Hook, Comment: c.Comment, Rules: d.rules[k]}
	}
	for k, s := range d.sets {
		held := *s
		held.Content = d.elems[k]
		p.Sets[k] = &held
	}
	return p
}

// commit does ops, each of which must be possible, and sees that they lead to want.
func (d *desk) commit(t *testing.T, want *Program, ops []op, what string) {
	t.Helper()
	for i := range ops {
		if err := d.do(&ops[i]); err != nil {
			t.Fatalf("%s: op %d of %d, %s: %v", what, i, len(ops), ops[i].String(), err)
		}
	}
	if diff := cmp.Diff(objects(*want), objects(d.program())); diff != "" {
		t.Fatalf("%s: the ops lead elsewhere (-want +got):\n%s", what, diff)
	}
}

// TestPlanLeadsThere follows a random walk: the ops of each step can be done one after another, and lead to the program.
// Now and then a table has to be made anew, or a set was not read.
func TestPlanLeadsThere(t *testing.T) {
	t.Parallel()
	seeds, steps := uint64(4), 80
	if testing.Short() {
		seeds, steps = 2, 40
	}
	for seed := range seeds {
		for _, merging := range []bool{false, true} {
			w, c := newWalker(seed), newCompiler()
			if merging {
				c.limits = mergeAll()
			}
			d, have := newDesk(), noTables()
			c.update(w.s, nil)
			d.commit(t, &c.prog, plan(&c.prog, have, allKeys(&c.prog, &have.Program), nil), "at first")
			have.wrote(&c.prog, allKeys(&c.prog, &have.Program))
			for i := range steps {
				what := fmt.Sprintf("seed %d, merging: %t, step %d", seed, merging, i)
				clear(c.touched)
				w.step()
				c.update(w.s, w.ch)
				ops := plan(&c.prog, have, c.touched, deltasOf(c, w.ch))
				d.commit(t, &c.prog, ops, what)
				have.wrote(&c.prog, c.touched)
				if again := plan(&c.prog, have, allKeys(&c.prog, &have.Program), nil); len(again) > 0 {
					t.Fatalf("%s: once more: %v", what, again)
				}
				alone := newCompiler()
				alone.limits = c.limits
				alone.update(w.s.Clone(), nil)
				if again := plan(&alone.prog, have, allKeys(&alone.prog, &have.Program), nil); len(again) > 0 {
					t.Fatalf("%s: by another compiler: %v", what, again)
				}
				switch i % 10 {
				case 4:
					remake(t, d, c, have, Table(i/10%2), what)
				case 7:
					strangers(t, d, c, have, what)
				}
			}
		}
	}
}

// remake makes a table anew that cannot be mended otherwise.
func remake(t *testing.T, d *desk, c *compiler, have *tables, table Table, what string) {
	t.Helper()
	have.remake[table] = true
	maps.DeleteFunc(have.Chains, func(k Key, _ *Chain) bool { return k.Table == table })
	maps.DeleteFunc(have.Sets, func(k Key, _ *SetObject) bool { return k.Table == table })
	keys := allKeys(&c.prog, &have.Program)
	d.commit(t, &c.prog, plan(&c.prog, have, keys, nil), what+", a table is made anew")
	have.wrote(&c.prog, keys)
	if len(have.remake) > 0 || !have.exist[Inet] || !have.exist[ARP] {
		t.Fatalf("%s: after that: %+v", what, have)
	}
}

// strangers puts things into the tables that are not wanted, and sets whose elements nobody has read.
func strangers(t *testing.T, d *desk, c *compiler, have *tables, what string) {
	t.Helper()
	chain := &Chain{Key: Key{Inet, "stranger"}, Rules: []Rule{{Actions: does(ActDrop)}}}
	set := &SetObject{Key: Key{Inet, "strange"}, Types: []Type{TAddr4}, Content: elems{"abcd": {Key: "abcd"}}}
	d.chains[chain.Key], d.rules[chain.Key], d.sets[set.Key], d.elems[set.Key] = chain, chain.Rules, set, elems{"abcd": {Key: "abcd"}}
	have.Chains[chain.Key], have.Sets[set.Key] = chain, set
	arp := &SetObject{Key: Key{ARP, "strange"}, Types: []Type{TAddr4}, Content: elems{"abcd": {Key: "abcd"}}}
	d.sets[arp.Key], d.elems[arp.Key], have.Sets[arp.Key] = arp, elems{"abcd": {Key: "abcd"}}, arp
	for k, s := range c.prog.Sets {
		if !strings.HasPrefix(k.Name, "s4") && !strings.HasPrefix(k.Name, "c-") && k != (Key{ARP, setWorkloads}) {
			continue
		}
		unread := *s
		unread.unread, unread.Content = true, elems{}
		have.Sets[k] = &unread
		d.elems[k] = elems{"\xff\xff\xff\xfe": {Key: "\xff\xff\xff\xfe", Last: "\xff\xff\xff\xfe"}}
	}
	keys := allKeys(&c.prog, &have.Program)
	d.commit(t, &c.prog, plan(&c.prog, have, keys, nil), what+", with strangers")
	have.wrote(&c.prog, keys)
}

// TestOps is what logs say of ops, and whom the kernel's refusal of one would put on a stand-in.
func TestOps(t *testing.T) {
	t.Parallel()
	set := drivers.ObjectRef{Kind: drivers.ObjSet, Set: "s"}
	policy := drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: np("p")}
	ch := &Chain{Key: Key{Inet, "c"}, Rules: []Rule{{}}, Owner: policy}
	s := &SetObject{Key: Key{ARP, "s"}, Owner: set}
	for _, x := range []struct {
		o     op
		text  string
		owner drivers.ObjectRef
	}{
		{op{kind: opAddTable, table: ARP}, "add table arp tortie", nodeRef()},
		{op{kind: opDelTable}, "delete table inet tortie", nodeRef()},
		{op{kind: opAddChain, chain: ch}, "add chain inet tortie c (policy " + policy.Policy.String() + ")", policy},
		{op{kind: opAddRule, chain: ch}, "add rule inet tortie c 0 (policy " + policy.Policy.String() + ")", policy},
		{op{kind: opFlushChain, chain: ch}, "flush chain inet tortie c (policy " + policy.Policy.String() + ")", nodeRef()},
		{op{kind: opDelChain, chain: ch}, "delete chain inet tortie c (policy " + policy.Policy.String() + ")", nodeRef()},
		{op{kind: opAddSet, table: ARP, set: s}, "add set arp tortie s (set s)", set},
		{op{kind: opAddElems, table: ARP, set: s}, "add elements arp tortie s (set s)", set},
		{op{kind: opDelElems, table: ARP, set: s}, "delete elements arp tortie s (set s)", set},
		{op{kind: opAddElems, table: ARP, set: s, blame: &policy}, "add elements arp tortie s (policy " + policy.Policy.String() + ")", policy},
		{op{kind: opFlushSet, table: ARP, set: s}, "flush set arp tortie s (set s)", nodeRef()},
		{op{kind: opDelSet, table: ARP, set: s}, "delete set arp tortie s (set s)", nodeRef()},
	} {
		if got := x.o.String(); got != x.text {
			t.Errorf("%q, want %q", got, x.text)
		}
		if got := x.o.owner(); got != x.owner {
			t.Errorf("%s is of %s, want %s", x.text, got, x.owner)
		}
	}
}

// TestPlanOfRandomStates goes from one random State to the next, in big steps, with hints and without.
func TestPlanOfRandomStates(t *testing.T) {
	t.Parallel()
	states := uint64(240)
	if testing.Short() {
		states = 60
	}
	for _, merging := range []bool{false, true} {
		c, d, have := newCompiler(), newDesk(), noTables()
		if merging {
			c.limits = mergeAll()
		}
		before := drivers.NewState()
		for seed := range states {
			s, _ := drivertest.Random(seed)
			if seed%2 == 1 { // some come back
				s, _ = drivertest.Random(seed / 7)
			}
			s, _ = drivers.Lower(s, everythingButHTTP())
			clear(c.touched)
			keys, ch := c.touched, drivertest.Diff(before, s)
			if seed%3 == 0 {
				ch = nil
			}
			c.update(s, ch)
			if ch == nil {
				keys = allKeys(&c.prog, &have.Program)
			}
			what := fmt.Sprintf("State %d, merging: %t", seed, merging)
			alone := newCompiler()
			alone.limits = c.limits
			alone.update(s.Clone(), nil)
			if diff := cmp.Diff(objects(alone.prog), objects(c.prog)); diff != "" {
				t.Fatalf("%s: the State by itself has another program (-alone +here):\n%s", what, diff)
			}
			d.commit(t, &c.prog, plan(&c.prog, have, keys, deltasOf(c, ch)), what)
			have.wrote(&c.prog, keys)
			before = s.Clone()
		}
	}
}

// TestPoisoned: what needs an object that is refused is rendered as if it were on a stand-in, and anew when it is not refused
// any more.
func TestPoisoned(t *testing.T) {
	t.Parallel()
	s := smallState()
	var all []drivers.ObjectRef
	for id := range s.Policies {
		all = append(all, drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id})
	}
	for id := range s.Sets {
		all = append(all, drivers.ObjectRef{Kind: drivers.ObjSet, Set: id})
	}
	c := newCompiler()
	c.update(s.Clone(), nil)
	want := func(poison drivers.ObjectRef) map[Key]string {
		low := s.Clone()
		for id, e := range s.Endpoints {
			for p := range e.PolicyIDs {
				names := poison.Policy == p
				for set := range s.Policies[p].SetIDs {
					names = names || poison.Set == set && poison.Kind == drivers.ObjSet
				}
				if names {
					low.Endpoints[id] = e.StandIn("refused")
				}
			}
		}
		return objects(Render(low))
	}
	for _, o := range all {
		c.setPoison(map[drivers.ObjectRef]error{o: errors.New("refused")})
		c.update(s.Clone(), drivers.NewChanges())
		if diff := cmp.Diff(want(o), objects(c.prog)); diff != "" {
			t.Errorf("%s is refused (-want +got):\n%s", o, diff)
		}
		c.setPoison(nil)
		c.update(s.Clone(), drivers.NewChanges())
		if diff := cmp.Diff(objects(Render(s)), objects(c.prog)); diff != "" {
			t.Errorf("%s is not refused any more (-want +got):\n%s", o, diff)
		}
	}
	w := s.Endpoints[drivers.EndpointID{Sandbox: "torta", Interface: "eth0"}]
	c.setPoison(map[drivers.ObjectRef]error{refOf(w): errors.New("refused")})
	c.update(s.Clone(), drivers.NewChanges())
	unknown := c.prog.Sets[Key{Inet, setUnknown}]
	if unknown.Content.Len() != 1 || c.prog.Sets[Key{ARP, setUnknown}].Content.Len() != 1 {
		t.Errorf("a workload that is refused: %v", objects(c.prog)[unknown.Key])
	}
}

// TestNamesThatNoInterfaceHas: an endpoint on an interface that cannot be is named as failed, and harms no other.
func TestNamesThatNoInterfaceHas(t *testing.T) {
	t.Parallel()
	s := smallState()
	c := newCompiler()
	good := objects(Render(s))
	longest := newWalker(1).s
	for _, e := range longest.Endpoints {
		if e.Iface == "torta" {
			e.Iface = "a-name-of-15-by"
		}
	}
	c.update(longest, nil)
	if len(c.failed) != 0 || c.prog.Chains[Key{Inet, "source-a-name-of-15-by"}] == nil {
		t.Errorf("a name of 15 bytes: failed are %v", c.failed)
	}
	if a, b := ifaceChain("source-", "eth 0"), ifaceChain("source-", "eth/0"); a == b || !strings.HasPrefix(a, "source-x-") || len(a) < 12 {
		t.Errorf("chains of interfaces whose names nft cannot write: %q, %q", a, b)
	}
	for _, name := range []string{"", "a-name-of-16-byt"} {
		for kind := range 2 {
			id := drivers.EndpointID{Kind: []drivers.EndpointKind{drivers.Workload, drivers.HostInterface}[kind], Sandbox: "odd", Interface: "eth0"}
			s.Endpoints[id] = &drivers.Endpoint{ID: id, Name: "odd", Iface: name}
			c.update(s.Clone(), nil)
			ref := drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id}
			if len(c.failed) != 1 || !errors.Is(c.failed[ref], errIfName) {
				t.Errorf("interface %q: failed are %v", name, c.failed)
			}
			if diff := cmp.Diff(good, objects(c.prog)); diff != "" {
				t.Errorf("interface %q: it is rendered (-without +with):\n%s", name, diff)
			}
			e := *s.Endpoints[id]
			e.Iface = "eth7"
			s.Endpoints[id] = &e
			c.update(s.Clone(), nil)
			if len(c.failed) != 0 {
				t.Errorf("with another name: failed are %v", c.failed)
			}
			delete(s.Endpoints, id)
			c.update(s.Clone(), nil)
			if diff := cmp.Diff(good, objects(c.prog)); diff != "" || len(c.failed) != 0 {
				t.Errorf("gone: %v %s", c.failed, diff)
			}
		}
	}
}

// TestUnloweredCasesAgree: a renderer that is given what it cannot express, against the contract, denies it all the same.
func TestUnloweredCasesAgree(t *testing.T) {
	t.Parallel()
	cases, err := drivertest.Cases()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		if !strings.HasPrefix(c.Name, "bad-") {
			continue
		}
		for _, sc := range c.Scenes {
			var pks []drivers.Packet
			for _, l := range sc.Lines {
				for _, p := range l.Probes {
					pks = append(pks, p.Packet)
				}
			}
			plain, all := Render(sc.State), renderMerged(sc.State)
			agree(t, sc.State, &plain, pks)
			agree(t, sc.State, &all, pks)
		}
	}
}

// TestHeld: an object that a trial leaves out is not in the program, and is back when the trial is over.
func TestHeld(t *testing.T) {
	t.Parallel()
	s := smallState()
	c := newCompiler()
	c.update(s.Clone(), nil)
	whole := objects(c.prog)
	for _, o := range []drivers.ObjectRef{
		{Kind: drivers.ObjPolicy, Policy: np("web")}, {Kind: drivers.ObjSet, Set: "s:hash"}, {Kind: drivers.ObjSet, Set: "p:http"},
		{Kind: drivers.ObjEndpoint, Endpoint: drivers.EndpointID{Sandbox: "torta", Interface: "eth0"}},
	} {
		c.setHold(map[drivers.ObjectRef]bool{o: true})
		c.update(s.Clone(), drivers.NewChanges())
		if cmp.Equal(whole, objects(c.prog)) {
			t.Errorf("%s is held, and there all the same", o)
		}
		c.setHold(nil)
		c.update(s.Clone(), drivers.NewChanges())
		if diff := cmp.Diff(whole, objects(c.prog)); diff != "" {
			t.Errorf("%s is not held any more (-want +got):\n%s", o, diff)
		}
	}
}

// TestNodeSettings: what the node says is in the base chains, in both families.
func TestNodeSettings(t *testing.T) {
	t.Parallel()
	s := smallState()
	s.Node.CutEstablished = true
	s.Node.WorkloadPrefixes = []string{"tort", "a-prefix-of-15b", "a-prefix-of-16by", ""}
	p := Render(s)
	for _, x := range []struct {
		set   string
		types []Type
		rule  string
	}{
		{setSevered4, []Type{TAddr4, TAddr4, TPort, TPort}, "ip saddr . ip daddr . th sport . th dport @" + setSevered4},
		{setSevered6, []Type{TAddr6, TAddr6, TPort, TPort}, "ip6 saddr . ip6 daddr . th sport . th dport @" + setSevered6},
	} {
		set := p.Sets[Key{Inet, x.set}]
		if set == nil || !slices.Equal(set.Types, x.types) || !set.Timed {
			t.Fatalf("set %s: %+v", x.set, set)
		}
		for _, name := range []string{baseRawIn, baseRawOut} {
			ch := p.Chains[Key{Inet, name}]
			if !slices.ContainsFunc(ch.Rules, func(r Rule) bool { return strings.Contains(r.String(), x.rule) }) {
				t.Errorf("no rule of %s asks %s: %v", name, x.set, ch.Rules)
			}
		}
	}
	s.Node.FailsafeIn = []drivers.Failsafe{{Proto: 47}, {Proto: l4TCP, Port: 22}, {Proto: l4TCP, Port: 23, Net: prefix("10.0.0.0/8")}}
	if got := objects(Render(s))[Key{Inet, setFailsafeIn}]; !strings.Contains(got, "elements = { 6 . 22 }") {
		t.Errorf("failsafes: %s", got)
	}
	var drops []string
	for _, r := range p.Chains[Key{Inet, baseRawIn}].Rules {
		if r.Comment == "unknown workload interface" {
			drops = append(drops, r.Matches[0].String())
		}
	}
	if want := []string{`iifname "tort*"`, `iifname "a-prefix-of-15b*"`, `iifname != "lo"`}; !slices.Equal(drops, want) {
		t.Errorf("drops %q, want %q", drops, want)
	}
}

// TestDangling: a State that names policies and sets which are not there, or sets of the other kind, is denied where the
// oracle denies it, and a compiler sees them come and go.
func TestDangling(t *testing.T) {
	t.Parallel()
	seeds := uint64(60)
	if testing.Short() {
		seeds = 25
	}
	for seed := range seeds {
		s, probes := drivertest.Random(seed)
		s, _ = drivers.Lower(s, everythingButHTTP())
		s = s.Clone()
		whole := s.Clone()
		n := 0
		for id := range whole.Policies {
			if n++; n%6 == int(seed%6) {
				delete(s.Policies, id)
			}
		}
		for id, set := range whole.Sets {
			switch n++; n % 6 {
			case 0:
				delete(s.Sets, id)
			case 1:
				s.Sets[id] = drivers.NewSet(drivers.SetPort + drivers.SetNet - set.Kind())
			}
		}
		var pks []drivers.Packet
		for _, pr := range probes {
			pks = append(pks, pr.Packet)
		}
		plain, all := Render(s), renderMerged(s)
		agree(t, s, &plain, pks)
		agree(t, s, &all, pks)
		for _, merging := range []bool{false, true} {
			c := newCompiler()
			if merging {
				c.limits = mergeAll()
			}
			before := drivers.NewState()
			for i, st := range []*drivers.State{whole, s, whole, s} {
				c.update(st.Clone(), drivertest.Diff(before, st))
				alone := newCompiler()
				alone.limits = c.limits
				alone.update(st.Clone(), nil)
				if diff := cmp.Diff(objects(alone.prog), objects(c.prog)); diff != "" {
					t.Fatalf("seed %d, merging: %t, step %d (-alone +here):\n%s", seed, merging, i, diff)
				}
				before = st
			}
		}
	}
}

// TestContentsDiff: what must be added to one content and removed from it makes another of it, whatever they are made of.
func TestContentsDiff(t *testing.T) {
	t.Parallel()
	var all []Content
	for _, s := range []*drivers.Set{
		drivers.NewSet(drivers.SetNet), drivers.NewSet(drivers.SetNet, drivers.AddrMember(addr("10.0.0.1")), drivers.AddrMember(addr("fd00::1"))),
		drivers.NewSet(drivers.SetNet, drivers.NetMember(prefix("10.0.0.0/8")), drivers.AddrMember(addr("10.0.0.1")), drivers.NetMember(prefix("fd00::/8"))),
		drivers.NewSet(drivers.SetPort, drivers.PortMember(addr("10.0.0.1"), 6, 80), drivers.PortMember(addr("10.0.0.1"), 17, 80), drivers.PortMember(addr("fd00::1"), 6, 80)),
	} {
		for _, v6 := range []bool{false, true} {
			for _, interval := range []bool{false, true} {
				m := members{set: s, v6: v6, interval: interval}
				spelled := elems{}
				for e := range m.All() {
					spelled.put(e)
				}
				if m.Len() != spelled.Len() {
					t.Errorf("%v has %d elements and says %d", spelled, spelled.Len(), m.Len())
				}
				all = append(all, m, spelled)
			}
		}
	}
	all = append(all, elems{"a": {Key: "a", Kind: ActJump, Chain: "x"}, "b": {Key: "b"}}, elems{"a": {Key: "a", Kind: ActJump, Chain: "y"}, "c": {Key: "c"}}, elems{})
	byKey := func(a, b Elem) int { return strings.Compare(a.Key, b.Key) }
	for i, want := range all {
		for j, old := range append(all, nil) {
			have := elems{}
			if old != nil {
				for e := range old.All() {
					have.put(e)
				}
			}
			add, del := want.Diff(old)
			if m, ok := want.(members); !ok && !slices.IsSortedFunc(del, byKey) || ok && len(add) > 0 && m.Len() == 0 {
				t.Fatalf("%d from %d: add %v, remove %v", i, j, add, del)
			}
			for _, e := range del {
				if x, ok := have[e.Key]; !ok || x != e {
					t.Fatalf("%d from %d: %v goes, and is not there", i, j, e)
				}
				delete(have, e.Key)
			}
			for _, e := range add {
				if _, ok := have[e.Key]; ok {
					t.Fatalf("%d from %d: %v comes, and is there", i, j, e)
				}
				have.put(e)
			}
			wanted := elems{}
			for e := range want.All() {
				wanted.put(e)
			}
			if diff := cmp.Diff(wanted, have); diff != "" {
				t.Fatalf("%d from %d (-want +got):\n%s", i, j, diff)
			}
		}
	}
}
