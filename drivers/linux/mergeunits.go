package linux

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// needAbout is what rules look at in a set before they need it in the kernel, if they do.
func (c *compiler) needAbout(u *unit, id drivers.SetID) setFace {
	a := c.need(u, "about "+string(id), levelSet, func(a *unit) {
		f := c.about(id)
		a.val, a.face = f, fmt.Sprint(f)
	})
	c.abouts[id] = a
	a.gone = func() { delete(c.abouts, id) }
	f, _ := a.val.(setFace)
	return f
}

func (c *compiler) about(id drivers.SetID) setFace {
	s := c.st.Sets[id]
	switch {
	case s == nil:
		return setFace{missing: true}
	case c.hold[drivers.ObjectRef{Kind: drivers.ObjSet, Set: id}]:
		return setFace{held: true}
	case s.Kind() == drivers.SetPort:
		return setFace{port: true}
	}
	return setFace{small: s.Wide() == 0 && s.Len() <= c.limits.members, has4: s.Len4() > 0, has6: s.Len6() > 0}
}

// piece is rules of a policy, side by side, that do the same: those that can be taken apart as atoms, and the rest.
type piece struct {
	action drivers.Action
	index  []int // in the policy's list
	atoms  []atom
	rest   []Rule
}

func (p *piece) equal(o *piece) bool {
	return p.action == o.action && slices.Equal(p.index, o.index) && slices.Equal(p.atoms, o.atoms) &&
		slices.EqualFunc(p.rest, o.rest, func(a, b Rule) bool { return a.equal(&b) })
}

// analysis is a policy's rules of one direction, in one style, in pieces.
type analysis struct {
	missing, staged bool
	pieces          []piece
}

// class is what the atoms of a piece look at, whatever the family. It is uniform if that is the same for all, and all that
// there is.
func (p *piece) class() (class shape, uniform bool) {
	for i, a := range p.atoms {
		s := a.shape
		s.v6 = false
		if i > 0 && s != class {
			return shape{}, false
		}
		class = s
	}
	return class, len(p.rest) == 0 && len(p.atoms) > 0
}

// whole reports whether all that the policy does can be merged with what its neighbours do: one thing, or allowing and
// denying by one class.
func (a *analysis) whole(st style) bool {
	rules := 0
	first, _ := a.pieces[0].class()
	for i := range a.pieces {
		p := &a.pieces[i]
		rules += len(p.index)
		class, uniform := p.class()
		if !decides(p.action) || len(a.pieces) > 1 && (!uniform || class != first || st == styleUntracked) {
			return false
		}
	}
	return rules <= maxPiece
}

func decides(a drivers.Action) bool { return a == drivers.Allow || a == drivers.Deny }

func (a *analysis) equal(o *analysis) bool {
	return o != nil && a.missing == o.missing && a.staged == o.staged &&
		slices.EqualFunc(a.pieces, o.pieces, func(x, y piece) bool { return x.equal(&y) })
}

// needAnalysis is for groups: what it holds back from a trial does nothing.
func (c *compiler) needAnalysis(u *unit, name string, id drivers.PolicyID, in bool, st style) *analysis {
	a := c.need(u, name, levelPolicy, func(a *unit) {
		old, _ := a.val.(*analysis)
		now := &analysis{}
		switch p := c.st.Policies[id]; {
		case p == nil:
			now.missing = true
		case p.Staged:
			now.staged = true
		case !c.hold[drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id}]:
			held := false
			if now.pieces = c.analyse(a, rulesOf(p, in), st, &held); held {
				now.pieces = nil
			}
		}
		if !now.equal(old) {
			c.version++
			a.val, a.face = now, fmt.Sprint("version ", c.version)
		}
	})
	c.indexPolicy(id, a)
	v, _ := a.val.(*analysis)
	return v
}

func rulesOf(p *drivers.Policy, in bool) []drivers.Rule {
	if in {
		return p.In
	}
	return p.Out
}

// analyse cuts rules into pieces. It sets held if one of the sets is left out of a trial.
func (c *compiler) analyse(u *unit, rules []drivers.Rule, st style, held *bool) []piece {
	var ps []piece
	m := &matcher{c: c, unit: u, orig: st == styleOrig}
	for i := range rules {
		r := &rules[i]
		resolved := c.known(u, r, held)
		if *held {
			return nil
		}
		action := r.Action
		if unreadable := r.Match.HTTP != nil || len(r.Match.Unsupported) > 0; !resolved || unreadable && action == drivers.Pass {
			action = drivers.Deny // as policyRules has it
		}
		var atoms []atom
		apart := false
		if resolved {
			atoms, apart = atomsOf(r, func(id drivers.SetID) setFace { return c.needAbout(u, id) })
		}
		n := len(ps) - 1
		if n < 0 || ps[n].action != action || len(ps[n].index) == maxPiece {
			ps = append(ps, piece{action: action})
			n++
		}
		ps[n].index = append(ps[n].index, i)
		if apart {
			ps[n].atoms = append(ps[n].atoms, atoms...)
			continue
		}
		if resolved {
			c.resolve(u, r, held)
		}
		ps[n].rest = append(ps[n].rest, policyRules(m, r, resolved, st)...)
	}
	return ps
}

// known is resolve without the kernel's sets.
func (c *compiler) known(u *unit, r *drivers.Rule, held *bool) bool {
	resolved := true
	each := func(ids []drivers.SetID, port bool) {
		for _, id := range ids {
			f := c.needAbout(u, id)
			*held = *held || f.held
			resolved = resolved && !f.missing && f.port == port
		}
	}
	for _, s := range []*drivers.Side{&r.Match.Src, &r.Match.Dst} {
		each(s.Sets, false)
		each(s.NotSets, false)
		each(s.PortSets, true)
		each(s.NotPortSets, true)
		each(s.Services, true)
	}
	return resolved
}

// merging collects pieces: such as do the same, in whatever order; or such as allow and deny by one class of atoms, of which
// the first one that has an element decides about it.
type merging struct {
	action  drivers.Action
	class   shape
	uniform bool // all pieces are of class
	mixed   bool // they don't all do the same
	ids     []drivers.PolicyID
	pieces  []*piece
	shapes  map[shape]map[atom]*drivers.ObjectRef
	ranks   map[atom]rank
	rest    []Rule
	seen    map[string]bool // rules of rest, by what they say
}

func newMerging(p *piece) *merging {
	g := &merging{action: p.action, shapes: map[shape]map[atom]*drivers.ObjectRef{}, ranks: map[atom]rank{}, seen: map[string]bool{}}
	g.class, g.uniform = p.class()
	return g
}

// takes reports whether p may be merged with what is there.
func (g *merging) takes(p *piece, st style) bool {
	if p.action == g.action && !g.mixed {
		return true
	}
	class, uniform := p.class()
	return g.uniform && uniform && class == g.class && decides(g.action) && decides(p.action) && st != styleUntracked
}

// add takes a piece of the policy at a place in the order.
func (g *merging) add(id drivers.PolicyID, at int, p *piece) {
	g.pieces = append(g.pieces, p)
	g.mixed = g.mixed || p.action != g.action
	class, uniform := p.class()
	g.uniform = g.uniform && uniform && class == g.class
	if len(g.ids) == 0 || g.ids[len(g.ids)-1] != id {
		g.ids = append(g.ids, id)
	}
	ref := &drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id}
	for _, a := range p.atoms {
		if g.shapes[a.shape] == nil {
			g.shapes[a.shape] = map[atom]*drivers.ObjectRef{}
		}
		if g.shapes[a.shape][a] == nil {
			// Within a piece all do the same, and it is of no account which of its rules was first.
			g.shapes[a.shape][a], g.ranks[a] = ref, rank{at: at<<16 + p.index[0], deny: p.action == drivers.Deny}
		}
	}
	for _, r := range p.rest {
		bare := Rule{Matches: r.Matches, Actions: r.Actions}
		if text := bare.String(); !g.seen[text] {
			g.seen[text] = true
			r.Owner = ref
			g.rest = append(g.rest, r)
		}
	}
}

// takesAll is takes for pieces one after another.
func (g *merging) takesAll(ps []piece, st style) bool {
	for i := range ps {
		if !g.takes(&ps[i], st) {
			return false
		}
	}
	return len(ps) == 1 || g.uniform
}

// size is how many rules were taken apart.
func (g *merging) size() int {
	n := 0
	for _, p := range g.pieces {
		n += len(p.index) - len(p.rest)
	}
	return n
}

// rules are one rule for each shape, and the rest. name begins the names of the sets.
func (g *merging) rules(c *compiler, u *unit, name string, st style) []Rule {
	act := ruleActions(&drivers.Rule{Action: g.action}, st)
	m := &matcher{orig: st == styleOrig}
	var rules []Rule
	for _, s := range slices.SortedFunc(maps.Keys(g.shapes), func(a, b shape) int { return cmp.Compare(a.String(), b.String()) }) {
		o := &SetObject{Key: Key{Inet, name + "-" + s.String()}, Types: s.types(), Verdict: g.mixed, Owner: nodeRef()}
		var ranks map[atom]rank
		if g.mixed {
			o.Name += "v"
			ranks = g.ranks
		}
		o.Content = newMerged(g.shapes[s], ranks, c.st.Sets)
		c.mergedSet(u, o)
		var ms []Match
		if s.side != noAddr {
			ms = append(ms, isFamily(s.v6))
		}
		rules = append(rules, Rule{Matches: ms, Actions: act, Comment: "merged"})
		r, fs := &rules[len(rules)-1], m.fields(s)
		if g.mixed {
			r.Actions = []Action{{Kind: ActVMap, Field: fs[0], VMap: o.Name}}
			for _, f := range fs[1:] {
				r.Actions[0].More += string([]byte{byte(f)})
			}
		} else {
			r.Matches = append(ms, in(o.Name, fs...))
		}
	}
	return append(rules, g.rest...)
}

// fields are what a shape's elements are compared with.
func (m *matcher) fields(s shape) []Field {
	var fs []Field
	if s.side != noAddr {
		fs = append(fs, m.end(s.side == dstAddr, s.v6).addr)
	}
	if s.proto {
		fs = append(fs, FL4Proto)
	}
	if s.port {
		fs = append(fs, m.end(true, s.v6).port)
	}
	return fs
}

// mergedSet puts a merged set of u into the program. One that is as it was is not touched.
func (c *compiler) mergedSet(u *unit, s *SetObject) {
	old := c.prog.Sets[s.Key]
	if now, ok := s.Content.(*merged); ok && old != nil && old.sameShape(s) {
		if was, ok := old.Content.(*merged); ok && was.equal(now) {
			u.keys[s.Key] = struct{}{}
			return
		}
	}
	c.set(u, s)
}

// indexMerged keeps users up to date: which merged sets have the members of a set in them.
func (c *compiler) indexMerged(k Key, old, now *SetObject) {
	each := func(s *SetObject, fn func(id drivers.SetID)) {
		if s == nil {
			return
		}
		if m, ok := s.Content.(*merged); ok {
			for id := range m.sets {
				fn(id)
			}
		}
	}
	each(old, func(id drivers.SetID) {
		if delete(c.users[id], k); len(c.users[id]) == 0 {
			delete(c.users, id)
		}
	})
	each(now, func(id drivers.SetID) {
		if c.users[id] == nil {
			c.users[id] = map[Key]struct{}{}
		}
		c.users[id][k] = struct{}{}
	})
}

// members gives merged sets the new values of the sets that changed. exact becomes those of which nothing else has changed
// since they were written, and by which sets' changes.
func (c *compiler) members(ch *drivers.Changes, pending map[Key]struct{}) {
	c.exact = map[Key]map[drivers.SetID]*drivers.SetChange{}
	vague := map[Key]bool{}
	for id, sc := range ch.Sets {
		s := c.st.Sets[id]
		for k := range c.users[id] {
			o := *c.prog.Sets[k]
			m, ok := o.Content.(*merged)
			if !ok || s == nil || m.sets[id] == s && !sc.Full {
				continue // it was rendered anew
			}
			_, before := pending[k]
			if c.exact[k] == nil {
				_, rendered := c.touched[k]
				vague[k] = vague[k] || before || rendered
				c.exact[k] = map[drivers.SetID]*drivers.SetChange{}
			}
			vague[k] = vague[k] || sc.Full
			c.exact[k][id] = sc
			if m.sets[id] != s {
				o.Content = m.with(id, s)
				c.prog.Sets[k] = &o
				c.touched[k] = struct{}{}
			}
		}
	}
	maps.DeleteFunc(c.exact, func(k Key, _ map[drivers.SetID]*drivers.SetChange) bool { return vague[k] })
}

// groupRun is policyRun for a group: policies side by side that do the same are merged, if they are enough. names are those
// of the policies' units: to make them takes longer than all else.
func (c *compiler) groupRun(u *unit, name string, ids []drivers.PolicyID, names []string, in bool, st style) run {
	var r run
	var g *merging
	flush := func() {
		switch {
		case g == nil:
		case len(g.ids) >= c.limits.policies:
			r.rules = append(r.rules, g.rules(c, u, fmt.Sprintf("%s-%d", name, len(r.rules)), st)...)
		default:
			one := c.policyRun(u, g.ids, in, st)
			r.rules = append(r.rules, one.rules...)
			r.pass = r.pass || one.pass // one has a Pass rule that denies, as it can't be judged, and a chain that looks for its mark
		}
		g = nil
	}
	for i, id := range ids {
		a := c.needAnalysis(u, names[i], id, in, st)
		switch {
		case a.staged:
			continue
		case !a.missing && len(a.pieces) == 0:
			r.enforced = true
			continue
		case !a.missing && a.whole(st):
			r.enforced = true
			for n := range a.pieces {
				if n == 0 && (g == nil || !g.takesAll(a.pieces, st)) {
					flush()
					g = newMerging(&a.pieces[0])
				}
				g.add(id, i, &a.pieces[n])
			}
			continue
		}
		flush()
		one := c.policyRun(u, []drivers.PolicyID{id}, in, st)
		r.rules = append(r.rules, one.rules...)
		r.enforced, r.pass = true, r.pass || one.pass
		if one.missing {
			r.missing = true
			return r
		}
	}
	flush()
	return r
}

// chainRules are the rules of a policy's own chain. Long pieces are merged.
func (c *compiler) chainRules(u *unit, ch *Chain, rules []drivers.Rule, st style, held *bool) {
	m := &matcher{c: c, unit: u, orig: st == styleOrig}
	one := func(i int) {
		if resolved := c.resolve(u, &rules[i], held); !*held {
			ch.Rules = append(ch.Rules, policyRules(m, &rules[i], resolved, st)...)
		}
	}
	if len(rules) < c.limits.rules {
		for i := range rules {
			one(i)
		}
		return
	}
	pieces := c.analyse(u, rules, st, held)
	runs := 0
	for len(pieces) > 0 && !*held {
		g, n := newMerging(&pieces[0]), 0
		for length := 0; n < len(pieces); n++ {
			p := &pieces[n]
			if length += len(p.index); n > 0 && (length > maxPiece || !g.takes(p, st)) {
				break
			}
			g.add(ch.Owner.Policy, n, p)
		}
		if g.size() >= c.limits.rules {
			name := fmt.Sprintf("%s-%d", strings.Replace(ch.Name, "p-", "m-", 1), runs)
			ch.Rules = append(ch.Rules, g.rules(c, u, name, st)...)
			runs++
		} else {
			for i := range n {
				for _, at := range pieces[i].index {
					one(at)
				}
			}
		}
		pieces = pieces[n:]
	}
}
