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

// pure reports whether all that the policy does is one thing that can be merged with what its neighbours do.
func (a *analysis) pure() bool {
	return len(a.pieces) == 1 && (a.pieces[0].action == drivers.Allow || a.pieces[0].action == drivers.Deny)
}

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
		if n < 0 || ps[n].action != action || action == drivers.Log || len(ps[n].index) == maxPiece {
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

// merging collects pieces that do the same.
type merging struct {
	action drivers.Action
	ids    []drivers.PolicyID
	shapes map[shape]map[atom]*drivers.ObjectRef
	rest   []Rule
	seen   map[string]bool // rules of rest, by what they say
}

func newMerging(action drivers.Action) *merging {
	return &merging{action: action, shapes: map[shape]map[atom]*drivers.ObjectRef{}, seen: map[string]bool{}}
}

func (g *merging) add(id drivers.PolicyID, p *piece) {
	g.ids = append(g.ids, id)
	ref := &drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id}
	for _, a := range p.atoms {
		if g.shapes[a.shape] == nil {
			g.shapes[a.shape] = map[atom]*drivers.ObjectRef{}
		}
		if g.shapes[a.shape][a] == nil {
			g.shapes[a.shape][a] = ref
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

// rules are one rule for each shape, and the rest. name begins the names of the sets.
func (g *merging) rules(c *compiler, u *unit, name string, st style) []Rule {
	act := ruleActions(&drivers.Rule{Action: g.action}, st)
	m := &matcher{c: c, unit: u, orig: st == styleOrig}
	var rules []Rule
	for _, s := range slices.SortedFunc(maps.Keys(g.shapes), func(a, b shape) int { return cmp.Compare(a.String(), b.String()) }) {
		key := Key{Inet, name + "-" + s.String()}
		c.mergedSet(u, &SetObject{Key: key, Types: s.types(), Content: newMerged(g.shapes[s], c.st.Sets), Owner: nodeRef()})
		var fs []Field
		var ms []Match
		at := m.end(s.side == dstAddr, s.v6)
		if s.side != noAddr {
			ms, fs = append(ms, isFamily(s.v6)), append(fs, at.addr)
		}
		if s.proto {
			fs = append(fs, FL4Proto)
		}
		if s.port {
			fs = append(fs, m.end(true, s.v6).port)
		}
		rules = append(rules, Rule{Matches: append(ms, in(key.Name, fs...)), Actions: act, Comment: "merged"})
	}
	return append(rules, g.rest...)
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
		case !a.missing && a.pure():
			r.enforced = true
			if g == nil || g.action != a.pieces[0].action {
				flush()
				g = newMerging(a.pieces[0].action)
			}
			g.add(id, &a.pieces[0])
			continue
		}
		flush()
		one := c.policyRun(u, []drivers.PolicyID{id}, in, st)
		r.rules = append(r.rules, one.rules...)
		r.enforced, r.pass = r.enforced || one.enforced, r.pass || one.pass
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
	for n := range pieces {
		p := &pieces[n]
		if len(p.index)-len(p.rest) < c.limits.rules {
			for _, i := range p.index {
				one(i)
			}
			continue
		}
		g := newMerging(p.action)
		g.add(ch.Owner.Policy, p)
		ch.Rules = append(ch.Rules, g.rules(c, u, strings.Replace(ch.Name, "p-", "m-", 1)+"-"+fmt.Sprint(n), st)...)
	}
}
