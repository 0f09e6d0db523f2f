package linux

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/linuxnet"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

func TestInventory(t *testing.T) {
	c := openConn(t, netnstest.New(t))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make(chan []drivers.HostIface, 100)
	ended := make(chan error, 1)
	v := newInventory(c, slog.New(slog.DiscardHandler))
	go func() { ended <- v.WatchHost(ctx, func(is []drivers.HostIface) { got <- is }) }()
	// until waits for an inventory in which name is as ok says; nil = it is not there.
	until := func(what, name string, ok func(*drivers.HostIface) bool) {
		t.Helper()
		for {
			select {
			case is := <-got:
				var found *drivers.HostIface
				for i := range is {
					if is[i].Name == name {
						found = &is[i]
					}
					if i > 0 && is[i-1].Name >= is[i].Name {
						t.Fatalf("not sorted: %v", is)
					}
				}
				if ok(found) {
					return
				}
			case <-ctx.Done():
				t.Fatalf("never: %s", what)
			}
		}
	}
	until("start", "lo", func(h *drivers.HostIface) bool { return h != nil && h.Index == 1 })
	other := openConn(t, netnstest.New(t))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.AddVeth(linuxnet.Veth{Name: "torta", MAC: linuxnet.MAC{2, 1}, Peer: "eth0", PeerNs: other.Ns(), MTU: 1400}))
	until("link", "torta", func(h *drivers.HostIface) bool { return h != nil && h.MTU == 1400 && h.MAC[1] == 1 && h.Parent == "" })
	l, err := c.Link("torta")
	must(err)
	must(c.SetUp(l.Index))
	until("up", "torta", func(h *drivers.HostIface) bool { return h != nil && h.Up })
	for _, a := range []string{"fd00::2/64", "10.0.0.2/24", "10.0.0.1/24"} {
		must(c.SetAddr(linuxnet.Addr{Link: l.Index, Prefix: netip.MustParsePrefix(a)}))
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("fd00::2/64")}
	until("addresses", "torta", func(h *drivers.HostIface) bool {
		var as []netip.Prefix
		for _, a := range h.Addrs {
			if !a.Addr().IsLinkLocalUnicast() {
				as = append(as, a)
			}
		}
		return cmp.Equal(want, as, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
	})
	must(c.DeleteLink("torta"))
	until("gone", "torta", func(h *drivers.HostIface) bool { return h == nil })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("end of the watch: %v", err)
	}
}

// TestInventoryCoalesces: many changes at once are one or few calls.
func TestInventoryCoalesces(t *testing.T) {
	c := openConn(t, netnstest.New(t))
	lo, err := c.Link("lo")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got := make(chan []drivers.HostIface, 1000)
	go newInventory(c, slog.New(slog.DiscardHandler)).WatchHost(ctx, func(is []drivers.HostIface) { got <- is })
	<-got
	const addrs = 200
	begin := time.Now()
	for i := range addrs {
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		if err := c.SetAddr(linuxnet.Addr{Link: lo.Index, Prefix: netip.PrefixFrom(a, 32)}); err != nil {
			t.Fatal(err)
		}
	}
	for calls := 1; ; calls++ {
		select {
		case is := <-got:
			for _, h := range is {
				if h.Name == "lo" && len(h.Addrs) == addrs {
					if most := 3 + int(time.Since(begin)/inventoryDelay); calls > most {
						t.Errorf("%d calls for one burst, want at most %d", calls, most)
					}
					return
				}
			}
		case <-ctx.Done():
			t.Fatal("the addresses never came")
		}
	}
}

func TestInventoryParent(t *testing.T) {
	links := []linuxnet.Link{
		{Index: 1, Name: "lo", ParentNs: -1}, {Index: 2, Name: "eth0", ParentNs: -1}, {Index: 3, Name: "vlan7", Parent: 2, ParentNs: -1},
		{Index: 4, Name: "torta", Parent: 2, ParentNs: 0}, {Index: 5, Name: "br0", ParentNs: -1}, {Index: 6, Name: "port", Master: 5, ParentNs: -1},
		{Index: 7, Name: "v0", Parent: 8, ParentNs: -1}, {Index: 8, Name: "v1", Parent: 7, ParentNs: -1},
	}
	got := map[string]string{}
	for _, h := range inventoryOf(links, nil) {
		if h.Parent != "" {
			got[h.Name] = h.Parent
		}
	}
	if d := cmp.Diff(map[string]string{"vlan7": "eth0", "port": "br0", "v0": "v1", "v1": "v0"}, got); d != "" {
		t.Errorf("parents (-want +got):\n%s", d)
	}
}
