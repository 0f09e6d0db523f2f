package calcgraph

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// node is a Node resource: the addresses of a host of the cluster and what its tunnels need.
type node struct {
	addrs [2]netip.Addr   // IPv4, IPv6; zero = none
	nets  [2]netip.Prefix // the network of each, if its length is known
	peer  *drivers.Peer
}

// family is 0 for IPv4 and 1 for IPv6.
func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (g *Graph) setNode(key api.Key, o *api.Node) []Problem {
	if key.Name == g.settings.base.NodeName {
		g.settings.setNode(o)
	}
	bad := g.routes.setNode(key, o)
	if o == nil {
		g.nodes.remove(key)
		return bad
	}
	probs := problems{key: key, list: bad}
	g.nodes.set(key, nodeThing(o, &probs))
	return probs.list
}

// nodeThing returns a node as selectors of nodes see it: with the addresses that its status names, and no others.
func nodeThing(o *api.Node, probs *problems) thingSpec {
	s := thingSpec{labels: o.Labels}
	for i, a := range o.Spec.Addresses {
		ip, err := api.ParseAddr(a.Address)
		switch {
		case err == nil:
			s.nets = append(s.nets, prefixMember(netip.PrefixFrom(ip, ip.BitLen())))
		case a.Type != "Hostname" && a.Type != "InternalDNS" && a.Type != "ExternalDNS": // which are names
			probs.add(fmt.Sprintf("spec.addresses[%d].address", i), "%v", err)
			s.partial = s.partial || oddAddr(a.Address)
		}
	}
	s.nets = canonical(s.nets)
	return s
}

// oddAddr reports whether text could be an address in a spelling that is not taken here: with leading zeros, a zone, or as
// IPv4 inside IPv6. Other text, as a name, is no address that a packet has, and leaving it out loses nothing.
func oddAddr(text string) bool {
	text, _, _ = strings.Cut(strings.Trim(text, " \t\r\n[]"), "%")
	text, _, _ = strings.Cut(text, "/")
	if strings.Count(text, ":") >= 2 {
		return strings.Trim(text, "0123456789abcdefABCDEF:.") == ""
	}
	parts := strings.Split(text, ".")
	return len(parts) <= 4 && !slices.ContainsFunc(parts, func(part string) bool {
		_, err := strconv.ParseUint(part, 0, 32) // also as C reads it
		_, decimal := strconv.ParseUint(part, 10, 32)
		return err != nil && decimal != nil
	})
}

func readNode(o *api.Node, probs *problems) *node {
	n := &node{}
	var texts [2]string
	if o.Spec.BGP != nil {
		texts = [2]string{o.Spec.BGP.IPv4Address, o.Spec.BGP.IPv6Address}
	}
	for f, text := range texts {
		if text == "" {
			continue
		}
		field := [2]string{"spec.bgp.ipv4Address", "spec.bgp.ipv6Address"}[f]
		p, err := netip.ParsePrefix(text)
		if err != nil {
			var a netip.Addr
			if a, err = api.ParseAddr(text); err == nil {
				p = netip.PrefixFrom(a, -1) // a network of unknown size
			}
		}
		if err != nil || family(p.Addr()) != f || p.Addr().Is4In6() { // no packet has an IPv4 address in IPv6 clothes
			probs.add(field, "%q is not an address of this family", text)
			continue
		}
		n.addrs[f] = p.Addr()
		if p.IsValid() {
			n.nets[f] = p.Masked()
		}
	}
	for _, a := range o.Spec.Addresses {
		if ip, err := api.ParseAddr(a.Address); err == nil && (a.Type == "InternalIP" || a.Type == "") && !n.addrs[family(ip)].IsValid() {
			n.addrs[family(ip)] = ip
		}
	}
	n.peer = readPeer(o, n.addresses(), probs)
	return n
}

func (n *node) addresses() []netip.Addr {
	return slices.DeleteFunc(slices.Clone(n.addrs[:]), func(a netip.Addr) bool { return !a.IsValid() })
}

func readPeer(o *api.Node, addrs []netip.Addr, probs *problems) *drivers.Peer {
	p := &drivers.Peer{Name: o.Name, Addrs: addrs}
	vteps := []struct{ field, text string }{
		{"spec.ipv4VXLANTunnelAddr", o.Spec.IPv4VXLANTunnelAddr},
		{"spec.ipv6VXLANTunnelAddr", o.Spec.IPv6VXLANTunnelAddr},
	}
	for _, v := range vteps {
		if v.text == "" {
			continue
		}
		a, err := api.ParseAddr(v.text)
		if err != nil {
			probs.add(v.field, "%v", err)
			continue
		}
		p.VTEPAddrs = append(p.VTEPAddrs, a)
	}
	if text := o.Spec.VXLANTunnelMACAddr; text != "" {
		mac, err := net.ParseMAC(text)
		if err != nil || len(mac) != len(p.VTEPMAC) {
			probs.add("spec.vxlanTunnelMACAddr", "%q is not a MAC address", text)
		} else {
			copy(p.VTEPMAC[:], mac)
		}
	}
	return p
}

func samePeer(a, b *drivers.Peer) bool {
	return a.Name == b.Name && a.VTEPMAC == b.VTEPMAC && a.WireGuardKey == b.WireGuardKey &&
		slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.VTEPAddrs, b.VTEPAddrs)
}

// sameNetwork reports whether a is on the same network as n, so that it can be a next hop; where the size of the network
// is not known, sure is false.
func (n *node) sameNetwork(a netip.Addr) (same, sure bool) {
	if n == nil || !n.nets[family(a)].IsValid() {
		return false, false
	}
	return n.nets[family(a)].Contains(a), true
}
