package calcgraph

import "net/netip"

// depart notes the addresses that a workload of another node gives up. Its flows may be in this node's table still, and
// the next owner of an address must not be taken for it.
func (g *Graph) depart(c *change) {
	if !c.was || g.things.all[c.id].node == 0 {
		return
	}
	nets := c.lost
	if !c.is {
		nets = c.oldGives.nets
	}
	for _, m := range nets {
		if !m.wide() {
			g.departed = append(g.departed, m.addr())
		}
	}
}

// Departed returns the addresses that workloads of other nodes have given up since the last call, whoever has them now.
func (g *Graph) Departed() []netip.Addr {
	out := g.departed
	g.departed = nil
	return out
}
