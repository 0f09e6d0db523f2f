package linux

import (
	"bytes"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
	"github.com/tortie/tortie/internal/linuxnet"
	"github.com/tortie/tortie/internal/netns"
)

// world is the topology of drivertest in two network namespaces: the node, and everything beyond its interfaces. The far
// ends of all links are in the second, which has no addresses: nothing there answers, packets are written and read as
// frames.
//
//	sites: s-torta ... s-tun0         fence-a     fence-b
//	            |                        |           |
//	node:  torta ... tun0             fence0       fence1
//	            |                        +-- bridge --+
//	        IP, conntrack, policy
//
// A frame of the fence's own type crosses a bridge in the node, which no rule of IP sees, by as many steps as a forwarded
// packet takes. The kernel queues what comes out of a veth on the CPU that sent it, in order: with the sender on one CPU,
// a fence that has arrived says that everything sent before it has gone its way.
type world struct {
	node, sites *linuxnet.Conn
	links       map[string]siteLink // by the name of the node's interface
	byIndex     map[int]string      // of the interface in the namespace of the sites -> node's interface
	fence       [2]int              // indexes in the namespace of the sites
}

type siteLink struct {
	drivertest.Site
	index int // in the namespace of the sites
	node  int // in the node
}

const fenceType = 0x88b5 // for experiments

const foreignTable = "foreign"

// foreignMaps change with the probes.
var foreignMaps = []string{"dnat4", "dnat6"}

// foreignRules are what other programs have on a node: one that keeps some packets out of tracking, and one that
// translates service addresses. They also keep connection tracking on while the driver has no rules.
const foreignRules = `
table inet ` + foreignTable + ` {
	map dnat4 { type inet_proto . ipv4_addr . inet_service . ipv4_addr . inet_service : ipv4_addr . inet_service; }
	map dnat6 { type inet_proto . ipv6_addr . inet_service . ipv6_addr . inet_service : ipv6_addr . inet_service; }
	chain untracked-in { type filter hook prerouting priority -350; ip dscp 45 notrack; ip6 dscp 45 notrack; }
	chain untracked-out { type filter hook output priority -350; ip dscp 45 notrack; ip6 dscp 45 notrack; }
	chain services-in {
		type nat hook prerouting priority -100;
		meta l4proto { 6, 17 } dnat ip to meta l4proto . ip saddr . th sport . ip daddr . th dport map @dnat4
		meta l4proto { 6, 17 } dnat ip6 to meta l4proto . ip6 saddr . th sport . ip6 daddr . th dport map @dnat6
	}
	chain services-out {
		type nat hook output priority -100;
		meta l4proto { 6, 17 } dnat ip to meta l4proto . ip saddr . th sport . ip daddr . th dport map @dnat4
		meta l4proto { 6, 17 } dnat ip6 to meta l4proto . ip6 saddr . th sport . ip6 daddr . th dport map @dnat6
	}
}
table arp ` + foreignTable + ` {
	chain watch { type filter hook input priority 10; }
}
`

// nodeSysctls make everything arrive that policy does not stop.
var nodeSysctls = []linuxnet.Sysctl{
	{Path: "ipv4/ip_forward", Value: "1"}, {Path: "ipv6/conf/all/forwarding", Value: "1"},
	{Path: "ipv4/conf/all/rp_filter", Value: "0"}, {Path: "ipv4/conf/default/rp_filter", Value: "0"},
	{Path: "ipv4/conf/all/send_redirects", Value: "0"}, {Path: "ipv4/conf/default/send_redirects", Value: "0"},
	{Path: "ipv4/conf/all/accept_redirects", Value: "0"}, {Path: "ipv4/conf/default/accept_redirects", Value: "0"},
	{Path: "ipv6/conf/default/accept_ra", Value: "0"}, {Path: "ipv6/conf/default/accept_dad", Value: "0"},
	{Path: "ipv6/conf/default/addr_gen_mode", Value: "1"}, {Path: "ipv6/conf/default/accept_redirects", Value: "0"},
	{Path: "ipv4/icmp_ratelimit", Value: "0"}, {Path: "ipv6/icmp/ratelimit", Value: "0"},
	{Path: "netfilter/nf_conntrack_tcp_be_liberal", Value: "1"},
	// Connection tracking computes the checksum of UDPLite with the number of UDP (6.18): every packet would be invalid.
	{Path: "netfilter/nf_conntrack_checksum", Value: "0"},
}

var sitesSysctls = []linuxnet.Sysctl{
	{Path: "ipv6/conf/all/disable_ipv6", Value: "1"}, {Path: "ipv6/conf/default/disable_ipv6", Value: "1"},
}

func newWorld() (*world, error) {
	w := &world{links: map[string]siteLink{}, byIndex: map[int]string{}}
	for _, side := range []struct {
		conn    **linuxnet.Conn
		sysctls []linuxnet.Sysctl
	}{{&w.node, nil}, {&w.sites, sitesSysctls}} {
		ns, err := netns.Anonymous()
		if err != nil {
			return nil, err
		}
		if *side.conn, err = linuxnet.Open(ns); err != nil {
			return nil, err
		}
		if err := (*side.conn).SetSysctls(side.sysctls); err != nil {
			return nil, err
		}
	}
	// Connection tracking begins with the first rule that needs it, and its sysctls with that.
	if err := w.nft(foreignRules); err != nil {
		return nil, err
	}
	if err := w.node.SetSysctls(nodeSysctls); err != nil {
		return nil, err
	}
	for _, s := range drivertest.Sites() {
		if s.Place.Kind == drivers.PlaceProcess {
			continue
		}
		if err := w.addSite(s); err != nil {
			return nil, fmt.Errorf("site %s: %w", s.Name, err)
		}
	}
	if err := w.routeServices(); err != nil {
		return nil, err
	}
	return w, w.addFence()
}

func (w *world) close() {
	for _, c := range []*linuxnet.Conn{w.node, w.sites} {
		if c != nil {
			c.Close()
			c.Ns().Close()
		}
	}
}

// nft runs a script in the node.
func (w *world) nft(script string) error {
	return w.node.Ns().Do(func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = bytes.NewBufferString(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w\n%s", err, out)
		}
		return nil
	})
}

// pair makes a link between the node and the sites, both ends up, and returns the indexes of its ends.
func (w *world) pair(name, far string, mac, farMAC drivers.MAC) (int, int, error) {
	err := w.node.AddVeth(linuxnet.Veth{Name: name, MAC: mac, Peer: far, PeerMAC: farMAC, PeerNs: w.sites.Ns()})
	if err != nil {
		return 0, 0, err
	}
	here, err := w.node.Link(name)
	if err != nil {
		return 0, 0, err
	}
	there, err := w.sites.Link(far)
	if err != nil {
		return 0, 0, err
	}
	if err := w.node.SetUp(here.Index); err != nil {
		return 0, 0, err
	}
	return here.Index, there.Index, w.sites.SetUp(there.Index)
}

func (w *world) addSite(s drivertest.Site) error {
	iface := s.Place.Iface
	node, far, err := w.pair(iface, "s-"+iface, s.HostMAC, s.MAC)
	if err != nil {
		return err
	}
	w.links[iface] = siteLink{Site: s, index: far, node: node}
	w.byIndex[far] = iface
	var addrs []linuxnet.Addr
	for _, p := range s.HostAddrs {
		addrs = append(addrs, linuxnet.Addr{Link: node, Prefix: p})
	}
	if len(s.HostAddrs) == 0 {
		addrs = append(addrs,
			// Not of scope "host", as the attacher has it: then the kernel asks by ARP in its name.
			linuxnet.Addr{Link: node, Prefix: netip.PrefixFrom(drivertest.Gateway4, 32), Scope: linuxnet.ScopeLink},
			linuxnet.Addr{Link: node, Prefix: netip.PrefixFrom(drivertest.HostLinkLocal, 64)})
	}
	for _, a := range addrs {
		if err := w.node.SetAddr(a); err != nil {
			return err
		}
	}
	return w.routeSite(s, node)
}

func (w *world) routeSite(s drivertest.Site, node int) error {
	for _, a := range s.Addrs {
		var err error
		if len(s.HostAddrs) == 0 {
			err = w.addRoute(netip.PrefixFrom(a, a.BitLen()), node, netip.Addr{})
		} else {
			err = w.node.SetNeigh(linuxnet.Neigh{Link: node, Addr: a, MAC: s.MAC})
		}
		if err != nil {
			return err
		}
	}
	for _, p := range s.Ranges {
		if err := w.addRoute(p, node, s.Addr(p.Addr().Is6())); err != nil {
			return err
		}
	}
	return nil
}

// routeServices gives what the node itself sends to a service address a way until it is translated.
func (w *world) routeServices() error {
	for _, p := range slices.Concat(drivertest.ServiceRange, drivertest.FloatingRange) {
		if err := w.addRoute(p, w.links["eth0"].node, netip.Addr{}); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) addRoute(dst netip.Prefix, link int, via netip.Addr) error {
	r := linuxnet.Route{Dst: dst, Link: link, Via: via, Metric: drivertest.TopologyMetric, Protocol: 3}
	if !via.IsValid() {
		r.Scope = linuxnet.ScopeLink
	}
	return w.node.AddRoute(r)
}

func (w *world) addFence() error {
	for i, name := range []string{"fence0", "fence1"} {
		_, far, err := w.pair(name, "s-"+name, drivers.MAC{2, 0xfe, 0, 0, 0, byte(i)}, drivers.MAC{2, 0xfe, 0, 0, 1, byte(i)})
		if err != nil {
			return err
		}
		w.fence[i] = far
	}
	return w.node.Ns().Do(func() error {
		for _, args := range [][]string{
			{"link", "add", "fence", "type", "bridge", "mcast_snooping", "0"}, {"link", "set", "fence", "up"},
			{"link", "set", "fence0", "master", "fence"}, {"link", "set", "fence1", "master", "fence"},
		} {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %v: %w\n%s", args, err, out)
			}
		}
		return nil
	})
}

// addNeighs makes sure that the node need not ask for any workload whom the probes go to, and returns the entries that it
// made. They must go again before the driver looks: its own entries are to be the same however it comes to a State.
func (w *world) addNeighs(ps []drivertest.Probe) ([]linuxnet.Neigh, error) {
	have, err := w.node.Neighs(0)
	if err != nil {
		return nil, err
	}
	known := map[neighKey]bool{}
	for _, n := range have {
		known[keyOf(n)] = true
	}
	var added []linuxnet.Neigh
	for _, p := range ps {
		l, ok := w.links[p.Packet.To.Iface]
		if !ok || len(l.HostAddrs) > 0 || p.Packet.Dst.IsMulticast() {
			continue
		}
		// The site's own address is the next hop of its ranges.
		for _, a := range []netip.Addr{p.Packet.Dst, l.Addr(p.Packet.Dst.Is6())} {
			n := linuxnet.Neigh{Link: l.node, Addr: a, MAC: l.MAC}
			if known[keyOf(n)] {
				continue
			}
			known[keyOf(n)] = true
			added = append(added, n)
			if err := w.node.SetNeigh(n); err != nil {
				return added, err
			}
		}
	}
	return added, nil
}

func (w *world) deleteNeighs(ns []linuxnet.Neigh) error {
	for _, n := range ns {
		if err := w.node.DeleteNeigh(n); err != nil {
			return err
		}
	}
	return nil
}

// askByARP makes the node's kernel ask who has an address on an interface, and forgets that it did.
func (w *world) askByARP(iface string, a netip.Addr) error {
	link := w.links[iface].node
	all, err := w.node.Neighs(link)
	if err != nil {
		return err
	}
	entry := linuxnet.Neigh{Link: link, Addr: a}
	if err := w.node.DeleteNeigh(entry); err != nil {
		return err
	}
	if err := w.node.UseNeigh(entry); err != nil {
		return err
	}
	if err := w.node.DeleteNeigh(entry); err != nil {
		return err
	}
	for _, n := range all {
		if n.Addr == a {
			return w.node.SetNeigh(n)
		}
	}
	return nil
}

// sockets are opened in a namespace and stay there, whatever thread uses them.
func openSocket(ns *netns.Ns, domain, typ, proto int) (int, error) {
	fd := -1
	err := ns.Do(func() (err error) {
		fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		return err
	})
	return fd, err
}
