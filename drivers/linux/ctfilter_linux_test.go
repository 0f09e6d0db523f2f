package linux

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/internal/netns/netnstest"
)

// TestCutFlowsByAnyMeans: whatever the kernel's filters can do, and however many addresses there are, the same flows go.
func TestCutFlowsByAnyMeans(t *testing.T) {
	t.Parallel()
	ns := netnstest.New(t)
	d := openDriver(t, ns, nil)
	probed := d.flowFilters()
	t.Logf("this kernel's filters are right for IPv4 %v, IPv6 %v", probed[0], probed[1])
	at := func(family, n int) netip.Addr {
		return netip.MustParseAddr([]string{fmt.Sprintf("10.0.0.%d", n), fmt.Sprintf("fd00::%d", n)}[family])
	}
	fill := func() {
		t.Helper()
		port := uint16(1)
		for family := range 2 {
			for n := 1; n <= 9; n++ {
				a, peer, node := at(family, n), at(family, 100), at(family, 200)
				for _, f := range []flow{
					{orig: flowTuple{src: a, dst: peer}, reply: flowTuple{src: peer, dst: a}},
					{orig: flowTuple{src: peer, dst: a}, reply: flowTuple{src: a, dst: peer}},
					{orig: flowTuple{src: a, dst: peer}, reply: flowTuple{src: peer, dst: node}},
					{orig: flowTuple{src: peer, dst: node}, reply: flowTuple{src: a, dst: peer}},
				} {
					f.orig.sport, f.orig.dport, f.reply.sport, f.reply.dport = port, port, port, port
					port++
					if err := d.socket.addFlow(&f); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	// left counts the flows of each address.
	left := func() map[netip.Addr]int {
		t.Helper()
		out := map[netip.Addr]int{}
		err := d.socket.eachFlow(func(e *entry) error {
			for family := range 2 {
				for n := 1; n <= 9; n++ {
					if a := at(family, n); slices.Contains([]netip.Addr{e.orig.src, e.orig.dst, e.reply.src, e.reply.dst}, a) {
						out[a]++
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, f := range []filters{probed, {}} {
		d.filters = &f
		for _, cut := range [][]netip.Addr{
			{at(0, 1)},
			{at(1, 1)},
			{at(0, 1), at(1, 1)},
			{at(0, 1), at(0, 3), at(0, 5), at(0, 7), at(0, 9), at(1, 2)},
			{at(0, 1), at(0, 3), at(0, 5), at(0, 7), at(1, 1), at(1, 3), at(1, 5), at(1, 7)},
			{at(0, 50), at(1, 50)},
		} {
			fill()
			want := left()
			if len(want) != 18 || want[at(1, 9)] != 4 {
				t.Fatalf("%v", want)
			}
			maps.DeleteFunc(want, func(a netip.Addr, _ int) bool { return slices.Contains(cut, a) })
			if err := d.CutFlows(context.Background(), cut); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(left())); diff != "" {
				t.Errorf("filters %v, cut %v: %s", f, cut, diff)
			}
			all := []netip.Addr{at(0, 100), at(1, 100)}
			if err := d.socket.deleteFlowsIn(0, map[netip.Addr]bool{all[0]: true, all[1]: true}); err != nil || len(left()) > 0 {
				t.Fatalf("%v, left %v", err, left())
			}
		}
	}
}

// TestFiltersAreTried: on a kernel that knows filters for IPv4 they must be found out to work.
func TestFiltersAreTried(t *testing.T) {
	t.Parallel()
	netnstest.NeedRoot(t)
	f, err := probeFilters()
	if err != nil {
		t.Fatal(err)
	}
	s, err := dialIn(netnstest.New(t).FD())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	// Nothing is there to be deleted: a kernel without filters says EINVAL.
	if err := s.deleteFlowsOf(netip.MustParseAddr("192.0.2.1")); (err == nil) != f[0] {
		t.Errorf("filters are found to be %v, but: %v", f, err)
	}
}

func BenchmarkCutFlows(b *testing.B) {
	d := openDriver(b, netnstest.New(b), nil)
	for name, addrs := range map[string][]netip.Addr{
		"IPv4": {netip.MustParseAddr("10.0.0.1")}, "dual": {netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := d.CutFlows(context.Background(), addrs); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
