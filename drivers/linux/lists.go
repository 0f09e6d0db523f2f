package linux

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// style is how the same rules are rendered for different stages.
type style string

const (
	stylePlain     style = "plain"     // Allow ends the stage: accept
	styleUntracked style = "untracked" // Allow also takes the packet out of tracking
	styleOrig      style = "orig"      // destinations are those before DNAT
	styleProfile   style = "profile"   // Pass leads to the next profile: return
)

func dirName(in bool) string {
	if in {
		return "in"
	}
	return "out"
}

func hashName(parts ...string) string {
	h := hash64(parts...)
	return hex.EncodeToString(h[:])
}

// needSet is the unit of a model set; missing ones have a unit too, so that their coming is seen.
func (c *compiler) needSet(u *unit, id drivers.SetID) *unit {
	s := c.need(u, "set "+string(id), levelSet, func(s *unit) { c.buildSet(s, id) })
	c.sets[id] = s
	s.gone = func() { delete(c.sets, id) }
	return s
}

const (
	faceMissing = "missing"
	faceHeld    = "held" // left out of a trial
)

// buildSet puts the families of a set that have members into the program. Its face is its kind and, for each family,
// the name under which rules find it: rules are rendered anew if a family becomes empty, or its flavour another.
func (c *compiler) buildSet(u *unit, id drivers.SetID) {
	s := c.st.Sets[id]
	ref := drivers.ObjectRef{Kind: drivers.ObjSet, Set: id}
	switch {
	case s == nil:
		u.face = faceMissing
		return
	case c.hold[ref]:
		u.face = faceHeld
		return
	}
	u.face = "net"
	if s.Kind() == drivers.SetPort {
		u.face = "port"
	}
	for _, v6 := range []bool{false, true} {
		m := members{set: s, v6: v6}
		if m.Len() == 0 {
			u.face += " -"
			continue
		}
		flavour, types := "h", []Type{addrType(v6)}
		switch {
		case s.Kind() == drivers.SetPort:
			flavour, types = "p", append(types, TProto, TPort)
		case m.wide():
			flavour, m.interval = "i", true
		}
		key := Key{Inet, "s" + famName(v6) + flavour + "-" + hashName(string(id))}
		c.set(u, &SetObject{Key: key, Types: types, Interval: m.interval, Comment: shorten(string(id)), Content: m, Owner: ref})
		u.face += " " + key.Name
	}
}

func famName(v6 bool) string {
	if v6 {
		return "6"
	}
	return "4"
}

func addrType(v6 bool) Type {
	if v6 {
		return TAddr6
	}
	return TAddr4
}

// wide reports whether this family has a prefix shorter than an address.
func (m members) wide() bool {
	if m.set.Wide() == 0 {
		return false
	}
	for x := range m.set.All() {
		if x.Prefix.Addr().Is6() == m.v6 && !x.Prefix.IsSingleIP() {
			return true
		}
	}
	return false
}

// setName is the name of a family of a set that has been needed; "" if it has no members.
func (c *compiler) setName(id drivers.SetID, v6 bool) string {
	f := strings.Fields(c.sets[id].face)
	name := f[1]
	if v6 {
		name = f[2]
	}
	if name == "-" {
		return ""
	}
	return name
}

// constant puts a constant set into the program, named by its content and shared by whoever has the same.
func (c *compiler) constant(u *unit, types []Type, interval bool, es elems) string {
	parts := []string{fmt.Sprint(types, interval)}
	for _, k := range sortedKeys(es) {
		parts = append(parts, k, es[k].Last)
	}
	key := Key{Inet, "c-" + hashName(parts...)}
	c.need(u, "const "+key.Name, levelSet, func(s *unit) {
		c.set(s, &SetObject{Key: key, Types: types, Interval: interval, Content: es, Owner: drivers.ObjectRef{Kind: drivers.ObjNode}})
	})
	return key.Name
}

func (c *compiler) constPorts(u *unit, ranges []drivers.PortRange) string {
	es := elems{}
	interval := false
	for _, r := range ranges {
		interval = interval || r.First != r.Last
	}
	for _, r := range ranges {
		e := Elem{Key: bytes16(r.First)}
		if interval {
			e.Last = bytes16(r.Last)
		}
		es.put(e)
	}
	return c.constant(u, []Type{TPort}, interval, es)
}

// constNets is for one family of set.
func (c *compiler) constNets(u *unit, set *drivers.Set, v6 bool) string {
	es := elems{}
	m := members{set: set, v6: v6}
	m.interval = m.wide()
	for e := range m.All() {
		es.put(e)
	}
	return c.constant(u, []Type{addrType(v6)}, m.interval, es)
}

// needPolicy is a policy's rules of one direction in one style. Its face is "missing", "staged", or how it may end.
func (c *compiler) needPolicy(u *unit, id drivers.PolicyID, in bool, st style) *unit {
	p := c.need(u, "policy "+string(st)+" "+dirName(in)+" "+id.String(), levelPolicy, func(p *unit) { c.buildPolicy(p, id, in, st) })
	c.indexPolicy(id, p)
	return p
}

// indexPolicy lets a unit be found by the policy that it is made from.
func (c *compiler) indexPolicy(id drivers.PolicyID, u *unit) {
	if c.policies[id] == nil {
		c.policies[id] = map[*unit]struct{}{}
	}
	c.policies[id][u] = struct{}{}
	u.gone = func() {
		if delete(c.policies[id], u); len(c.policies[id]) == 0 {
			delete(c.policies, id)
		}
	}
}

const (
	faceStaged = "staged"
	facePass   = "pass"   // may set the mark of a pass
	faceNoPass = "nopass" // does not
)

func policyChain(id drivers.PolicyID, in bool, st style) Key {
	return Key{Inet, "p-" + dirName(in) + "-" + string(st) + "-" + hashName(string(id.Kind), id.Namespace, id.Name)}
}

func (c *compiler) buildPolicy(u *unit, id drivers.PolicyID, in bool, st style) {
	p := c.st.Policies[id]
	switch {
	case p == nil:
		u.face = faceMissing
		return
	case p.Staged && st != styleProfile:
		u.face = faceStaged
		return
	}
	ref := drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id}
	ch := &Chain{Key: policyChain(id, in, st), Owner: ref, Comment: shorten(id.String() + " " + dirName(in))}
	u.face = faceNoPass
	rules := rulesOf(p, in)
	if st != styleProfile && slices.ContainsFunc(rules, func(r drivers.Rule) bool { return r.Action == drivers.Pass }) {
		u.face = facePass
	}
	held := c.hold[ref]
	c.chainRules(u, ch, rules, st, &held)
	if held {
		ch.Rules, ch.Owner = []Rule{{Actions: does(ActDrop)}}, nodeRef()
	}
	c.chain(u, ch)
}

// resolve needs the sets that a rule names, and reports whether all are there and of the right kind. It sets held if one
// of them is left out of a trial.
func (c *compiler) resolve(u *unit, r *drivers.Rule, held *bool) bool {
	resolved := true
	each := func(ids []drivers.SetID, kind string) {
		for _, id := range ids {
			face := c.needSet(u, id).face
			*held = *held || face == faceHeld
			resolved = resolved && strings.HasPrefix(face, kind)
		}
	}
	for _, s := range []*drivers.Side{&r.Match.Src, &r.Match.Dst} {
		each(s.Sets, "net")
		each(s.NotSets, "net")
		each(s.PortSets, "port")
		each(s.NotPortSets, "port")
		each(s.Services, "port")
	}
	return resolved
}

func policyRules(m *matcher, r *drivers.Rule, resolved bool, st style) []Rule {
	comment := fmt.Sprintf("%016x", uint64(r.ID))
	if r.Name != "" {
		comment = shorten(comment + " " + r.Name)
	}
	if !resolved {
		return []Rule{{Actions: []Action{{Kind: ActDrop}}, Comment: comment + " (names a set that is missing)"}}
	}
	acts := ruleActions(r, st)
	if r.Match.HTTP != nil || len(r.Match.Unsupported) > 0 {
		if r.Action == drivers.Allow || r.Action == drivers.Log {
			return nil // what can't be judged allows nothing
		}
		acts = []Action{{Kind: ActDrop}}
	}
	if m.c.counting {
		acts = append([]Action{{Kind: ActCount}}, acts...)
	}
	var rules []Rule
	for _, ms := range m.rule(&r.Match) {
		rules = append(rules, Rule{Matches: ms, Actions: acts, Comment: comment})
	}
	return rules
}

func ruleActions(r *drivers.Rule, st style) []Action {
	switch r.Action {
	case drivers.Allow:
		if st == styleUntracked {
			return []Action{{Kind: ActNoTrack}, {Kind: ActAccept}}
		}
		return []Action{{Kind: ActAccept}}
	case drivers.Pass:
		if st == styleProfile {
			return []Action{{Kind: ActReturn}}
		}
		return []Action{{Kind: ActSetMark, Mark: MarkPass}, {Kind: ActReturn}}
	case drivers.Log:
		return []Action{{Kind: ActLog, Prefix: fmt.Sprintf("%s%016x ", LogPrefix, uint64(r.ID))}}
	}
	return []Action{{Kind: ActDrop}}
}

func jump(chain string) Action { return Action{Kind: ActJump, Chain: chain} }

func does(k ActionKind) []Action { return []Action{{Kind: k}} }

// ifPassed returns from a chain if a policy that it jumped to passed.
func ifPassed() Rule {
	return Rule{Matches: []Match{match(FMark, OpAny, native32(MarkPass))}, Actions: does(ActReturn)}
}

func clearPass() Rule { return Rule{Actions: []Action{{Kind: ActClearMark, Mark: MarkPass}}} }

func native32(n uint32) string { return string(binary.NativeEndian.AppendUint32(nil, n)) }

// run is how a run of a tier's policies is rendered: the rules, whether one of them may pass, and whether any is
// enforced. A missing policy ends it with a drop.
type run struct {
	rules    []Rule
	pass     bool
	enforced bool
	missing  bool
}

func (c *compiler) policyRun(u *unit, ids []drivers.PolicyID, in bool, st style) run {
	var r run
	for _, id := range ids {
		switch face := c.needPolicy(u, id, in, st).face; face {
		case faceMissing:
			r.rules = append(r.rules, Rule{Actions: does(ActDrop), Comment: shorten(id.String() + " is missing")})
			r.missing, r.enforced = true, true
			return r
		case faceStaged:
		default:
			r.enforced = true
			r.rules = append(r.rules, Rule{Actions: []Action{jump(policyChain(id, in, st).Name)}, Comment: shorten(id.String())})
			if face == facePass {
				r.pass = true
				r.rules = append(r.rules, ifPassed())
			}
		}
	}
	return r
}

// groups cuts the policies of a long tier into groups, of their own chains, so that one policy that comes or goes
// re-renders one group and not a list of thousands; and lists that differ in little share most. Where to cut depends on
// the policies at the cut only.
func (l *limits) groups(ids []drivers.PolicyID) [][]drivers.PolicyID {
	if len(ids) <= l.groupMin {
		return nil
	}
	var out [][]drivers.PolicyID
	start := 0
	for i, id := range ids {
		if cutHash(id)&(uint64(l.groupCut)-1) == 0 || i-start+1 == 4*l.groupCut || i == len(ids)-1 {
			out = append(out, ids[start:i+1])
			start = i + 1
		}
	}
	return out
}

// cutHash is FNV-1a: it is asked of each policy of each list that changes.
func cutHash(id drivers.PolicyID) uint64 {
	h := uint64(14695981039346656037)
	for _, s := range [...]string{string(id.Kind), id.Namespace, id.Name} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	return h ^ h>>32
}

// policyIDs is one string for one list of policies.
func policyIDs(ids []drivers.PolicyID) string {
	b := make([]byte, 0, 64*len(ids))
	for _, id := range ids {
		for _, s := range [...]string{string(id.Kind), id.Namespace, id.Name} {
			b = append(strconv.AppendInt(b, int64(len(s)), 10), ':')
			b = append(b, s...)
		}
	}
	return string(b)
}

// tierRun is policyRun for a whole tier, with groups where it is long.
func (c *compiler) tierRun(u *unit, ids []drivers.PolicyID, in bool, st style) run {
	gs := c.limits.groups(ids)
	if gs == nil {
		return c.policyRun(u, ids, in, st)
	}
	var r run
	for _, g := range gs {
		name := "g-" + dirName(in) + "-" + string(st) + "-" + hashName(policyIDs(g))
		var names []string
		gu := c.need(u, "group "+name, levelGroup, func(gu *unit) {
			for _, id := range g[len(names):] {
				names = append(names, "analysis "+string(st)+" "+dirName(in)+" "+id.String())
			}
			gr := c.groupRun(gu, name, g, names, in, st)
			c.chain(gu, &Chain{Key: Key{Inet, name}, Rules: gr.rules, Owner: drivers.ObjectRef{Kind: drivers.ObjNode}})
			gu.face = fmt.Sprint(gr.pass, gr.enforced, gr.missing)
		})
		if gu.face == fmt.Sprint(false, false, false) {
			continue
		}
		r.enforced = true
		r.rules = append(r.rules, Rule{Actions: []Action{jump(name)}})
		if strings.HasPrefix(gu.face, "true") {
			r.pass = true
			r.rules = append(r.rules, ifPassed())
		}
		if strings.HasSuffix(gu.face, "true") {
			r.missing = true
			break
		}
	}
	return r
}

// tiers renders a tier list: the rules of its chain. Untracked and pre-DNAT stages have no end of tier.
func (c *compiler) tiers(u *unit, l *drivers.TierList, in bool, st style, early bool) []Rule {
	if l == nil {
		return nil
	}
	var rules []Rule
	for i := range l.Tiers {
		t := &l.Tiers[i]
		r := c.tierRun(u, t.Policies, in, st)
		if !r.enforced {
			continue
		}
		denies := t.Default != drivers.Pass && !early && !r.missing
		if denies {
			r.rules = append(r.rules, Rule{Actions: does(ActDrop), Comment: shorten("end of tier " + t.Name)})
		}
		if !r.pass {
			rules = append(rules, r.rules...)
			if denies || r.missing {
				return rules
			}
			continue
		}
		rules = append(rules, Rule{Actions: []Action{jump(c.needTier(u, t, in, st, early))}, Comment: shorten("tier " + t.Name)}, clearPass())
	}
	return rules
}

// needTier is the chain of a tier in which a policy may pass: from it a return leads to the next tier.
func (c *compiler) needTier(u *unit, t *drivers.TierPolicies, in bool, st style, early bool) string {
	key := policyIDs(t.Policies)
	name := "t-" + dirName(in) + "-" + string(st) + "-" + hashName(fmt.Sprint(t.Default, early), t.Name, key)
	ids, def, tier := t.Policies, t.Default, t.Name
	c.need(u, "tier "+name, levelTier, func(tu *unit) {
		r := c.tierRun(tu, ids, in, st)
		rules := append([]Rule{clearPass()}, r.rules...)
		if def != drivers.Pass && !early && !r.missing {
			rules = append(rules, Rule{Actions: does(ActDrop), Comment: shorten("end of tier " + tier)})
		}
		c.chain(tu, &Chain{Key: Key{Inet, name}, Rules: rules, Comment: shorten("tier " + tier), Owner: drivers.ObjectRef{Kind: drivers.ObjNode}})
	})
	return name
}

// failsafes says what a list's chain does with traffic that no policy may stop, before anything else.
type failsafes uint8

const (
	noFailsafes    failsafes = iota
	allowFailsafes           // Normal stages: accept
	leaveFailsafes           // pre-DNAT: leave the stage
	leaveBothWays            // untracked: leave it, replies as well
	leaveOrigDNAT            // pre-DNAT, by the port before DNAT
	numFailsafeKind
)

// listSpec names the chain of a tier list in one stage.
type listSpec struct {
	stage    string // for people
	list     *drivers.TierList
	in       bool
	style    style
	early    bool
	degraded bool
	safe     failsafes
}

func (c *compiler) listHash(l *drivers.TierList) string {
	if l == nil {
		return "none"
	}
	if h, ok := c.lists[l]; ok {
		return h
	}
	var parts []string
	for i := range l.Tiers {
		t := &l.Tiers[i]
		parts = append(parts, t.Name, fmt.Sprint(t.Default), policyIDs(t.Policies))
	}
	if len(c.lists) > 4096 {
		clear(c.lists)
	}
	c.lists[l] = hashName(parts...)
	return c.lists[l]
}

// needList gives the name of the chain of a list, whose end returns to the stage's base chain.
func (c *compiler) needList(u *unit, s listSpec) string {
	h := c.listHash(s.list)
	if s.degraded {
		h = "degraded"
	}
	name := fmt.Sprintf("l-%s-%s-%s", s.stage, dirName(s.in), hashName(h, string(s.style), fmt.Sprint(s.early, s.safe)))
	c.need(u, "list "+name, levelList, func(lu *unit) {
		rules := c.failsafeRules(lu, s)
		if s.degraded {
			rules = append(rules, Rule{Actions: does(ActDrop), Comment: "degraded"})
		} else {
			rules = append(rules, c.tiers(lu, s.list, s.in, s.style, s.early)...)
		}
		c.chain(lu, &Chain{Key: Key{Inet, name}, Rules: rules, Owner: drivers.ObjectRef{Kind: drivers.ObjNode}})
	})
	return name
}

// needProfiles gives the name of the chain of a list of profiles: the end of a stage, so it denies at its own end.
func (c *compiler) needProfiles(u *unit, ids []drivers.PolicyID, in bool) string {
	name := "r-" + dirName(in) + "-" + hashName(policyIDs(ids))
	c.need(u, "profiles "+name, levelList, func(pu *unit) {
		r := c.policyRun(pu, ids, in, styleProfile)
		rules := r.rules
		if !r.missing {
			rules = append(rules, Rule{Actions: does(ActDrop), Comment: "no policy and no profile allows it"})
		}
		c.chain(pu, &Chain{Key: Key{Inet, name}, Rules: rules, Owner: drivers.ObjectRef{Kind: drivers.ObjNode}})
	})
	return name
}
