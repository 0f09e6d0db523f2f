package drivertest

import (
	"net/netip"

	"github.com/tortie/tortie/drivers"
)

// The topology. It never changes; States vary upon it.
//
//	 +---+ eth0      torta +----------------------------------+ eth0   +------+
//	 | a |-----------------|                                  |--------| out0 |   172.20.0.2 fd20::2
//	 +---+ 10.65.0.1       |                                  |        +------+   and 10.20.0.0/16 fd00:20::/32
//	       fd65::1   tortb |   the node "n1"                  | eth1   +------+
//	 +---+-----------------|                                  |--------| out1 |   172.21.0.2 fd21::2
//	 | b | 10.65.0.2       |   172.20.0.1 fd20::1   on eth0   |        +------+   and 10.21.0.0/16 fd00:21::/32
//	 +---+ fd65::2   tortc |   172.21.0.1 fd21::1   on eth1   | tun0   +------+
//	 +---+-----------------|   172.22.0.1 fd22::1   on tun0   |--------| far  |   172.22.0.2 fd22::2
//	 | c | 10.65.0.3       |   169.254.1.1 fe80::1  on tort*  |        +------+   and 10.65.4.0/24 fd65:0:0:4::/64
//	 +---+ fd65::3   tortx |                                  |
//	 +---+-----------------|   "host": a process of the node  |
//	 | x | 10.65.0.9       +----------------------------------+
//	 +---+ fd65::9
//
// a, b and c are workloads where the State has an endpoint on their interface. x sits behind an interface with a
// workload's name that no State lists; so does every one of a, b, c whose endpoint a State lacks. out0, out1 and far are
// the world beyond host interfaces; tun0 stands for a tunnel's interface (packets on it are those inside the tunnel: a
// harness may make it a plain veth), and far for the workloads of other nodes.
//
// Each site also sends from and receives for every address of its Ranges. A site has no default route to itself: what
// is neither an address nor in a range of a site is not routed by the node, save by a Route of the State within
// DriverRouted.

// TopologyMetric is the metric of the routes that the harness itself puts into the node.
const TopologyMetric = 4242

// NodeName is the name of the node.
const NodeName = "n1"

// TunnelIface is the host interface that stands for a tunnel.
const TunnelIface = "tun0"

// Site is one place that packets come from or go to.
type Site struct {
	Name  string        // a, b, c, x, out0, out1, far, host
	Place drivers.Place // of a, b and c as if an endpoint were there; the suite makes it Unknown where the State has none

	MAC       drivers.MAC    // of the site's own interface; zero for host
	HostMAC   drivers.MAC    // of the node's end of the link; zero for host
	Addrs     []netip.Addr   // one IPv4, one IPv6
	LinkLocal netip.Addr     // of the site's own interface, for neighbour discovery; workloads and x only
	Ranges    []netip.Prefix // what else is routed to it, one IPv4, one IPv6
	HostAddrs []netip.Prefix // what the node has on this link (other than HostLinkLocal and Gateway4)
}

// HostLinkLocal is the node's IPv6 link-local address on every workload interface.
var HostLinkLocal = netip.MustParseAddr("fe80::1")

// Gateway4 is the IPv4 address that the node answers ARP for on every workload interface.
var Gateway4 = netip.MustParseAddr("169.254.1.1")

// DriverRouted are prefixes that the harness does not route: packets for them arrive through a Route of the State only.
// Each workload accepts them.
var DriverRouted = []netip.Prefix{netip.MustParsePrefix("10.67.0.0/16"), netip.MustParsePrefix("fd67::/32")}

// ServiceRange are the addresses that probes use as OrigDst, besides those of the node. The node routes them nowhere; a
// harness may have to route them somewhere so that they reach its translation.
var ServiceRange = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd96::/64")}

// FloatingRange are the addresses that probes use as floating ones: OrigDst of a probe that the driver is to translate, not
// the harness. The node routes them where it routes ServiceRange.
var FloatingRange = []netip.Prefix{netip.MustParsePrefix("10.97.0.0/16"), netip.MustParsePrefix("fd97::/64")}

var sites = []Site{
	{
		Name: "a", Place: drivers.Place{Kind: drivers.PlaceWorkload, Iface: "torta"},
		MAC: mac(0x0a), HostMAC: mac(0xfa), Addrs: addrs("10.65.0.1", "fd65::1"), LinkLocal: netip.MustParseAddr("fe80::a"),
		Ranges: prefixes("10.66.1.0/24", "fd66:0:0:1::/64"),
	},
	{
		Name: "b", Place: drivers.Place{Kind: drivers.PlaceWorkload, Iface: "tortb"},
		MAC: mac(0x0b), HostMAC: mac(0xfb), Addrs: addrs("10.65.0.2", "fd65::2"), LinkLocal: netip.MustParseAddr("fe80::b"),
		Ranges: prefixes("10.66.2.0/24", "fd66:0:0:2::/64"),
	},
	{
		Name: "c", Place: drivers.Place{Kind: drivers.PlaceWorkload, Iface: "tortc"},
		MAC: mac(0x0c), HostMAC: mac(0xfc), Addrs: addrs("10.65.0.3", "fd65::3"), LinkLocal: netip.MustParseAddr("fe80::c"),
		Ranges: prefixes("10.66.3.0/24", "fd66:0:0:3::/64"),
	},
	{
		Name: "x", Place: drivers.Place{Kind: drivers.PlaceUnknown, Iface: "tortx"},
		MAC: mac(0x09), HostMAC: mac(0xf9), Addrs: addrs("10.65.0.9", "fd65::9"), LinkLocal: netip.MustParseAddr("fe80::9"),
		Ranges: prefixes("10.66.9.0/24", "fd66:0:0:9::/64"),
	},
	{
		Name: "out0", Place: drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth0"},
		MAC: mac(0x10), HostMAC: mac(0xe0), Addrs: addrs("172.20.0.2", "fd20::2"),
		Ranges: prefixes("10.20.0.0/16", "fd00:20::/32"), HostAddrs: prefixes("172.20.0.1/24", "fd20::1/64"),
	},
	{
		Name: "out1", Place: drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth1"},
		MAC: mac(0x11), HostMAC: mac(0xe1), Addrs: addrs("172.21.0.2", "fd21::2"),
		Ranges: prefixes("10.21.0.0/16", "fd00:21::/32"), HostAddrs: prefixes("172.21.0.1/24", "fd21::1/64"),
	},
	{
		Name: "far", Place: drivers.Place{Kind: drivers.PlaceHostIface, Iface: TunnelIface},
		MAC: mac(0x12), HostMAC: mac(0xe2), Addrs: addrs("172.22.0.2", "fd22::2"),
		Ranges: prefixes("10.65.4.0/24", "fd65:0:0:4::/64"), HostAddrs: prefixes("172.22.0.1/24", "fd22::1/64"),
	},
	{
		Name: "host", Place: drivers.Place{Kind: drivers.PlaceProcess}, Addrs: addrs("172.20.0.1", "fd20::1"),
	},
}

// Sites are the places of the topology: a, b, c, x, out0, out1, far, host. The caller does not change them.
func Sites() []Site { return sites }

// SiteByName returns a site.
func SiteByName(name string) (Site, bool) {
	for _, s := range sites {
		if s.Name == name {
			return s, true
		}
	}
	return Site{}, false
}

// HostAddrs are all addresses of the node that probes use.
func HostAddrs() []netip.Addr {
	var as []netip.Addr
	for _, s := range sites {
		for _, p := range s.HostAddrs {
			as = append(as, p.Addr())
		}
	}
	return as
}

// Owns reports whether packets for a are routed to the site by the topology.
func (s Site) Owns(a netip.Addr) bool {
	if s.Place.Kind == drivers.PlaceProcess {
		for _, h := range HostAddrs() {
			if h == a {
				return true
			}
		}
		return false
	}
	for _, x := range s.Addrs {
		if x == a {
			return true
		}
	}
	for _, p := range s.Ranges {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// Addr is the site's own address of a family.
func (s Site) Addr(v6 bool) netip.Addr {
	if v6 {
		return s.Addrs[1]
	}
	return s.Addrs[0]
}

func mac(last byte) drivers.MAC { return drivers.MAC{0x02, 0x54, 0, 0, 0, last} }

func addrs(ss ...string) []netip.Addr {
	as := make([]netip.Addr, len(ss))
	for i, s := range ss {
		as[i] = netip.MustParseAddr(s)
	}
	return as
}

// prefixes keeps the host bits: HostAddrs are addresses with the length of their network.
func prefixes(ss ...string) []netip.Prefix {
	ps := make([]netip.Prefix, len(ss))
	for i, s := range ss {
		ps[i] = netip.MustParsePrefix(s)
	}
	return ps
}
