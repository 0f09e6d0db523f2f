package calcgraph

import (
	"net/netip"
	"slices"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// pool is an IPPool. A disabled one gives no new addresses; those that it gave are still its own.
type pool struct {
	prefix      netip.Prefix
	encap       drivers.Encap
	crossSubnet bool // only to nodes on other networks
	nat         bool
	others      bool // its workloads have their addresses, and their routes, from somebody else
}

func readPool(o *api.IPPool, probs *problems) *pool {
	prefix, err := api.ParsePrefix(o.Spec.CIDR)
	if err != nil {
		probs.add("spec.cidr", "the pool is ignored: %v", err)
		return nil
	}
	p := &pool{prefix: prefix, nat: o.Spec.NATOutgoing, others: o.Spec.OnlyTunnels()}
	modes := []struct {
		field, text string
		encap       drivers.Encap
	}{{"spec.ipipMode", o.Spec.IPIPMode, drivers.EncapIPIP}, {"spec.vxlanMode", o.Spec.VXLANMode, drivers.EncapVXLAN}}
	for _, m := range modes {
		switch m.text {
		case "", "Never":
		case "Always", "CrossSubnet":
			if m.encap == drivers.EncapIPIP && prefix.Addr().Is6() {
				probs.add(m.field, "IPIP carries IPv4 only; the mode is ignored")
				continue
			}
			p.encap, p.crossSubnet = m.encap, m.text == "CrossSubnet"
		default:
			probs.add(m.field, "%q is none of Never, Always, CrossSubnet; it is taken as Never", m.text)
		}
	}
	return p
}

// pools is the IPPools by name.
type pools map[string]*pool

// of returns the smallest pool that holds a, nil for none.
func (ps pools) of(a netip.Addr) *pool {
	var best *pool
	for _, p := range ps {
		if p.prefix.Contains(a) && (best == nil || p.prefix.Bits() > best.prefix.Bits()) {
			best = p
		}
	}
	return best
}

func (ps pools) masquerade(exclusions []netip.Prefix) *drivers.Masquerade {
	m := &drivers.Masquerade{}
	for _, p := range ps {
		if p.nat {
			m.From = append(m.From, p.prefix)
		}
		m.Except = append(m.Except, p.prefix)
	}
	if len(m.From) == 0 {
		return &drivers.Masquerade{}
	}
	m.Except = append(m.Except, exclusions...)
	m.From, m.Except = maximalPrefixes(m.From), maximalPrefixes(m.Except)
	return m
}

func sameMasquerade(a, b *drivers.Masquerade) bool {
	return slices.Equal(a.From, b.From) && slices.Equal(a.Except, b.Except)
}
