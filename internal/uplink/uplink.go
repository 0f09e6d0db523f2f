// Package uplink asks this host's kernel by which of its interfaces it reaches an address.
package uplink

import (
	"net"
	"net/netip"
)

// discard is a port that nobody listens on.
const discard = 9

// To returns the interface by which this host reaches an address, "" if there is no saying. It asks for the source address
// that the kernel would choose: connecting a UDP socket sends nothing.
func To(addr netip.Addr) string {
	c, err := net.Dial("udp", netip.AddrPortFrom(addr, discard).String())
	if err != nil {
		return "" // no route
	}
	defer c.Close()
	at, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return ""
	}
	ifaces, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it may just have gone
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(at.IP) {
				return i.Name
			}
		}
	}
	return ""
}

// ToTheWorld returns the interfaces of the default routes of IPv4 and IPv6; "" = there is none.
func ToTheWorld() [2]string {
	// Prefixes of documentation are nobody's, so that no other route is to them.
	return [2]string{To(netip.MustParseAddr("192.0.2.1")), To(netip.MustParseAddr("2001:db8::1"))}
}
