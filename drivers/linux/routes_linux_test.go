package linux

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/linuxnet"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// routesWorld is a node with two workload interfaces and an uplink to 192.0.2.0/24 and 2001:db8::/64.
type routesWorld struct {
	*testNode
	writes int
	refuse func(what string) error
}

func newRoutesWorld(t testing.TB) *routesWorld {
	t.Helper()
	w := &routesWorld{testNode: newTestNode(t)}
	w.reopen(t)
	other := openConn(t, netnstest.New(t))
	for i, name := range []string{"torta", "tortb", "eth0"} {
		peer := fmt.Sprintf("p%d", i)
		if err := w.net.AddVeth(linuxnet.Veth{Name: name, Peer: peer, PeerNs: other.Ns()}); err != nil {
			t.Fatal(err)
		}
		w.up(t, w.net, name)
		w.up(t, other, peer)
	}
	eth0, err := w.net.Link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"192.0.2.10/24", "2001:db8::10/64"} {
		if err := w.net.SetAddr(linuxnet.Addr{Link: eth0.Index, Prefix: netip.MustParsePrefix(a)}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *routesWorld) up(t testing.TB, c *linuxnet.Conn, name string) {
	t.Helper()
	l, err := c.Link(name)
	if err == nil {
		err = c.SetUp(l.Index)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// reopen is a restart: nothing in memory is left.
func (w *routesWorld) reopen(t testing.TB) {
	w.routes.close()
	w.routes = newRoutes(w.net, w.log, func() { w.kicks <- struct{}{} }, func(what string) error {
		w.writes++
		if w.refuse != nil {
			return w.refuse(what)
		}
		return nil
	})
	t.Cleanup(w.routes.close)
}

func route(dst string, kind drivers.RouteKind, to string) *drivers.Route {
	r := &drivers.Route{Dst: netip.MustParsePrefix(dst), Kind: kind}
	if a, err := netip.ParseAddr(to); err == nil {
		r.NextHop = a
	} else {
		r.Iface = to
	}
	return r
}

func (w *routesWorld) want(rs ...*drivers.Route) *drivers.Changes {
	ch := drivers.NewChanges()
	for dst := range w.state.Routes {
		ch.Routes[dst] = struct{}{}
	}
	clear(w.state.Routes)
	for _, r := range rs {
		w.state.Routes[r.Dst] = r
		ch.Routes[r.Dst] = struct{}{}
	}
	return ch
}

// dump is the routes of the main table but the kernel's own, one to a line.
func (w *routesWorld) dump(t testing.TB) string {
	t.Helper()
	rs, err := w.net.Routes(0)
	if err != nil {
		t.Fatal(err)
	}
	links, err := w.net.Links()
	if err != nil {
		t.Fatal(err)
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Index] = l.Name
	}
	var lines []string
	for _, r := range rs {
		if r.Protocol == 2 || r.Dst.Addr().IsMulticast() || r.Dst.Addr().IsLinkLocalUnicast() {
			continue
		}
		line := fmt.Sprintf("%s proto %d metric %d", r.Dst, r.Protocol, r.Metric)
		if r.Blackhole {
			line += " blackhole"
		}
		if r.Via.IsValid() {
			line += " via " + r.Via.String()
		}
		if r.Link != 0 {
			line += " dev " + names[r.Link]
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func (w *routesWorld) expect(t testing.TB, want ...string) {
	t.Helper()
	slices.Sort(want)
	if d := cmp.Diff(strings.Join(want, "\n"), w.dump(t)); d != "" {
		t.Errorf("routes (-want +got):\n%s", d)
	}
}

// kicked waits for a kick.
func (w *routesWorld) kicked(t testing.TB) {
	t.Helper()
	select {
	case <-w.kicks:
	case <-time.After(10 * time.Second):
		t.Fatal("no kick")
	}
}

// quiet makes sure that everything up to now has not led to a kick: a change that must lead to one does so first.
func (w *routesWorld) quiet(t testing.TB) {
	t.Helper()
	if n := len(w.kicks); n > 0 {
		t.Errorf("%d kicks for nothing", n)
	}
	w.routes.mu.Lock()
	w.routes.waiting["fence"] = struct{}{}
	w.routes.mu.Unlock()
	if err := w.net.AddVeth(linuxnet.Veth{Name: "fence", Peer: "fence-peer"}); err != nil {
		t.Fatal(err)
	}
	w.up(t, w.net, "fence")
	w.kicked(t)
	if err := w.net.DeleteLink("fence"); err != nil {
		t.Fatal(err)
	}
	if n := len(w.kicks); n > 1 { // the fence itself may lead to two: it comes, and it comes up
		t.Errorf("%d kicks for nothing", n)
	}
}

// TestRoutesFollowTheState goes through states that share destinations, with hints and without.
func TestRoutesFollowTheState(t *testing.T) {
	for _, mode := range []string{"hint", "full", "restart"} {
		t.Run(mode, func(t *testing.T) {
			w := newRoutesWorld(t)
			eth0, _ := w.net.Link("eth0")
			foreign := linuxnet.Route{Dst: netip.MustParsePrefix("10.9.0.0/16"), Link: eth0.Index, Via: netip.MustParseAddr("192.0.2.9"), Protocol: 3}
			beside := foreign
			beside.Dst = netip.MustParsePrefix("10.65.0.0/26")
			for _, r := range []linuxnet.Route{foreign, beside} {
				if err := w.net.AddRoute(r); err != nil {
					t.Fatal(err)
				}
			}
			left := []string{"10.9.0.0/16 proto 3 metric 0 via 192.0.2.9 dev eth0", "10.65.0.0/26 proto 3 metric 0 via 192.0.2.9 dev eth0"}
			w.apply(t, nil)
			for _, s := range []struct {
				routes []*drivers.Route
				want   []string
			}{
				{
					[]*drivers.Route{
						route("10.65.0.1/32", drivers.RouteLocal, "torta"), route("fd65::1/128", drivers.RouteLocal, "torta"),
						route("10.65.0.0/26", drivers.RouteBlackhole, ""), route("fd65::/122", drivers.RouteBlackhole, ""),
						route("10.65.1.0/26", drivers.RouteRemote, "192.0.2.1"), route("fd65:1::/122", drivers.RouteRemote, "2001:db8::1"),
						route("10.65.0.7/32", drivers.RouteBlackhole, ""),
					},
					[]string{
						"10.65.0.1/32 proto 84 metric 84 dev torta", "fd65::1/128 proto 84 metric 84 dev torta",
						"10.65.0.0/26 proto 84 metric 84 blackhole", "fd65::/122 proto 84 metric 84 blackhole",
						"10.65.1.0/26 proto 84 metric 84 via 192.0.2.1 dev eth0", "fd65:1::/122 proto 84 metric 84 via 2001:db8::1 dev eth0",
					},
				},
				{ // Every one changes: the interface, the kind both ways, the next hop.
					[]*drivers.Route{
						route("10.65.0.1/32", drivers.RouteLocal, "tortb"), route("fd65::1/128", drivers.RouteLocal, "tortb"),
						route("10.65.0.0/26", drivers.RouteRemote, "192.0.2.1"), route("fd65::/122", drivers.RouteRemote, "2001:db8::1"),
						route("10.65.1.0/26", drivers.RouteBlackhole, ""), route("fd65:1::/122", drivers.RouteBlackhole, ""),
						route("10.65.2.0/26", drivers.RouteRemote, "192.0.2.2"), route("fd65:2::/122", drivers.RouteRemote, "2001:db8::2"),
					},
					[]string{
						"10.65.0.1/32 proto 84 metric 84 dev tortb", "fd65::1/128 proto 84 metric 84 dev tortb",
						"10.65.0.0/26 proto 84 metric 84 via 192.0.2.1 dev eth0", "fd65::/122 proto 84 metric 84 via 2001:db8::1 dev eth0",
						"10.65.1.0/26 proto 84 metric 84 blackhole", "fd65:1::/122 proto 84 metric 84 blackhole",
						"10.65.2.0/26 proto 84 metric 84 via 192.0.2.2 dev eth0", "fd65:2::/122 proto 84 metric 84 via 2001:db8::2 dev eth0",
					},
				},
				{
					[]*drivers.Route{route("10.65.2.0/26", drivers.RouteRemote, "192.0.2.3"), route("fd65:2::/122", drivers.RouteRemote, "2001:db8::3")},
					[]string{"10.65.2.0/26 proto 84 metric 84 via 192.0.2.3 dev eth0", "fd65:2::/122 proto 84 metric 84 via 2001:db8::3 dev eth0"},
				},
				{nil, nil},
			} {
				ch := w.want(s.routes...)
				switch mode {
				case "full":
					ch = nil
				case "restart":
					w.reopen(t)
					ch = nil
				}
				w.apply(t, ch)
				w.expect(t, append(s.want, left...)...)
				was := w.writes
				w.apply(t, ch)
				w.apply(t, nil)
				if w.writes != was {
					t.Errorf("%d writes with nothing to do", w.writes-was)
				}
			}
			w.quiet(t)
		})
	}
}

func TestRoutesSweepOldOnes(t *testing.T) {
	w := newRoutesWorld(t)
	torta, _ := w.net.Link("torta")
	for _, r := range []linuxnet.Route{
		{Dst: netip.MustParsePrefix("10.66.0.1/32"), Link: torta.Index, Scope: linuxnet.ScopeLink, Metric: routeMetric, Protocol: RouteProtocol},
		{Dst: netip.MustParsePrefix("fd66::1/128"), Link: torta.Index, Metric: 7, Protocol: RouteProtocol},
		{Dst: netip.MustParsePrefix("10.65.0.1/32"), Link: torta.Index, Scope: linuxnet.ScopeLink, Metric: 7, Protocol: RouteProtocol},
	} {
		if err := w.net.AddRoute(r); err != nil {
			t.Fatal(err)
		}
	}
	w.want(route("10.65.0.1/32", drivers.RouteLocal, "torta"))
	w.apply(t, nil)
	w.expect(t, "10.65.0.1/32 proto 84 metric 84 dev torta")
}

// TestRoutesErrors: what can't be done is named, and does not stop the rest.
func TestRoutesErrors(t *testing.T) {
	w := newRoutesWorld(t)
	eth0, _ := w.net.Link("eth0")
	taken := linuxnet.Route{Dst: netip.MustParsePrefix("10.65.9.0/26"), Link: eth0.Index, Via: netip.MustParseAddr("192.0.2.9"), Metric: routeMetric, Protocol: 3}
	if err := w.net.AddRoute(taken); err != nil {
		t.Fatal(err)
	}
	bad := map[string]error{
		"10.65.0.2/32": os.ErrNotExist, "fd65::2/128": os.ErrNotExist, "10.65.2.0/26": linuxnet.ErrOffLink,
		"fd65:2::/122": linuxnet.ErrOffLink, "10.65.9.0/26": os.ErrExist, "10.65.3.0/26": drivers.ErrUnsupported,
	}
	vxlan := route("10.65.3.0/26", drivers.RouteRemote, "192.0.2.1")
	vxlan.Encap = drivers.EncapVXLAN
	ch := w.want(
		route("10.65.0.1/32", drivers.RouteLocal, "torta"),
		route("10.65.0.2/32", drivers.RouteLocal, "tortz"), route("fd65::2/128", drivers.RouteLocal, "tortz"),
		route("10.65.2.0/26", drivers.RouteRemote, "198.51.100.1"), route("fd65:2::/122", drivers.RouteRemote, "2001:db8:1::1"),
		route("10.65.9.0/26", drivers.RouteBlackhole, ""), vxlan,
	)
	for _, ch := range []*drivers.Changes{nil, ch, nil} {
		failed := w.routes.apply(t.Context(), w.state, ch)
		if len(failed) != len(bad) {
			t.Errorf("failed: %v", failed)
		}
		for dst, want := range bad {
			if err := failed[routeRef(netip.MustParsePrefix(dst))]; !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", dst, err, want)
			}
		}
		w.expect(t, "10.65.0.1/32 proto 84 metric 84 dev torta", "10.65.9.0/26 proto 3 metric 84 via 192.0.2.9 dev eth0")
	}
	// The missing interface comes.
	if err := w.net.AddVeth(linuxnet.Veth{Name: "tortz", Peer: "peerz"}); err != nil {
		t.Fatal(err)
	}
	w.up(t, w.net, "tortz")
	w.kicked(t)
	failed := w.routes.apply(t.Context(), w.state, nil)
	if len(failed) != len(bad)-2 {
		t.Errorf("failed after the interface came: %v", failed)
	}
}

// TestRoutesNextHopMoves: a route whose next hop goes off the link is taken away, not left pointing nowhere.
func TestRoutesNextHopMoves(t *testing.T) {
	w := newRoutesWorld(t)
	w.want(route("10.65.1.0/26", drivers.RouteRemote, "192.0.2.1"))
	w.apply(t, nil)
	ch := w.want(route("10.65.1.0/26", drivers.RouteRemote, "198.51.100.1"))
	if failed := w.routes.apply(t.Context(), w.state, ch); len(failed) != 1 {
		t.Errorf("failed: %v", failed)
	}
	w.expect(t)
}

func TestRoutesKickWhenTamperedWith(t *testing.T) {
	w := newRoutesWorld(t)
	state := []*drivers.Route{
		route("10.65.0.1/32", drivers.RouteLocal, "torta"), route("fd65::1/128", drivers.RouteLocal, "torta"),
		route("10.65.1.0/26", drivers.RouteRemote, "192.0.2.1"), route("fd65:1::/122", drivers.RouteBlackhole, ""),
	}
	w.want(state...)
	w.apply(t, nil)
	want := w.dump(t)
	other := openConn(t, w.net.Ns())
	rs, err := other.Routes(RouteProtocol)
	if err != nil || len(rs) != len(state) {
		t.Fatalf("%v, %v", rs, err)
	}
	for _, r := range rs {
		t.Run("delete "+r.Dst.String(), func(t *testing.T) {
			if err := other.DeleteRoute(r); err != nil {
				t.Fatal(err)
			}
			w.kicked(t)
			w.apply(t, nil)
			if d := cmp.Diff(want, w.dump(t)); d != "" {
				t.Errorf("after the mend (-want +got):\n%s", d)
			}
		})
	}
	t.Run("replace", func(t *testing.T) {
		foreign := rs[0]
		foreign.Protocol = 3
		if err := other.ReplaceRoute(foreign); err != nil {
			t.Fatal(err)
		}
		w.kicked(t)
		if failed := w.routes.apply(t.Context(), w.state, nil); len(failed) != 1 {
			t.Errorf("a foreign route in the place of ours: %v", failed)
		}
		if err := other.DeleteRoute(foreign); err != nil {
			t.Fatal(err)
		}
		w.apply(t, nil)
	})
	t.Run("link down and up", func(t *testing.T) {
		l, err := w.net.Link("torta")
		if err != nil {
			t.Fatal(err)
		}
		if err := w.net.SetDown(l.Index); err != nil {
			t.Fatal(err)
		}
		if err := w.net.SetUp(l.Index); err != nil {
			t.Fatal(err)
		}
		w.kicked(t)
		w.apply(t, nil)
		if d := cmp.Diff(want, w.dump(t)); d != "" {
			t.Errorf("after the mend (-want +got):\n%s", d)
		}
	})
}

// TestRoutesLinkGone: a workload's interface goes with its routes, without a kick; a hint about anything else mends what
// can be mended once it is back.
func TestRoutesLinkGone(t *testing.T) {
	w := newRoutesWorld(t)
	mac := drivers.MAC{2, 0, 0, 0, 0, 7}
	id := drivers.EndpointID{Sandbox: "s", Interface: "eth0"}
	w.state.Endpoints[id] = &drivers.Endpoint{ID: id, Iface: "torta", MAC: mac, Addrs: []netip.Addr{netip.MustParseAddr("10.65.0.1")}}
	w.want(route("10.65.0.1/32", drivers.RouteLocal, "torta"), route("fd65::1/128", drivers.RouteLocal, "torta"))
	w.apply(t, nil)
	if err := w.net.DeleteLink("torta"); err != nil {
		t.Fatal(err)
	}
	w.quiet(t)
	failed := w.routes.apply(t.Context(), w.state, drivers.NewChanges())
	if len(failed) != 2 {
		t.Errorf("failed with the interface gone: %v", failed)
	}
	if err := w.net.AddVeth(linuxnet.Veth{Name: "torta", Peer: "peera"}); err != nil {
		t.Fatal(err)
	}
	w.up(t, w.net, "torta")
	w.kicked(t)
	w.apply(t, nil)
	w.expect(t, "10.65.0.1/32 proto 84 metric 84 dev torta", "fd65::1/128 proto 84 metric 84 dev torta")
	w.expectNeighs(t, "10.65.0.1 02:00:00:00:00:07 torta 84")
}

func (w *routesWorld) expectNeighs(t testing.TB, want ...string) {
	t.Helper()
	ns, err := w.net.Neighs(0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range ns {
		l, err := w.net.LinkByIndex(n.Link)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %s %d", n.Addr, fmtMAC(n.MAC), l.Name, n.Protocol))
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("neighbours (-want +got):\n%s", d)
	}
}

func TestNeighsFollowEndpoints(t *testing.T) {
	for _, mode := range []string{"hint", "full", "restart"} {
		t.Run(mode, func(t *testing.T) {
			w := newRoutesWorld(t)
			torta, _ := w.net.Link("torta")
			foreign := linuxnet.Neigh{Link: torta.Index, Addr: netip.MustParseAddr("10.65.0.99"), MAC: linuxnet.MAC{2, 9}}
			if err := w.net.SetNeigh(foreign); err != nil {
				t.Fatal(err)
			}
			const left = "10.65.0.99 02:09:00:00:00:00 torta 0"
			id := drivers.EndpointID{Sandbox: "s", Interface: "eth0"}
			w.apply(t, nil)
			for _, s := range []struct {
				e    *drivers.Endpoint
				want []string
			}{
				{&drivers.Endpoint{ID: id, Iface: "torta", MAC: drivers.MAC{2, 1}, Addrs: []netip.Addr{netip.MustParseAddr("10.65.0.1"), netip.MustParseAddr("fd65::1")}},
					[]string{left, "10.65.0.1 02:01:00:00:00:00 torta 84", "fd65::1 02:01:00:00:00:00 torta 84"}},
				{&drivers.Endpoint{ID: id, Iface: "torta", MAC: drivers.MAC{2, 2}, Addrs: []netip.Addr{netip.MustParseAddr("10.65.0.1"), netip.MustParseAddr("fd65::2")}},
					[]string{left, "10.65.0.1 02:02:00:00:00:00 torta 84", "fd65::2 02:02:00:00:00:00 torta 84"}},
				{&drivers.Endpoint{ID: id, Iface: "tortb", MAC: drivers.MAC{2, 2}, Addrs: []netip.Addr{netip.MustParseAddr("10.65.0.1")}},
					[]string{left, "10.65.0.1 02:02:00:00:00:00 tortb 84"}},
				{&drivers.Endpoint{ID: id, Iface: "tortb", Addrs: []netip.Addr{netip.MustParseAddr("10.65.0.1")}}, []string{left}},
				{nil, []string{left}},
			} {
				if s.e == nil {
					delete(w.state.Endpoints, id)
				} else {
					w.state.Endpoints[id] = s.e
				}
				ch := drivers.NewChanges()
				ch.Endpoints[id] = struct{}{}
				switch mode {
				case "full":
					ch = nil
				case "restart":
					w.reopen(t)
					ch = nil
				}
				w.apply(t, ch)
				w.expectNeighs(t, s.want...)
				was := w.writes
				w.apply(t, ch)
				w.apply(t, nil)
				if w.writes != was {
					t.Errorf("%d writes with nothing to do", w.writes-was)
				}
			}
		})
	}
}

// TestRoutesFailAtEachWrite: the n-th write fails, for each n, on the way from every state to every other; the next
// Apply converges, with a hint that names what was touched and without one.
func TestRoutesFailAtEachWrite(t *testing.T) {
	w := newRoutesWorld(t)
	idA, idB := drivers.EndpointID{Sandbox: "a", Interface: "eth0"}, drivers.EndpointID{Sandbox: "b", Interface: "eth0"}
	endpoint := func(id drivers.EndpointID, iface string, mac byte) *drivers.Endpoint {
		return &drivers.Endpoint{ID: id, Iface: iface, MAC: drivers.MAC{2, mac}, Addrs: []netip.Addr{netip.MustParseAddr("10.65.0.1")}}
	}
	worlds := []*drivers.State{drivers.NewState(), drivers.NewState(), drivers.NewState()}
	for _, r := range []*drivers.Route{route("10.65.0.1/32", drivers.RouteLocal, "torta"), route("fd65::/122", drivers.RouteBlackhole, "")} {
		worlds[1].Routes[r.Dst] = r
	}
	for _, r := range []*drivers.Route{route("10.65.0.1/32", drivers.RouteLocal, "tortb"), route("10.65.1.0/26", drivers.RouteRemote, "192.0.2.1")} {
		worlds[2].Routes[r.Dst] = r
	}
	worlds[1].Endpoints[idA], worlds[2].Endpoints[idA] = endpoint(idA, "torta", 1), endpoint(idA, "tortb", 1)
	worlds[2].Endpoints[idB] = endpoint(idB, "torta", 2)
	ch := drivers.NewChanges()
	for _, s := range worlds {
		s.Node = w.state.Node
		for dst := range s.Routes {
			ch.Routes[dst] = struct{}{}
		}
	}
	ch.Endpoints[idA], ch.Endpoints[idB] = struct{}{}, struct{}{}
	whole := func() string {
		ns, err := w.net.Neighs(0)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(ns, func(a, b linuxnet.Neigh) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		return fmt.Sprint(w.dump(t), ns)
	}
	golden := make([]string, len(worlds))
	for i, s := range worlds {
		w.state = s
		w.apply(t, nil)
		golden[i] = whole()
	}
	boom := errors.New("boom")
	for from := range worlds {
		for to := range worlds {
			for _, hint := range []*drivers.Changes{nil, ch} {
				for n := 1; ; n++ {
					w.state = worlds[from]
					w.apply(t, nil)
					w.state = worlds[to]
					count := 0
					w.refuse = func(string) error {
						if count++; count == n {
							return boom
						}
						return nil
					}
					failed := w.routes.apply(t.Context(), w.state, ch)
					w.refuse = nil
					if (count >= n) != (len(failed) > 0) {
						t.Errorf("%d to %d, write %d of %d fails: %v", from, to, n, count, failed)
					}
					w.apply(t, hint)
					if d := cmp.Diff(golden[to], whole()); d != "" {
						t.Errorf("%d to %d, after write %d failed (-want +got):\n%s", from, to, n, d)
					}
					if count < n {
						break
					}
				}
			}
		}
	}
}

func TestForwarding(t *testing.T) {
	w := newRoutesWorld(t)
	sysctl := func(path string) string {
		t.Helper()
		v, err := w.net.Sysctl(path)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	w.apply(t, nil)
	if v4, v6 := sysctl("ipv4/ip_forward"), sysctl("ipv6/conf/all/forwarding"); v4 != "0" || v6 != "0" {
		t.Errorf("without routes: %s, %s", v4, v6)
	}
	w.apply(t, w.want(route("10.65.0.1/32", drivers.RouteLocal, "torta")))
	if v4, v6 := sysctl("ipv4/ip_forward"), sysctl("ipv6/conf/all/forwarding"); v4 != "1" || v6 != "0" {
		t.Errorf("with a route of IPv4: %s, %s", v4, v6)
	}
	w.apply(t, w.want(route("fd65::1/128", drivers.RouteLocal, "torta")))
	if v6, ra := sysctl("ipv6/conf/all/forwarding"), sysctl("ipv6/conf/eth0/accept_ra"); v6 != "1" || ra != "2" {
		t.Errorf("with a route of IPv6: forwarding %s, accept_ra of eth0 %s", v6, ra)
	}
	if ra := sysctl("ipv6/conf/torta/accept_ra"); ra != "1" {
		t.Errorf("accept_ra of a workload's interface: %s", ra)
	}
}
