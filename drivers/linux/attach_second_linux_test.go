package linux

import (
	"strings"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/linuxnet"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// TestAttachSecondInterface: a workload has two. Each is reached by its own addresses, answers by itself, and may begin
// conversations; Check knows what belongs to which.
func TestAttachSecondInterface(t *testing.T) {
	n := newTestNode(t)
	host := n.hostAddrs(t)
	a := netnstest.New(t)
	first, second := attachment(1, a), attachment(2, a)
	second.ID = drivers.EndpointID{Sandbox: first.ID.Sandbox, Interface: "net1"}
	n.add(t, first)
	n.add(t, second)
	n.apply(t, nil)
	for _, ra := range []drivers.Attachment{first, second} {
		for i, addr := range ra.Addrs {
			exchange(t, n.net.Ns(), host[i], a, addr)
			exchange(t, a, addr, n.net.Ns(), host[i])
		}
		if err := n.Check(t.Context(), ra); err != nil {
			t.Errorf("%s: %v", ra.ID.Interface, err)
		}
		if _, err := n.Attach(t.Context(), ra); err != nil {
			t.Errorf("%s, again: %v", ra.ID.Interface, err)
		}
	}
	in := openConn(t, a)
	w, err := in.Link("net1")
	if err != nil {
		t.Fatal(err)
	}
	rs, err := in.RoutesOf(tableBase+w.Index, 0)
	if err != nil {
		t.Fatal(err)
	}
	gone := 0
	for _, r := range rs {
		if r.Dst.Bits() == 0 {
			gone++
			if err := in.DeleteRoute(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := n.Check(t.Context(), second); gone != 2 || err == nil || strings.Count(err.Error(), "is missing") != 2 {
		t.Errorf("%d default routes deleted; Check says %v", gone, err)
	}
	if err := n.Check(t.Context(), first); err != nil {
		t.Errorf("the first interface: %v", err)
	}
	if _, err := n.Attach(t.Context(), second); err != nil {
		t.Error(err)
	}
	// The first goes, and the second stays as it is.
	if err := n.Detach(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	for i, addr := range second.Addrs {
		exchange(t, n.net.Ns(), host[i], a, addr)
	}
	// It has the only default route once it is attached again.
	if _, err := n.Attach(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if err := n.Check(t.Context(), second); err != nil {
		t.Error(err)
	}
	exchange(t, a, second.Addrs[0], n.net.Ns(), host[0])
}

// TestCheckLeavesToOthers: plugins chained behind may open the way from 127.0.0.1.
func TestCheckLeavesToOthers(t *testing.T) {
	n := newTestNode(t)
	ra := attachment(1, netnstest.New(t))
	n.add(t, ra)
	open := []linuxnet.Sysctl{{Path: "ipv4/conf/" + ra.HostIface + "/route_localnet", Value: "1"}}
	if err := n.net.SetSysctls(open); err != nil {
		t.Fatal(err)
	}
	if err := n.Check(t.Context(), ra); err != nil {
		t.Error(err)
	}
	if _, err := n.Attach(t.Context(), ra); err != nil {
		t.Fatal(err)
	}
	if diff, err := n.net.DiffSysctls(open); err != nil || len(diff) != 1 {
		t.Errorf("Attach left it open: %v %v", diff, err)
	}
}
