package calcgraph

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// member is a drivers.Member in 24 bytes without pointers. hi and lo are the address, an IPv4 one as ::ffff:a.b.c.d. x is
// the prefix length in bits of an IPv6 address (96 to 128 for IPv4), or protocol<<16|port in a set of ports.
type member struct {
	hi, lo uint64
	x      uint32
}

const fullLen = 128

func (m member) is4() bool { return m.hi == 0 && m.lo>>32 == 0xffff }

// wide reports whether a member of a SetNet is more than one address.
func (m member) wide() bool { return m.x < fullLen }

// cmpMember sorts IPv4 first, then by address, then wider prefixes first.
func cmpMember(a, b member) int {
	if a4, b4 := a.is4(), b.is4(); a4 != b4 {
		if a4 {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo), cmp.Compare(a.x, b.x))
}

// contains reports whether the prefix b lies within the prefix m, or is m.
func (m member) contains(b member) bool {
	if m.is4() != b.is4() || m.x > b.x {
		return false
	}
	if m.x <= 64 {
		return (m.hi^b.hi)>>(64-m.x) == 0
	}
	return m.hi == b.hi && (m.lo^b.lo)>>(fullLen-m.x) == 0
}

func addrMember(a netip.Addr) member {
	b := a.As16()
	return member{hi: binary.BigEndian.Uint64(b[:8]), lo: binary.BigEndian.Uint64(b[8:]), x: fullLen}
}

// prefixMember masks p. A prefix of IPv4 addresses written in IPv6 becomes an IPv4 one.
func prefixMember(p netip.Prefix) member {
	p = p.Masked()
	m := addrMember(p.Addr())
	m.x = uint32(p.Bits())
	if p.Addr().Is4() {
		m.x += 96
	}
	return m
}

// withPort returns the member of a SetPort for an address.
func (m member) withPort(proto uint8, port uint16) member {
	m.x = uint32(proto)<<16 | uint32(port)
	return m
}

func (m member) addr() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], m.hi)
	binary.BigEndian.PutUint64(b[8:], m.lo)
	a := netip.AddrFrom16(b)
	if m.is4() {
		return a.Unmap()
	}
	return a
}

func (m member) prefix() netip.Prefix {
	if m.is4() {
		return netip.PrefixFrom(m.addr(), int(m.x)-96)
	}
	return netip.PrefixFrom(m.addr(), int(m.x))
}

// export returns m in the words of the boundary.
func (m member) export(kind drivers.SetKind) drivers.Member {
	if kind == drivers.SetPort {
		return drivers.PortMember(m.addr(), uint8(m.x>>16), uint16(m.x))
	}
	return drivers.Member{Prefix: m.prefix()}
}

func exportAll(ms []member, kind drivers.SetKind) []drivers.Member {
	if len(ms) == 0 {
		return nil
	}
	out := make([]drivers.Member, len(ms))
	for i, m := range ms {
		out[i] = m.export(kind)
	}
	return out
}

// canonical sorts ms and drops what is there twice, in place.
func canonical(ms []member) []member {
	if len(ms) > 1 {
		slices.SortFunc(ms, cmpMember)
		ms = slices.Compact(ms)
	}
	return ms
}

// diffMembers returns what is only in old and what is only in new; both are canonical.
func diffMembers(old, new []member) (lost, gained []member) {
	for len(old) > 0 && len(new) > 0 {
		switch c := cmpMember(old[0], new[0]); {
		case c < 0:
			lost, old = append(lost, old[0]), old[1:]
		case c > 0:
			gained, new = append(gained, new[0]), new[1:]
		default:
			old, new = old[1:], new[1:]
		}
	}
	return append(lost, old...), append(gained, new...)
}
