package calcgraph

// chained are interfaces of workloads that another plugin has made. Their names are not like those of workloads: who asks
// for HostEndpoints must know that they are no interfaces of the host's own.
type chained struct {
	ifaces map[string]map[*attachment]struct{}
	moved  bool // since the last look
}

func newChained() chained { return chained{ifaces: map[string]map[*attachment]struct{}{}} }

func (c *chained) has(iface string) bool { return len(c.ifaces[iface]) > 0 }

// look reports whether something has changed since the last look.
func (c *chained) look() bool {
	moved := c.moved
	c.moved = false
	return moved
}

// twice are workloads that say that they have the same interface: the dataplane trusts none of them.
func (c *chained) twice() []Problem {
	var out []Problem
	for iface, all := range c.ifaces {
		if len(all) < 2 {
			continue
		}
		for a := range all {
			out = append(out, Problem{Key: a.entry.Name, Reason: "workload " + a.id.Sandbox + "/" + a.id.Interface + " denies everything: interface " + iface +
				" is another workload's, too"})
		}
	}
	return out
}

// lead has routes lead to a workload, unless somebody else's do.
func (es *endpoints) lead(a *attachment) {
	if a.entry.Chained {
		put(es.chained.ifaces, a.entry.Iface, a)
		es.chained.moved = true
		return
	}
	for _, addr := range a.entry.Addrs {
		es.routes.addLocal(addr, a)
	}
}

func (es *endpoints) leadNoMore(a *attachment) {
	if a.entry.Chained {
		take(es.chained.ifaces, a.entry.Iface, a)
		es.chained.moved = true
		return
	}
	for _, addr := range a.entry.Addrs {
		es.routes.removeLocal(addr, a)
	}
}
