package linux

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// crowd makes States of many small policies that look at the same things, so that much of what they do is merged, and
// packets that meet them. All is drawn from little: rules have elements in common, and contradict each other.
type crowd struct {
	*rand.Rand
	s     *drivers.State
	class crowdClass // what most rules of the State look at
}

// crowdClass is what a rule looks at.
type crowdClass struct{ near, addr, proto, port bool }

const crowdPolicies = 14

var (
	crowdFar = []netip.Addr{
		addr("10.66.0.1"), addr("10.66.0.2"), addr("10.66.0.3"), addr("10.66.0.9"), addr("fd66::1"), addr("fd66::2"), addr("fd66::3"), addr("fd66::9"),
	}
	crowdNear = []netip.Addr{addr("10.65.0.1"), addr("fd65::1"), addr("10.65.0.2"), addr("fd65::2")}
	crowdNets = []netip.Prefix{prefix("10.66.0.0/30"), prefix("10.66.0.2/31"), prefix("fd66::/126"), prefix("0.0.0.0/0"), prefix("::/0")}
	crowdSets = []drivers.SetID{"c:0", "c:1", "c:2", "c:3", "c:4", "c:wide", "c:big", "c:port"}
)

const smallCrowdSets = 5

func newCrowd(seed uint64) *crowd {
	c := &crowd{Rand: rand.New(rand.NewPCG(seed, 0x63726f7764)), s: drivers.NewState()}
	c.s.Node = drivers.Node{
		Name: "n1", WorkloadPrefixes: []string{"tort"}, EndpointToHost: drivers.ToHostReturn,
		FailsafeIn: []drivers.Failsafe{
			{Proto: l4TCP, Port: 443}, {Proto: 47}, {Proto: l4UDP, Port: 81, Net: prefix("10.66.0.0/31")}, {Proto: l4SCTP, Port: 80, Net: prefix("::/0")},
		},
		FailsafeOut: []drivers.Failsafe{{Proto: l4UDP, Port: 443}, {Proto: l4TCP, Port: 82, Net: prefix("fd66::/127")}},
	}
	c.class = crowdClass{c.one(4), !c.one(4), !c.one(4), !c.one(3)}
	for i := range crowdSets {
		c.s.Sets[crowdSets[i]] = c.set(i)
	}
	for i := range crowdPolicies {
		p := c.policy(np(fmt.Sprint("c", i)))
		c.s.Policies[p.ID] = p
	}
	for i := range 2 {
		p := c.policy(drivers.PolicyID{Kind: drivers.KindProfile, Name: fmt.Sprint("c", i)})
		for range 3 { // long enough to be merged by itself
			more := c.policy(p.ID)
			p.In, p.Out = append(p.In, more.In...), append(p.Out, more.Out...)
		}
		p.SetRuleIDs()
		c.s.Policies[p.ID] = p
	}
	for i := range 3 {
		c.endpoint(i)
	}
	if c.one(4) {
		c.endpoint(3)
	}
	return c
}

// one is true one time in n.
func (c *crowd) one(n int) bool { return c.IntN(n) == 0 }

func choose[T any](c *crowd, xs []T) T { return xs[c.IntN(len(xs))] }

func (c *crowd) set(i int) *drivers.Set {
	var ms []drivers.Member
	for range c.IntN(5) {
		ms = append(ms, drivers.AddrMember(choose(c, slices.Concat(crowdFar, crowdFar, crowdNear))))
	}
	switch crowdSets[i] {
	case "c:wide":
		ms = append(ms, drivers.NetMember(choose(c, crowdNets)))
	case "c:big":
		for i := range 12 {
			ms = append(ms, drivers.AddrMember(addr(fmt.Sprintf("10.66.1.%d", i))))
		}
	case "c:port":
		ms = nil
		for range 5 {
			ms = append(ms, drivers.PortMember(choose(c, crowdFar), l4TCP, c.port()))
		}
		return drivers.NewSet(drivers.SetPort, ms...)
	}
	return drivers.NewSet(drivers.SetNet, ms...)
}

func (c *crowd) port() uint16 { return choose(c, []uint16{80, 81, 82, 443}) }

func (c *crowd) policy(id drivers.PolicyID) *drivers.Policy {
	p := &drivers.Policy{ID: id, Tier: "default", Staged: c.one(20)}
	action := drivers.Allow
	if c.one(5) {
		action = drivers.Deny
	}
	class := c.class
	if c.one(4) {
		class = crowdClass{c.one(4), !c.one(4), !c.one(4), !c.one(3)}
	}
	for range 1 + c.IntN(3) {
		if c.one(8) {
			action = drivers.Allow + drivers.Deny - action
		}
		p.In, p.Out = append(p.In, c.rule(action, class, true)), append(p.Out, c.rule(action, class, false))
	}
	p.SetRuleIDs()
	return p
}

func (c *crowd) rule(a drivers.Action, class crowdClass, in bool) drivers.Rule {
	r := drivers.Rule{Action: a}
	if c.one(20) {
		r.Action = choose(c, []drivers.Action{drivers.Pass, drivers.Log})
	}
	side := &r.Match.Dst
	if in != class.near {
		side = &r.Match.Src
	}
	if class.addr {
		c.ends(side)
	}
	if class.proto {
		r.Match.Proto = ptr(choose(c, []uint8{l4TCP, l4TCP, l4UDP, l4SCTP, l4ICMP, 47}))
	}
	if class.port && (!class.proto || hasPorts(*r.Match.Proto) || c.one(8)) {
		r.Match.Dst.Ports = c.ports()
	}
	if c.one(7) {
		c.odd(&r.Match)
	}
	return r
}

func (c *crowd) ends(s *drivers.Side) {
	switch c.IntN(12) {
	case 0:
		s.Nets = []netip.Prefix{choose(c, crowdNets)}
	case 1:
		s.Sets = []drivers.SetID{choose(c, crowdSets)}
	case 2, 3, 4:
		for range 1 + c.IntN(2) {
			a := choose(c, crowdFar)
			s.Nets = append(s.Nets, netip.PrefixFrom(a, a.BitLen()))
		}
	default:
		s.Sets = []drivers.SetID{choose(c, crowdSets[:smallCrowdSets])}
	}
}

func (c *crowd) ports() []drivers.PortRange {
	p := c.port()
	switch c.IntN(12) {
	case 0:
		return []drivers.PortRange{{First: p, Last: p + 1}}
	case 1:
		return []drivers.PortRange{{First: p, Last: p}, {First: 79, Last: 80}}
	case 2:
		return []drivers.PortRange{{First: p, Last: p + 200}}
	case 3:
		return []drivers.PortRange{{First: p, Last: p - 1}}
	}
	return []drivers.PortRange{{First: p, Last: p}}
}

// odd adds a clause with which a rule cannot be taken apart.
func (c *crowd) odd(m *drivers.Match) {
	side := choose(c, []*drivers.Side{&m.Src, &m.Dst})
	a := choose(c, crowdFar)
	one, ports := netip.PrefixFrom(a, a.BitLen()), []drivers.PortRange{{First: 80, Last: 81}}
	switch c.IntN(17) {
	case 0:
		m.IPVersion = choose(c, []uint8{4, 6})
	case 1:
		m.NotProto = ptr(choose(c, []uint8{l4TCP, l4UDP}))
	case 2:
		m.ICMP = &drivers.ICMP{Type: 8}
	case 3:
		m.NotICMP = &drivers.ICMP{Type: 8}
	case 4:
		m.HTTP = &drivers.HTTP{Methods: []string{"GET"}}
	case 5:
		m.Unsupported = []string{"odd"}
	case 6:
		m.Src.Ports = []drivers.PortRange{{First: 1000, Last: 1000}}
	case 7:
		side.NotNets = []netip.Prefix{one}
	case 8:
		side.NotSets = []drivers.SetID{choose(c, crowdSets)}
	case 9:
		side.PortSets = []drivers.SetID{"c:port"}
	case 10:
		side.NotPorts = ports
	case 11:
		side.NotPortSets = []drivers.SetID{"c:port"}
	case 12:
		side.Services = []drivers.SetID{"c:port"}
	case 13:
		side.Nets = []netip.Prefix{one}
	case 14:
		side.Sets = append(side.Sets, choose(c, crowdSets))
	case 15: // says nothing
		side.Nets = append(side.Nets, netip.Prefix{})
	case 16:
		side.NotNets = []netip.Prefix{{}, one}
	}
}

func (c *crowd) list() *drivers.TierList {
	l := &drivers.TierList{}
	if c.one(12) {
		return choose(c, []*drivers.TierList{nil, l, {Tiers: []drivers.TierPolicies{{Name: "empty"}}}})
	}
	order := c.Perm(crowdPolicies)
	for i := range 2 {
		t := drivers.TierPolicies{Name: fmt.Sprint("tier", i), Default: choose(c, []drivers.Action{drivers.Deny, drivers.Pass})}
		for _, n := range order[7*i : 7*i+7-c.IntN(3)] {
			t.Policies = append(t.Policies, np(fmt.Sprint("c", n)))
		}
		l.Tiers = append(l.Tiers, t)
	}
	return l
}

// endpoint gives a workload, or the host's interface, new lists.
func (c *crowd) endpoint(i int) drivers.EndpointID {
	e := &drivers.Endpoint{ID: drivers.EndpointID{Sandbox: fmt.Sprint("w", i), Interface: "eth0"}, Iface: fmt.Sprint("tort", i)}
	switch i {
	case 0, 1:
		e.Addrs = crowdNear[2*i : 2*i+2]
	case 2:
		e.ID, e.Iface = drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "h", Interface: "eth0"}, "eth0"
		e.Policy.Forward = drivers.Directions{In: c.list(), Out: c.list()}
		if e.Policy.PreDNAT.In = c.list(); c.one(2) {
			e.Policy.Untracked = drivers.Directions{In: c.list(), Out: c.list()}
		}
	case 3: // whose interface is another's
		e.Iface = choose(c, []string{"tort0", "tort1", "tort7"})
	}
	e.Policy.Normal = drivers.Directions{In: c.list(), Out: c.list()}
	for n := range c.IntN(3) {
		e.Profiles = append(e.Profiles, drivers.PolicyID{Kind: drivers.KindProfile, Name: fmt.Sprint("c", n)})
	}
	c.s.Endpoints[e.ID] = e
	return e.ID
}

// packets go between the workloads, the host, and somewhere behind each of its interfaces.
func (c *crowd) packets(n int) []drivers.Packet {
	type at struct {
		drivers.Place
		v4, v6 netip.Addr
	}
	var pks []drivers.Packet
	host := c.s.Endpoints[drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "h", Interface: "eth0"}]
	translated := host.Policy.Untracked.In == nil // what is not tracked is not translated
	for len(pks) < n {
		v4, v6 := choose(c, crowdFar[:4]), choose(c, crowdFar[4:])
		places := []at{
			{drivers.Place{Kind: drivers.PlaceWorkload, Iface: "tort0"}, crowdNear[0], crowdNear[1]},
			{drivers.Place{Kind: drivers.PlaceWorkload, Iface: "tort1"}, crowdNear[2], crowdNear[3]},
			{drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth0"}, v4, v6},
			{drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth1"}, v4, v6},
			{drivers.Place{Kind: drivers.PlaceProcess}, addr("172.20.0.1"), addr("fd20::1")},
		}
		from, to := choose(c, places), choose(c, places)
		if from.v4 == to.v4 {
			continue
		}
		pk := drivers.Packet{
			From: from.Place, To: to.Place, Src: from.v4, Dst: to.v4, Proto: choose(c, []uint8{l4TCP, l4TCP, l4TCP, l4UDP, l4SCTP, l4ICMP, 47}),
		}
		if c.one(2) {
			pk.Src, pk.Dst = from.v6, to.v6
		}
		if hasPorts(pk.Proto) {
			pk.SrcPort, pk.DstPort = choose(c, []uint16{1000, 2049, 40000}), choose(c, []uint16{79, 80, 80, 81, 82, 83, 250, 443})
		}
		if pk.Proto == l4ICMP {
			pk.ICMPType = choose(c, []uint8{8, 0})
			if pk.Src.Is6() {
				pk.Proto = l4ICMPv6
			}
		}
		if from.Kind == drivers.PlaceHostIface && hasPorts(pk.Proto) && translated && c.one(2) { // to a service
			dst := choose(c, crowdFar[:4])
			if pk.Src.Is6() {
				dst = choose(c, crowdFar[4:])
			}
			pk.OrigDst = netip.AddrPortFrom(dst, c.port())
		}
		pks = append(pks, pk)
	}
	return pks
}

// step changes one thing, and says what.
func (c *crowd) step() *drivers.Changes {
	was := c.s.Clone()
	i := c.IntN(crowdPolicies)
	id := np(fmt.Sprint("c", i))
	switch c.IntN(10) {
	case 0, 1:
		c.s.Policies[id] = c.policy(id)
	case 2:
		delete(c.s.Policies, id)
	case 3: // the same rules, with one thing different
		if p := c.s.Policies[id]; p != nil {
			c.s.Policies[id] = c.tweak(p)
		}
	case 4, 5, 6:
		id := choose(c, crowdSets[:smallCrowdSets])
		if s, m := c.s.Sets[id], drivers.AddrMember(choose(c, crowdFar)); s == nil {
			c.s.Sets[id] = drivers.NewSet(drivers.SetNet, m)
		} else if s.Has(m) {
			c.s.Sets[id] = s.With(nil, []drivers.Member{m})
		} else {
			c.s.Sets[id] = s.With([]drivers.Member{m}, nil)
		}
	case 7:
		i := c.IntN(len(crowdSets))
		if c.s.Sets[crowdSets[i]] = c.set(i); c.one(3) {
			delete(c.s.Sets, crowdSets[i])
		}
	case 8:
		delete(c.s.Endpoints, c.endpoint(3))
	default:
		c.endpoint(c.IntN(4))
	}
	return drivertest.Diff(was, c.s)
}

// tweak gives a policy another port, protocol or action, or lets a rule come first that came last.
func (c *crowd) tweak(p *drivers.Policy) *drivers.Policy {
	q := &drivers.Policy{ID: p.ID, Tier: p.Tier, Staged: p.Staged, In: slices.Clone(p.In), Out: slices.Clone(p.Out)}
	for _, rules := range [][]drivers.Rule{q.In, q.Out} {
		r := &rules[c.IntN(len(rules))]
		switch c.IntN(5) {
		case 0:
			r.Action = drivers.Allow + drivers.Deny - min(r.Action, drivers.Allow)
		case 1:
			r.Match.Dst.Ports = c.ports()
		case 2:
			r.Match.Proto = ptr(uint8(l4UDP))
		case 3:
			slices.Reverse(rules)
		case 4:
			q.Staged = !q.Staged
		}
	}
	q.SetRuleIDs()
	return q
}

// crowdLimits are the ways in which crowds are rendered: all merged that can be, what is worth it, and nothing.
func crowdLimits() []limits {
	return []limits{mergeAll(), {groupMin: 3, groupCut: 8, policies: 2, rules: 3, members: 2}, noMerging()}
}

// TestCrowdsAgree: what the kernel would do with policies that were merged is what the oracle says of each by itself.
func TestCrowdsAgree(t *testing.T) {
	t.Parallel()
	seeds := uint64(150)
	if testing.Short() {
		seeds = 30
	}
	var sets, vmaps int
	for seed := range seeds {
		c := newCrowd(seed)
		if seed%4 == 3 { // something is missing
			delete(c.s.Sets, choose(c, crowdSets))
			delete(c.s.Policies, np(fmt.Sprint("c", c.IntN(crowdPolicies))))
		}
		pks := c.packets(100)
		logs := map[string]bool{}
		for i, l := range crowdLimits() {
			comp := newCompiler()
			comp.limits = l
			comp.update(c.s, nil)
			agree(t, c.s, &comp.prog, pks)
			if is := logged(comp.prog); i == 0 {
				logs = is
			} else if !maps.Equal(logs, is) {
				t.Fatalf("seed %d, limits %d: %v is logged, want %v", seed, i, is, logs)
			}
			for _, s := range comp.prog.Sets {
				switch m, ok := s.Content.(*merged); {
				case ok && m.ranks != nil:
					vmaps++
				case ok:
					sets++
				}
			}
		}
	}
	if sets < 20*int(seeds) || vmaps < int(seeds) {
		t.Errorf("%d merged sets and %d maps in %d States: this proves little", sets, vmaps, seeds)
	}
}

// logged is the prefixes of all that a program may log: each says by which rule.
func logged(p Program) map[string]bool {
	m := map[string]bool{}
	for _, c := range p.Chains {
		for _, r := range c.Rules {
			for _, a := range r.Actions {
				if a.Kind == ActLog {
					m[a.Prefix] = true
				}
			}
		}
	}
	return m
}

// TestCrowdsFollow: a crowd that changes step by step has the program that its State has by itself, and the writes of each
// step lead there.
func TestCrowdsFollow(t *testing.T) {
	t.Parallel()
	seeds, steps := uint64(8), 60
	if testing.Short() {
		seeds, steps = 3, 30
	}
	for seed := range seeds {
		c, l := newCrowd(seed), crowdLimits()[seed%2]
		d, have, comp := newDesk(), noTables(), newCompiler()
		comp.limits = l
		comp.update(c.s.Clone(), nil)
		keys, ch := allKeys(&comp.prog, &have.Program), (*drivers.Changes)(nil)
		for i := range steps {
			what := fmt.Sprintf("seed %d, step %d", seed, i)
			d.commit(t, &comp.prog, plan(&comp.prog, have, keys, deltasOf(comp, ch)), what)
			have.wrote(&comp.prog, keys)
			if ch = c.step(); i%7 == 6 { // nobody says what has changed
				ch = nil
			}
			comp.touched = map[Key]struct{}{}
			comp.update(c.s.Clone(), ch)
			if keys = comp.touched; ch == nil {
				keys = allKeys(&comp.prog, &have.Program)
			}
			alone := newCompiler()
			alone.limits = l
			alone.update(c.s.Clone(), nil)
			if diff := cmp.Diff(inFull(alone.prog), inFull(comp.prog)); diff != "" {
				t.Fatalf("%s: (-alone +here):\n%s", what, diff)
			}
		}
	}
}
