package linuxnet_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tortie/tortie/internal/linuxnet"
	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// protocol marks the routes and neighbours of these tests.
const protocol = 84

func open(t testing.TB, ns *netns.Ns) *linuxnet.Conn {
	t.Helper()
	c, err := linuxnet.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair makes v0 here and v1 there, both up.
func pair(t testing.TB) (here, there *linuxnet.Conn, v0, v1 linuxnet.Link) {
	t.Helper()
	here, there = open(t, netnstest.New(t)), open(t, netnstest.New(t))
	must(t, here.AddVeth(linuxnet.Veth{
		Name: "v0", MAC: linuxnet.MAC{2, 0, 0, 0, 0, 1}, Peer: "v1", PeerMAC: linuxnet.MAC{2, 0, 0, 0, 0, 2},
		PeerNs: there.Ns(), MTU: 1400,
	}))
	var err error
	v0, err = here.Link("v0")
	must(t, err)
	v1, err = there.Link("v1")
	must(t, err)
	must(t, here.SetUp(v0.Index))
	must(t, there.SetUp(v1.Index))
	return here, there, v0, v1
}

func TestVeth(t *testing.T) {
	here, there, v0, v1 := pair(t)
	id, err := here.NsID(there.Ns())
	must(t, err)
	if v0.Parent != v1.Index || v0.ParentNs != id || v1.Parent != v0.Index || v0.MTU != 1400 || v1.MTU != 1400 ||
		v0.Type != "veth" || v0.MAC[5] != 1 || v1.MAC[5] != 2 || v0.Up {
		t.Errorf("the pair is %+v and %+v, namespace id %d", v0, v1, id)
	}
	other := open(t, netnstest.New(t))
	if id, err := here.NsID(other.Ns()); err != nil || id != -1 {
		t.Errorf("id of an unrelated namespace: %d, %v", id, err)
	}
	// A name that is taken at the far end: nothing is made at this one.
	err = here.AddVeth(linuxnet.Veth{Name: "w0", Peer: "v1", PeerNs: there.Ns()})
	if !errors.Is(err, os.ErrExist) {
		t.Errorf("taken at the far end: %v", err)
	}
	if _, err := here.Link("w0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a pair: %v", err)
	}
	must(t, here.SetAlias(v0.Index, "hello"))
	must(t, here.SetMTU(v0.Index, 1300))
	must(t, here.SetMAC(v0.Index, linuxnet.MAC{2, 0, 0, 0, 0, 9}))
	v0, err = here.Link("v0")
	must(t, err)
	if v0.Alias != "hello" || v0.MTU != 1300 || v0.MAC[5] != 9 || !v0.Up {
		t.Errorf("after the changes: %+v", v0)
	}
	for range 2 {
		must(t, here.DeleteLink("v0"))
	}
	if _, err := there.Link("v1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("peer of a deleted interface: %v", err)
	}
}

func TestAddrsAndNeighs(t *testing.T) {
	here, _, v0, _ := pair(t)
	want := []linuxnet.Addr{
		{Link: v0.Index, Prefix: netip.MustParsePrefix("169.254.1.1/32"), Scope: linuxnet.ScopeHost},
		{Link: v0.Index, Prefix: netip.MustParsePrefix("10.0.0.1/24")},
		{Link: v0.Index, Prefix: netip.MustParsePrefix("fd00::1/64")},
	}
	for range 2 {
		for _, a := range want {
			must(t, here.SetAddr(a))
		}
	}
	got, err := here.Addrs(v0.Index)
	must(t, err)
	got = slices.DeleteFunc(got, func(a linuxnet.Addr) bool { return a.Prefix.Addr().IsLinkLocalUnicast() && a.Prefix.Addr().Is6() })
	byPrefix := cmpopts.SortSlices(func(a, b linuxnet.Addr) bool { return a.Prefix.Addr().Less(b.Prefix.Addr()) })
	eq := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if d := cmp.Diff(want, got, byPrefix, eq); d != "" {
		t.Errorf("addresses (-want +got):\n%s", d)
	}
	for range 2 {
		must(t, here.DeleteAddr(want[1]))
	}
	if got, err = here.Addrs(v0.Index); err != nil || slices.ContainsFunc(got, func(a linuxnet.Addr) bool { return a == want[1] }) {
		t.Errorf("after deleting %v: %v, %v", want[1], got, err)
	}

	var ns []linuxnet.Neigh
	for i, a := range []string{"10.0.0.7", "fd00::7"} {
		n := linuxnet.Neigh{Link: v0.Index, Addr: netip.MustParseAddr(a), MAC: linuxnet.MAC{2, 0, 0, 0, 1, byte(i)}, Protocol: protocol}
		must(t, here.SetNeigh(linuxnet.Neigh{Link: n.Link, Addr: n.Addr, MAC: linuxnet.MAC{2, 9, 9, 9, 9, 9}}))
		must(t, here.SetNeigh(n))
		if err := here.AddNeigh(n); !errors.Is(err, os.ErrExist) {
			t.Errorf("adding %v again: %v", n.Addr, err)
		}
		ns = append(ns, n)
	}
	gotN, err := here.Neighs(v0.Index)
	must(t, err)
	if d := cmp.Diff(ns, gotN, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("neighbours (-want +got):\n%s", d)
	}
	for range 2 {
		must(t, here.DeleteNeigh(ns[0]))
	}
	if gotN, err = here.Neighs(0); err != nil || len(gotN) != 1 {
		t.Errorf("after deleting one: %v, %v", gotN, err)
	}
}

func TestNoIPv6(t *testing.T) {
	here, _, v0, _ := pair(t)
	must(t, here.SetSysctls([]linuxnet.Sysctl{{Path: "ipv6/conf/v0/disable_ipv6", Value: "1"}}))
	err := here.SetAddr(linuxnet.Addr{Link: v0.Index, Prefix: netip.MustParsePrefix("fd00::1/64")})
	if !errors.Is(err, linuxnet.ErrNoIPv6) {
		t.Errorf("address on an interface without IPv6: %v", err)
	}
}

func TestRoutes(t *testing.T) {
	here, _, v0, _ := pair(t)
	must(t, here.SetAddr(linuxnet.Addr{Link: v0.Index, Prefix: netip.MustParsePrefix("10.0.0.1/24")}))
	must(t, here.SetAddr(linuxnet.Addr{Link: v0.Index, Prefix: netip.MustParsePrefix("fd00::1/64")}))
	ours := func(dst string, r linuxnet.Route) linuxnet.Route {
		r.Dst, r.Metric, r.Protocol = netip.MustParsePrefix(dst), 84, protocol
		return r
	}
	want := []linuxnet.Route{
		ours("0.0.0.0/0", linuxnet.Route{Link: v0.Index, Via: netip.MustParseAddr("10.0.0.2")}),
		ours("10.1.0.0/26", linuxnet.Route{Blackhole: true}),
		ours("10.1.0.1/32", linuxnet.Route{Link: v0.Index, Scope: linuxnet.ScopeLink}),
		ours("10.2.0.0/26", linuxnet.Route{Link: v0.Index, Via: netip.MustParseAddr("10.0.0.2")}),
		ours("::/0", linuxnet.Route{Link: v0.Index, Via: netip.MustParseAddr("fd00::2")}),
		ours("fd01::/122", linuxnet.Route{Blackhole: true}),
		ours("fd01::1/128", linuxnet.Route{Link: v0.Index}),
		ours("fd02::/122", linuxnet.Route{Link: v0.Index, Via: netip.MustParseAddr("fd00::2")}),
	}
	for _, r := range want {
		must(t, here.AddRoute(r))
		if err := here.AddRoute(r); !errors.Is(err, os.ErrExist) {
			t.Errorf("adding %v again: %v", r.Dst, err)
		}
		must(t, here.ReplaceRoute(r))
	}
	foreign := linuxnet.Route{Dst: netip.MustParsePrefix("10.9.0.0/16"), Link: v0.Index, Scope: linuxnet.ScopeLink, Protocol: 3}
	must(t, here.AddRoute(foreign))
	check := func(protocol int, want []linuxnet.Route) {
		t.Helper()
		got, err := here.Routes(protocol)
		must(t, err)
		byDst := cmpopts.SortSlices(func(a, b linuxnet.Route) bool { return a.Dst.String() < b.Dst.String() })
		if d := cmp.Diff(want, got, byDst, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
			cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("routes of protocol %d (-want +got):\n%s", protocol, d)
		}
	}
	check(protocol, want)
	check(3, []linuxnet.Route{foreign})

	// A route changes its kind in place.
	for i, r := range want {
		switch {
		case r.Blackhole:
			want[i].Blackhole, want[i].Link = false, v0.Index
			if r.Dst.Addr().Is4() {
				want[i].Scope = linuxnet.ScopeLink
			}
		case r.Via.IsValid() && r.Dst.Bits() > 0:
			want[i] = ours(r.Dst.String(), linuxnet.Route{Blackhole: true})
		}
		must(t, here.ReplaceRoute(want[i]))
	}
	check(protocol, want)

	for _, via := range []string{"192.0.2.1", "2001:db8::1"} {
		a := netip.MustParseAddr(via)
		p, _ := a.Prefix(24)
		// The default routes above reach it, but not on a link.
		if _, err := here.OnLink(a); !errors.Is(err, linuxnet.ErrOffLink) {
			t.Errorf("%s is on link: %v", via, err)
		}
		err := here.AddRoute(ours(p.String(), linuxnet.Route{Via: a}))
		if !errors.Is(err, linuxnet.ErrOffLink) {
			t.Errorf("next hop %s: %v", via, err)
		}
	}
	for _, via := range []string{"10.0.0.2", "fd00::2"} {
		if index, err := here.OnLink(netip.MustParseAddr(via)); err != nil || index != v0.Index {
			t.Errorf("%s is on link %d, %v", via, index, err)
		}
	}
	if _, err := here.OnLink(netip.MustParseAddr("10.0.0.1")); !errors.Is(err, linuxnet.ErrOffLink) {
		t.Errorf("an address of the node itself is on link: %v", err)
	}
	for _, r := range want {
		must(t, here.DeleteRoute(r))
		must(t, here.DeleteRoute(r))
	}
	check(protocol, nil)
	check(3, []linuxnet.Route{foreign})
}

func TestSysctls(t *testing.T) {
	here, there, _, _ := pair(t)
	want := []linuxnet.Sysctl{{Path: "ipv4/ip_forward", Value: "1"}, {Path: "ipv4/conf/v0/rp_filter", Value: "2"}}
	diff, err := here.DiffSysctls(want)
	must(t, err)
	if len(diff) != 2 || diff[0].Value != "0" {
		t.Errorf("before: %v", diff)
	}
	must(t, here.SetSysctls(want))
	if diff, err := here.DiffSysctls(want); err != nil || len(diff) > 0 {
		t.Errorf("after: %v, %v", diff, err)
	}
	if v, err := there.Sysctl("ipv4/ip_forward"); err != nil || v != "0" {
		t.Errorf("in the other namespace: %q, %v", v, err)
	}
	if err := here.SetSysctls([]linuxnet.Sysctl{{Path: "ipv4/conf/none/rp_filter", Value: "2"}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of a missing interface: %v", err)
	}
}

func TestWatch(t *testing.T) {
	here, _, v0, _ := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	events := make(chan linuxnet.Event, 100)
	done, err := here.Watch(ctx, func(e linuxnet.Event) { events <- e })
	must(t, err)
	expect := func(what string, ok func(linuxnet.Event) bool) {
		t.Helper()
		for {
			select {
			case e := <-events:
				if ok(e) {
					return
				}
			case <-ctx.Done():
				t.Fatalf("no event: %s", what)
			}
		}
	}
	must(t, here.SetAddr(linuxnet.Addr{Link: v0.Index, Prefix: netip.MustParsePrefix("10.0.0.1/24")}))
	expect("address", func(e linuxnet.Event) bool { return e.Kind == linuxnet.AddrEvent && !e.Gone })
	for _, dst := range []string{"10.3.0.0/24", "fd03::/64"} {
		r := linuxnet.Route{Dst: netip.MustParsePrefix(dst), Blackhole: true, Metric: 7, Protocol: protocol}
		must(t, here.AddRoute(r))
		must(t, here.DeleteRoute(r))
		for _, gone := range []bool{false, true} {
			expect(fmt.Sprintf("route %s gone %v", dst, gone), func(e linuxnet.Event) bool {
				return e.Kind == linuxnet.RouteEvent && e.Gone == gone && e.Dst == r.Dst && e.Metric == 7 && e.Protocol == protocol && e.Own
			})
		}
	}
	r := linuxnet.Route{Dst: netip.MustParsePrefix("10.4.0.0/24"), Blackhole: true, Protocol: protocol}
	must(t, open(t, here.Ns()).AddRoute(r))
	expect("route of another", func(e linuxnet.Event) bool { return e.Kind == linuxnet.RouteEvent && e.Dst == r.Dst && !e.Own })
	must(t, here.DeleteLink("v0"))
	expect("link gone", func(e linuxnet.Event) bool { return e.Kind == linuxnet.LinkEvent && e.Gone && e.Link.Name == "v0" })
	cancel()
	if err := <-done; err != nil {
		t.Errorf("end of the watch: %v", err)
	}
}
