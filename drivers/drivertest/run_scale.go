package drivertest

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/tortie/tortie/drivers"
)

// What growth may cost. The figures are counts of writes, which no busy machine changes; time has a bound that only a
// driver of another order of magnitude misses.
const (
	growthPolicies      = 100
	writesPerPolicy     = 16
	writesMore          = 12 // by which an Apply may cost more for a State of twice the size
	growthApplyDeadline = 30 * time.Second
)

// growth counts the writes of States of n and 2n policies, all of them on every endpoint, with one list for all.
func (r *runner) growth(ctx context.Context) error {
	costs := map[int]growthCost{}
	for _, n := range []int{growthPolicies, 2 * growthPolicies} {
		c, err := r.growthCost(ctx, n)
		if err != nil {
			return fmt.Errorf("%d policies: %w", n, err)
		}
		costs[n] = c
		r.say("scale: %d policies on each endpoint: %+v", n, c)
	}
	small, big := costs[growthPolicies], costs[2*growthPolicies]
	for _, x := range []struct {
		what           string
		small, big, up int
	}{
		{"the whole, for each policy more", small.whole, big.whole, writesPerPolicy * growthPolicies},
		{"one endpoint more that has a list of others", small.endpoint, big.endpoint, writesMore},
		{"one set member more", small.member, big.member, writesMore},
		{"one policy that changes", small.policy, big.policy, writesMore},
		{"one endpoint that goes", small.gone, big.gone, writesMore},
	} {
		if x.big > x.small+x.up {
			return breach(scale, fmt.Errorf("%s: %d writes with %d policies, %d with %d; want at most %d more", x.what,
				x.small, growthPolicies, x.big, 2*growthPolicies, x.up))
		}
	}
	return nil
}

// growthCost is the number of writes of Applies to a State of some size.
type growthCost struct{ whole, endpoint, member, policy, gone int }

func (r *runner) growthCost(ctx context.Context, n int) (growthCost, error) {
	var c growthCost
	if err := r.open(ctx, true); err != nil {
		return c, err
	}
	s := growthState(n)
	last := workloadID("c")
	apply := func(s *drivers.State, h hint) (int, error) {
		before, err := r.dump(ctx)
		if err != nil {
			return 0, err
		}
		within, cancel := context.WithTimeout(ctx, growthApplyDeadline)
		defer cancel()
		if _, err := r.apply(within, s, h); err != nil {
			return 0, breach(scale, err)
		}
		after, err := r.dump(ctx)
		return after.Writes - before.Writes, err
	}
	without := withoutEndpoint(s, last)
	member := s.Clone()
	member.Sets["s:0"] = s.Sets["s:0"].With([]drivers.Member{drivers.AddrMember(netip.MustParseAddr("10.20.99.99"))}, nil)
	changed := member.Clone()
	p := growthPolicy(n/2, 9999)
	changed.Policies[p.ID] = p
	for _, st := range []struct {
		s     *drivers.State
		h     hint
		count *int
	}{{without, noHint, &c.whole}, {s, exact, &c.endpoint}, {member, exact, &c.member}, {changed, exact, &c.policy},
		{withoutEndpoint(changed, last), exact, &c.gone}} {
		n, err := apply(st.s, st.h)
		if err != nil {
			return c, err
		}
		*st.count = n
	}
	return c, nil
}

// growthState has n policies on each of three workloads, and ten sets that they speak of.
func growthState(n int) *drivers.State {
	s := drivers.NewState()
	s.Node = baseNode()
	for i := range 10 {
		var ms []drivers.Member
		for j := range 50 {
			ms = append(ms, drivers.AddrMember(netip.AddrFrom4([4]byte{10, 20, byte(i), byte(j)})))
		}
		s.Sets[drivers.SetID(fmt.Sprint("s:", i))] = drivers.NewSet(drivers.SetNet, ms...)
	}
	t := drivers.TierPolicies{Name: "default", Default: drivers.Deny}
	for i := range n {
		p := growthPolicy(i, uint16(1000+i))
		s.Policies[p.ID] = p
		t.Policies = append(t.Policies, p.ID)
	}
	l := &drivers.TierList{Tiers: []drivers.TierPolicies{t}}
	for _, site := range sites[:3] {
		id := workloadID(site.Name)
		s.Endpoints[id] = &drivers.Endpoint{
			ID: id, Name: "default/" + site.Name, Iface: site.Place.Iface, MAC: site.MAC, Addrs: site.Addrs,
			Policy: drivers.EndpointPolicy{Normal: drivers.Directions{In: l, Out: l}},
		}
	}
	return s
}

func growthPolicy(i int, port uint16) *drivers.Policy {
	tcp := uint8(protoTCP)
	id := drivers.PolicyID{Kind: drivers.KindGlobalNetworkPolicy, Name: fmt.Sprint("p", i)}
	r := drivers.Rule{Action: drivers.Allow, Match: drivers.Match{Proto: &tcp}}
	r.Match.Src.Sets = []drivers.SetID{drivers.SetID(fmt.Sprint("s:", i%10))}
	r.Match.Dst.Ports = []drivers.PortRange{{First: port, Last: port}}
	p := &drivers.Policy{ID: id, Tier: "default", In: []drivers.Rule{r}, Out: []drivers.Rule{r}}
	p.SetRuleIDs()
	return p
}
