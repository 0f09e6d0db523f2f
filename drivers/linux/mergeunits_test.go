package linux

import (
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/drivers"
)

// TestMergedIsNotTouched: a change renders anew what it is about, and no merged set beside it.
func TestMergedIsNotTouched(t *testing.T) {
	t.Parallel()
	s := tierOf(4, func(i int) []drivers.Rule {
		r := portRule(drivers.Allow, 80+i)
		switch i {
		case 0:
			r.Match.Dst.Ports = nil
		case 1:
			r.Match.Src.Nets = []netip.Prefix{prefix("10.66.0.1/32"), prefix("fd66::1/128")}
		case 2:
			r.Match.Src.Sets = []drivers.SetID{"s"}
		}
		return []drivers.Rule{r}
	})
	s.Sets["s"] = drivers.NewSet(drivers.SetNet, drivers.AddrMember(addr("10.66.0.1")))
	c := newCompiler()
	c.limits = limits{groupMin: 1, groupCut: 1 << 20, policies: 1, rules: 1, members: 8}
	c.update(s, nil)
	touched := func(id drivers.PolicyID, change func(*drivers.Policy)) []string {
		p := *s.Policies[id]
		p.In, p.Out = slices.Clone(p.In), slices.Clone(p.Out)
		change(&p)
		p.SetRuleIDs()
		s.Policies[id] = &p
		clear(c.touched)
		c.update(s, &drivers.Changes{Policies: map[drivers.PolicyID]struct{}{id: {}}})
		var ends []string
		for k := range c.touched {
			ends = append(ends, k.Name[strings.LastIndex(k.Name, "-")+1:])
		}
		slices.Sort(ends)
		return ends
	}
	t0, t3 := np("t0"), np("t3")
	for _, x := range []struct {
		what     string
		id       drivers.PolicyID
		change   func(*drivers.Policy)
		want     []string
		analysed bool // it looks different now
	}{
		{"nothing", t3, func(*drivers.Policy) {}, nil, false},
		{"a rule's name, which merged rules have not", t3, func(p *drivers.Policy) { p.In[0].Name = "x" }, nil, false},
		{"a port", t3, func(p *drivers.Policy) { p.In[0].Match.Dst.Ports = []drivers.PortRange{{First: 90, Last: 90}} }, []string{"pd"}, true},
		{"one atom more", t3, func(p *drivers.Policy) { p.In[0].Match.Dst.Ports = []drivers.PortRange{{First: 90, Last: 91}} }, []string{"pd"}, true},
		{"two rules that say so", t3, func(p *drivers.Policy) {
			p.In = []drivers.Rule{portRule(drivers.Allow, 90), portRule(drivers.Allow, 91)}
		}, nil, true},
		{"a protocol", t0, func(p *drivers.Policy) { p.In[0].Match.Proto = ptr(uint8(47)) }, []string{"p"}, true},
		{"staged", t0, func(p *drivers.Policy) { p.Staged = true }, []string{"p", groupName(c)}, true},
		{"not staged", t0, func(p *drivers.Policy) { p.Staged = false }, []string{"p", groupName(c)}, true},
		{"nothing again", t0, func(p *drivers.Policy) {}, nil, false},
		{"no rules", t3, func(p *drivers.Policy) { p.In = nil }, []string{"pd", groupName(c)}, true},
		{"no rules, staged", t3, func(p *drivers.Policy) { p.Staged = true }, nil, true},
		{"no rules, not staged", t3, func(p *drivers.Policy) { p.Staged = false }, nil, true},
		{"a rule that is not taken apart", t3, func(p *drivers.Policy) {
			p.In = []drivers.Rule{{Action: drivers.Allow, Match: drivers.Match{NotProto: ptr(uint8(6))}}}
		}, []string{groupName(c)}, true},
		{"nothing, once more", t3, func(p *drivers.Policy) {}, nil, false},
	} {
		version := c.version
		got := touched(x.id, x.change)
		slices.Sort(x.want)
		if !slices.Equal(got, x.want) || (c.version != version) != x.analysed {
			t.Errorf("%s: %v, want %v; it looks different: %t", x.what, got, x.want, c.version != version)
		}
	}
}

// groupName is the end of the name of the one group.
func groupName(c *compiler) string {
	for k := range c.prog.Chains {
		if strings.HasPrefix(k.Name, "g-") {
			return k.Name[strings.LastIndex(k.Name, "-")+1:]
		}
	}
	return ""
}

// randomMerged is a merged content of one shape. Contents of one seed have the same shape and the same sets, of which some
// have another value.
func randomMerged(rng *rand.Rand, s shape, atoms int, ranked bool) *merged {
	as, ranks, sets := map[atom]*drivers.ObjectRef{}, map[atom]rank{}, map[drivers.SetID]*drivers.Set{}
	for range atoms {
		a := atom{shape: s, num: uint8(rng.IntN(2)), port: uint16(rng.IntN(3))}
		if !s.proto {
			a.num = 0
		}
		if !s.port {
			a.port = 0
		}
		address := func() netip.Addr {
			if s.v6 {
				return netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(rng.IntN(12))})
			}
			return netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(12))})
		}
		switch {
		case s.side == noAddr:
		case rng.IntN(2) == 0:
			a.addr = address()
		default:
			a.set = drivers.SetID(fmt.Sprint(rng.IntN(6)))
			if sets[a.set] == nil {
				ms := []drivers.Member{drivers.AddrMember(addr("10.9.9.9")), drivers.AddrMember(addr("fd99::9"))}
				for range rng.IntN(4) {
					ms = append(ms, drivers.AddrMember(address()))
				}
				sets[a.set] = drivers.NewSet(drivers.SetNet, ms...)
			}
		}
		as[a] = &drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: np(fmt.Sprint(rng.IntN(3)))}
		ranks[a] = rank{at: rng.IntN(100), deny: rng.IntN(2) == 0}
	}
	// Of two atoms one is always the first.
	at := map[int]bool{}
	for _, a := range slices.SortedFunc(maps.Keys(ranks), compareAtoms) {
		r := ranks[a]
		for at[r.at] {
			r.at++
		}
		at[r.at], ranks[a] = true, r
	}
	if !ranked {
		ranks = nil
	}
	return newMerged(as, ranks, sets)
}

// spelled is what a merged content has to have, atom by atom: the first one decides.
func spelled(m *merged) elems {
	es, at := elems{}, map[string]int{}
	for a := range m.atoms {
		addrs := []netip.Addr{a.addr}
		if a.set != "" {
			addrs = nil
			for x := range m.sets[a.set].All() {
				if x.Prefix.Addr().Is6() == a.v6 {
					addrs = append(addrs, x.Prefix.Addr())
				}
			}
		}
		for _, x := range addrs {
			e := Elem{Key: a.key(x)}
			if m.ranks != nil {
				e.Kind = m.ranks[a].kind()
			}
			if was, ok := at[e.Key]; !ok || m.ranks[a].at < was {
				at[e.Key] = m.ranks[a].at
				es.put(e)
			}
		}
	}
	return es
}

// TestMergedContents: what merged contents of every shape say of themselves and of what differs between two of them, be it
// little or much, is what they are when spelled out.
func TestMergedContents(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 7))
	var few, many int
	for i := range 300 {
		s := []shape{
			{side: srcAddr, proto: true, port: true}, {side: dstAddr, v6: true, proto: true}, {side: srcAddr}, {proto: true, port: true}, {proto: true},
		}[i%5]
		ranked, size := i%2 == 0, []int{1, 4, 20, 60}[i%4]
		old, now := randomMerged(rng, s, size, ranked), randomMerged(rng, s, size, ranked)
		for _, m := range []*merged{old, now} {
			if diff := cmp.Diff(spelled(m), spelledOut(m)); diff != "" {
				t.Fatalf("%s: (-want +got):\n%s", s, diff)
			}
			if m.Len() < len(spelled(m)) {
				t.Fatalf("%s: %d elements, and it says %d", s, len(spelled(m)), m.Len())
			}
			if size == 1 && m.Len() != len(spelled(m)) {
				t.Fatalf("%s: one atom has %d elements, and says %d", s, len(spelled(m)), m.Len())
			}
		}
		if n := len(now.differing(old)); n > fewAtoms {
			many++
		} else if n > 0 {
			few++
		}
		from := []Content{old, spelledOut(old), elems{}, now, spelledOut(now)}
		if ranked != (i%3 == 0) { // a set that becomes a map is another object, and has no elements yet
			from = append(from, randomMerged(rng, s, 0, !ranked))
		}
		for n, old := range from {
			was := spelledOut(old)
			add, del := now.Diff(old)
			if diff := cmp.Diff(was, spelledOut(old)); diff != "" {
				t.Fatalf("%s, from %d: the comparison changed it:\n%s", s, n, diff)
			}
			have := spelledOut(old)
			if err := (delta{add, del}).follow(have); err != nil {
				t.Fatalf("%s, from %d: %v", s, n, err)
			}
			if diff := cmp.Diff(spelled(now), have); diff != "" {
				t.Fatalf("%s, from %d (-want +got):\n%s", s, n, diff)
			}
			if n > 2 && n < 5 && len(add)+len(del) > 0 {
				t.Fatalf("%s differs from itself: %v %v", s, add, del)
			}
			for _, e := range add {
				if x, ok := was[e.Key]; ok && x.Kind == e.Kind {
					t.Fatalf("%s, from %d: %x is there, and comes", s, n, e.Key)
				}
				if e.Owner == nil {
					t.Fatalf("%s, from %d: nobody is to blame for %x", s, n, e.Key)
				}
			}
			for _, e := range del {
				if e.Owner != nil {
					t.Fatalf("%s, from %d: %v is to blame for the removal of %x", s, n, e.Owner, e.Key)
				}
			}
		}
		if old.equal(now) != cmp.Equal(inDetail(old), inDetail(now)) || !now.equal(now) || !now.equal(newMerged(maps.Clone(now.atoms), maps.Clone(now.ranks), now.sets)) {
			t.Fatalf("%s: equal: %t\n%v\n%v", s, old.equal(now), inDetail(old), inDetail(now))
		}
		for id, set := range now.sets {
			other := set.With([]drivers.Member{drivers.AddrMember(addr("10.7.7.7")), drivers.AddrMember(addr("fd77::7"))}, nil)
			m := now.with(id, other)
			if m.equal(now) || now.equal(m) || now.sets[id] != set {
				t.Fatalf("%s: with another value of a set it is the same", s)
			}
			add, del := m.Diff(now)
			if len(del) != 0 || len(add) == 0 {
				t.Fatalf("%s: a set has a member more: %v %v", s, add, del)
			}
		}
	}
	if few < 50 || many < 20 {
		t.Errorf("%d pairs differ in few atoms, %d in many: this proves little", few, many)
	}
}

// inDetail is what a merged content is made of.
func inDetail(m *merged) map[string]string {
	d := map[string]string{"ranked": fmt.Sprint(m.ranks != nil)}
	for a, o := range m.atoms {
		d[fmt.Sprint(a.shape, a.set, a.addr, a.num, a.port)] = fmt.Sprintf("%s %v %p", o, m.ranks[a], m.sets[a.set])
	}
	return d
}

// TestMergedEqual: what makes a merged content another one.
func TestMergedEqual(t *testing.T) {
	t.Parallel()
	a, b := atom{shape: shape{proto: true}, num: 6}, atom{shape: shape{proto: true}, num: 17}
	ref := func(name string) *drivers.ObjectRef {
		return &drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: np(name)}
	}
	base := func(ranks map[atom]rank) *merged {
		return newMerged(map[atom]*drivers.ObjectRef{a: ref("p")}, ranks, nil)
	}
	for name, o := range map[string]*merged{
		"another atom":  newMerged(map[atom]*drivers.ObjectRef{b: ref("p")}, nil, nil),
		"one more":      newMerged(map[atom]*drivers.ObjectRef{a: ref("p"), b: ref("p")}, nil, nil),
		"another owner": newMerged(map[atom]*drivers.ObjectRef{a: ref("q")}, nil, nil),
		"ranks":         base(map[atom]rank{a: {}}),
		"none":          newMerged(nil, nil, nil),
	} {
		if m := base(nil); m.equal(o) || o.equal(m) {
			t.Errorf("%s: they are equal", name)
		}
	}
	m := base(map[atom]rank{a: {at: 1}})
	for name, r := range map[string]rank{"another place": {at: 2}, "another verdict": {at: 1, deny: true}} {
		if o := base(map[atom]rank{a: r}); m.equal(o) || o.equal(m) {
			t.Errorf("%s: they are equal", name)
		}
	}
	s := atom{shape: shape{side: srcAddr}, set: "s"}
	one := atom{shape: shape{side: srcAddr}, addr: addr("10.0.0.1")}
	both := newMerged(map[atom]*drivers.ObjectRef{s: {}, one: {}}, nil, map[drivers.SetID]*drivers.Set{"s": drivers.NewSet(drivers.SetNet)})
	left := map[drivers.Member]struct{}{drivers.AddrMember(addr("10.0.0.1")): {}, drivers.AddrMember(addr("10.0.0.2")): {}, drivers.AddrMember(addr("fd00::1")): {}}
	if d := both.delta(map[drivers.SetID]*drivers.SetChange{"s": {Removed: left}}); len(d.add) != 0 || len(d.del) != 1 || d.del[0].Key != "\x0a\x00\x00\x02" {
		t.Errorf("of three that left two are elements, and one of them stays: %v", d)
	}
	if !m.equal(base(map[atom]rank{a: {at: 1}})) || !base(nil).equal(base(nil)) {
		t.Error("they are not equal")
	}
}

// TestLoopsMayEnd: whoever asks for elements may have had enough.
func TestLoopsMayEnd(t *testing.T) {
	t.Parallel()
	set := drivers.NewSet(drivers.SetNet, drivers.AddrMember(addr("10.0.0.1")), drivers.AddrMember(addr("10.0.0.2")), drivers.AddrMember(addr("fd00::1")), drivers.AddrMember(addr("fd00::2")))
	a := atom{shape: shape{side: srcAddr}, set: "s"}
	with := newMerged(map[atom]*drivers.ObjectRef{a: {}}, nil, map[drivers.SetID]*drivers.Set{"s": set})
	without := newMerged(nil, nil, nil)
	other := newMerged(map[atom]*drivers.ObjectRef{a: {}}, nil, map[drivers.SetID]*drivers.Set{"s": drivers.NewSet(drivers.SetNet)})
	for _, c := range []Content{elems{"a": {Key: "a"}, "b": {Key: "b"}}, members{set: set}, members{set: set, v6: true}, with} {
		first(t, c.All())
	}
	first(t, with.each(a))
	first(t, with.affected(without, a))
	first(t, without.affected(with, a))
	first(t, with.affected(other, a))
	first(t, other.affected(with, a))
	third := newMerged(map[atom]*drivers.ObjectRef{a: {}}, nil, map[drivers.SetID]*drivers.Set{"s": drivers.NewSet(drivers.SetNet, drivers.AddrMember(addr("10.0.0.3")))})
	first(t, with.affected(third, a))
	first(t, runs([]Elem{{Key: "a", Owner: &drivers.ObjectRef{}}, {Key: "b"}}))
}

// first takes one of at least one.
func first[T any](t *testing.T, seq iter.Seq[T]) {
	t.Helper()
	for range seq {
		return
	}
	t.Error("there is none")
}

// TestDeltaInOrder: the same change is always the same message.
func TestDeltaInOrder(t *testing.T) {
	t.Parallel()
	come := map[drivers.Member]struct{}{}
	for i := range 20 {
		come[drivers.AddrMember(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}))] = struct{}{}
		come[drivers.AddrMember(netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)}))] = struct{}{}
	}
	for _, v6 := range []bool{false, true} {
		es := members{set: drivers.NewSet(drivers.SetNet), v6: v6}.delta(come)
		if len(es) != 20 || !slices.IsSortedFunc(es, func(a, b Elem) int { return strings.Compare(a.Key, b.Key) }) {
			t.Errorf("%v", es)
		}
	}
}

// TestMixing says which pieces are merged with which: such as do the same, or such as decide and look at one class of things.
func TestMixing(t *testing.T) {
	t.Parallel()
	a, b := atom{shape: shape{proto: true}, num: 6}, atom{shape: shape{side: srcAddr}}
	six := atom{shape: shape{side: srcAddr, v6: true}}
	pieces := map[string]*piece{
		"allow a":      {action: drivers.Allow, index: []int{0}, atoms: []atom{a}},
		"allow b":      {action: drivers.Allow, index: []int{0}, atoms: []atom{b}},
		"allow both":   {action: drivers.Allow, index: []int{0}, atoms: []atom{a, b}},
		"allow rest":   {action: drivers.Allow, index: []int{0}, atoms: []atom{a}, rest: []Rule{{Actions: does(ActAccept)}}},
		"allow none":   {action: drivers.Allow, index: []int{0}},
		"deny a":       {action: drivers.Deny, index: []int{0}, atoms: []atom{a}},
		"deny b":       {action: drivers.Deny, index: []int{0}, atoms: []atom{b}},
		"deny b of 46": {action: drivers.Deny, index: []int{0}, atoms: []atom{b, six}},
		"deny both":    {action: drivers.Deny, index: []int{0}, atoms: []atom{a, b}},
		"pass a":       {action: drivers.Pass, index: []int{0}, atoms: []atom{a}},
	}
	for _, x := range []struct {
		have  []string
		then  string
		takes bool
	}{
		{[]string{"allow a"}, "allow b", true},
		{[]string{"allow a"}, "allow both", true},
		{[]string{"allow a"}, "allow rest", true},
		{[]string{"allow rest"}, "allow none", true},
		{[]string{"allow a"}, "deny a", true},
		{[]string{"allow a"}, "deny b", false},
		{[]string{"allow b"}, "deny b of 46", true},
		{[]string{"deny b of 46"}, "allow b", true},
		{[]string{"allow both"}, "deny a", false},
		{[]string{"allow both"}, "deny b", false},
		{[]string{"allow both"}, "deny both", false},
		{[]string{"deny a"}, "allow both", false},
		{[]string{"deny a"}, "allow rest", false},
		{[]string{"deny a"}, "allow none", false},
		{[]string{"allow rest"}, "deny a", false},
		{[]string{"allow none"}, "deny a", false},
		{[]string{"allow a", "allow b"}, "deny a", false},
		{[]string{"allow a", "allow b"}, "deny b", false},
		{[]string{"allow a", "allow rest"}, "deny a", false},
		{[]string{"allow rest", "allow a"}, "deny a", false},
		{[]string{"allow a", "allow none"}, "deny a", false},
		{[]string{"allow a", "deny a"}, "allow a", true},
		{[]string{"allow a", "deny a"}, "allow b", false},
		{[]string{"allow a", "deny a"}, "allow rest", false},
		{[]string{"allow a"}, "pass a", false},
		{[]string{"pass a"}, "allow a", false},
		{[]string{"pass a"}, "pass a", true},
	} {
		g := newMerging(pieces[x.have[0]])
		for i, name := range x.have {
			g.add(np(name), i, pieces[name])
		}
		for _, st := range []style{stylePlain, styleOrig, styleUntracked} {
			want := x.takes && (st != styleUntracked || !g.mixed && pieces[x.then].action == g.action)
			if got := g.takes(pieces[x.then], st); got != want {
				t.Errorf("%s: %v and %s: %t", st, x.have, x.then, got)
			}
		}
	}
}

// TestTakenApart: a rule is taken apart only if its elements say all that it says.
func TestTakenApart(t *testing.T) {
	t.Parallel()
	about := func(id drivers.SetID) setFace {
		return map[drivers.SetID]setFace{"small": {small: true, has4: true, has6: true}, "four": {small: true, has4: true}, "big": {has4: true}, "none": {small: true}}[id]
	}
	one, net := []netip.Prefix{prefix("10.0.0.1/32"), prefix("fd00::1/128")}, []netip.Prefix{prefix("10.0.0.0/8")}
	ports := []drivers.PortRange{{First: 80, Last: 81}}
	base := func() *drivers.Rule {
		r := portRule(drivers.Allow, 80)
		r.Match.Src.Sets = []drivers.SetID{"small"}
		return &r
	}
	for name, x := range map[string]struct {
		change func(r *drivers.Rule)
		atoms  int // -1: it is not
	}{
		"as it is":           {func(*drivers.Rule) {}, 2},
		"one family":         {func(r *drivers.Rule) { r.Match.Src.Sets = []drivers.SetID{"four"} }, 1},
		"no member":          {func(r *drivers.Rule) { r.Match.Src.Sets = []drivers.SetID{"none"} }, 0},
		"a big set":          {func(r *drivers.Rule) { r.Match.Src.Sets = []drivers.SetID{"big"} }, -1},
		"two sets":           {func(r *drivers.Rule) { r.Match.Src.Sets = []drivers.SetID{"small", "four"} }, -1},
		"a set and a net":    {func(r *drivers.Rule) { r.Match.Src.Nets = one[:1] }, -1},
		"addresses":          {func(r *drivers.Rule) { r.Match.Src = drivers.Side{Nets: one} }, 2},
		"one address":        {func(r *drivers.Rule) { r.Match.Src = drivers.Side{Nets: one[:1]} }, 1},
		"a net":              {func(r *drivers.Rule) { r.Match.Src = drivers.Side{Nets: net} }, -1},
		"a net that is none": {func(r *drivers.Rule) { r.Match.Src = drivers.Side{Nets: []netip.Prefix{{}}} }, -1},
		"nobody":             {func(r *drivers.Rule) { r.Match.Src = drivers.Side{} }, 1},
		"no protocol":        {func(r *drivers.Rule) { r.Match.Proto = nil }, 6},
		"no port":            {func(r *drivers.Rule) { r.Match.Dst.Ports = nil }, 2},
		"two ports":          {func(r *drivers.Rule) { r.Match.Dst.Ports = ports }, 4},
		"ports of ICMP":      {func(r *drivers.Rule) { r.Match.Proto = ptr(uint8(l4ICMP)) }, 0},
		"an address only":    {func(r *drivers.Rule) { r.Match.Proto, r.Match.Dst.Ports = nil, nil }, 2},
		"every packet":       {func(r *drivers.Rule) { r.Match = drivers.Match{} }, -1},
		"the other end":      {func(r *drivers.Rule) { r.Match.Dst.Sets, r.Match.Src.Sets = r.Match.Src.Sets, nil }, 2},
		"a net there":        {func(r *drivers.Rule) { r.Match.Src.Sets, r.Match.Dst.Nets = nil, net }, -1},
		"both ends":          {func(r *drivers.Rule) { r.Match.Dst.Sets = []drivers.SetID{"four"} }, -1},
		"both ends, nets":    {func(r *drivers.Rule) { r.Match.Dst.Nets = one }, -1},
		"it logs":            {func(r *drivers.Rule) { r.Action = drivers.Log }, -1},
		"it passes":          {func(r *drivers.Rule) { r.Action = drivers.Pass }, 2},
		"a family":           {func(r *drivers.Rule) { r.Match.IPVersion = 4 }, -1},
		"not a protocol":     {func(r *drivers.Rule) { r.Match.NotProto = ptr(uint8(17)) }, -1},
		"ICMP":               {func(r *drivers.Rule) { r.Match.ICMP = &drivers.ICMP{} }, -1},
		"not ICMP":           {func(r *drivers.Rule) { r.Match.NotICMP = &drivers.ICMP{} }, -1},
		"HTTP":               {func(r *drivers.Rule) { r.Match.HTTP = &drivers.HTTP{} }, -1},
		"unsupported":        {func(r *drivers.Rule) { r.Match.Unsupported = []string{"x"} }, -1},
		"a source port":      {func(r *drivers.Rule) { r.Match.Src.Ports = ports }, -1},
		"not a net":          {func(r *drivers.Rule) { r.Match.Src.NotNets = net }, -1},
		"not a net there":    {func(r *drivers.Rule) { r.Match.Dst.NotNets = net }, -1},
		"not a set":          {func(r *drivers.Rule) { r.Match.Dst.NotSets = []drivers.SetID{"small"} }, -1},
		"a named port":       {func(r *drivers.Rule) { r.Match.Dst.PortSets = []drivers.SetID{"small"} }, -1},
		"not a port":         {func(r *drivers.Rule) { r.Match.Dst.NotPorts = ports }, -1},
		"not a named port":   {func(r *drivers.Rule) { r.Match.Dst.NotPortSets = []drivers.SetID{"small"} }, -1},
		"not two things":     {func(r *drivers.Rule) { r.Match.Src.NotNets, r.Match.Src.NotSets = net, []drivers.SetID{"small"} }, -1},
		"nor these":          {func(r *drivers.Rule) { r.Match.Dst.NotNets, r.Match.Dst.PortSets = net, []drivers.SetID{"small"} }, -1},
		"nor those":          {func(r *drivers.Rule) { r.Match.Dst.NotNets, r.Match.Dst.NotPorts = net, ports }, -1},
		"nor any of these":   {func(r *drivers.Rule) { r.Match.Dst.NotNets, r.Match.Dst.NotPortSets = net, []drivers.SetID{"small"} }, -1},
		"nor any of those":   {func(r *drivers.Rule) { r.Match.Dst.NotNets, r.Match.Dst.Services = net, []drivers.SetID{"small"} }, -1},
		"as many as it takes": {func(r *drivers.Rule) {
			r.Match.Proto, r.Match.Dst.Ports = nil, []drivers.PortRange{{First: 1, Last: 10}}
		}, 60},
		"and more": {func(r *drivers.Rule) {
			r.Match.Proto, r.Match.Dst.Ports = nil, []drivers.PortRange{{First: 1, Last: 11}}
		}, -1},
		"a service": {func(r *drivers.Rule) { r.Match.Dst.Services = []drivers.SetID{"small"} }, -1},
	} {
		r := base()
		x.change(r)
		if as, ok := atomsOf(r, about); ok != (x.atoms >= 0) || len(as) != max(0, x.atoms) {
			t.Errorf("%s: %v, %t", name, as, ok)
		}
	}
}

// TestSameShape: what a set must not differ in if it is to take another's elements.
func TestSameShape(t *testing.T) {
	t.Parallel()
	base := SetObject{Types: []Type{TAddr4, TPort}, Comment: "x"}
	for name, change := range map[string]func(*SetObject){
		"interval": func(s *SetObject) { s.Interval = true }, "verdict": func(s *SetObject) { s.Verdict = true }, "timed": func(s *SetObject) { s.Timed = true },
		"types": func(s *SetObject) { s.Types = []Type{TPort, TAddr4} }, "fewer types": func(s *SetObject) { s.Types = s.Types[:1] },
	} {
		o := base
		if change(&o); base.sameShape(&o) || o.sameShape(&base) {
			t.Errorf("another %s, and the same shape", name)
		}
	}
	if o := (SetObject{Types: []Type{TAddr4, TPort}, Comment: "y"}); !o.sameShape(&base) {
		t.Error("another comment, and another shape")
	}
}

// TestMergePorts: ranges in order, those that touch joined.
func TestMergePorts(t *testing.T) {
	t.Parallel()
	r := func(first, last uint16) drivers.PortRange { return drivers.PortRange{First: first, Last: last} }
	for _, x := range []struct{ in, want []drivers.PortRange }{
		{nil, nil},
		{[]drivers.PortRange{r(5, 4)}, nil},
		{[]drivers.PortRange{r(7, 9), r(5, 4), r(1, 2)}, []drivers.PortRange{r(1, 2), r(7, 9)}},
		{[]drivers.PortRange{r(1, 9), r(3, 4), r(10, 10)}, []drivers.PortRange{r(1, 10)}},
		{[]drivers.PortRange{r(3, 3), r(1, 1)}, []drivers.PortRange{r(1, 1), r(3, 3)}},
		{[]drivers.PortRange{r(60000, 65535), r(65535, 65535)}, []drivers.PortRange{r(60000, 65535)}},
	} {
		was := slices.Clone(x.in)
		if got := mergePorts(x.in); !slices.Equal(got, x.want) || !slices.Equal(x.in, was) {
			t.Errorf("%v: %v, want %v", was, got, x.want)
		}
	}
}

// TestFullIsNotExact: where a hint says that a set may be anything there is no exact change of what has its members.
func TestFullIsNotExact(t *testing.T) {
	t.Parallel()
	s := tierOf(1, func(int) []drivers.Rule {
		r, q := portRule(drivers.Allow, 1), portRule(drivers.Allow, 2)
		r.Match.Src.Sets, q.Match.Src.Sets = []drivers.SetID{"a"}, []drivers.SetID{"b"}
		return []drivers.Rule{r, q}
	})
	member := drivers.AddrMember(addr("10.66.0.2"))
	for _, id := range []drivers.SetID{"a", "b"} {
		s.Sets[id] = drivers.NewSet(drivers.SetNet, drivers.AddrMember(addr("10.66.0.1")))
	}
	for i := range 20 { // whichever set comes first
		full := i%2 == 1
		c := newCompiler()
		c.limits = mergeAll()
		c.update(s.Clone(), nil)
		c.touched = map[Key]struct{}{}
		now := s.Clone()
		now.Sets["a"] = s.Sets["a"].With([]drivers.Member{member}, nil)
		ch := drivers.NewChanges()
		ch.Sets["a"] = &drivers.SetChange{Added: map[drivers.Member]struct{}{member: {}}}
		ch.Sets["b"] = &drivers.SetChange{Full: full, Added: map[drivers.Member]struct{}{}}
		c.update(now, ch)
		if ds := deltasOf(c, ch); (len(ds) == 0) != full {
			t.Errorf("full: %t, exact changes: %v", full, ds)
		}
		plain := newCompiler()
		plain.limits = noMerging()
		plain.update(s.Clone(), nil)
		plain.update(now, ch)
		if ds := deltasOf(plain, ch); (len(ds) == 1) != full || len(ds) == 0 {
			t.Errorf("full: %t, exact changes of sets that rules ask: %v", full, ds)
		}
		// What has been changed since it was written, and changes again, has no exact change.
		again := now.Clone()
		again.Sets["a"] = now.Sets["a"].With(nil, []drivers.Member{member})
		ch = drivers.NewChanges()
		ch.Sets["a"] = &drivers.SetChange{Removed: map[drivers.Member]struct{}{member: {}}}
		c.update(again, ch)
		if ds := deltasOf(c, ch); len(ds) != 0 {
			t.Errorf("exact changes of what has not been written: %v", ds)
		}
		c.update(now, nil)
		alone := newCompiler()
		alone.limits = c.limits
		alone.update(now, nil)
		if diff := cmp.Diff(inFull(alone.prog), inFull(c.prog)); diff != "" {
			t.Errorf("without a hint (-alone +here):\n%s", diff)
		}
	}
}

// TestSetsWithoutHint: sets that are other ones now are found without a hint, also those that are merged into others.
func TestSetsWithoutHint(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]limits{"as it is": defaultLimits(), "all merged": mergeAll()} {
		s := tierOf(3, func(i int) []drivers.Rule {
			r := portRule(drivers.Allow, 80+i)
			r.Match.Src.Sets = []drivers.SetID{"s"}
			return []drivers.Rule{r}
		})
		c := newCompiler()
		c.limits = l
		for i, ms := range [][]drivers.Member{
			{drivers.AddrMember(addr("10.66.0.1"))},
			{drivers.AddrMember(addr("10.66.0.1")), drivers.AddrMember(addr("fd00::1"))},
			{drivers.NetMember(netip.MustParsePrefix("10.0.0.0/8"))},
			{drivers.AddrMember(addr("10.66.0.2"))},
			nil,
		} {
			s.Sets["s"] = drivers.NewSet(drivers.SetNet, ms...)
			c.update(s.Clone(), nil)
			fresh := newCompiler()
			fresh.limits = l
			fresh.update(s.Clone(), nil)
			if diff := cmp.Diff(inFull(fresh.prog), inFull(c.prog)); diff != "" {
				t.Fatalf("%s, set %d (-fresh +here):\n%s", name, i, diff)
			}
		}
	}
}
