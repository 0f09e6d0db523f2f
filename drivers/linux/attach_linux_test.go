package linux

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/linuxnet"
	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// testNode is a node's namespace with an attacher and a reconciler of routes.
type testNode struct {
	*attacher
	net    *linuxnet.Conn
	routes *routes
	kicks  chan struct{}
	state  *drivers.State
}

func openConn(t testing.TB, ns *netns.Ns) *linuxnet.Conn {
	t.Helper()
	c, err := linuxnet.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func newTestNode(t testing.TB) *testNode {
	t.Helper()
	c := openConn(t, netnstest.New(t))
	kicks := make(chan struct{}, 1000)
	n := &testNode{
		attacher: newAttacher(c, slog.New(slog.DiscardHandler)), net: c, kicks: kicks, state: drivers.NewState(),
		routes: newRoutes(c, slog.New(slog.DiscardHandler), func() { kicks <- struct{}{} }, nil),
	}
	n.state.Node = drivers.Node{Name: "n1", WorkloadPrefixes: []string{"tort"}}
	t.Cleanup(n.routes.close)
	return n
}

// attachment makes the request for the i-th workload.
func attachment(i int, ns *netns.Ns) drivers.Attachment {
	return drivers.Attachment{
		ID:    drivers.EndpointID{Sandbox: fmt.Sprintf("sandbox%d", i), Interface: "eth0"},
		Netns: ns.Path(), HostIface: fmt.Sprintf("tort%011d", i),
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 65, 0, byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd65::%x", i))},
	}
}

// add attaches a workload and puts its endpoint and routes into the state.
func (n *testNode) add(t testing.TB, a drivers.Attachment) drivers.Attached {
	t.Helper()
	got, err := n.Attach(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	n.state.Endpoints[a.ID] = &drivers.Endpoint{ID: a.ID, Iface: a.HostIface, MAC: got.MAC, Addrs: a.Addrs}
	for _, ip := range a.Addrs {
		dst := netip.PrefixFrom(ip, ip.BitLen())
		n.state.Routes[dst] = &drivers.Route{Dst: dst, Kind: drivers.RouteLocal, Iface: a.HostIface}
	}
	return got
}

func (n *testNode) apply(t testing.TB, ch *drivers.Changes) {
	t.Helper()
	for o, err := range n.routes.apply(t.Context(), n.state, ch) {
		t.Fatalf("%s: %v", o, err)
	}
}

func inNs[T any](t testing.TB, ns *netns.Ns, fn func() (T, error)) T {
	t.Helper()
	var v T
	if err := ns.Do(func() (err error) {
		v, err = fn()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return v
}

// exchange sends a datagram from one namespace to an address of another, and an answer back.
func exchange(t testing.TB, from *netns.Ns, src netip.Addr, to *netns.Ns, dst netip.Addr) {
	t.Helper()
	server := inNs(t, to, func() (*net.UDPConn, error) {
		return net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, 0)))
	})
	defer server.Close()
	client := inNs(t, from, func() (*net.UDPConn, error) {
		return net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0)), server.LocalAddr().(*net.UDPAddr))
	})
	defer client.Close()
	deadline := time.Now().Add(10 * time.Second)
	server.SetDeadline(deadline)
	answered := make(chan error, 1)
	go func() { // answers whatever comes, until the server is closed
		buf := make([]byte, 10)
		for {
			_, peer, err := server.ReadFromUDPAddrPort(buf)
			if err == nil && peer.Addr().Unmap() != src {
				err = fmt.Errorf("arrived from %v", peer)
			}
			if err == nil {
				_, err = server.WriteToUDPAddrPort([]byte("answer"), peer)
			}
			if err != nil {
				answered <- err
				return
			}
		}
	}()
	buf := make([]byte, 10)
	for { // a datagram may get lost on a busy machine
		if _, err := client.Write([]byte("ask")); err != nil {
			t.Errorf("%v -> %v: %v", src, dst, err)
			return
		}
		client.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := client.Read(buf); err == nil {
			return
		}
		select {
		case err := <-answered:
			t.Errorf("%v -> %v: %v", src, dst, err)
			return
		default:
		}
	}
}

// hostAddrs gives the node addresses on an interface that has nothing to do with the workloads.
func (n *testNode) hostAddrs(t testing.TB) []netip.Addr {
	t.Helper()
	lo, err := n.net.Link("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.net.SetUp(lo.Index); err != nil {
		t.Fatal(err)
	}
	var as []netip.Addr
	for _, p := range []string{"192.0.2.1/32", "2001:db8::1/128"} {
		p := netip.MustParsePrefix(p)
		if err := n.net.SetAddr(linuxnet.Addr{Link: lo.Index, Prefix: p}); err != nil {
			t.Fatal(err)
		}
		as = append(as, p.Addr())
	}
	return as
}

func TestAttachCarriesPackets(t *testing.T) {
	n := newTestNode(t)
	host := n.hostAddrs(t)
	a, b := netnstest.New(t), netnstest.New(t)
	ra, rb := attachment(1, a), attachment(2, b)
	// Many runtimes hand over namespaces without IPv6.
	if err := openConn(t, a).SetSysctls([]linuxnet.Sysctl{{Path: "ipv6/conf/all/disable_ipv6", Value: "1"},
		{Path: "ipv6/conf/default/disable_ipv6", Value: "1"}}); err != nil {
		t.Fatal(err)
	}
	got := n.add(t, ra)
	want := drivers.Attached{HostIface: ra.HostIface, HostMAC: hostMAC, MAC: macOf(ra.ID), MTU: 1500, Gateways: []netip.Addr{gateway4, gateway6}, Made: true}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("Attach (-want +got):\n%s", d)
	}
	if again := n.add(t, ra); again.Made {
		t.Error("a second Attach says that it has made the interface")
	}
	n.setMTU(1440)
	if got := n.add(t, rb); got.MTU != 1440 {
		t.Errorf("MTU %d, want the node's", got.MTU)
	}
	n.apply(t, nil)
	everywhere := func() {
		t.Helper()
		for i := range ra.Addrs {
			exchange(t, a, ra.Addrs[i], b, rb.Addrs[i])
			exchange(t, a, ra.Addrs[i], n.net.Ns(), host[i])
			exchange(t, n.net.Ns(), host[i], b, rb.Addrs[i])
		}
	}
	everywhere()
	// The workload loses its permanent neighbours: the node answers for the gateway, whatever its own routes are and
	// also when it is told to answer for an interface's own addresses only.
	in := openConn(t, a)
	neighs, err := in.Neighs(0)
	if err != nil || len(neighs) != 2 {
		t.Fatalf("neighbours of the workload: %v, %v", neighs, err)
	}
	for _, nb := range neighs {
		if err := in.DeleteNeigh(nb); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.net.SetSysctls([]linuxnet.Sysctl{{Path: "ipv4/conf/all/arp_ignore", Value: "1"}, {Path: "ipv4/conf/all/arp_announce", Value: "2"}}); err != nil {
		t.Fatal(err)
	}
	everywhere()
	if err := n.Check(t.Context(), ra); err == nil || !strings.Contains(err.Error(), "neighbour 169.254.1.1: is missing") ||
		!strings.Contains(err.Error(), "neighbour fe80::1: is missing") {
		t.Errorf("Check after losing neighbours: %v", err)
	}
}

// TestAttachSourceOfHost: what the node itself sends to a workload bears an address of the node, not the gateway's.
func TestAttachSourceOfHost(t *testing.T) {
	n := newTestNode(t)
	host := n.hostAddrs(t)
	a := netnstest.New(t)
	ra := attachment(1, a)
	n.add(t, ra)
	n.apply(t, nil)
	for i, dst := range ra.Addrs {
		c := inNs(t, n.net.Ns(), func() (*net.UDPConn, error) {
			return net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(dst, 9)))
		})
		if got := c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(); got != host[i] {
			t.Errorf("source of what the node sends to %v is %v, want %v", dst, got, host[i])
		}
		c.Close()
	}
}

func TestAttachIsIdempotent(t *testing.T) {
	n := newTestNode(t)
	a := netnstest.New(t)
	ra := attachment(1, a)
	n.add(t, ra)
	if err := n.Check(t.Context(), ra); err != nil {
		t.Fatalf("Check of what Attach made: %v", err)
	}
	before, err := n.net.Link(ra.HostIface)
	if err != nil {
		t.Fatal(err)
	}
	in := openConn(t, a)
	// The kernel itself may still be busy with what the first Attach made (it checks link-local addresses for a second or
	// two), so that one quiet Attach of several is enough: one that writes does it each time.
	var events []linuxnet.Event
	for range 6 {
		if events = n.eventsOfAttach(t, in, ra); len(events) == 0 {
			break
		}
	}
	if len(events) > 0 {
		t.Errorf("attaching again changed %+v", events)
	}
	after, err := n.net.Link(ra.HostIface)
	if err != nil || after != before {
		t.Errorf("the interface was %+v and is %+v, %v", before, after, err)
	}
}

// eventsOfAttach attaches ra again, and returns what changed meanwhile in the node and in the workload, and half a second
// after.
func (n *testNode) eventsOfAttach(t *testing.T, in *linuxnet.Conn, ra drivers.Attachment) []linuxnet.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var events []linuxnet.Event
	var mu sync.Mutex
	var ended []<-chan error
	for _, c := range []*linuxnet.Conn{n.net, in} {
		end, err := c.Watch(ctx, func(e linuxnet.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		})
		if err != nil {
			t.Fatal(err)
		}
		ended = append(ended, end)
	}
	n.add(t, ra)
	for _, e := range ended {
		<-e
	}
	return events
}

// TestAttachMends damages one thing at a time; Check names it, Attach mends it.
func TestAttachMends(t *testing.T) {
	n := newTestNode(t)
	a := netnstest.New(t)
	ra := attachment(1, a)
	n.add(t, ra)
	in := openConn(t, a)
	h, err := n.net.Link(ra.HostIface)
	if err != nil {
		t.Fatal(err)
	}
	w, err := in.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	sysctl := func(c *linuxnet.Conn, path, value string) func() error {
		return func() error { return c.SetSysctls([]linuxnet.Sysctl{{Path: path, Value: value}}) }
	}
	for _, tc := range []struct {
		name, says string
		damage     func() error
	}{
		{"host MTU", "MTU of " + h.Name + ": is 1400, should be 1500", func() error { return n.net.SetMTU(h.Index, 1400) }},
		{"workload MTU", "MTU of eth0: is 1400", func() error { return in.SetMTU(w.Index, 1400) }},
		{"host MAC", "MAC of " + h.Name, func() error { return n.net.SetMAC(h.Index, linuxnet.MAC{2, 1, 1, 1, 1, 1}) }},
		{"workload MAC", "MAC of eth0", func() error { return in.SetMAC(w.Index, linuxnet.MAC{2, 1, 1, 1, 1, 1}) }},
		{"host down", h.Name + " being up", func() error { return n.net.SetDown(h.Index) }},
		{"workload down", "eth0 being up", func() error { return in.SetDown(w.Index) }},
		{"alias", "alias of " + h.Name, func() error { return n.net.SetAlias(h.Index, "") }},
		{"rp_filter", "rp_filter=1", sysctl(n.net, "ipv4/conf/"+h.Name+"/rp_filter", "1")},
		{"host IPv6", "disable_ipv6=1", sysctl(n.net, "ipv6/conf/"+h.Name+"/disable_ipv6", "1")},
		{"workload IPv6", "disable_ipv6=1", sysctl(in, "ipv6/conf/eth0/disable_ipv6", "1")},
		{"gateway address", "169.254.1.1/32 is missing", func() error {
			return n.net.DeleteAddr(linuxnet.Addr{Link: h.Index, Prefix: netip.MustParsePrefix("169.254.1.1/32")})
		}},
		{"workload address", "fd65::1/128 is missing", func() error {
			return in.DeleteAddr(linuxnet.Addr{Link: w.Index, Prefix: netip.MustParsePrefix("fd65::1/128")})
		}},
		{"strange address", "10.9.9.9/32 should not be there", func() error {
			return in.SetAddr(linuxnet.Addr{Link: w.Index, Prefix: netip.MustParsePrefix("10.9.9.9/32")})
		}},
		{"default route", "route 0.0.0.0/0: is missing", func() error {
			return in.DeleteRoute(linuxnet.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Link: w.Index, Via: gateway4})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.damage(); err != nil {
				t.Fatal(err)
			}
			if err := n.Check(t.Context(), ra); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Check says %v, want %q", err, tc.says)
			}
			if _, err := n.Attach(t.Context(), ra); err != nil {
				t.Error(err)
			}
			if err := n.Check(t.Context(), ra); err != nil {
				t.Errorf("after the mend: %v", err)
			}
		})
	}
}

func TestAttachRefuses(t *testing.T) {
	n := newTestNode(t)
	a, b := netnstest.New(t), netnstest.New(t)
	ra := attachment(1, a)
	n.add(t, ra)
	for _, tc := range []struct {
		name, says string
		change     func(*drivers.Attachment)
	}{
		{"another sandbox", "belongs to something else", func(r *drivers.Attachment) { r.ID.Sandbox, r.Netns = "other", b.Path() }},
		{"taken name inside", "has an interface eth0", func(r *drivers.Attachment) { r.HostIface = "tort00000000009" }},
		{"no namespace", "no such file", func(r *drivers.Attachment) { r.Netns = "/run/netns/there-is-none" }},
		{"node's namespace", "the node's own", func(r *drivers.Attachment) { r.Netns = n.net.Ns().Path() }},
		{"long name", "no name of an interface", func(r *drivers.Attachment) { r.HostIface = "tort000000000012" }},
		{"no address", "no addresses", func(r *drivers.Attachment) { r.Addrs = nil }},
		{"multicast", "cannot be the address", func(r *drivers.Attachment) { r.Addrs = []netip.Addr{netip.MustParseAddr("224.0.0.1")} }},
		{"group MAC", "group's", func(r *drivers.Attachment) { r.MAC = drivers.MAC{1, 2, 3, 4, 5, 6} }},
		{"MTU", "too small for IPv6", func(r *drivers.Attachment) { r.MTU = 1000 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := ra
			tc.change(&r)
			if _, err := n.Attach(t.Context(), r); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Attach says %v, want %q", err, tc.says)
			}
			links, err := n.net.Links()
			if err != nil {
				t.Fatal(err)
			}
			torts := slices.DeleteFunc(links, func(l linuxnet.Link) bool { return !strings.HasPrefix(l.Name, "tort") })
			if len(torts) != 1 || torts[0].Name != ra.HostIface {
				t.Errorf("interfaces afterwards: %+v", torts)
			}
			if err := n.Check(t.Context(), ra); err != nil {
				t.Errorf("the first workload afterwards: %v", err)
			}
		})
	}
	other := ra
	other.ID.Sandbox = "other"
	if err := n.Detach(t.Context(), other); err == nil || !strings.Contains(err.Error(), "belongs to something else") {
		t.Errorf("Detach of another's interface: %v", err)
	}
}

// TestAttachReplacesOwn: the same workload comes with a new namespace while the old one still stands.
func TestAttachReplacesOwn(t *testing.T) {
	n := newTestNode(t)
	a, b := netnstest.New(t), netnstest.New(t)
	ra := attachment(1, a)
	n.add(t, ra)
	ra.Netns = b.Path()
	n.add(t, ra)
	if err := n.Check(t.Context(), ra); err != nil {
		t.Error(err)
	}
	if _, err := openConn(t, a).Link("eth0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old interface: %v", err)
	}
}

// TestAttachFailureLeavesNothing lets the last step fail: the workload has a default route already.
func TestAttachFailureLeavesNothing(t *testing.T) {
	n := newTestNode(t)
	a := netnstest.New(t)
	in := openConn(t, a)
	lo, err := in.Link("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := in.SetUp(lo.Index); err != nil {
		t.Fatal(err)
	}
	foreign := linuxnet.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Link: lo.Index, Scope: linuxnet.ScopeLink, Protocol: 3}
	if err := in.AddRoute(foreign); err != nil {
		t.Fatal(err)
	}
	ra := attachment(1, a)
	if _, err := n.Attach(t.Context(), ra); err == nil || !strings.Contains(err.Error(), "route 0.0.0.0/0") {
		t.Errorf("Attach says %v", err)
	}
	if _, err := n.net.Link(ra.HostIface); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the host's end is left: %v", err)
	}
	if err := in.DeleteRoute(foreign); err != nil {
		t.Fatal(err)
	}
	n.add(t, ra)
}

func TestDetach(t *testing.T) {
	n := newTestNode(t)
	a := netnstest.New(t)
	ra := attachment(1, a)
	for range 2 {
		n.add(t, ra)
		for range 2 {
			if err := n.Detach(t.Context(), ra); err != nil {
				t.Fatal(err)
			}
		}
		if err := n.Check(t.Context(), ra); err == nil || !strings.Contains(err.Error(), "missing") {
			t.Errorf("Check after Detach: %v", err)
		}
	}
}

// TestAttachAtOnce attaches and detaches from many goroutines, two for each workload.
func TestAttachAtOnce(t *testing.T) {
	n := newTestNode(t)
	const workloads = 10
	reqs := make([]drivers.Attachment, workloads)
	for i := range reqs {
		reqs[i] = attachment(i+1, netnstest.New(t))
	}
	all := func(fn func(drivers.Attachment) error) {
		t.Helper()
		var wg sync.WaitGroup
		for _, r := range append(reqs, reqs...) {
			wg.Go(func() {
				if err := fn(r); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	all(func(r drivers.Attachment) error { _, err := n.Attach(t.Context(), r); return err })
	all(func(r drivers.Attachment) error { return n.Check(t.Context(), r) })
	all(func(r drivers.Attachment) error { return n.Detach(t.Context(), r) })
	links, err := n.net.Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, "tort") {
			t.Errorf("%s is left", l.Name)
		}
	}
}

func TestNames(t *testing.T) {
	a := drivers.EndpointID{Sandbox: "s", Interface: "eth0"}
	b := drivers.EndpointID{Sandbox: "s", Interface: "eth1"}
	if macOf(a) == macOf(b) || macOf(a)[0]&3 != 2 {
		t.Errorf("MACs %x and %x", macOf(a), macOf(b))
	}
	long := drivers.EndpointID{Sandbox: strings.Repeat("x", 300), Interface: "eth0"}
	if alias(a) != "tortie s/eth0" || len(alias(long)) > 255 {
		t.Errorf("aliases %q and %q", alias(a), alias(long))
	}
}
