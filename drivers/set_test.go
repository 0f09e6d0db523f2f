package drivers

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestSetAgainstModel walks a set through random changes beside a plain map, and keeps old versions to see that none is
// touched by what came after it.
func TestSetAgainstModel(t *testing.T) {
	for _, kind := range []SetKind{SetNet, SetPort} {
		rng := rand.New(rand.NewPCG(1, uint64(kind)))
		member := func() Member {
			a := netip.AddrFrom4([4]byte{10, byte(rng.IntN(3)), byte(rng.IntN(40)), byte(rng.IntN(30))})
			if rng.IntN(3) == 0 {
				b := netip.MustParseAddr("fd00::").As16()
				b[13], b[15] = byte(rng.IntN(40)), byte(rng.IntN(30))
				a = netip.AddrFrom16(b)
			}
			if kind == SetPort {
				return PortMember(a, 6, uint16(rng.IntN(3)))
			}
			return AddrMember(a)
		}
		model, set := map[Member]bool{}, NewSet(kind)
		type version struct {
			set *Set
			was map[Member]bool
		}
		var versions []version
		for round := range 400 {
			var add, del []Member
			for range rng.IntN(1 + round%60) {
				add = append(add, member())
			}
			for range rng.IntN(1 + round%50) {
				del = append(del, member())
			}
			for _, m := range del {
				delete(model, m)
			}
			for _, m := range add {
				model[m] = true
			}
			set = set.With(add, del)
			if round%40 == 0 {
				was := map[Member]bool{}
				copyMap(was, model)
				versions = append(versions, version{set, was})
			}
			if set.Len() != len(model) {
				t.Fatalf("round %d: %d members, want %d", round, set.Len(), len(model))
			}
			for range 20 {
				m := member()
				if set.Has(m) != model[m] {
					t.Fatalf("round %d: Has(%v) = %v", round, m, set.Has(m))
				}
			}
		}
		for i, v := range versions {
			got := map[Member]bool{}
			for m := range v.set.All() {
				got[m] = true
			}
			if len(got) != len(v.was) || len(got) != v.set.Len() {
				t.Fatalf("version %d: %d members, want %d", i, len(got), len(v.was))
			}
			for m := range v.was {
				if !got[m] {
					t.Fatalf("version %d: %v is missing", i, m)
				}
			}
		}
	}
}

func TestSetPrefixes(t *testing.T) {
	ms := []Member{}
	for _, s := range []string{"10.1.0.0/16", "10.0.0.0/8", "10.1.2.3", "192.168.0.1", "fd00::/16", "fd00::1", "11.0.0.0/32"} {
		m, err := ParseMember(s)
		if err != nil {
			t.Fatal(err)
		}
		ms = append(ms, m)
	}
	s := NewSet(SetNet, ms...)
	var got []string
	for m := range s.All() {
		got = append(got, m.String())
	}
	if want := []string{"10.0.0.0/8", "11.0.0.0", "192.168.0.1", "fd00::/16"}; !slices.Equal(got, want) {
		t.Fatalf("members %v, want %v", got, want)
	}
	if s.Wide() != 2 {
		t.Errorf("Wide() = %d, want 2", s.Wide())
	}
	for addr, want := range map[string]bool{
		"10.0.0.0": true, "10.255.255.255": true, "9.255.255.255": false, "11.0.0.0": true, "11.0.0.1": false,
		"192.168.0.1": true, "192.168.0.0": false, "fd00:1::": true, "fd01::": false, "::": false, "0.0.0.0": false,
	} {
		if s.Contains(netip.MustParseAddr(addr)) != want {
			t.Errorf("Contains(%s) = %v, want %v", addr, !want, want)
		}
	}
	s = s.With([]Member{AddrMember(netip.MustParseAddr("10.1.2.3"))}, []Member{NetMember(netip.MustParsePrefix("10.0.0.0/8"))})
	if s.Wide() != 1 || s.Contains(netip.MustParseAddr("10.0.0.0")) || !s.Contains(netip.MustParseAddr("10.1.2.3")) {
		t.Errorf("after the covering prefix went: wide %d", s.Wide())
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var back Set
	if err := json.Unmarshal(b, &back); err != nil || !back.Equal(s) {
		t.Errorf("JSON there and back: %v\n%s", err, b)
	}
}

// TestSetCoveringAndWithin compares both with a look at every member.
func TestSetCoveringAndWithin(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	prefix := func() netip.Prefix {
		if rng.IntN(2) == 0 {
			a := netip.AddrFrom4([4]byte{10, byte(rng.IntN(4)), byte(rng.IntN(8)), byte(rng.IntN(256))})
			return netip.PrefixFrom(a, 8+rng.IntN(25)).Masked()
		}
		b := [16]byte{0: 0xfd, 7: byte(rng.IntN(4)), 15: byte(rng.IntN(256))}
		return netip.PrefixFrom(netip.AddrFrom16(b), 40+rng.IntN(89)).Masked()
	}
	for round := range 50 {
		var ms []Member
		for range rng.IntN(700) {
			if p := prefix(); round%2 == 0 || p.IsSingleIP() || p.Bits() > 22 {
				ms = append(ms, NetMember(p))
			}
		}
		s := NewSet(SetNet, ms...)
		for range 50 {
			p := prefix()
			var covering, within []Member
			for m := range s.All() {
				if m.Prefix.Overlaps(p) && m.Prefix.Bits() <= p.Bits() {
					covering = append(covering, m)
				}
				if m.Prefix.Overlaps(p) && m.Prefix.Bits() >= p.Bits() {
					within = append(within, m)
				}
			}
			if got := slices.Collect(s.Within(p)); !slices.Equal(got, within) {
				t.Fatalf("Within(%v) = %v, want %v", p, got, within)
			}
			if got, ok := s.Covering(p); ok != (len(covering) == 1) || ok && got != covering[0] {
				t.Fatalf("Covering(%v) = %v, %v, want %v", p, got, ok, covering)
			}
		}
	}
}
