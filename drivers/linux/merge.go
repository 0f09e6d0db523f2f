package linux

import (
	"cmp"
	"iter"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// Rules that stand side by side and do the same need no order among them, so that many of them become one: a set of
// (address, protocol, port), of those of the three that they look at, and one rule that asks it. What a rule allows from a
// small set of addresses are the elements (each member, its protocol, its port); a member that comes or goes is an element
// in each such set, and no rule has to be written, nor any chain examined by the kernel again.

// limits say where merging is worth its while. Tests lower them.
type limits struct {
	groupMin int // tiers of more policies are cut into groups
	groupCut int // a group has about so many policies; a power of two
	policies int // so many policies of a group, side by side, are merged
	rules    int // so many rules of a policy, side by side, are merged
	members  int // sets of at most so many members are taken apart
}

func defaultLimits() limits {
	return limits{groupMin: 64, groupCut: 128, policies: 4, rules: 16, members: 256}
}

// noMerging keeps each rule by itself.
func noMerging() limits {
	l := defaultLimits()
	l.policies, l.rules = math.MaxInt, math.MaxInt
	return l
}

// The most that one rule may become, and the most rules that go into one merged set, so that a change of one of them
// compares little.
const (
	maxAtoms = 64
	maxPiece = 512
)

// shape is what the elements of a merged set consist of.
type shape struct {
	side  addrSide
	v6    bool // of the address
	proto bool
	port  bool // with proto only
}

type addrSide uint8

const (
	noAddr addrSide = iota
	srcAddr
	dstAddr
)

func (s shape) String() string {
	var b strings.Builder
	b.WriteString([...]string{"", "s", "d"}[s.side])
	if s.side != noAddr {
		b.WriteString(famName(s.v6))
	}
	if s.proto {
		b.WriteByte('p')
	}
	if s.port {
		b.WriteByte('d')
	}
	return b.String()
}

func (s shape) types() []Type {
	var ts []Type
	if s.side != noAddr {
		ts = append(ts, addrType(s.v6))
	}
	if s.proto {
		ts = append(ts, TProto)
	}
	if s.port {
		ts = append(ts, TPort)
	}
	return ts
}

// atom is what one rule allows (or denies) that can be said by elements of one shape: of every member of a set, of one
// address, or of any.
type atom struct {
	shape
	set  drivers.SetID // "" = addr
	addr netip.Addr
	num  uint8 // of the protocol
	port uint16
}

// suffix is what follows the address in the keys of an atom's elements.
func (a atom) suffix() string {
	switch proto := string([]byte{a.num}); {
	case a.shape.port:
		return concat(proto, bytes16(a.port))
	case a.proto && a.side == noAddr:
		return proto
	case a.proto:
		return concat(proto)
	}
	return ""
}

func (a atom) key(addr netip.Addr) string {
	if a.side == noAddr {
		return a.suffix()
	}
	return string(addr.AsSlice()) + a.suffix()
}

func compareAtoms(a, b atom) int {
	return cmp.Or(cmp.Compare(a.set, b.set), a.addr.Compare(b.addr), cmp.Compare(a.num, b.num), cmp.Compare(a.port, b.port))
}

// merged is the content of a merged set: atoms of one shape, and who is to blame for each: the set, or, where it has none,
// the policy. It is immutable.
type merged struct {
	atoms  map[atom]*drivers.ObjectRef
	bySet  map[drivers.SetID][]atom
	byTail map[tail][]atom
	sets   map[drivers.SetID]*drivers.Set // those that atoms name
	ranks  map[atom]rank                  // nil = all do the same, and nothing is before anything
}

// rank is where an atom's rule stands among those that were merged, and what it does. Of two atoms that have the same
// element the first one's rule decides.
type rank struct {
	at   int
	deny bool
}

func (r rank) kind() ActionKind {
	if r.deny {
		return ActDrop
	}
	return ActAccept
}

// tail is what atoms have beside an address.
type tail struct {
	num  uint8
	port uint16
}

func newMerged(atoms map[atom]*drivers.ObjectRef, ranks map[atom]rank, sets map[drivers.SetID]*drivers.Set) *merged {
	m := &merged{atoms: atoms, ranks: ranks, bySet: map[drivers.SetID][]atom{}, byTail: map[tail][]atom{}, sets: map[drivers.SetID]*drivers.Set{}}
	for a := range atoms {
		m.byTail[tail{a.num, a.port}] = append(m.byTail[tail{a.num, a.port}], a)
		if a.set == "" {
			continue
		}
		m.bySet[a.set] = append(m.bySet[a.set], a)
		m.sets[a.set] = sets[a.set]
	}
	for id, as := range m.bySet {
		ref := &drivers.ObjectRef{Kind: drivers.ObjSet, Set: id}
		for _, a := range as {
			atoms[a] = ref
		}
	}
	return m
}

// with is m after a set got another value.
func (m *merged) with(id drivers.SetID, s *drivers.Set) *merged {
	c := *m
	c.sets = maps.Clone(m.sets)
	c.sets[id] = s
	return &c
}

func (m *merged) equal(o *merged) bool {
	if len(m.atoms) != len(o.atoms) || len(m.sets) != len(o.sets) {
		return false
	}
	if (m.ranks == nil) != (o.ranks == nil) {
		return false
	}
	for a, owner := range m.atoms {
		if got, ok := o.atoms[a]; !ok || *got != *owner || m.ranks[a] != o.ranks[a] {
			return false
		}
	}
	for id, s := range m.sets {
		if o.sets[id] != s {
			return false
		}
	}
	return true
}

// each yields the keys of an atom's elements.
func (m *merged) each(a atom) iter.Seq[string] {
	return func(yield func(string) bool) {
		if a.set == "" {
			yield(a.key(a.addr))
			return
		}
		suffix := a.suffix()
		for x := range m.sets[a.set].All() {
			if addr := x.Prefix.Addr(); addr.Is6() == a.v6 && !yield(string(addr.AsSlice())+suffix) {
				return
			}
		}
	}
}

// Len is at least the number of elements.
func (m *merged) Len() int {
	n := 0
	for a := range m.atoms {
		switch {
		case a.set == "":
			n++
		case a.v6:
			n += m.sets[a.set].Len6()
		default:
			n += m.sets[a.set].Len4()
		}
	}
	return n
}

// All yields each element once, those of one owner one after another.
func (m *merged) All() iter.Seq[Elem] {
	return func(yield func(Elem) bool) {
		atoms := make([]atom, 0, len(m.atoms))
		for a := range m.atoms {
			atoms = append(atoms, a)
		}
		slices.SortFunc(atoms, func(a, b atom) int {
			return cmp.Or(cmp.Compare(m.ranks[a].at, m.ranks[b].at), compareAtoms(a, b))
		})
		seen := make(map[string]struct{}, m.Len())
		for _, a := range atoms {
			for k := range m.each(a) {
				if _, twice := seen[k]; twice {
					continue
				}
				seen[k] = struct{}{}
				if !yield(m.elem(k, a)) {
					return
				}
			}
		}
	}
}

// elem is the element of a key that an atom has.
func (m *merged) elem(key string, a atom) Elem {
	e := Elem{Key: key, Owner: m.atoms[a]}
	if m.ranks != nil {
		e.Kind = m.ranks[a].kind()
	}
	return e
}

// Diff is what differs from old. An element that is there for another reason now stays.
func (m *merged) Diff(old Content) (add, del []Elem) {
	if o, ok := old.(*merged); ok && (m.ranks == nil) == (o.ranks == nil) {
		if as := m.differing(o); len(as) <= fewAtoms {
			return m.compare(o, as)
		}
	}
	have, ok := old.(elems)
	if !ok {
		have = elems{}
		for e := range old.All() {
			have.put(e)
		}
	}
	both := 0
	for e := range m.All() {
		h, ok := have[e.Key]
		switch {
		case !ok:
			add = append(add, e)
		case h.Kind != e.Kind:
			add, del = append(add, e), append(del, Elem{Key: e.Key, Kind: h.Kind})
			both++
		default:
			both++
		}
	}
	if both == len(have) {
		return add, del
	}
	have = maps.Clone(have)
	for e := range m.All() {
		delete(have, e.Key)
	}
	for _, k := range sortedKeys(have) {
		del = append(del, Elem{Key: k, Kind: have[k].Kind})
	}
	return add, del
}

// fewAtoms can be compared one by one; with more it is faster to spell both contents out.
const fewAtoms = 32

// differing are the atoms that only one of the two has, or that are not the same in both, in order.
func (m *merged) differing(o *merged) []atom {
	var as []atom
	for a := range m.atoms {
		if _, ok := o.atoms[a]; !ok || m.sets[a.set] != o.sets[a.set] || m.ranks[a] != o.ranks[a] {
			as = append(as, a)
		}
	}
	for a := range o.atoms {
		if _, ok := m.atoms[a]; !ok {
			as = append(as, a)
		}
	}
	slices.SortFunc(as, compareAtoms)
	return as
}

// compare finds the differences from o that come of some atoms.
func (m *merged) compare(o *merged, as []atom) (add, del []Elem) {
	seen := map[string]struct{}{}
	for _, a := range as {
		for addr := range m.affected(o, a) {
			k := a.key(addr)
			if _, twice := seen[k]; twice {
				continue
			}
			seen[k] = struct{}{}
			now, isNow := m.first(a, addr)
			was, wasThere := o.first(a, addr)
			same := isNow && wasThere && m.ranks[now].deny == o.ranks[was].deny
			if wasThere && !same {
				e := o.elem(k, was)
				e.Owner = nil
				del = append(del, e)
			}
			if isNow && !same {
				add = append(add, m.elem(k, now))
			}
		}
	}
	return add, del
}

// affected yields the addresses for which an atom may make a difference between m and o.
func (m *merged) affected(o *merged, a atom) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if a.set == "" {
			yield(a.addr)
			return
		}
		_, inM := m.atoms[a]
		_, inO := o.atoms[a]
		onlySet := inM && inO && m.ranks[a] == o.ranks[a]
		each := func(s, other *drivers.Set) bool {
			for x := range s.All() {
				if x.Prefix.Addr().Is6() == a.v6 && !(onlySet && other.Has(x)) && !yield(x.Prefix.Addr()) {
					return false
				}
			}
			return true
		}
		if inM && !each(m.sets[a.set], o.sets[a.set]) {
			return
		}
		if inO {
			each(o.sets[a.set], m.sets[a.set])
		}
	}
}

// delta is what members that came and went in sets make of m, which has them already. What another atom has stays.
func (m *merged) delta(changes map[drivers.SetID]*drivers.SetChange) delta {
	come, leave := elems{}, elems{}
	for id, sc := range changes {
		for _, a := range m.bySet[id] {
			for x := range sc.Added {
				if x.Prefix.Addr().Is6() == a.v6 {
					come.put(Elem{Key: a.key(x.Prefix.Addr()), Owner: m.atoms[a]})
				}
			}
			for x := range sc.Removed {
				if x.Prefix.Addr().Is6() == a.v6 && !m.has(a, x.Prefix.Addr()) {
					leave.put(Elem{Key: a.key(x.Prefix.Addr())})
				}
			}
		}
	}
	return delta{add: slices.Collect(come.All()), del: slices.Collect(leave.All())}
}

// first is the atom that decides about the element that a, which is of the same shape, has for an address.
func (m *merged) first(a atom, addr netip.Addr) (found atom, ok bool) {
	x := drivers.AddrMember(addr)
	for _, b := range m.byTail[tail{a.num, a.port}] {
		if ok && m.ranks[found].at <= m.ranks[b].at {
			continue
		}
		if b.set == "" && b.addr == addr || b.set != "" && m.sets[b.set].Has(x) {
			found, ok = b, true
			if m.ranks == nil {
				break
			}
		}
	}
	return found, ok
}

func (m *merged) has(a atom, addr netip.Addr) bool {
	_, ok := m.first(a, addr)
	return ok
}

// setFace is what rules look at in a set, beyond its members.
type setFace struct {
	missing, held bool
	port          bool // it is of kind SetPort
	small         bool // it may be taken apart
	has4, has6    bool
}

// atomsOf takes a rule apart. It reports whether it could: whether all that the rule matches are the elements of atoms.
func atomsOf(r *drivers.Rule, about func(drivers.SetID) setFace) ([]atom, bool) {
	m := &r.Match
	if r.Action == drivers.Log || m.IPVersion != 0 || m.NotProto != nil || m.ICMP != nil || m.NotICMP != nil || m.HTTP != nil ||
		len(m.Unsupported) > 0 || len(m.Src.Ports) > 0 || !plainSide(&m.Src) || !plainSide(&m.Dst) {
		return nil, false
	}
	var src, dst, ends []atom
	ok := addrAtoms(&m.Src, srcAddr, about, &src) && addrAtoms(&m.Dst, dstAddr, about, &dst)
	hasSrc, hasDst := hasAddrs(&m.Src), hasAddrs(&m.Dst)
	switch {
	case !ok || hasSrc && hasDst:
		return nil, false
	case hasSrc:
		ends = src
	case hasDst:
		ends = dst
	default:
		ends = []atom{{}}
	}
	var protos []uint8
	switch {
	case m.Proto != nil:
		protos = []uint8{*m.Proto}
	case len(m.Dst.Ports) > 0:
		protos = []uint8{l4TCP, l4UDP, l4SCTP}
	}
	ports, ok := portsOf(m.Dst.Ports)
	switch {
	case !ok || len(protos) == 0 && !hasSrc && !hasDst:
		return nil, false // too many, or every packet
	case m.Proto != nil && len(m.Dst.Ports) > 0 && !hasPorts(*m.Proto):
		return nil, true // no packet
	case len(ends)*max(1, len(protos))*max(1, len(ports)) > maxAtoms:
		return nil, false
	}
	return product(ends, protos, ports, len(m.Dst.Ports) > 0), true
}

// product combines addresses, protocols (none = any) and ports.
func product(ends []atom, protos []uint8, ports []uint16, withPorts bool) []atom {
	var out []atom
	for _, a := range ends {
		if len(protos) == 0 {
			out = append(out, a)
		}
		for _, p := range protos {
			a.proto, a.num = true, p
			if !withPorts {
				out = append(out, a)
			}
			for _, port := range ports {
				a.shape.port, a.port = true, port
				out = append(out, a)
			}
		}
	}
	return out
}

func plainSide(s *drivers.Side) bool {
	return len(s.NotNets)+len(s.NotSets)+len(s.PortSets)+len(s.NotPorts)+len(s.NotPortSets)+len(s.Services) == 0
}

func hasAddrs(s *drivers.Side) bool { return len(s.Nets)+len(s.Sets) > 0 }

// addrAtoms are the ends of one side: a small set, or some single addresses.
func addrAtoms(s *drivers.Side, side addrSide, about func(drivers.SetID) setFace, to *[]atom) bool {
	switch {
	case len(s.Sets) > 1 || len(s.Sets) == 1 && len(s.Nets) > 0:
		return false
	case len(s.Sets) == 1:
		f := about(s.Sets[0])
		if f.has4 {
			*to = append(*to, atom{shape: shape{side: side}, set: s.Sets[0]})
		}
		if f.has6 {
			*to = append(*to, atom{shape: shape{side: side, v6: true}, set: s.Sets[0]})
		}
		return f.small
	}
	for _, p := range s.Nets {
		if !p.IsSingleIP() {
			return false
		}
		*to = append(*to, atom{shape: shape{side: side, v6: p.Addr().Is6()}, addr: p.Addr()})
	}
	return true
}

// portsOf spells ranges out, if that is short.
func portsOf(rs []drivers.PortRange) ([]uint16, bool) {
	var ports []uint16
	for _, r := range mergePorts(rs) {
		if int(r.Last)-int(r.First)+len(ports) >= maxAtoms {
			return nil, false
		}
		for p := int(r.First); p <= int(r.Last); p++ {
			ports = append(ports, uint16(p))
		}
	}
	return ports, true
}
