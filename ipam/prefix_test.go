package ipam

import (
	"net/netip"
	"testing"

	"github.com/tortie/tortie/api"
	"k8s.io/apimachinery/pkg/util/validation"
)

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		base  string
		i     uint64
		shift int
		want  string
	}{
		{"10.0.0.0", 0, 0, "10.0.0.0"},
		{"10.0.0.0", 255, 0, "10.0.0.255"},
		{"10.0.0.0", 5, 6, "10.0.1.64"},
		{"0.0.0.0", 1<<26 - 1, 6, "255.255.255.192"},
		{"fd00::", 1, 6, "fd00::40"},
		{"fd00::ffff:ffff:ffff:ffff", 1, 0, "fd00:0:0:1::"},
		{"fd00::", 1 << 40, 12, "fd00::10:0:0:0"},
		{"fd00::", 1 << 60, 12, "fd00:0:0:100::"},
		{"fd00::", 3, 64, "fd00:0:0:3::"},
		{"fd00::", 1, 100, "fd00:10::"},
	} {
		a := netip.MustParseAddr(c.base)
		if got := numberOf(a).plus(c.i, c.shift).addr(a); got.String() != c.want {
			t.Errorf("%s + %d<<%d = %s, want %s", c.base, c.i, c.shift, got, c.want)
		}
	}
	for _, s := range []string{"10.1.2.0/26", "10.0.0.0/20", "10.0.0.9/32", "fd00::40/122", "fd00::/116", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120"} {
		p := netip.MustParsePrefix(s)
		a := p.Addr()
		for i := range blockLen(p) {
			if nth(p, i) != a || ordinal(p, a) != i {
				t.Fatalf("%s: %d is %s, and %s is %d", s, i, nth(p, i), a, ordinal(p, a))
			}
			a = a.Next()
		}
		if p.Contains(a) {
			t.Errorf("%s goes on after %d", s, blockLen(p))
		}
	}
}

func TestWalk(t *testing.T) {
	for _, c := range []struct {
		pool string
		size int
	}{{"10.0.0.0/16", 26}, {"10.0.0.0/26", 26}, {"10.0.0.0/24", 32}, {"fd00::/112", 122}} {
		pool := netip.MustParsePrefix(c.pool)
		first := map[netip.Prefix]bool{}
		for _, node := range []string{"n1", "n2", "n3", "n10", "n11"} {
			seen := map[netip.Prefix]bool{}
			for p := range walk(pool, c.size, seedOf(node)) {
				if len(seen) == 0 {
					first[p] = true
				}
				if seen[p] || p.Bits() != c.size || p != p.Masked() || !contains(pool, p) {
					t.Fatalf("%s: %s comes twice, or is none of its blocks", c.pool, p)
				}
				seen[p] = true
			}
			if want := blockCount(pool, c.size); uint64(len(seen)) != want {
				t.Errorf("%s: %d of %d blocks", c.pool, len(seen), want)
			}
		}
		if blockCount(pool, c.size) > 100 && len(first) < 4 {
			t.Errorf("%s: five nodes begin at %v", c.pool, first)
		}
	}
	n := 0
	for range walk(netip.MustParsePrefix("fd00::/8"), 122, 7) { // more than anybody counts
		if n++; n == 1000 {
			break
		}
	}
}

func TestGaps(t *testing.T) {
	pools := []*pool{readPool(simPool("a", "10.0.0.0/24", 26))}
	var all []*api.BlockAffinity
	for _, c := range []string{"10.0.0.0/28", "10.0.0.64/27", "10.0.0.128/26", "10.1.0.0/28"} {
		all = append(all, &api.BlockAffinity{Spec: api.BlockAffinitySpec{CIDR: c}})
	}
	got := map[string]bool{}
	for p := range gaps(pools, all) {
		got[p.String()] = true
	}
	for _, want := range []string{"10.0.0.16/28", "10.0.0.32/28", "10.0.0.48/28", "10.0.0.96/27"} {
		if !got[want] {
			t.Errorf("%s is missing in %v", want, got)
		}
		delete(got, want)
	}
	if len(got) > 0 {
		t.Errorf("no gaps: %v", got)
	}
}

func TestNames(t *testing.T) {
	for _, c := range [][2]string{{"10.65.0.0/26", "10-65-0-0-26"}, {"fd65::40/122", "fd65--40-122"}, {"::/122", "0---122"}, {"fd65::/122", "fd65---122"}} {
		got := blockName(netip.MustParsePrefix(c[0]))
		if got != c[1] || len(validation.IsDNS1123Subdomain(got)) > 0 {
			t.Errorf("%s is called %q, want %q", c[0], got, c[1])
		}
	}
	for _, h := range []string{"vxlan-tunnel-addr-n1", "k8s-pod-network.0a1b", "With.Capitals", "", "a b", "ns/pod"} {
		if k := handleKey(h); len(validation.IsDNS1123Subdomain(k.Name)) > 0 {
			t.Errorf("the record of %q is called %q", h, k.Name)
		}
	}
}

func TestReservedIn(t *testing.T) {
	var r rules
	for _, c := range []string{"10.0.0.0/28", "10.0.0.0/30", "10.0.0.64/31", "10.0.0.64/31", "10.0.0.65/32", "11.0.0.0/8"} {
		r.reserved = append(r.reserved, netip.MustParsePrefix(c))
	}
	for c, want := range map[string]float64{"10.0.0.0/24": 18, "10.0.0.0/29": 8, "10.0.0.64/32": 1, "10.0.0.128/25": 0, "10.0.0.4/30": 4} {
		if got := r.reservedIn(netip.MustParsePrefix(c)); got != want {
			t.Errorf("%g are reserved in %s, want %g", got, c, want)
		}
	}
}
