package agent

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tortie/tortie/agent/pump"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/fake"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// TestDefaultRouteAddresses looks for the node's addresses in a namespace with two interfaces, of which only one has
// the default routes.
func TestDefaultRouteAddresses(t *testing.T) {
	ns := netnstest.New(t)
	var got []netip.Prefix
	var noRoute error
	err := ns.Do(func() error {
		if _, noRoute = defaultRouteAddresses(); noRoute == nil {
			t.Error("addresses were found where there is no default route")
		}
		for _, c := range []struct{ name, peer, v4, v6 string }{
			{"other", "other-peer", "172.17.0.1/16", "fd00::1/64"}, // a bridge of containers, say
			{"up", "up-peer", "10.9.8.7/20", "2001:db8:1::7/56"},
		} {
			if err := plugIn(c.name, c.peer, c.v4, c.v6); err != nil {
				return err
			}
		}
		up, err := netlink.LinkByName("up")
		if err != nil {
			return err
		}
		for _, gw := range []string{"10.9.0.1", "2001:db8:1::1"} {
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: net.ParseIP(gw)}); err != nil {
				return err
			}
		}
		got, err = defaultRouteAddresses()
		return err
	})
	want := []netip.Prefix{netip.MustParsePrefix("10.9.8.7/20"), netip.MustParsePrefix("2001:db8:1::7/56")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

// plugIn makes a pair of interfaces that are up, with addresses on one.
func plugIn(name, peer string, cidrs ...string) error {
	l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}
	if err := netlink.LinkAdd(l); err != nil {
		return err
	}
	for _, n := range []string{name, peer} {
		link, err := netlink.LinkByName(n)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		if n != name {
			continue
		}
		for _, c := range cidrs {
			a, err := netlink.ParseAddr(c)
			if err != nil {
				return err
			}
			a.Flags = 0x02 // IFA_F_NODAD: an address that is still being checked is no source
			if err := netlink.AddrAdd(link, a); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestUplinkOfAFlow: the interface is that of the route to the end which is not on this node.
func TestUplinkOfAFlow(t *testing.T) {
	d, err := fake.Open(t.Context(), drivers.Options{Log: slog.New(slog.DiscardHandler), Clock: time.Now}, fake.NewWorld())
	if err != nil {
		t.Fatal(err)
	}
	boot := drivers.NewState()
	web := netip.MustParseAddr("10.65.0.2")
	boot.Routes[netip.PrefixFrom(web, 32)] = &drivers.Route{Dst: netip.PrefixFrom(web, 32), Kind: drivers.RouteLocal, Iface: "tort1"}
	a := &agent{pump: pump.New(pump.Options{Driver: d, Log: slog.New(slog.DiscardHandler), ApplyTimeout: time.Minute, Boot: boot})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.pump.Run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	if err := a.pump.Wait(ctx, func(v *pump.View) bool { return !v.AllUnapplied }); err != nil {
		t.Fatal(err)
	}
	far := netip.MustParseAddr("172.17.5.5")
	err = netnstest.New(t).Do(func() error {
		if err := plugIn("other", "other-peer", "172.17.0.1/16"); err != nil {
			return err
		}
		for _, f := range []*agentapi.Flow{{Src: web, Dst: far}, {Src: far, Dst: web}} {
			if got := a.uplinkOf(f); got != "other" {
				t.Errorf("%s to %s: %q", f.Src, f.Dst, got)
			}
		}
		if got := a.uplinkOf(nil); got != "" {
			t.Errorf("no flow: %q", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
