package calcgraph

import (
	"net/netip"
	"slices"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// network makes routes, peers, masquerade and the node's addresses.
func (m *model) network() {
	addrs := map[string][2]netip.Prefix{}
	for _, n := range of[*api.Node](m) {
		var a [2]netip.Prefix
		var list []netip.Addr
		for f, text := range []string{n.Spec.BGP.IPv4Address, n.Spec.BGP.IPv6Address} {
			if text != "" {
				a[f] = netip.MustParsePrefix(text)
				list = append(list, a[f].Addr())
			}
		}
		addrs[n.Name] = a
		if n.Name == m.c.NodeName {
			m.s.Node.Addresses = list
		} else {
			m.s.Peers[n.Name] = &drivers.Peer{Name: n.Name, Addrs: list}
		}
	}
	var from, except []string
	for _, p := range of[*api.IPPool](m) {
		if p.Spec.NATOutgoing {
			from = append(from, p.Spec.CIDR)
		}
		except = append(except, p.Spec.CIDR)
	}
	if len(from) > 0 {
		m.s.Masquerade = drivers.Masquerade{From: widest(from), Except: widest(except)}
	}
	m.routes(addrs)
}

func (m *model) routes(addrs map[string][2]netip.Prefix) {
	add := func(r *drivers.Route) {
		old := m.s.Routes[r.Dst]
		if old == nil || old.Learned && r.Encap != drivers.EncapNone || r.Kind != drivers.RouteRemote {
			m.s.Routes[r.Dst] = r
		}
	}
	for dst, r := range m.learned {
		c := *r
		c.Dst, c.Learned = dst, true
		if m.s.Peers[c.Peer] == nil {
			c.Peer = ""
		}
		add(&c)
	}
	remote := func(dst netip.Prefix, owner string) {
		f := map[bool]int{false: 0, true: 1}[dst.Addr().Is6()]
		hop, me := addrs[owner][f], addrs[m.c.NodeName][f]
		if !hop.IsValid() {
			return
		}
		r := &drivers.Route{Dst: dst, Kind: drivers.RouteRemote, NextHop: hop.Addr(), Peer: owner}
		same := me.IsValid() && me.Contains(hop.Addr())
		if p := m.pool(dst.Addr()); p != nil {
			for mode, encap := range map[string]drivers.Encap{p.Spec.IPIPMode: drivers.EncapIPIP, p.Spec.VXLANMode: drivers.EncapVXLAN} {
				if mode == "Always" || mode == "CrossSubnet" && !same {
					r.Encap = encap
				}
			}
		}
		if r.Encap == drivers.EncapNone && me.IsValid() && !same {
			return
		}
		add(r)
	}
	for _, b := range of[*api.BlockAffinity](m) {
		p := netip.MustParsePrefix(b.Spec.CIDR)
		if m.block(p.Addr(), p.Bits()) != b {
			continue
		}
		if b.Spec.Node != m.c.NodeName {
			remote(p, b.Spec.Node)
		} else if !p.IsSingleIP() {
			add(&drivers.Route{Dst: p, Kind: drivers.RouteBlackhole})
		}
	}
	owners := map[netip.Prefix]string{}
	for _, o := range of[*api.WorkloadEndpoint](m) {
		ps, _, _ := nets(o)
		for _, p := range ps {
			if slices.Contains(o.Spec.Foreign, p.String()) && m.block(p.Addr(), -1) == nil {
				continue
			}
			if p.IsSingleIP() && o.Spec.Node != m.c.NodeName && (owners[p] == "" || o.Spec.Node < owners[p]) {
				owners[p] = o.Spec.Node
			}
		}
	}
	for p, owner := range owners {
		b := m.block(p.Addr(), -1)
		if b == nil && m.pool(p.Addr()) == nil || b != nil && b.Spec.Node == owner {
			continue
		}
		delete(m.s.Routes, p) // of a block of one address
		if r := m.learned[p]; r != nil {
			c := *r
			c.Learned = true
			if m.s.Peers[c.Peer] == nil {
				c.Peer = ""
			}
			add(&c)
		}
		remote(p, owner)
	}
	locals := map[netip.Prefix]drivers.EndpointID{}
	for id, l := range m.ledger {
		for _, a := range l.Addrs {
			p := netip.PrefixFrom(a, a.BitLen())
			if old, ok := locals[p]; !ok || id.Compare(old) < 0 {
				locals[p] = id
				add(&drivers.Route{Dst: p, Kind: drivers.RouteLocal, Iface: l.Iface})
			}
		}
	}
}

func (m *model) pool(a netip.Addr) (best *api.IPPool) {
	for _, p := range of[*api.IPPool](m) {
		c := netip.MustParsePrefix(p.Spec.CIDR)
		if c.Contains(a) && (best == nil || c.Bits() > netip.MustParsePrefix(best.Spec.CIDR).Bits()) {
			best = p
		}
	}
	return best
}

// block returns the block of a (with bits >= 0: of that length); of several nodes the first by name has it.
func (m *model) block(a netip.Addr, bits int) (best *api.BlockAffinity) {
	for _, b := range of[*api.BlockAffinity](m) {
		c := netip.MustParsePrefix(b.Spec.CIDR)
		if b.Spec.State != "confirmed" || !c.Contains(a) || bits >= 0 && c.Bits() != bits {
			continue
		}
		if best == nil || c.Bits() > netip.MustParsePrefix(best.Spec.CIDR).Bits() ||
			best.Spec.CIDR == b.Spec.CIDR && b.Spec.Node < best.Spec.Node {
			best = b
		}
	}
	return best
}
