package calcgraph

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/tortie/tortie/drivers"
)

// checkedSet is a set beside the contributions that it was told of.
type checkedSet struct {
	*set
	counts map[member]int
	old    *drivers.Set
}

func newCheckedSet(kind drivers.SetKind) *checkedSet {
	return &checkedSet{set: &set{kind: kind}, counts: map[member]int{}}
}

func (c *checkedSet) change(m member, d int) {
	c.counts[m] += d
	if c.counts[m] == 0 {
		delete(c.counts, m)
	}
	c.add(m, int32(d))
}

func (c *checkedSet) check(t testing.TB) {
	t.Helper()
	su, ok := c.flush()
	if ok {
		if err := checkSetUpdate(c.old, su); err != nil {
			t.Fatal(err)
		}
		c.old = su.Set
	}
	var ms []drivers.Member
	for m := range c.counts {
		ms = append(ms, m.export(c.kind))
	}
	if want := drivers.NewSet(c.kind, ms...); !want.Equal(c.old) {
		t.Fatalf("members %v, want %v", slices.Collect(c.old.All()), slices.Collect(want.All()))
	}
	if c.kind == drivers.SetNet && c.old.Len()+c.covered.n != len(c.counts) {
		t.Fatalf("%d members and %d covered, of %d contributed", c.old.Len(), c.covered.n, len(c.counts))
	}
}

func randomNet(rng *rand.Rand) member {
	if rng.IntN(3) == 0 {
		b := [16]byte{0: 0xfd, 15: byte(rng.IntN(16))}
		if rng.IntN(8) == 0 {
			b[0] = 0 // around the place where IPv4 addresses are packed
		}
		return prefixMember(netip.PrefixFrom(netip.AddrFrom16(b), []int{0, 64, 80, 96, 124, 126, 128, 128, 128}[rng.IntN(9)]))
	}
	a := netip.AddrFrom4([4]byte{10, 0, byte(rng.IntN(2)), byte(rng.IntN(16))})
	return prefixMember(netip.PrefixFrom(a, []int{0, 8, 23, 24, 28, 29, 30, 31, 32, 32, 32, 32}[rng.IntN(12)]))
}

// TestSetCountsContributors walks sets through additions and removals in any order, of prefixes that lie within one
// another and of addresses that several contribute.
func TestSetCountsContributors(t *testing.T) {
	for seed := range 200 {
		rng := rand.New(rand.NewPCG(uint64(seed), 3))
		kind := drivers.SetKind(seed % 2)
		c := newCheckedSet(kind)
		var held []member
		for round := range 60 {
			for range rng.IntN(10) {
				if len(held) > 0 && rng.IntN(2) == 0 {
					i := rng.IntN(len(held))
					c.change(held[i], -1)
					held = slices.Delete(held, i, i+1)
					continue
				}
				m := randomNet(rng)
				if kind == drivers.SetPort {
					m.x = fullLen
					m = m.withPort(uint8(6+11*rng.IntN(2)), uint16(80+rng.IntN(3)))
				}
				held = append(held, m)
				c.change(m, +1)
			}
			if round%3 == 0 || rng.IntN(3) == 0 {
				c.check(t)
			}
		}
		for _, m := range held {
			c.change(m, -1)
		}
		c.check(t)
		if len(c.many) > 0 || c.covered.n > 0 || len(c.covered.chunks) > 0 || c.log != nil {
			t.Fatalf("an empty set keeps %d counts, %d covered", len(c.many), c.covered.n)
		}
	}
}

// TestSetLogStaysSmall makes sure that what is pending is bounded by the members, not by the changes.
func TestSetLogStaysSmall(t *testing.T) {
	c := newCheckedSet(drivers.SetNet)
	m := prefixMember(netip.MustParsePrefix("10.0.0.1/32"))
	for n := range 1_000_000 {
		c.change(m, 1-2*(n%2))
	}
	if len(c.log) > 2048 {
		t.Errorf("the log has %d entries", len(c.log))
	}
	c.change(m, +1)
	c.check(t)
}

func TestMember(t *testing.T) {
	for _, text := range []string{"0.0.0.0/0", "10.0.0.0/8", "10.1.2.3/32", "255.255.255.255/32", "::/0", "::/64", "::ffff:0:0/95", "fd00::/8", "fd00::1/128", "fd00:0:0:1::/64", "fd00:0:0:1::/65"} {
		p := netip.MustParsePrefix(text).Masked()
		m := prefixMember(p)
		if m.prefix() != p || m.is4() != p.Addr().Is4() {
			t.Errorf("%s became %v", p, m.prefix())
		}
		for _, other := range []string{"0.0.0.0/0", "10.1.0.0/16", "10.1.2.3/32", "::/0", "fd00::/16", "fd00::1/128", "fd00:0:0:1::1/128"} {
			q := netip.MustParsePrefix(other).Masked()
			want := p.Overlaps(q) && p.Bits() <= q.Bits()
			if got := m.contains(prefixMember(q)); got != want {
				t.Errorf("%s contains %s: %v", p, q, got)
			}
		}
	}
	a := addrMember(netip.MustParseAddr("10.0.0.1")).withPort(17, 53)
	if got, want := a.export(drivers.SetPort), drivers.PortMember(netip.MustParseAddr("10.0.0.1"), 17, 53); got != want {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestPosting(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	var p posting
	model := map[uint32]bool{}
	for step := range 20_000 {
		id := uint32(rng.IntN(1 + step/5%60)) // grows past a list and shrinks again
		if model[id] {
			delete(model, id)
			p.remove(id)
		} else {
			model[id] = true
			p.add(id)
		}
		n := 0
		for id := range p.all() {
			if !model[id] {
				t.Fatalf("step %d: %d should not be there", step, id)
			}
			n++
		}
		if n != len(model) || p.len() != n {
			t.Fatalf("step %d: %d ids, len says %d, want %d", step, n, p.len(), len(model))
		}
		if (p.more != nil && p.more.bits != nil) && n <= inlineIDs/2 || p.more == nil && n > 1 {
			t.Fatalf("step %d: %d ids in the wrong shape", step, n)
		}
	}
}

func TestSorted(t *testing.T) {
	for _, ascending := range []bool{false, true} {
		rng := rand.New(rand.NewPCG(6, 6))
		s := sorted[int]{cmp: func(a, b int) int { return a - b }}
		model := map[int]bool{}
		for step := range 6000 {
			v := rng.IntN(3000)
			if ascending {
				v = step
			}
			if step > 4500 || !ascending && rng.IntN(3) == 0 {
				v %= 4500
				if s.remove(v) != model[v] {
					t.Fatalf("remove(%d) does not know whether it was there", v)
				}
				delete(model, v)
			} else {
				if s.insert(v) == model[v] {
					t.Fatalf("insert(%d) does not know whether it was there", v)
				}
				model[v] = true
			}
			if s.n != len(model) || s.has(v) != model[v] {
				t.Fatalf("%d values, want %d", s.n, len(model))
			}
		}
		for _, from := range []int{-1, 0, 1000, 2999, 6000} {
			var want []int
			for v := range model {
				if v >= from {
					want = append(want, v)
				}
			}
			slices.Sort(want)
			if got := slices.Collect(s.from(from)); !slices.Equal(got, want) {
				t.Fatalf("from(%d): %d values, want %d", from, len(got), len(want))
			}
		}
		for _, c := range s.chunks {
			if len(c) == 0 || len(c) > chunkLen {
				t.Errorf("a chunk of %d", len(c))
			}
		}
		if full := 4501/chunkLen + 1; ascending && len(s.chunks) > full {
			t.Errorf("%d chunks, want at most %d", len(s.chunks), full)
		}
	}
}
