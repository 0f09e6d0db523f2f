package agent

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

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
