package linux

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/tortie/tortie/drivers"
)

// scaleState has endpoints that all share one list of policies, each with a rule about a set of its own, of one family or
// of both.
func scaleState(endpoints, policies, members int, both bool) *drivers.State {
	s := drivers.NewState()
	s.Node = drivers.Node{Name: "n1", WorkloadPrefixes: []string{"tort"}}
	v4 := func(n uint32) netip.Addr {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24|n)))
	}
	v6 := func(n uint32) netip.Addr {
		b := netip.MustParseAddr("fd00::").As16()
		binary.BigEndian.PutUint32(b[12:], n)
		return netip.AddrFrom16(b)
	}
	l := &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default"}}}
	for i := range policies {
		set := drivers.SetID(fmt.Sprintf("s:%d", i))
		var ms []drivers.Member
		for j := range members {
			n := uint32(i*members + j)
			ms = append(ms, drivers.AddrMember(v4(n)))
			if both {
				ms = append(ms, drivers.AddrMember(v6(n)))
			}
		}
		s.Sets[set] = drivers.NewSet(drivers.SetNet, ms...)
		p := scalePolicy(i, uint16(i))
		s.Policies[p.ID] = p
		l.Tiers[0].Policies = append(l.Tiers[0].Policies, p.ID)
	}
	for i := range endpoints {
		id := drivers.EndpointID{Sandbox: fmt.Sprint(i), Interface: "eth0"}
		s.Endpoints[id] = &drivers.Endpoint{
			ID: id, Name: fmt.Sprintf("default/p%d", i), Iface: fmt.Sprintf("tort%011x", i), MAC: drivers.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)},
			Addrs:  []netip.Addr{v4(1<<23 | uint32(i)), v6(1<<23 | uint32(i))},
			Policy: drivers.EndpointPolicy{Normal: drivers.Directions{In: l, Out: l}},
		}
	}
	return s
}

func scalePolicy(i int, port uint16) *drivers.Policy {
	tcp := uint8(6)
	side := drivers.Side{Sets: []drivers.SetID{drivers.SetID(fmt.Sprintf("s:%d", i))}}
	p := &drivers.Policy{
		ID: np(fmt.Sprintf("p%d", i)), Tier: "default",
		In: []drivers.Rule{{Action: drivers.Allow, Match: drivers.Match{
			Proto: &tcp, Src: side, Dst: drivers.Side{Ports: []drivers.PortRange{{First: port, Last: port}}}}}},
		Out: []drivers.Rule{{Action: drivers.Allow, Match: drivers.Match{Proto: &tcp, Dst: side}}},
	}
	p.SetRuleIDs()
	return p
}

// TestScale is the budget: 250 endpoints with all of 10,000 policies on each, in at most 60,000 rules. A policy costs a
// jump, and its rules, in each direction that it speaks of; a rule about a set costs one for each family in the set.
func TestScale(t *testing.T) {
	t.Parallel()
	one, both := scaleState(250, 10000, 1, false), scaleState(250, 10000, 1, true)
	for id, p := range both.Policies {
		q := *p
		q.Out = nil
		both.Policies[id] = &q
	}
	for name, s := range map[string]*drivers.State{"one family": one, "ingress of two families": both} {
		if n := Render(s).Size(); n > 60000 {
			t.Errorf("%s: %d rules", name, n)
		} else {
			t.Logf("%s: %d rules", name, n)
		}
	}
}
