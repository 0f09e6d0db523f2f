package uplink

import (
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/tortie/tortie/internal/netns/netnstest"
)

// TestTo asks a kernel with a default route by one interface, and one network at another.
func TestTo(t *testing.T) {
	if err := netnstest.New(t).Do(func() error {
		if got := ToTheWorld(); got != [2]string{} {
			t.Errorf("without any interface: %q", got)
		}
		for name, text := range map[string]string{"up": "10.9.8.7/20", "other": "172.17.0.1/16"} {
			l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-peer"}
			if err := netlink.LinkAdd(l); err != nil {
				return err
			}
			for _, n := range []string{name, name + "-peer"} {
				link, err := netlink.LinkByName(n)
				if err != nil {
					return err
				}
				if err := netlink.LinkSetUp(link); err != nil {
					return err
				}
			}
			a, err := netlink.ParseAddr(text)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(l, a); err != nil {
				return err
			}
		}
		up, err := netlink.LinkByName("up")
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Gw: net.ParseIP("10.9.0.1")}); err != nil {
			return err
		}
		if got, want := ToTheWorld(), [2]string{"up", ""}; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got := To(netip.MustParseAddr("172.17.3.4")); got != "other" {
			t.Errorf("to the other network: %q", got)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
