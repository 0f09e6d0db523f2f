package cni

import (
	"net/netip"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tortie/tortie/internal/agentapi"
)

// behind checks that a plugin before this one has made the interface, and asks for policy there.
func (c *conf) behind(prev *current.Result, at attachment, r *agentapi.AttachRequest) error {
	if prev == nil {
		return invalid("chained: no plugin comes before this one: prevResult is missing")
	}
	if c.IPAM.Type != "" {
		return invalid("chained: the addresses are those of the plugin before this one: there can be no ipam")
	}
	addrs := addressesBefore(prev, at)
	if len(addrs) == 0 {
		return invalid("chained: the plugin before this one has given interface %s no address", at.iface)
	}
	r.Chained, r.Addresses, r.Allocate, r.MAC = true, addrs, nil, ""
	return nil
}

// addressesBefore are the addresses of a workload as a plugin before this one says them. Some don't say of which interface
// an address is, or don't name the interface at all.
func addressesBefore(prev *current.Result, at attachment) []netip.Addr {
	addrs, ok := addressesIn(prev, at)
	if ok && len(addrs) > 0 {
		return addrs
	}
	for _, ip := range prev.IPs {
		if a, valid := netip.AddrFromSlice(ip.Address.IP); valid && (ip.Interface == nil || !ok) {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs
}
