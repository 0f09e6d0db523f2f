package calcgraph

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"math"
	"reflect"
	"slices"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// policy is a policy whose selector, tier and order can be read.
type policy struct {
	id      drivers.PolicyID
	spec    policySpec
	tier    *tier
	tie     string // decides between equal orders
	subject *sel[selPolicies]
	hash    uint64 // of id, in this process

	gone   bool
	marked bool // in policies.dirty
	active bool // some endpoint of this node has it in a list

	// The rules as the store has them are forgotten when they have been read. held is the sets that they refer to: while
	// the policy is not active they are not held, and only say what to hold when it becomes so again.
	unread   bool
	value    *drivers.Policy
	held     []*set
	problems []Problem
}

// selPolicies is the policies with a subject selector, and the endpoints of this node that it selects.
type selPolicies struct {
	policies         []*policy
	members          posting
	workloads, hosts int // members
}

// policies decides which policies and profiles are active: those that are in a list of an endpoint of this node.
type policies struct {
	seed     maphash.Seed
	index    *index[selPolicies] // of this node's endpoints
	sets     *sets
	tiers    *tiers
	locals   *locals
	byKey    map[api.Key]*policy
	byID     map[drivers.PolicyID]*policy
	profiles map[string]*profile
	fresh    []*policy // whose subject may not be live yet
	idle     []*sel[selPolicies]
	dirty    []*policy
	changed  map[drivers.PolicyID]struct{} // to be reported
	staged   map[drivers.PolicyID]struct{} // whose value may be another one
	ranked   []*policy                     // active, in order; those that are gone leave at flush
	entered  []*policy                     // newly active, not ranked yet
	left     bool
	out      emitted[drivers.PolicyID, drivers.Policy]
}

func newPolicies(l *labels, t *things, s *sets) *policies {
	p := &policies{
		seed:  maphash.MakeSeed(),
		index: newIndex[selPolicies](l, t), sets: s, tiers: newTiers(), byKey: map[api.Key]*policy{},
		byID: map[drivers.PolicyID]*policy{}, profiles: map[string]*profile{}, changed: map[drivers.PolicyID]struct{}{},
		staged: map[drivers.PolicyID]struct{}{},
		out:    newEmitted[drivers.PolicyID](samePolicy),
	}
	p.index.visit = p.visit
	return p
}

func samePolicy(a, b *drivers.Policy) bool { return reflect.DeepEqual(a, b) }

// set takes in a policy, nil if it is gone, and returns what is wrong with it.
func (ps *policies) set(key api.Key, o api.Object) []Problem {
	probs := problems{key: key}
	old := ps.byKey[key]
	if o == nil {
		ps.remove(key, old)
		return nil
	}
	spec, ok := readPolicy(o)
	if !ok { // a staged policy that has nothing to watch
		ps.remove(key, old)
		return nil
	}
	if math.IsNaN(spec.order) {
		probs.add("spec.order", "the policy is ignored: the order is not a number")
		ps.remove(key, old)
		return probs.list
	}
	subject, err := api.SubjectSelector(o)
	if err != nil {
		probs.add("spec", "the policy is ignored: %v", err)
		ps.remove(key, old)
		return probs.list
	}
	if old != nil && old.subject.text.String() == subject.String() && old.spec.sameButRules(&spec) {
		if !old.unread || !reflect.DeepEqual(old.spec, spec) {
			old.spec, old.unread = spec, true
			ps.mark(old)
		}
		return nil
	}
	p := &policy{id: drivers.PolicyID{Kind: drivers.PolicyKind(key.Kind), Namespace: key.Namespace, Name: key.Name}, spec: spec, unread: true}
	p.tie = fmt.Sprintf("%s/%s/%s", key.Name, key.Namespace, key.Kind)
	p.hash = maphash.Comparable(ps.seed, p.id)
	p.tier = ps.tiers.get(spec.tier)
	p.subject = ps.index.hold(subject)
	ps.remove(key, old)
	ps.byKey[key], ps.byID[p.id] = p, p
	ps.fresh = append(ps.fresh, p)
	ps.mark(p)
	return nil
}

func (ps *policies) remove(key api.Key, p *policy) {
	if p == nil {
		return
	}
	delete(ps.byKey, key)
	delete(ps.byID, p.id)
	p.gone = true
	d := &p.subject.data
	if i := slices.Index(d.policies, p); i >= 0 {
		d.policies = slices.Delete(d.policies, i, i+1)
		for id := range d.members.all() {
			ps.locals.mark(ps.index.things.all[id].local)
		}
	}
	ps.tiers.letGo(p.tier)
	if p.subject.refs--; p.subject.refs == 0 {
		ps.idle = append(ps.idle, p.subject)
	}
	ps.mark(p)
}

func (ps *policies) mark(p *policy) {
	if !p.marked {
		p.marked = true
		ps.dirty = append(ps.dirty, p)
	}
}

// visit notes that an endpoint of this node is, or is no longer, the subject of policies.
func (ps *policies) visit(c *change, s *sel[selPolicies], was, is bool) {
	if was != is {
		ps.flip(s, c.id, is)
	}
}

func (ps *policies) flip(s *sel[selPolicies], id uint32, is bool) {
	l := ps.index.things.all[id].local
	d := &s.data
	count := &d.workloads
	if l.host {
		count = &d.hosts
	}
	if is {
		d.members.add(id)
		l.subjects.set(s.id)
		*count++
	} else {
		d.members.remove(id)
		l.subjects.clear(s.id)
		*count--
	}
	ps.locals.mark(l)
	if *count <= 1 {
		for _, p := range d.policies {
			ps.mark(p)
		}
	}
}

// applies reports whether p is in a list of an endpoint of this node. Untracked and pre-DNAT policies are for host
// endpoints alone.
func (p *policy) applies() bool {
	d := &p.subject.data
	onWorkloads := d.workloads > 0 && !p.spec.untracked && !p.spec.preDNAT
	return !p.gone && (p.spec.in || p.spec.out) && (onWorkloads || d.hosts > 0)
}

// flush finds the subjects of new policies, reads the rules of what has become active and lets go of what no longer is.
func (ps *policies) flush() {
	ps.wake()
	for _, p := range ps.dirty {
		p.marked = false
		want := p.applies()
		if want {
			ps.readRules(p)
		}
		if want == p.active {
			continue
		}
		p.active = want
		ps.changed[p.id] = struct{}{}
		if want {
			ps.entered = append(ps.entered, p)
		} else {
			ps.left = true
			ps.sets.release(p.held)
		}
	}
	clear(ps.dirty)
	ps.dirty = ps.dirty[:0]
	ps.flushProfiles()
	for _, s := range ps.idle {
		if s.refs == 0 && ps.index.sels[s.text.String()] == s {
			for id := range s.data.members.all() {
				ps.index.things.all[id].local.subjects.clear(s.id)
			}
			ps.index.forget(s)
		}
	}
	ps.idle = nil
	ps.rank()
}

// wake brings the subject selectors of new policies to life.
func (ps *policies) wake() {
	var asleep []*sel[selPolicies]
	seen := map[*sel[selPolicies]]bool{}
	for _, p := range ps.fresh {
		if p.gone {
			continue
		}
		s := p.subject
		s.data.policies = append(s.data.policies, p)
		if s.live {
			for id := range s.data.members.all() {
				ps.locals.mark(ps.index.things.all[id].local)
			}
		} else if !seen[s] {
			seen[s] = true
			asleep = append(asleep, s)
		}
	}
	ps.fresh = nil
	ps.index.insert(asleep)
	for _, s := range asleep {
		ps.index.scan(s, func(id uint32) { ps.flip(s, id, true) })
	}
}

// rank keeps the active policies in order: by tier, then order, then name.
func (ps *policies) rank() {
	if ps.left {
		ps.ranked = slices.DeleteFunc(ps.ranked, func(p *policy) bool { return !p.active })
		ps.left = false
	}
	if ps.tiers.changed {
		slices.SortFunc(ps.ranked, comparePolicies)
		ps.locals.markAll()
		ps.tiers.changed = false
	}
	if len(ps.entered) == 0 {
		return
	}
	slices.SortFunc(ps.entered, comparePolicies)
	merged := make([]*policy, 0, len(ps.ranked)+len(ps.entered))
	old := ps.ranked
	for _, p := range ps.entered {
		n, _ := slices.BinarySearchFunc(old, p, comparePolicies)
		merged = append(append(merged, old[:n]...), p)
		old = old[n:]
	}
	ps.ranked = append(merged, old...)
	ps.entered = nil
}

func comparePolicies(a, b *policy) int {
	if a.tier != b.tier {
		return compareTiers(a.tier, b.tier)
	}
	return cmp.Or(cmp.Compare(a.spec.order, b.spec.order), cmp.Compare(a.tie, b.tie))
}

// readRules reads the rules of a policy that is to be active, unless that has been done, and holds the sets that they
// refer to.
func (ps *policies) readRules(p *policy) {
	switch {
	case !p.unread && p.active:
		return
	case !p.unread:
		for i, st := range p.held {
			p.held[i] = ps.sets.again(st)
		}
		ps.stage(p.id)
		return
	}
	r := &ruleReader{sets: ps.sets, namespace: p.id.Namespace, problems: problems{key: keyOf(p.id)}}
	v := &drivers.Policy{ID: p.id, Tier: p.spec.tier, Staged: p.spec.staged}
	if p.spec.in {
		v.In = r.rules("spec.ingress", true, p.spec.ingress)
	}
	if p.spec.out {
		v.Out = r.rules("spec.egress", false, p.spec.egress)
	}
	v.SetRuleIDs()
	if p.active {
		ps.sets.release(p.held)
	}
	p.unread, p.spec.ingress, p.spec.egress = false, nil, nil
	p.value, p.held, p.problems = v, r.held, r.problems.list
	ps.stage(p.id)
}

func keyOf(id drivers.PolicyID) api.Key {
	return api.Key{Kind: string(id.Kind), Namespace: id.Namespace, Name: id.Name}
}

// report says which policies and profiles are different.
func (ps *policies) report(u *drivers.Update) {
	ps.turned()
	for id := range ps.staged {
		if v, held := ps.current(id); v != nil {
			ps.out.stage(id, closePartial(v, held))
		}
	}
	clear(ps.staged)
	for id := range ps.changed {
		if v, _ := ps.current(id); v == nil {
			ps.out.stage(id, nil)
		}
	}
	clear(ps.changed)
	ps.out.flush(u.Policies)
}

// stage has report look at the value of a policy or profile.
func (ps *policies) stage(id drivers.PolicyID) { ps.staged[id] = struct{}{} }

// current returns the rules of an active policy or profile, and the sets that they refer to; nil if it is not active.
func (ps *policies) current(id drivers.PolicyID) (*drivers.Policy, []*set) {
	if id.Kind == drivers.KindProfile {
		if p := ps.profiles[id.Name]; p != nil && p.users > 0 {
			return p.value, p.held
		}
		return nil, nil
	}
	if p := ps.byID[id]; p != nil && p.active {
		return p.value, p.held
	}
	return nil, nil
}

// turned stages what refers to a set that has come to be partial, or is no longer. That is rare: all are looked at.
func (ps *policies) turned() {
	if len(ps.sets.turned) == 0 {
		return
	}
	turned := map[*set]bool{}
	for _, st := range ps.sets.turned {
		turned[st] = true
	}
	ps.sets.turned = nil
	uses := func(st *set) bool { return turned[st] }
	for _, p := range ps.ranked {
		if slices.ContainsFunc(p.held, uses) {
			ps.stage(p.id)
		}
	}
	for _, p := range ps.profiles {
		if slices.ContainsFunc(p.held, uses) {
			ps.stage(profileID(p.name))
		}
	}
}
