package drivers

import (
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// SetKind is what the members of a Set are.
type SetKind uint8

const (
	SetNet  SetKind = iota // addresses and prefixes
	SetPort                // (address, protocol, port)
)

// Member is one member of a Set. Of kind SetNet: Prefix, masked; an address is a prefix of full length. Of kind SetPort:
// Prefix of full length, Proto and Port.
type Member struct {
	Prefix netip.Prefix
	Proto  uint8
	Port   uint16
}

// NetMember returns the member of a SetNet for p, masked.
func NetMember(p netip.Prefix) Member { return Member{Prefix: p.Masked()} }

// AddrMember returns the member of a SetNet for one address.
func AddrMember(a netip.Addr) Member { return Member{Prefix: netip.PrefixFrom(a, a.BitLen())} }

// PortMember returns the member of a SetPort.
func PortMember(a netip.Addr, proto uint8, port uint16) Member {
	return Member{Prefix: netip.PrefixFrom(a, a.BitLen()), Proto: proto, Port: port}
}

// String gives "10.0.0.1", "10.0.0.0/8" or "10.0.0.1,6:80" (protocol number and port).
func (m Member) String() string {
	s := m.Prefix.String()
	if m.Prefix.IsSingleIP() {
		s = m.Prefix.Addr().String()
	}
	if m.Proto != 0 || m.Port != 0 {
		s += "," + strconv.Itoa(int(m.Proto)) + ":" + strconv.Itoa(int(m.Port))
	}
	return s
}

// ParseMember reads what String gives.
func ParseMember(s string) (Member, error) {
	addr, port, isPort := strings.Cut(s, ",")
	if !isPort {
		if p, err := netip.ParsePrefix(addr); err == nil {
			return NetMember(p), nil
		}
		a, err := netip.ParseAddr(addr)
		if err != nil {
			return Member{}, fmt.Errorf("set member %q is neither an address nor a prefix", s)
		}
		return AddrMember(a.Unmap()), nil
	}
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return Member{}, fmt.Errorf("set member %q: %w", s, err)
	}
	ps, ns, _ := strings.Cut(port, ":")
	proto, err1 := strconv.ParseUint(ps, 10, 8)
	num, err2 := strconv.ParseUint(ns, 10, 16)
	if err1 != nil || err2 != nil {
		return Member{}, fmt.Errorf("set member %q: want ADDRESS,PROTOCOL:PORT in numbers", s)
	}
	return PortMember(a.Unmap(), uint8(proto), uint16(num)), nil
}

// Set is an immutable set of members of one kind, both families together, with packed keys inside: 8 bytes for each IPv4
// member, 24 for IPv6. No prefix in it lies within another: With drops what is covered, and its caller (which knows the
// contributors) says what comes to light when a covering prefix goes. With shares all but the touched parts.
type Set struct {
	kind SetKind
	v4   keys[uint64]
	v6   keys[key6]
	wide int // members of kind SetNet shorter than an address
}

type key6 struct {
	hi, lo uint64
	x      uint32 // prefix length, or protocol << 16 | port
}

func cmp6(a, b key6) int {
	return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo), cmp.Compare(a.x, b.x))
}

// NewSet returns a set of ms, without those that lie within another.
func NewSet(kind SetKind, ms ...Member) *Set {
	return (&Set{kind: kind}).With(maximal(ms), nil)
}

// maximal returns ms without the prefixes that lie within another.
func maximal(ms []Member) []Member {
	ms = slices.Clone(ms)
	slices.SortFunc(ms, func(a, b Member) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()),
			cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
	})
	out := ms[:0]
	for _, m := range ms {
		if n := len(out); n > 0 {
			last := out[n-1]
			if last == m || m.Port == 0 && m.Proto == 0 && !last.Prefix.IsSingleIP() && last.Prefix.Contains(m.Prefix.Addr()) {
				continue
			}
		}
		out = append(out, m)
	}
	return out
}

// Kind is what its members are.
func (s *Set) Kind() SetKind { return s.kind }

// Len is the number of members.
func (s *Set) Len() int { return s.v4.n + s.v6.n }

// Len4 and Len6 are the numbers of members of each family.
func (s *Set) Len4() int { return s.v4.n }
func (s *Set) Len6() int { return s.v6.n }

// Wide is the number of members that are prefixes shorter than an address.
func (s *Set) Wide() int { return s.wide }

// Has reports whether m itself is a member.
func (s *Set) Has(m Member) bool {
	if m.Prefix.Addr().Is4() {
		return s.v4.has(s.pack4(m), cmp.Compare[uint64])
	}
	return s.v6.has(s.pack6(m), cmp6)
}

// Contains reports whether a is a member of a SetNet, or lies in one of its prefixes.
func (s *Set) Contains(a netip.Addr) bool {
	if s.kind != SetNet || !a.IsValid() {
		return false
	}
	m := AddrMember(a)
	if a.Is4() {
		k, ok := s.v4.floor(s.pack4(m)|0xff, cmp.Compare[uint64])
		return ok && s.unpack4(k).Prefix.Contains(a)
	}
	k6 := s.pack6(m)
	k6.x = ^uint32(0)
	k, ok := s.v6.floor(k6, cmp6)
	return ok && s.unpack6(k).Prefix.Contains(a)
}

// ContainsPort reports whether (a, proto, port) is a member of a SetPort.
func (s *Set) ContainsPort(a netip.Addr, proto uint8, port uint16) bool {
	return s.kind == SetPort && a.IsValid() && s.Has(PortMember(a, proto, port))
}

// Covering returns the member of a SetNet that p lies within, if there is one; that may be p itself.
func (s *Set) Covering(p netip.Prefix) (m Member, ok bool) {
	if s.kind != SetNet {
		return Member{}, false
	}
	if p.Addr().Is4() {
		k, found := s.v4.floor(s.pack4(Member{Prefix: p}), cmp.Compare[uint64])
		m, ok = s.unpack4(k), found
	} else {
		k, found := s.v6.floor(s.pack6(Member{Prefix: p}), cmp6)
		m, ok = s.unpack6(k), found
	}
	return m, ok && m.Prefix.Bits() <= p.Bits() && m.Prefix.Contains(p.Addr())
}

// Within yields, in order, the members of a SetNet that lie within p (masked), p itself included.
func (s *Set) Within(p netip.Prefix) iter.Seq[Member] {
	return func(yield func(Member) bool) {
		first := Member{Prefix: p}
		switch {
		case s.kind != SetNet:
		case p.Addr().Is4():
			for k := range s.v4.from(s.pack4(first), cmp.Compare[uint64]) {
				if m := s.unpack4(k); !p.Contains(m.Prefix.Addr()) || !yield(m) {
					return
				}
			}
		default:
			for k := range s.v6.from(s.pack6(first), cmp6) {
				if m := s.unpack6(k); !p.Contains(m.Prefix.Addr()) || !yield(m) {
					return
				}
			}
		}
	}
}

// All yields the members in order, IPv4 first.
func (s *Set) All() iter.Seq[Member] {
	return func(yield func(Member) bool) {
		for _, c := range s.v4.chunks {
			for _, k := range c {
				if !yield(s.unpack4(k)) {
					return
				}
			}
		}
		for _, c := range s.v6.chunks {
			for _, k := range c {
				if !yield(s.unpack6(k)) {
					return
				}
			}
		}
	}
}

// Equal reports whether the two have the same kind and members.
func (s *Set) Equal(o *Set) bool {
	if s == o {
		return true
	}
	if s == nil || o == nil || s.kind != o.kind || s.v4.n != o.v4.n || s.v6.n != o.v6.n {
		return false
	}
	next, stop := iter.Pull(o.All())
	defer stop()
	for m := range s.All() {
		if om, _ := next(); om != m {
			return false
		}
	}
	return true
}

// With returns a set that also has the members added and has not those removed. A member in both is there afterwards.
// The caller keeps prefixes from lying within one another.
func (s *Set) With(added, removed []Member) *Set {
	var a4, r4 []uint64
	var a6, r6 []key6
	split := func(ms []Member, k4 *[]uint64, k6 *[]key6) {
		for _, m := range ms {
			if m.Prefix.Addr().Is4() {
				*k4 = append(*k4, s.pack4(m))
			} else {
				*k6 = append(*k6, s.pack6(m))
			}
		}
	}
	split(added, &a4, &a6)
	split(removed, &r4, &r6)
	n := &Set{kind: s.kind, wide: s.wide}
	count := func(m Member, d int) {
		if !m.Prefix.IsSingleIP() {
			n.wide += d
		}
	}
	n.v4 = s.v4.with(a4, r4, cmp.Compare[uint64], func(k uint64, d int) { count(s.unpack4(k), d) })
	n.v6 = s.v6.with(a6, r6, cmp6, func(k key6, d int) { count(s.unpack6(k), d) })
	return n
}

// pack4 puts an IPv4 member into 8 bytes, in the order of addresses: address, then prefix length or protocol and port.
func (s *Set) pack4(m Member) uint64 {
	b := m.Prefix.Addr().As4()
	a := uint64(b[0])<<24 | uint64(b[1])<<16 | uint64(b[2])<<8 | uint64(b[3])
	if s.kind == SetPort {
		return a<<24 | uint64(m.Proto)<<16 | uint64(m.Port)
	}
	return a<<8 | uint64(m.Prefix.Bits())
}

func (s *Set) unpack4(k uint64) Member {
	addr := func(a uint64) netip.Addr {
		return netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)})
	}
	if s.kind == SetPort {
		return PortMember(addr(k>>24), uint8(k>>16), uint16(k))
	}
	return Member{Prefix: netip.PrefixFrom(addr(k>>8), int(k&0xff))}
}

func (s *Set) pack6(m Member) key6 {
	b := m.Prefix.Addr().As16()
	var k key6
	for i := range 8 {
		k.hi = k.hi<<8 | uint64(b[i])
		k.lo = k.lo<<8 | uint64(b[i+8])
	}
	if s.kind == SetPort {
		k.x = uint32(m.Proto)<<16 | uint32(m.Port)
	} else {
		k.x = uint32(m.Prefix.Bits())
	}
	return k
}

func (s *Set) unpack6(k key6) Member {
	var b [16]byte
	for i := range 8 {
		b[i] = byte(k.hi >> (56 - 8*i))
		b[i+8] = byte(k.lo >> (56 - 8*i))
	}
	a := netip.AddrFrom16(b)
	if s.kind == SetPort {
		return PortMember(a, uint8(k.x>>16), uint16(k.x))
	}
	return Member{Prefix: netip.PrefixFrom(a, int(k.x))}
}

type setJSON struct {
	Kind    string   `json:"kind"`
	Members []string `json:"members"`
}

// MarshalJSON gives the kind ("net" or "port") and the members as String gives them.
func (s *Set) MarshalJSON() ([]byte, error) {
	j := setJSON{Kind: "net", Members: make([]string, 0, s.Len())}
	if s.kind == SetPort {
		j.Kind = "port"
	}
	for m := range s.All() {
		j.Members = append(j.Members, m.String())
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON gives.
func (s *Set) UnmarshalJSON(b []byte) error {
	var j setJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	kind, ok := map[string]SetKind{"net": SetNet, "port": SetPort}[j.Kind]
	if !ok {
		return fmt.Errorf("set kind %q is neither net nor port", j.Kind)
	}
	ms := make([]Member, 0, len(j.Members))
	for _, t := range j.Members {
		m, err := ParseMember(t)
		if err != nil {
			return err
		}
		isPort, isNet := m.Proto != 0, m.Proto == 0 && m.Port == 0
		if kind == SetPort && !isPort || kind == SetNet && !isNet || m.Prefix.Addr().Is4In6() {
			return fmt.Errorf("%q is no member of a set of kind %s", t, j.Kind)
		}
		ms = append(ms, m)
	}
	*s = *NewSet(kind, ms...)
	return nil
}
