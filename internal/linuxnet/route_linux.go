package linuxnet

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrOffLink says that a next hop is on no link of the node.
var ErrOffLink = errors.New("the next hop is on no link of this node")

// Route is a route of the main table.
type Route struct {
	Dst       netip.Prefix // masked
	Link      int          // index of the interface; 0 with a blackhole, or to let the kernel find it by Via
	Via       netip.Addr   // invalid = none
	Blackhole bool
	Scope     Scope // of IPv4 routes; IPv6's have none
	Metric    int
	Protocol  int // who made it (rtm_protocol)
}

// Routes lists the routes of the main table that have a protocol; 0 = of all.
func (c *Conn) Routes(protocol int) ([]Route, error) {
	var out []Route
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		var mask uint64
		if protocol != 0 {
			mask = netlink.RT_FILTER_PROTOCOL
		}
		rs, err := dump(func() ([]netlink.Route, error) {
			return c.strict.RouteListFiltered(fam, &netlink.Route{Protocol: netlink.RouteProtocol(protocol)}, mask)
		})
		if err != nil {
			return nil, fmt.Errorf("listing routes: %w", err)
		}
		for _, r := range rs {
			out = append(out, routeOf(r, fam))
		}
	}
	return out, nil
}

func routeOf(r netlink.Route, fam int) Route {
	k := Route{
		Dst: prefixOf(r.Dst), Link: r.LinkIndex, Via: addrOf(r.Gw), Blackhole: r.Type == unix.RTN_BLACKHOLE,
		Metric: r.Priority, Protocol: int(r.Protocol),
	}
	if !k.Dst.IsValid() {
		k.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if fam == unix.AF_INET6 {
			k.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	if fam == unix.AF_INET {
		k.Scope = Scope(r.Scope)
	}
	if k.Blackhole {
		// The kernel hangs IPv6 blackholes on lo, and gives IPv4's no interface.
		k.Link = 0
	}
	return k
}

func (r Route) netlink() *netlink.Route {
	n := &netlink.Route{
		Dst: ipNet(r.Dst), LinkIndex: r.Link, Table: unix.RT_TABLE_MAIN, Priority: r.Metric,
		Protocol: netlink.RouteProtocol(r.Protocol), Type: unix.RTN_UNICAST, Scope: netlink.Scope(r.Scope),
	}
	if r.Via.IsValid() {
		n.Gw = r.Via.AsSlice()
	}
	if r.Blackhole {
		n.Type = unix.RTN_BLACKHOLE
	}
	if r.Dst.Addr().Is6() {
		n.Scope = netlink.SCOPE_UNIVERSE
	}
	return n
}

// AddRoute adds a route. One to the same destination with the same metric, whoever made it, is os.ErrExist.
func (c *Conn) AddRoute(r Route) error { return routeErr("adding", r, c.h.RouteAdd(r.netlink())) }

// ReplaceRoute adds a route in place of one to the same destination with the same metric, whoever made that.
func (c *Conn) ReplaceRoute(r Route) error {
	return routeErr("replacing", r, c.h.RouteReplace(r.netlink()))
}

// DeleteRoute deletes a route. A missing one is no error.
func (c *Conn) DeleteRoute(r Route) error {
	err := c.h.RouteDel(r.netlink())
	return routeErr("deleting", r, ignore(err, unix.ESRCH, unix.ENOENT, unix.ENODEV))
}

func routeErr(verb string, r Route, err error) error {
	if err == nil {
		return nil
	}
	if r.Via.IsValid() && (errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH)) {
		return fmt.Errorf("%s route %s via %s: %w", verb, r.Dst, r.Via, ErrOffLink)
	}
	if r.Dst.Addr().Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)) {
		return fmt.Errorf("%s route %s: %w", verb, r.Dst, ErrNoIPv6)
	}
	return fmt.Errorf("%s route %s: %w", verb, r.Dst, err)
}
