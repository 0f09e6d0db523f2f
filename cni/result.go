package cni

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/tortie/tortie/internal/agentapi"
)

// result says what an attach has made, behind what plugins before this one have made. ipam is nil if the agent allocates.
func (c *conf) result(at attachment, r agentapi.AttachResponse, prev, ipam *current.Result) *current.Result {
	out := &current.Result{CNIVersion: current.ImplementedSpecVersion}
	if prev != nil {
		out.Interfaces, out.IPs, out.Routes, out.DNS = prev.Interfaces, prev.IPs, prev.Routes, prev.DNS
	}
	if c.Chained {
		return out // nothing was made
	}
	out.Interfaces = append(out.Interfaces,
		&current.Interface{Name: r.HostIface, Mac: r.HostMAC, Mtu: r.MTU},
		&current.Interface{Name: at.iface, Mac: r.MAC, Mtu: r.MTU, Sandbox: at.netns})
	inside := len(out.Interfaces) - 1
	gateways := map[bool]net.IP{}
	for _, gw := range r.Gateways {
		gateways[gw.Is4()] = gw.AsSlice()
		all := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		if gw.Is4() {
			all = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		out.Routes = append(out.Routes, &types.Route{Dst: ipNet(all), GW: gw.AsSlice()})
	}
	for _, a := range r.Addresses {
		out.IPs = append(out.IPs, &current.IPConfig{Interface: current.Int(inside), Gateway: gateways[a.Is4()],
			Address: ipNet(netip.PrefixFrom(a, a.BitLen()))})
	}
	switch said := c.Runtime.DNS; {
	case len(said.Servers)+len(said.Searches)+len(said.Options) > 0:
		out.DNS = types.DNS{Nameservers: said.Servers, Search: said.Searches, Options: said.Options}
	case !c.DNS.IsEmpty():
		out.DNS = c.DNS
	case ipam != nil && !ipam.DNS.IsEmpty():
		out.DNS = ipam.DNS
	}
	return out
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// previous is the result of plugins before, or of the whole ADD; nil if there is none.
func (c *conf) previous() (*current.Result, error) {
	if len(c.Prev) == 0 || string(c.Prev) == "null" {
		return nil, nil
	}
	b := c.Prev
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "reading prevResult", err.Error())
	}
	for _, list := range []string{"interfaces", "ips", "routes"} { // the library trusts that their entries are there
		var entries []json.RawMessage
		if err := json.Unmarshal(orNull(keys[list]), &entries); err != nil {
			return nil, types.NewError(types.ErrDecodingFailure, "reading prevResult", list+": "+err.Error())
		}
		for i, e := range entries {
			if string(e) == "null" {
				return nil, types.NewError(types.ErrDecodingFailure, "reading prevResult", fmt.Sprintf("%s[%d] is null", list, i))
			}
		}
	}
	version := c.CNIVersion
	if v, ok := keys["cniVersion"]; ok {
		if err := json.Unmarshal(v, &version); err != nil {
			return nil, types.NewError(types.ErrDecodingFailure, "reading prevResult", err.Error())
		}
	} else { // it is then of the configuration's version
		keys["cniVersion"], _ = json.Marshal(version) // a string
		b, _ = json.Marshal(keys)                     // of what was JSON before
	}
	res, err := create.Create(version, b)
	if err == nil {
		var out *current.Result
		if out, err = current.NewResultFromResult(res); err == nil {
			return out, nil
		}
	}
	return nil, types.NewError(types.ErrDecodingFailure, "reading prevResult", err.Error())
}

func orNull(b json.RawMessage) json.RawMessage {
	if len(b) == 0 {
		return json.RawMessage("null")
	}
	return b
}

// addressesIn are the addresses that a result gives an interface of a workload; ok says whether it has the interface.
func addressesIn(res *current.Result, at attachment) (addrs []netip.Addr, ok bool) {
	for i, iface := range res.Interfaces {
		if iface.Name != at.iface || iface.Sandbox != at.netns {
			continue
		}
		for _, ip := range res.IPs {
			if a, valid := netip.AddrFromSlice(ip.Address.IP); valid && ip.Interface != nil && *ip.Interface == i {
				addrs = append(addrs, a.Unmap())
			}
		}
		return addrs, true
	}
	return nil, false
}
