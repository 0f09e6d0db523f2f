package ctl

import (
	"slices"

	"github.com/tortie/tortie/drivers"
)

// mentions says which probes the policies of an end can tell apart from the rest of their protocol. For a pair whose
// policies don't mention a port, the answer is that of the ports that nothing mentions.
type mentions struct {
	probes   []probe
	rest     []int // of each probe: the one that stands for the rest of its protocol; -1 = none, or itself
	policies []map[drivers.PolicyID][]bool
}

func newMentions(probes []probe, worlds int) *mentions {
	m := &mentions{probes: probes, rest: make([]int, len(probes)), policies: make([]map[drivers.PolicyID][]bool, worlds)}
	for w := range m.policies {
		m.policies[w] = map[drivers.PolicyID][]bool{}
	}
	for i, p := range probes {
		m.rest[i] = slices.IndexFunc(probes, func(q probe) bool {
			return q.rest && !q.otherProto && q.family == p.family && q.proto == p.proto
		})
		if m.rest[i] == i || p.otherProto {
			m.rest[i] = -1
		}
	}
	return m
}

// mark notes what matters to an end in one world: what its endpoint's policies mention, and those of its node's host
// endpoints and failsafes, which stand in the way of what enters and leaves the node.
func (m *mentions) mark(out []bool, w int, s *drivers.State, ep *drivers.Endpoint) {
	if s == nil {
		return
	}
	one := func(e *drivers.Endpoint) {
		for id := range e.PolicyIDs {
			for i, is := range m.policy(w, s, id) {
				out[i] = out[i] || is
			}
		}
	}
	if ep != nil {
		one(ep)
	}
	hosts := false
	for _, e := range s.Endpoints {
		if e.ID.Kind == drivers.HostInterface {
			hosts = true
			one(e)
		}
	}
	if !hosts {
		return
	}
	for _, f := range slices.Concat(s.Node.FailsafeIn, s.Node.FailsafeOut) {
		for i, p := range m.probes {
			out[i] = out[i] || p.proto == f.Proto && p.first <= f.Port && f.Port <= p.last
		}
	}
}

// policy returns the probes that a policy mentions.
func (m *mentions) policy(w int, s *drivers.State, id drivers.PolicyID) []bool {
	out, ok := m.policies[w][id]
	if ok {
		return out
	}
	out = make([]bool, len(m.probes))
	m.policies[w][id] = out
	pol := s.Policies[id]
	if pol == nil {
		return out
	}
	for _, r := range slices.Concat(pol.In, pol.Out) {
		ports := map[uint8]map[uint16]bool{}
		for _, ids := range [][]drivers.SetID{r.Match.Dst.PortSets, r.Match.Dst.NotPortSets, r.Match.Dst.Services} {
			for _, set := range ids {
				if s.Sets[set] == nil {
					continue
				}
				for member := range s.Sets[set].All() {
					if ports[member.Proto] == nil {
						ports[member.Proto] = map[uint16]bool{}
					}
					ports[member.Proto][member.Port] = true
				}
			}
		}
		for i, p := range m.probes {
			out[i] = out[i] || ports[p.proto][p.first] || inRanges(&r.Match, p) || namesICMP(&r.Match, p)
		}
	}
	return out
}

func inRanges(m *drivers.Match, p probe) bool {
	return slices.ContainsFunc(slices.Concat(m.Dst.Ports, m.Dst.NotPorts), func(r drivers.PortRange) bool {
		return ported(p.proto) && r.First <= p.first && p.first <= r.Last
	})
}

func namesICMP(m *drivers.Match, p probe) bool {
	is := func(i *drivers.ICMP) bool { return i != nil && p.proto == icmpOf(p.family) && i.Type == p.icmpType }
	return is(m.ICMP) || is(m.NotICMP)
}
