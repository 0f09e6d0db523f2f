package linux

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// TestFind finds what another plugin has made, and refuses what policy could not see.
func TestFind(t *testing.T) {
	n, ns := newTestNode(t), netnstest.New(t)
	a := drivers.Attachment{ID: drivers.EndpointID{Sandbox: "s", Interface: "eth0"}, Netns: ns.Path()}
	if _, err := n.Find(t.Context(), a); err == nil {
		t.Error("found what is not there")
	}
	made := attachment(1, ns)
	made.ID, made.HostIface = a.ID, "veth0815"
	want, err := n.Attach(t.Context(), made)
	if err != nil {
		t.Fatal(err)
	}
	got, err := n.Find(t.Context(), a)
	if err != nil || got.HostIface != "veth0815" || got.MAC != want.MAC || got.HostMAC != want.HostMAC || got.MTU != want.MTU {
		t.Errorf("%+v %v, want %+v", got, err, want)
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}
	if err := n.net.Ns().Do(func() error {
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		port, err := netlink.LinkByName("veth0815")
		if err != nil {
			return err
		}
		return netlink.LinkSetMaster(port, bridge)
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Find(t.Context(), a); err == nil || !strings.Contains(err.Error(), "a port of bridge cni0") {
		t.Errorf("a port of a bridge: %v", err)
	}
	a.ID.Interface = "lo"
	if _, err := n.Find(t.Context(), a); err == nil || !strings.Contains(err.Error(), "no half of a veth pair") {
		t.Errorf("lo: %v", err)
	}
}
