package api

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/api/selector"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const maxInterfaceName = 15 // the kernel's IFNAMSIZ less the ending zero

func (c *checker) prefixes(nets []string, p *field.Path) {
	for i, s := range nets {
		if _, err := ParsePrefix(s); err != nil {
			c.invalid(p.Index(i), s, "%v", err)
		}
	}
}

func (c *checker) hostEndpoint(s *HostEndpointSpec, p *field.Path) {
	if s.Node == "" {
		c.required(p.Child("node"), "the name of the node that the interface belongs to")
	} else {
		c.report(p.Child("node"), s.Node, validation.IsDNS1123Subdomain(s.Node))
	}
	if s.InterfaceName == "" && len(s.ExpectedIPs) == 0 {
		c.required(p.Child("interfaceName"), "the interface's name, \"*\" for all, or expectedIPs")
	}
	if s.InterfaceName != "*" {
		c.interfaceName(s.InterfaceName, p.Child("interfaceName"))
	}
	for i, a := range s.ExpectedIPs {
		c.address(a, 0, p.Child("expectedIPs").Index(i))
	}
	c.profiles(s.Profiles, p.Child("profiles"))
	c.endpointPorts(s.Ports, p.Child("ports"))
}

func (c *checker) interfaceName(name string, p *field.Path) {
	switch {
	case len(name) > maxInterfaceName:
		c.errs = append(c.errs, field.TooLong(p, name, maxInterfaceName))
	case name == "." || name == ".." || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '/' || r == ':' || r == '*'
	}):
		c.invalid(p, name, "is not the name of an interface")
	}
}

func (c *checker) profiles(names []string, p *field.Path) {
	for i, name := range names {
		c.report(p.Index(i), name, validation.IsDNS1123Subdomain(name))
		if slices.Contains(names[:i], name) {
			c.errs = append(c.errs, field.Duplicate(p.Index(i), name))
		}
	}
}

func (c *checker) endpointPorts(ports []EndpointPort, p *field.Path) {
	for i, port := range ports {
		at := p.Index(i)
		// A port of a container that is only published has no name.
		if port.Name == "" && port.HostPort == 0 {
			c.required(at.Child("name"), "rules refer to the port by its name")
		} else if port.Name != "" {
			if err := checkPortName(port.Name); err != nil {
				c.invalid(at.Child("name"), port.Name, "%v", err)
			}
		}
		if n := port.Protocol.number(); n != protocolTCP && n != protocolUDP && n != protocolSCTP {
			c.invalid(at.Child("protocol"), port.Protocol.String(), "must be TCP, UDP or SCTP")
		}
		if port.Port == 0 {
			c.invalid(at.Child("port"), 0, "must be between 1 and 65535")
		}
		if port.HostIP != "" {
			c.address(port.HostIP, 0, at.Child("hostIP"))
		}
	}
}

// address checks an address that must be of an IP version, if that is not 0.
func (c *checker) address(s string, version int, p *field.Path) {
	a, err := ParseAddr(s)
	switch {
	case err != nil:
		c.invalid(p, s, "%v", err)
	case version != 0 && ipVersion(a) != version:
		c.invalid(p, s, "must be an IPv%d address", version)
	}
}

// optionalAddress lets an address be left out.
func (c *checker) optionalAddress(s string, version int, p *field.Path) {
	if s != "" {
		c.address(s, version, p)
	}
}

func (c *checker) mac(s string, p *field.Path) {
	if s == "" {
		return
	}
	if m, err := net.ParseMAC(s); err != nil || len(m) != 6 {
		c.invalid(p, s, "must be a MAC address like 02:00:5e:10:00:01")
	}
}

func (c *checker) workloadEndpoint(s *WorkloadEndpointSpec, p *field.Path) {
	if s.Node != "" {
		c.report(p.Child("node"), s.Node, validation.IsDNS1123Subdomain(s.Node))
	}
	for i, n := range s.IPNetworks {
		at := p.Child("ipNetworks").Index(i)
		prefix, err := parsePrefix(n)
		switch {
		case err != nil:
			c.invalid(at, n, "%v", err)
		case !prefix.IsSingleIP():
			c.invalid(at, n, "must be one address: %s/%d", prefix.Addr(), prefix.Addr().BitLen())
		}
	}
	c.optionalAddress(s.IPv4Gateway, 4, p.Child("ipv4Gateway"))
	c.optionalAddress(s.IPv6Gateway, 6, p.Child("ipv6Gateway"))
	c.profiles(s.Profiles, p.Child("profiles"))
	c.interfaceName(s.InterfaceName, p.Child("interfaceName"))
	c.mac(s.MAC, p.Child("mac"))
	c.endpointPorts(s.Ports, p.Child("ports"))
	c.prefixes(s.AllowSpoofedSourcePrefixes, p.Child("allowSpoofedSourcePrefixes"))
	for i := range s.IPNATs {
		c.nat(&s.IPNATs[i], s.IPNetworks, p.Child("ipNATs").Index(i))
	}
	if s.QoSControls != nil {
		c.qos(s.QoSControls, p.Child("qosControls"))
	}
}

func (c *checker) node(s *NodeSpec, p *field.Path) {
	if b := s.BGP; b != nil {
		at := p.Child("bgp")
		if b.IPv4Address == "" && b.IPv6Address == "" {
			c.required(at.Child("ipv4Address"), "ipv4Address or ipv6Address")
		}
		c.nodeAddress(b.IPv4Address, 4, at.Child("ipv4Address"))
		c.nodeAddress(b.IPv6Address, 6, at.Child("ipv6Address"))
		c.optionalAddress(b.IPv4IPIPTunnelAddr, 4, at.Child("ipv4IPIPTunnelAddr"))
		c.optionalAddress(b.RouteReflectorClusterID, 4, at.Child("routeReflectorClusterID"))
	}
	c.optionalAddress(s.IPv4VXLANTunnelAddr, 4, p.Child("ipv4VXLANTunnelAddr"))
	c.mac(s.VXLANTunnelMACAddr, p.Child("vxlanTunnelMACAddr"))
	c.optionalAddress(s.IPv6VXLANTunnelAddr, 6, p.Child("ipv6VXLANTunnelAddr"))
	c.mac(s.VXLANTunnelMACAddrV6, p.Child("vxlanTunnelMACAddrV6"))
	if w := s.Wireguard; w != nil {
		c.optionalAddress(w.InterfaceIPv4Address, 4, p.Child("wireguard", "interfaceIPv4Address"))
		c.optionalAddress(w.InterfaceIPv6Address, 6, p.Child("wireguard", "interfaceIPv6Address"))
	}
	for i, a := range s.Addresses {
		at := p.Child("addresses").Index(i)
		if _, err := parsePrefix(a.Address); err != nil {
			c.invalid(at.Child("address"), a.Address, "%v", err)
		}
		oneOf(c, at.Child("type"), a.Type, "", "CalicoNodeIP", "InternalIP", "ExternalIP")
	}
	for i, ref := range s.OrchRefs {
		if ref.Orchestrator == "" {
			c.required(p.Child("orchRefs").Index(i).Child("orchestrator"), "what calls the node nodeName, like k8s")
		}
	}
	for i, iface := range s.Interfaces {
		at := p.Child("interfaces").Index(i)
		c.interfaceName(iface.Name, at.Child("name"))
		for j, a := range iface.Addresses {
			c.nodeAddress(a, 0, at.Child("addresses").Index(j))
		}
	}
}

// nodeAddress checks an address of a node with or without the length of its network.
func (c *checker) nodeAddress(s string, version int, p *field.Path) {
	if s == "" {
		return
	}
	a, err := parsePrefix(s)
	switch {
	case err != nil:
		c.invalid(p, s, "%v", err)
	case version != 0 && ipVersion(a.Addr()) != version:
		c.invalid(p, s, "must be an IPv%d address", version)
	}
}

func (c *checker) ipPool(s *IPPoolSpec, p *field.Path) {
	modes := []string{"Never", "Always", "CrossSubnet", ""}
	oneOf(c, p.Child("ipipMode"), s.IPIPMode, modes...)
	oneOf(c, p.Child("vxlanMode"), s.VXLANMode, modes...)
	oneOf(c, p.Child("assignmentMode"), s.AssignmentMode, "Automatic", "Manual", "")
	eachOneOf(c, p.Child("allowedUses"), s.AllowedUses, "Workload", "Tunnel", "LoadBalancer")
	c.selector(s.NodeSelector, p.Child("nodeSelector"))
	c.selector(s.NamespaceSelector, p.Child("namespaceSelector"))
	if cidr, ok := c.network(s.CIDR, p.Child("cidr")); ok {
		c.poolRange(s, cidr, p)
	}
	ipip, vxlan := tunnels(s.IPIPMode), tunnels(s.VXLANMode)
	if ipip && vxlan {
		c.forbidden(p.Child("ipipMode"), "can't be combined with vxlanMode")
	}
	if i := slices.Index(s.AllowedUses, "LoadBalancer"); i >= 0 {
		c.loadBalancerPool(s, ipip || vxlan, i, p)
	}
}

// network checks a prefix that stands for a network: the bits behind its length are zero.
func (c *checker) network(s string, p *field.Path) (cidr netip.Prefix, ok bool) {
	if s == "" {
		c.required(p, "a prefix in CIDR notation")
		return cidr, false
	}
	cidr, err := parsePrefix(s)
	switch {
	case err != nil || !strings.Contains(s, "/"):
		c.invalid(p, s, "must be a prefix in CIDR notation")
	case cidr != cidr.Masked():
		c.invalid(p, s, "has bits behind its length; write %s", cidr.Masked())
	default:
		return cidr, true
	}
	return cidr, false
}

func (c *checker) poolRange(s *IPPoolSpec, cidr netip.Prefix, p *field.Path) {
	for _, linkLocal := range []string{"169.254.0.0/16", "fe80::/10"} {
		if cidr.Overlaps(netip.MustParsePrefix(linkLocal)) {
			c.invalid(p.Child("cidr"), s.CIDR, "overlaps the link-local range %s", linkLocal)
		}
	}
	smallest, largest := 32, 20
	if cidr.Addr().Is6() {
		smallest, largest = 128, 116
		if tunnels(s.IPIPMode) {
			c.invalid(p.Child("ipipMode"), s.IPIPMode, "IPIP carries IPv4 only")
		}
	}
	switch {
	case s.BlockSize == 0:
	case s.BlockSize < largest || s.BlockSize > smallest:
		c.between(p.Child("blockSize"), s.BlockSize, largest, smallest)
	case s.BlockSize < cidr.Bits():
		c.invalid(p.Child("blockSize"), s.BlockSize, "blocks of /%d are larger than the pool", s.BlockSize)
	}
}

func (c *checker) loadBalancerPool(s *IPPoolSpec, encapsulated bool, i int, p *field.Path) {
	if len(s.AllowedUses) > 1 {
		c.forbidden(p.Child("allowedUses").Index(i), "LoadBalancer can't be combined with other uses")
	}
	if encapsulated {
		c.forbidden(p.Child("allowedUses").Index(i), "LoadBalancer can't be combined with ipipMode or vxlanMode")
	}
	if parsed, err := selector.Parse(s.NodeSelector); err == nil && parsed.String() != "all()" {
		c.invalid(p.Child("nodeSelector"), s.NodeSelector, "must be all() in a pool for LoadBalancer")
	}
}

func (c *checker) blockAffinity(s *BlockAffinitySpec, p *field.Path) {
	oneOf(c, p.Child("state"), s.State, "pending", "confirmed", "pendingDeletion")
	oneOf(c, p.Child("type"), s.Type, "host", "virtual", "")
	oneOf(c, p.Child("deleted"), s.Deleted, "true", "false", "")
	if s.Node == "" {
		c.required(p.Child("node"), "the name of the node that has the block")
	}
	c.network(s.CIDR, p.Child("cidr"))
}

func (c *checker) endpointSlice(s *EndpointSlice) {
	oneOf(c, field.NewPath("addressType"), s.AddressType, "IPv4", "IPv6", "FQDN")
	version := map[string]int{"IPv4": 4, "IPv6": 6}[s.AddressType]
	for i, e := range s.Endpoints {
		for j, a := range e.Addresses {
			if version != 0 {
				c.address(a, version, field.NewPath("endpoints").Index(i).Child("addresses").Index(j))
			}
		}
	}
	for i, port := range s.Ports {
		at := field.NewPath("ports").Index(i)
		if n := port.Protocol.number(); port.Protocol != nil && n != protocolTCP && n != protocolUDP && n != protocolSCTP {
			c.invalid(at.Child("protocol"), port.Protocol.String(), "must be TCP, UDP or SCTP")
		}
		if port.Port != nil && *port.Port == 0 {
			c.invalid(at.Child("port"), 0, "must be between 1 and 65535")
		}
	}
}
