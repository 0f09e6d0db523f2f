package calcgraph

import (
	"slices"

	"github.com/tortie/tortie/drivers"
)

// set is the members of a drivers.Set, counted by contributor: an address that two pods have stays until both are gone.
//
// There is no second copy of the members. What comes and goes is written to a log; flush sorts it and compares the sums
// with what the set holds: once, unless many or covered says otherwise.
type set struct {
	id   drivers.SetID
	kind drivers.SetKind
	refs int // rules

	// Where the members come from: a service, or the things that sel selects (of kind SetPort: their ports of this
	// name, of this protocol unless it is 0).
	sel      *sel[selSets]
	of       *index[selSets] // that sel is in: of things, or of nodes
	portName string
	proto    uint8
	service  *service

	queued  bool // in sets.touched
	emitted bool
	partial int // contributors that can't be read in full: there may be more members

	log       []entry
	compactAt int
	cur       *drivers.Set
	many      map[member]int32 // members with more than one contributor
	covered   sorted[member]   // contributed prefixes that lie within a member
}

// entry says that a member has d contributors more.
type entry struct {
	hi, lo uint64
	x      uint32
	d      int32
}

func (e entry) member() member { return member{e.hi, e.lo, e.x} }

// give logs that a thing contributes, or with d = -1 no longer does.
func (s *set) give(nets []member, ports *portList, d int32) {
	if s.kind == drivers.SetNet {
		for _, m := range nets {
			s.add(m, d)
		}
		return
	}
	if ports == nil {
		return
	}
	for _, p := range ports.ports {
		if !s.wants(p) {
			continue
		}
		for _, m := range nets {
			if !m.wide() {
				s.add(m.withPort(p.proto, p.port), d)
			}
		}
	}
}

// takes reports whether a thing with these ports may contribute.
func (s *set) takes(ports *portList) bool {
	return s.kind == drivers.SetNet || ports != nil && slices.ContainsFunc(ports.ports, s.wants)
}

func (s *set) wants(p namedPort) bool {
	return p.name == s.portName && (s.proto == 0 || s.proto == p.proto)
}

func (s *set) add(m member, d int32) {
	if len(s.log) >= max(s.compactAt, 1024) {
		s.compact()
		s.compactAt = 2 * len(s.log)
	}
	s.log = append(s.log, entry{m.hi, m.lo, m.x, d})
}

// compact sorts the log and adds up what it says of each member.
func (s *set) compact() {
	slices.SortFunc(s.log, func(a, b entry) int { return cmpMember(a.member(), b.member()) })
	out := s.log[:0]
	for _, e := range s.log {
		if n := len(out); n > 0 && out[n-1].member() == e.member() {
			out[n-1].d += e.d
			continue
		}
		if n := len(out); n > 0 && out[n-1].d == 0 {
			out = out[:n-1]
		}
		out = append(out, e)
	}
	if n := len(out); n > 0 && out[n-1].d == 0 {
		out = out[:n-1]
	}
	s.log = out
}

// flush brings cur up to date, and says what is different; ok is false if nothing is.
func (s *set) flush() (u drivers.SetUpdate, ok bool) {
	if s.cur == nil {
		s.cur = drivers.NewSet(s.kind)
	}
	came, went := s.settle()
	if s.kind == drivers.SetNet && (s.cur.Wide() > 0 || s.covered.n > 0 || slices.ContainsFunc(came, member.wide)) {
		came, went = s.cover(came, went)
	}
	if s.emitted && len(came)+len(went) == 0 {
		return u, false
	}
	u.Added, u.Removed = exportAll(came, s.kind), exportAll(went, s.kind)
	s.cur = s.cur.With(u.Added, u.Removed)
	u.Set = s.cur
	if !s.emitted {
		s.emitted = true
		u.Full, u.Added, u.Removed = true, nil, nil
	}
	return u, true
}

// settle empties the log into many, and returns the members that have their first contributor and those that lost their
// last.
func (s *set) settle() (came, went []member) {
	s.compact()
	for _, e := range s.log {
		m := e.member()
		was := s.count(m)
		now := was + e.d
		if now > 1 {
			if s.many == nil {
				s.many = map[member]int32{}
			}
			s.many[m] = now
		} else if was > 1 {
			delete(s.many, m)
		}
		switch {
		case was == 0 && now > 0:
			came = append(came, m)
		case was > 0 && now <= 0:
			went = append(went, m)
		}
	}
	s.log, s.compactAt = nil, 0
	return came, went
}

// count returns how many contributors m had at the last flush.
func (s *set) count(m member) int32 {
	if n, ok := s.many[m]; ok {
		return n
	}
	if s.cur.Len() > 0 && s.cur.Has(m.export(s.kind)) || s.covered.n > 0 && s.covered.has(m) {
		return 1
	}
	return 0
}

// cover turns what came and went into what a set without overlaps gains and loses. Members that lie within others are
// kept in covered; when what covers them goes, the widest of them come to light.
func (s *set) cover(came, went []member) (added, removed []member) {
	s.covered.cmp = cmpMember
	gone := map[member]bool{} // out of the set
	for _, m := range went {
		if !s.covered.remove(m) {
			gone[m] = true
			removed = append(removed, m)
		}
	}
	for _, m := range removed {
		if m.wide() {
			came = append(came, s.widestWithin(m)...)
		}
	}
	for _, m := range came {
		s.covered.remove(m) // those that come to light
	}
	slices.SortFunc(came, cmpMember)
	var top member
	for i, m := range came {
		if i > 0 && top.contains(m) {
			s.covered.insert(m)
			continue
		}
		top = m
		if by, ok := s.cur.Covering(m.prefix()); ok && !gone[prefixMember(by.Prefix)] {
			s.covered.insert(m)
			continue
		}
		added = append(added, m)
		if !m.wide() {
			continue
		}
		for w := range s.cur.Within(m.prefix()) {
			if in := prefixMember(w.Prefix); !gone[in] {
				gone[in] = true
				removed = append(removed, in)
				s.covered.insert(in)
			}
		}
	}
	return added, removed
}

// widestWithin returns the covered members within m that lie within no other.
func (s *set) widestWithin(m member) []member {
	var out []member
	for c := range s.covered.from(m) {
		if !m.contains(c) {
			break
		}
		if n := len(out); n == 0 || !out[n-1].contains(c) {
			out = append(out, c)
		}
	}
	return out
}
