package linux

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/tortie/tortie/drivers"
)

func TestPlanRoute(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	for _, tc := range []struct {
		name string
		r    drivers.Route
		want plannedRoute
		none bool
		says string
	}{
		{name: "local", r: drivers.Route{Dst: p("10.0.0.1/32"), Iface: "torta"}, want: plannedRoute{dst: p("10.0.0.1/32"), iface: "torta"}},
		{name: "local without interface", r: drivers.Route{Dst: p("10.0.0.1/32")}, says: "needs an interface"},
		{name: "blackhole", r: drivers.Route{Dst: p("fd00::/122"), Kind: drivers.RouteBlackhole}, want: plannedRoute{dst: p("fd00::/122"), blackhole: true}},
		{name: "blackhole of one address", r: drivers.Route{Dst: p("10.0.0.1/32"), Kind: drivers.RouteBlackhole}, none: true},
		{name: "blackhole of one IPv6 address", r: drivers.Route{Dst: p("fd00::1/128"), Kind: drivers.RouteBlackhole}, none: true},
		{name: "remote", r: drivers.Route{Dst: p("10.1.0.0/26"), Kind: drivers.RouteRemote, NextHop: a("192.0.2.1")},
			want: plannedRoute{dst: p("10.1.0.0/26"), via: a("192.0.2.1")}},
		{name: "remote on an interface", r: drivers.Route{Dst: p("fd01::/122"), Kind: drivers.RouteRemote, NextHop: a("fd00::1"), Iface: "eth0"},
			want: plannedRoute{dst: p("fd01::/122"), via: a("fd00::1"), iface: "eth0"}},
		{name: "no next hop", r: drivers.Route{Dst: p("10.1.0.0/26"), Kind: drivers.RouteRemote}, says: "of no use"},
		{name: "next hop of the other family", r: drivers.Route{Dst: p("10.1.0.0/26"), Kind: drivers.RouteRemote, NextHop: a("fd00::1")}, says: "of no use"},
		{name: "not masked", r: drivers.Route{Dst: p("10.1.0.1/26"), Kind: drivers.RouteBlackhole}, says: "no destination"},
		{name: "no destination", r: drivers.Route{Kind: drivers.RouteBlackhole}, says: "no destination"},
		{name: "kind", r: drivers.Route{Dst: p("10.1.0.0/26"), Kind: 9}, says: "not supported"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, ok, err := planRoute(&tc.r)
			if tc.says != "" {
				if err == nil || !strings.Contains(err.Error(), tc.says) {
					t.Errorf("error %v, want %q", err, tc.says)
				}
				return
			}
			if err != nil || ok == tc.none || ok && got != tc.want {
				t.Errorf("%+v, %v, %v; want %+v", got, ok, err, tc.want)
			}
		})
	}
	for _, e := range []drivers.Encap{drivers.EncapIPIP, drivers.EncapVXLAN, drivers.EncapWireGuard} {
		r := drivers.Route{Dst: p("10.1.0.0/26"), Kind: drivers.RouteRemote, NextHop: a("192.0.2.1"), Encap: e}
		if _, _, err := planRoute(&r); !errors.Is(err, drivers.ErrUnsupported) {
			t.Errorf("encapsulation %d: %v", e, err)
		}
	}
}

func TestPlanNeighs(t *testing.T) {
	mac := drivers.MAC{2, 0, 0, 0, 0, 1}
	e := &drivers.Endpoint{Iface: "torta", MAC: mac, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}
	if got := planNeighs(e); len(got) != 2 || got[1] != (plannedNeigh{"torta", netip.MustParseAddr("fd00::1"), mac}) {
		t.Errorf("neighbours %+v", got)
	}
	noMAC, host := *e, *e
	noMAC.MAC, host.ID.Kind = drivers.MAC{}, drivers.HostInterface
	for _, e := range []*drivers.Endpoint{nil, &noMAC, &host} {
		if got := planNeighs(e); got != nil {
			t.Errorf("neighbours of %+v: %+v", e, got)
		}
	}
}
