package drivertest

import (
	"fmt"
	"net/netip"

	"github.com/tortie/tortie/drivers"
)

// IP protocol numbers that the suite speaks of by name.
const (
	protoICMP    = 1
	protoIPIP    = 4
	protoTCP     = 6
	protoUDP     = 17
	protoIPv6    = 41
	protoGRE     = 47
	protoICMPv6  = 58
	protoOSPF    = 89
	protoVRRP    = 112
	protoSCTP    = 132
	protoUDPLite = 136
	protoTest    = 253
)

var protoNames = map[string]uint8{
	"icmp": protoICMP, "ipip": protoIPIP, "tcp": protoTCP, "udp": protoUDP, "icmpv6": protoICMPv6, "sctp": protoSCTP,
	"udplite": protoUDPLite,
}

// rawProtos are the protocols without a meaning of their own here that a probe may have: the kernel of a test machine
// forwards them like any other, and tells a flow by its addresses.
var rawProtos = map[uint8]bool{protoIPIP: true, protoIPv6: true, protoGRE: true, protoOSPF: true, protoVRRP: true, protoTest: true}

func hasPorts(proto uint8) bool {
	return proto == protoTCP || proto == protoUDP || proto == protoSCTP || proto == protoUDPLite
}

func isICMP(proto uint8) bool { return proto == protoICMP || proto == protoICMPv6 }

// isLink reports whether a packet is neighbour discovery or multicast listener discovery: the kernel keeps these types
// out of its flow table.
func isLink(p drivers.Packet) bool {
	return p.Proto == protoICMPv6 && (p.ICMPType >= 130 && p.ICMPType <= 136 || p.ICMPType == 143)
}

// CheckProbe reports why a harness could not be asked to send p over the topology while s is applied; nil if it could.
// Everything that the suite sends has been through it.
func CheckProbe(s *drivers.State, p Probe) error {
	for _, check := range []func(*drivers.State, Probe) error{checkPlaces, checkAddrs, checkProto, checkCT, checkOrig} {
		if err := check(s, p); err != nil {
			return err
		}
	}
	return nil
}

// siteOf returns the site behind a place.
func siteOf(pl drivers.Place) (Site, bool) {
	for _, s := range sites {
		if s.Place.Iface == pl.Iface {
			return s, true
		}
	}
	return Site{}, false
}

// placeOf is the place of a site under s: a workload's interface is Unknown if no endpoint of s is on it.
func placeOf(s *drivers.State, site Site) drivers.Place {
	pl := site.Place
	if pl.Kind == drivers.PlaceWorkload && workloadOn(s, pl.Iface) == nil {
		pl.Kind = drivers.PlaceUnknown
	}
	return pl
}

// workloadOn returns the workload endpoint on an interface, or nil.
func workloadOn(s *drivers.State, iface string) *drivers.Endpoint {
	for _, e := range s.Endpoints {
		if e.ID.Kind == drivers.Workload && e.Iface == iface {
			return e
		}
	}
	return nil
}

func checkPlaces(s *drivers.State, p Probe) error {
	for _, pl := range []drivers.Place{p.Packet.From, p.Packet.To} {
		site, ok := siteOf(pl)
		if !ok {
			return fmt.Errorf("the topology has no interface %q", pl.Iface)
		}
		if want := placeOf(s, site); pl != want {
			return fmt.Errorf("%s is a place of kind %d, not %d", site.Name, want.Kind, pl.Kind)
		}
	}
	if p.Packet.From.Kind == drivers.PlaceProcess && p.Packet.To.Kind == drivers.PlaceProcess {
		return fmt.Errorf("the host to itself crosses no interface")
	}
	return nil
}

func checkAddrs(s *drivers.State, p Probe) error {
	pk := p.Packet
	from, _ := siteOf(pk.From)
	to, _ := siteOf(pk.To)
	switch {
	case !pk.Src.IsValid() || !pk.Dst.IsValid() || pk.Src.Is4() != pk.Dst.Is4():
		return fmt.Errorf("%v and %v are not of one family", pk.Src, pk.Dst)
	case pk.Src == pk.Dst && !floats(pk):
		return fmt.Errorf("source and destination are both %v", pk.Src)
	case pk.ARP || onLink(pk):
		return checkOnLink(pk, from, to)
	case isOwnLink(pk):
		return fmt.Errorf("%v to %v does not leave the link", pk.Src, pk.Dst)
	}
	isWorkload := pk.From.Kind == drivers.PlaceWorkload || pk.From.Kind == drivers.PlaceUnknown
	host, _ := SiteByName("host")
	switch {
	case isWorkload && (host.Owns(pk.Src) || !pk.Src.IsGlobalUnicast()):
		return fmt.Errorf("the kernel itself drops what comes from outside with source %v", pk.Src)
	case !isWorkload && !from.Owns(pk.Src):
		return fmt.Errorf("%v is not at %s", pk.Src, from.Name)
	case to.Owns(pk.Dst):
		return nil
	}
	for _, r := range DriverRouted {
		if r.Contains(pk.Dst) && routedTo(s, pk.Dst) == pk.To.Iface {
			return nil
		}
	}
	return fmt.Errorf("%v is not routed to %s", pk.Dst, to.Name)
}

// onLink reports whether an IPv6 packet is between two ends of a link of the node, by its addresses.
func onLink(p drivers.Packet) bool {
	return isLink(p) && (p.HopLimit == 255) && (isOwnLink(p) || p.To.Kind == drivers.PlaceProcess || p.From.Kind == drivers.PlaceProcess)
}

func isOwnLink(p drivers.Packet) bool {
	return p.Src.IsLinkLocalUnicast() || p.Dst.IsLinkLocalUnicast() || p.Dst.IsMulticast() || p.Src.IsUnspecified()
}

// checkOnLink is checkAddrs for ARP and neighbour discovery: between a workload and its own host, or, neighbour discovery
// only, between the host and what is beyond an interface of its own.
func checkOnLink(p drivers.Packet, from, to Site) error {
	tort := func(s Site) bool { return s.LinkLocal.IsValid() }
	out, in := tort(from) && to.Name == "host", from.Name == "host" && tort(to)
	hostOwns := func(a netip.Addr) bool { s, _ := SiteByName("host"); return s.Owns(a) }
	switch {
	case !p.ARP && (from.Name == "host" && len(to.HostAddrs) > 0 || to.Name == "host" && len(from.HostAddrs) > 0):
		return checkHostLink(p, from, to)
	case !out && !in:
		return fmt.Errorf("link traffic is between the host and a neighbour, and ARP between it and a workload")
	case p.ARP && !p.Src.Is4():
		return fmt.Errorf("ARP is of IPv4")
	case p.ARP && out && p.Dst != Gateway4:
		return fmt.Errorf("a workload asks for %v by ARP", Gateway4)
	case p.ARP && in && (p.Src != Gateway4 || p.Dst != to.Addr(false)):
		return fmt.Errorf("the host asks for %v by ARP, as %v", to.Addr(false), Gateway4)
	case p.ARP:
		return nil
	case out && p.Dst != HostLinkLocal && p.Dst != netip.IPv6LinkLocalAllNodes() && p.Dst != netip.IPv6LinkLocalAllRouters():
		return fmt.Errorf("%v is not of the host on that link", p.Dst)
	case in && p.Src != HostLinkLocal && !hostOwns(p.Src):
		return fmt.Errorf("%v is not of the host on that link", p.Src)
	case in && p.Dst != to.LinkLocal && p.Dst != to.Addr(true) && p.Dst != netip.IPv6LinkLocalAllNodes():
		return fmt.Errorf("%v is not of %s on that link", p.Dst, to.Name)
	}
	return nil
}

// checkHostLink is checkAddrs for neighbour discovery on an interface of the host. The node has no link-local address there.
func checkHostLink(p drivers.Packet, from, to Site) error {
	group := p.Dst == netip.IPv6LinkLocalAllNodes() || to.Name == "host" && p.Dst == netip.IPv6LinkLocalAllRouters()
	switch {
	case !from.Owns(p.Src) && (from.Name == "host" || !p.Src.IsLinkLocalUnicast()):
		return fmt.Errorf("%v is not of %s on that link", p.Src, from.Name)
	case !to.Owns(p.Dst) && !group:
		return fmt.Errorf("%v is not of %s on that link", p.Dst, to.Name)
	}
	return nil
}

// routedTo returns the interface that the Routes of s give a.
func routedTo(s *drivers.State, a netip.Addr) string {
	best, iface := -1, "?"
	for _, r := range s.Routes {
		if !r.Dst.Contains(a) || r.Dst.Bits() <= best {
			continue
		}
		best, iface = r.Dst.Bits(), r.Iface
		if r.Kind == drivers.RouteRemote && r.Iface == "" {
			for _, site := range sites {
				if site.Place.Kind == drivers.PlaceHostIface && site.Owns(r.NextHop) {
					iface = site.Place.Iface
				}
			}
		}
	}
	return iface
}

func checkProto(_ *drivers.State, p Probe) error {
	pk := p.Packet
	is6 := pk.Src.Is6()
	switch {
	case p.Extended && (!is6 || pk.ARP || p.Fragmented || isLink(pk)):
		return fmt.Errorf("only whole IPv6 packets that are no neighbour discovery have another header")
	case pk.ARP:
		return nil
	case pk.Proto == protoICMP && is6, pk.Proto == protoICMPv6 && !is6:
		return fmt.Errorf("protocol %d is not of this family", pk.Proto)
	case pk.Proto == protoIPv6 && !is6:
		return fmt.Errorf("IPv6 in IPv4 is something that the kernel handles by itself")
	case !hasPorts(pk.Proto) && !isICMP(pk.Proto) && !rawProtos[pk.Proto]:
		return fmt.Errorf("protocol %d cannot be sent by every harness", pk.Proto)
	case hasPorts(pk.Proto) && pk.DstPort == 0:
		return fmt.Errorf("no destination port")
	case !hasPorts(pk.Proto) && (pk.DstPort != 0 || pk.SrcPort != 0):
		return fmt.Errorf("protocol %d has no ports", pk.Proto)
	case !isICMP(pk.Proto) && (pk.ICMPType != 0 || pk.ICMPCode != 0):
		return fmt.Errorf("protocol %d has no ICMP type", pk.Proto)
	case p.MidStream && (pk.Proto != protoTCP || pk.CT != drivers.CTNew || pk.OrigDst.IsValid()):
		return fmt.Errorf("only a TCP connection that is new to the flow table is picked up in mid-stream")
	case p.Fragmented && (pk.CT != drivers.CTNew && pk.CT != drivers.CTEstablished || pk.OrigDst.IsValid() || rawProtos[pk.Proto]):
		return fmt.Errorf("only new and established packets without translation are sent in fragments")
	}
	return nil
}

// ICMP types by what the flow table of Linux makes of them.
var (
	icmpOpens  = map[uint8][]uint8{protoICMP: {8, 13, 15, 17}, protoICMPv6: {128, 139}}
	icmpErrors = map[uint8][]uint8{protoICMP: {3, 11, 12}, protoICMPv6: {1, 2, 3, 4}}
	echo       = map[uint8][2]uint8{protoICMP: {8, 0}, protoICMPv6: {128, 129}} // request, reply
)

func has(list []uint8, x uint8) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

func checkCT(_ *drivers.State, p Probe) error {
	pk := p.Packet
	if p.Reply && pk.CT != drivers.CTEstablished {
		return fmt.Errorf("only an established flow has a reply direction")
	}
	if pk.ARP {
		if pk.CT != drivers.CTUntracked {
			return fmt.Errorf("ARP is untracked")
		}
		return nil
	}
	if isLink(pk) && pk.CT != drivers.CTUntracked {
		return fmt.Errorf("neighbour discovery is untracked")
	}
	icmp, isError := isICMP(pk.Proto), has(icmpErrors[pk.Proto], pk.ICMPType)
	switch pk.CT {
	case drivers.CTNew:
		if icmp && !has(icmpOpens[pk.Proto], pk.ICMPType) {
			return fmt.Errorf("ICMP type %d opens no flow", pk.ICMPType)
		}
	case drivers.CTEstablished:
		want := echo[pk.Proto][0]
		if p.Reply {
			want = echo[pk.Proto][1]
		}
		if icmp && (pk.ICMPType != want || pk.ICMPCode != 0) {
			return fmt.Errorf("ICMP type %d/%d is not of an established flow in this direction", pk.ICMPType, pk.ICMPCode)
		}
	case drivers.CTRelated:
		if !isError {
			return fmt.Errorf("related packets are ICMP errors")
		}
	case drivers.CTInvalid:
		if icmp && has(icmpOpens[pk.Proto], pk.ICMPType) || !icmp && pk.Proto != protoTCP && pk.Proto != protoUDP {
			return fmt.Errorf("no harness can make this packet invalid")
		}
	case drivers.CTUntracked:
		if pk.OrigDst.IsValid() {
			return fmt.Errorf("what is not tracked is not translated")
		}
	}
	return nil
}

// checkOrig is about translation. A host interface with untracked policy is left out: that stage comes before translation
// on every kernel, while the oracle gives it the packet as it is after.
func checkOrig(s *drivers.State, p Probe) error {
	pk := p.Packet
	if !pk.OrigDst.IsValid() {
		return nil
	}
	host, _ := SiteByName("host")
	known := host.Owns(pk.OrigDst.Addr())
	floating := inAny(FloatingRange, pk.OrigDst.Addr())
	known = known || floating || inAny(ServiceRange, pk.OrigDst.Addr())
	switch {
	case pk.Proto != protoTCP && pk.Proto != protoUDP || pk.CT != drivers.CTNew:
		return fmt.Errorf("only new TCP and UDP flows are translated")
	case pk.OrigDst.Addr().Is4() != pk.Dst.Is4():
		return fmt.Errorf("%v and %v are not of one family", pk.OrigDst, pk.Dst)
	case !known || pk.OrigDst.Port() == 0:
		return fmt.Errorf("%v is neither of the node nor in the service range", pk.OrigDst)
	case floating && (pk.OrigDst.Port() != pk.DstPort || pk.To.Kind != drivers.PlaceWorkload && pk.To.Kind != drivers.PlaceUnknown):
		return fmt.Errorf("a floating address is a workload's, and keeps the port")
	case pk.OrigDst == netip.AddrPortFrom(pk.Dst, pk.DstPort):
		return fmt.Errorf("%v is translated to itself", pk.OrigDst)
	case pk.From.Kind == drivers.PlaceProcess && host.Owns(pk.OrigDst.Addr()):
		return fmt.Errorf("a process reaches its own node without leaving it")
	}
	for _, e := range s.Endpoints {
		u, fromHost := e.Policy.Untracked, pk.From.Kind == drivers.PlaceProcess
		// What the host sends leaves, before translation, by an interface that is the harness's choice.
		if e.Iface == pk.From.Iface && u.In != nil || fromHost && u.Out != nil {
			return fmt.Errorf("untracked policy of %s sees the packet before its translation", e.Iface)
		}
	}
	return nil
}
