package calcgraph

import (
	"slices"

	"github.com/tortie/tortie/drivers"
)

// lists interns tier lists: endpoints with equal lists share one, so that a driver renders it once.
type lists struct {
	byHash map[uint64][]*list
	byList map[*drivers.TierList]*list
}

type list struct {
	value *drivers.TierList
	hash  uint64
	refs  int
}

func newLists() *lists {
	return &lists{byHash: map[uint64][]*list{}, byList: map[*drivers.TierList]*list{}}
}

// build returns, held once, the lists of an endpoint that policies select, in order. A workload has Normal ones only.
func (ls *lists) build(ps []*policy, host bool) drivers.EndpointPolicy {
	in := func(s *policySpec) bool { return s.in }
	out := func(s *policySpec) bool { return s.out }
	pair := func(want func(*policySpec) bool) drivers.Directions {
		return drivers.Directions{In: ls.direction(ps, want, in), Out: ls.direction(ps, want, out)}
	}
	ep := drivers.EndpointPolicy{Normal: pair(func(s *policySpec) bool { return !s.untracked && !s.preDNAT })}
	if host {
		ep.Forward = pair(func(s *policySpec) bool { return s.forward && !s.untracked && !s.preDNAT })
		ep.PreDNAT = pair(func(s *policySpec) bool { return s.preDNAT })
		ep.Untracked = pair(func(s *policySpec) bool { return s.untracked && !s.preDNAT })
	}
	return ep
}

// direction returns the list of the policies that both want and dir hold for; nil if there are none.
func (ls *lists) direction(ps []*policy, want, dir func(*policySpec) bool) *drivers.TierList {
	var tl drivers.TierList
	var last *tier
	var hash uint64
	for _, p := range ps {
		if !want(&p.spec) || !dir(&p.spec) {
			continue
		}
		if p.tier != last {
			last = p.tier
			t := drivers.TierPolicies{Name: last.name, Default: last.def, Order: last.order, Staged: true}
			if p.spec.untracked || p.spec.preDNAT {
				t.Default = drivers.Pass // these have no end of tier
			}
			tl.Tiers = append(tl.Tiers, t)
			hash = hash*31 + 7
		}
		t := &tl.Tiers[len(tl.Tiers)-1]
		t.Policies = append(t.Policies, p.id)
		t.Staged = t.Staged && p.spec.staged
		hash = hash*31 + p.hash
	}
	if len(tl.Tiers) == 0 {
		return nil
	}
	return ls.intern(&tl, hash)
}

func (ls *lists) intern(tl *drivers.TierList, hash uint64) *drivers.TierList {
	for _, l := range ls.byHash[hash] {
		if slices.EqualFunc(l.value.Tiers, tl.Tiers, sameTier) {
			l.refs++
			return l.value
		}
	}
	l := &list{value: tl, hash: hash, refs: 1}
	ls.byHash[hash] = append(ls.byHash[hash], l)
	ls.byList[tl] = l
	return tl
}

func sameTier(a, b drivers.TierPolicies) bool {
	return a.Name == b.Name && a.Default == b.Default && a.Order == b.Order && a.Staged == b.Staged &&
		slices.Equal(a.Policies, b.Policies)
}

func (ls *lists) holdAll(ep drivers.EndpointPolicy) {
	for _, tl := range listsOf(ep) {
		if tl != nil {
			ls.byList[tl].refs++
		}
	}
}

func (ls *lists) releaseAll(ep drivers.EndpointPolicy) {
	for _, tl := range listsOf(ep) {
		l := ls.byList[tl]
		if l == nil {
			continue
		}
		if l.refs--; l.refs > 0 {
			continue
		}
		delete(ls.byList, tl)
		same := slices.DeleteFunc(ls.byHash[l.hash], func(x *list) bool { return x == l })
		if len(same) == 0 {
			delete(ls.byHash, l.hash)
		} else {
			ls.byHash[l.hash] = same
		}
	}
}

func listsOf(ep drivers.EndpointPolicy) [8]*drivers.TierList {
	return [8]*drivers.TierList{
		ep.Normal.In, ep.Normal.Out, ep.Forward.In, ep.Forward.Out,
		ep.PreDNAT.In, ep.PreDNAT.Out, ep.Untracked.In, ep.Untracked.Out,
	}
}
