package linuxnet

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrOffLink says that a next hop is on no link of the node.
var ErrOffLink = errors.New("the next hop is on no link of this node")

// Route is a route.
type Route struct {
	Table     int          // 0 = the main one
	Dst       netip.Prefix // masked
	Link      int          // index of the interface; 0 with a blackhole, or to let the kernel find it by Via
	Via       netip.Addr   // invalid = none
	Blackhole bool
	Scope     Scope // of IPv4 routes; IPv6's have none
	Metric    int
	Protocol  int // who made it (rtm_protocol)
}

// Routes lists the routes of the main table that have a protocol; 0 = of all.
func (c *Conn) Routes(protocol int) ([]Route, error) { return c.RoutesOf(0, protocol) }

// RoutesOf lists the routes of a table (0 = the main one) that have a protocol; 0 = of all.
func (c *Conn) RoutesOf(table, protocol int) ([]Route, error) {
	var out []Route
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		var mask uint64
		if protocol != 0 {
			mask = netlink.RT_FILTER_PROTOCOL
		}
		if table != 0 {
			mask |= netlink.RT_FILTER_TABLE
		}
		rs, err := dump(func() ([]netlink.Route, error) {
			return c.strict.RouteListFiltered(fam, &netlink.Route{Table: table, Protocol: netlink.RouteProtocol(protocol)}, mask)
		})
		if table != 0 && errors.Is(err, unix.ENOENT) {
			continue // a table without routes isn't there
		}
		if err != nil {
			return nil, fmt.Errorf("listing routes: %w", err)
		}
		for _, r := range rs {
			k := routeOf(r, fam)
			k.Table = table
			out = append(out, k)
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

// AddRoute adds a route. One to the same destination with the same metric, whoever made it, is os.ErrExist.
func (c *Conn) AddRoute(r Route) error {
	return routeErr("adding", r, c.route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, r))
}

// ReplaceRoute adds a route in place of one to the same destination with the same metric, whoever made that.
func (c *Conn) ReplaceRoute(r Route) error {
	return routeErr("replacing", r, c.route(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, r))
}

// DeleteRoute deletes a route. A missing one is no error.
func (c *Conn) DeleteRoute(r Route) error {
	err := c.route(unix.RTM_DELROUTE, 0, r)
	return routeErr("deleting", r, ignore(err, unix.ESRCH, unix.ENOENT, unix.ENODEV))
}

// route asks for a change of a route. It uses the Conn's own socket, so that Watch can tell our own changes.
func (c *Conn) route(typ, flags int, r Route) error {
	m := nl.NewRtMsg()
	m.Family, m.Dst_len = uint8(family(r.Dst.Addr())), uint8(r.Dst.Bits())
	m.Protocol, m.Scope = uint8(r.Protocol), uint8(r.Scope)
	if r.Table != 0 {
		m.Table = unix.RT_TABLE_UNSPEC // the attribute has room for all numbers
	}
	if r.Blackhole {
		m.Type = unix.RTN_BLACKHOLE
	}
	if r.Dst.Addr().Is6() {
		m.Scope = unix.RT_SCOPE_UNIVERSE
	}
	req := c.request(typ, flags|unix.NLM_F_ACK)
	req.AddData(m)
	req.AddData(nl.NewRtAttr(unix.RTA_DST, r.Dst.Addr().AsSlice()))
	req.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(uint32(r.Metric))))
	if r.Table != 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(uint32(r.Table))))
	}
	if r.Via.IsValid() {
		req.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, r.Via.AsSlice()))
	}
	if r.Link != 0 {
		req.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(r.Link))))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// OnLink returns the index of the interface on whose link a is: the one by which the node reaches it without a gateway.
// ErrOffLink: there is none.
func (c *Conn) OnLink(a netip.Addr) (int, error) {
	rs, err := c.h.RouteGet(a.AsSlice())
	if err != nil && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.EINVAL) {
		return 0, fmt.Errorf("looking for %s: %w", a, err)
	}
	if err != nil || len(rs) != 1 || rs[0].Gw != nil || rs[0].Type != unix.RTN_UNICAST || rs[0].LinkIndex == 0 {
		return 0, fmt.Errorf("%s: %w", a, ErrOffLink)
	}
	return rs[0].LinkIndex, nil
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
