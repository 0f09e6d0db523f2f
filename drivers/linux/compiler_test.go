package linux

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// TestNothingIsKept: when all that a compiler has rendered is gone it remembers nothing of it.
func TestNothingIsKept(t *testing.T) {
	t.Parallel()
	for seed, l := range crowdLimits() {
		c := newCompiler()
		c.limits = l
		crowd := newCrowd(uint64(seed))
		crowd.s.Routes[prefix("10.99.0.0/24")] = &drivers.Route{Dst: prefix("10.99.0.0/24"), Kind: drivers.RouteRemote, Encap: drivers.EncapVXLAN}
		bare := drivers.NewState()
		bare.Node = crowd.s.Node
		c.update(bare, nil)
		empty := inFull(c.prog)
		before := bare
		for range 20 {
			c.update(crowd.s.Clone(), drivertest.Diff(before, crowd.s))
			before = crowd.s.Clone()
			crowd.step()
		}
		c.update(bare, drivertest.Diff(before, bare))
		if n := len(c.units) + len(c.policies) + len(c.sets) + len(c.abouts) + len(c.users) + len(c.ifaces) + len(c.where) + len(c.encaps) + len(c.failed); n != 0 {
			t.Errorf("%d things are left: %v, policies %v, sets %v %v %v, interfaces %v %v, routes %v, failed %v",
				n, slices.Collect(maps.Keys(c.units)), c.policies, c.sets, c.abouts, c.users, c.ifaces, c.where, c.encaps, c.failed)
		}
		for k, es := range c.maps {
			if len(es) != 0 {
				t.Errorf("%s has %v", k.Name, es)
			}
		}
		for e, n := range c.tunnels {
			if n != 0 {
				t.Errorf("%d tunnels of kind %v", n, e)
			}
		}
		for level, us := range c.dirty {
			if len(us) != 0 {
				t.Errorf("level %d is to be rendered", level)
			}
		}
		if diff := cmp.Diff(empty, inFull(c.prog)); diff != "" {
			t.Errorf("(-at first +at last):\n%s", diff)
		}
		c.update(crowd.s.Clone(), nil)
		c.update(bare, nil)
		if n := len(c.units) + len(c.policies) + len(c.sets) + len(c.abouts) + len(c.users) + len(c.ifaces) + len(c.where) + len(c.encaps); n != 0 {
			t.Errorf("without a hint %d things are left", n)
		}
	}
}

// TestMissingGolden shows the programs of States that name policies and sets which are not there, by themselves and in groups.
func TestMissingGolden(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, l := range []limits{noMerging(), goldenLimits()} {
		s := tierOf(14, func(i int) []drivers.Rule {
			r := portRule(drivers.Allow, i)
			switch i {
			case 1:
				r.Match.Src.Sets = []drivers.SetID{"gone"}
			case 3:
				r.Action, r.Match.Dst.Services = drivers.Pass, []drivers.SetID{"gone", "net"}
			case 4:
				r.Match.HTTP = &drivers.HTTP{}
			case 5:
				r.Action, r.Match.HTTP = drivers.Pass, &drivers.HTTP{}
			case 6:
				r.Action, r.Match.Unsupported = drivers.Pass, []string{"odd"}
			}
			return []drivers.Rule{r, portRule(drivers.Deny, 10+i)}
		})
		s.Sets["net"] = drivers.NewSet(drivers.SetNet, drivers.AddrMember(addr("10.66.0.1")))
		e := *s.Endpoints[drivers.EndpointID{Sandbox: "a", Interface: "eth0"}]
		first := drivers.TierPolicies{Name: "first", Policies: []drivers.PolicyID{np("t3"), np("t4"), np("t5"), np("t6"), np("t7")}}
		e.Policy.Normal.In = &drivers.TierList{Tiers: []drivers.TierPolicies{first, {Name: "passes", Default: drivers.Deny, Policies: []drivers.PolicyID{np("passing"), np("none")}}, e.Policy.Normal.In.Tiers[0], {Name: "never"}}}
		passing := &drivers.Policy{ID: np("passing"), In: []drivers.Rule{portRule(drivers.Pass, 1)}}
		passing.SetRuleIDs()
		s.Policies[passing.ID] = passing
		e.Policy.Normal.Out = &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "y", Policies: []drivers.PolicyID{np("t8"), np("t9"), np("t10")}}, {Name: "x", Default: drivers.Pass, Policies: []drivers.PolicyID{np("t0"), np("none"), np("t2"), np("t5")}}}}
		e.Profiles = []drivers.PolicyID{np("t0"), np("none"), np("t2")}
		s.Endpoints[e.ID] = &e
		delete(s.Policies, np("t2"))
		c := newCompiler()
		c.limits = l
		c.update(s, nil)
		for _, k := range keysOf(c.prog.Chains, Inet) {
			if n := k.Name[0]; n == 'g' || n == 'p' || n == 'l' || n == 'r' || n == 't' {
				c.prog.Chains[k].write(&b)
			}
		}
	}
	checkGolden(t, "missing", b.String())
}

// TestEmptyLists: a list without tiers is no list, and a tier without policies is none.
func TestEmptyLists(t *testing.T) {
	t.Parallel()
	lists := func(l *drivers.TierList) *drivers.State {
		s := smallState()
		d := drivers.Directions{In: l, Out: l}
		for id, e := range s.Endpoints {
			q := *e
			q.Policy = drivers.EndpointPolicy{Normal: d}
			if id.Kind == drivers.HostInterface {
				q.Policy = drivers.EndpointPolicy{Normal: d, Forward: d, PreDNAT: drivers.Directions{In: l}, Untracked: d}
			}
			s.Endpoints[id] = &q
		}
		return s
	}
	nameless := func(p Program) map[string]string {
		m := map[string]string{}
		for k, text := range objects(p) {
			if !strings.HasPrefix(k.Name, "l-") && !strings.HasPrefix(k.Name, "host-") {
				m[fmt.Sprint(k)] = text
			}
		}
		return m
	}
	if diff := cmp.Diff(nameless(Render(lists(nil))), nameless(Render(lists(&drivers.TierList{})))); diff != "" {
		t.Errorf("no list, and one without tiers:\n%s", diff)
	}
}

// TestFirstUpdate: a compiler that is told of nothing at first renders what there is one of.
func TestFirstUpdate(t *testing.T) {
	t.Parallel()
	c := newCompiler()
	c.update(drivers.NewState(), drivers.NewChanges())
	if diff := cmp.Diff(objects(Render(drivers.NewState())), objects(c.prog)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestCounting: where matches are counted each rule of a policy counts first, and does what it did.
func TestCounting(t *testing.T) {
	t.Parallel()
	c := newCompiler()
	c.counting = true
	c.update(smallState(), nil)
	n := 0
	for _, ch := range c.prog.Chains {
		for i := range ch.Rules {
			r := &ch.Rules[i]
			if counts := r.Actions[0].Kind == ActCount; counts != (ch.Owner.Kind == drivers.ObjPolicy) {
				t.Errorf("%s: %s", ch.Name, r)
			} else if counts {
				r.Actions = r.Actions[1:]
				n++
			}
		}
	}
	if diff := cmp.Diff(objects(Render(smallState())), objects(c.prog)); diff != "" || n == 0 {
		t.Errorf("without what counts, %d rules (-want +got):\n%s", n, diff)
	}
}

func TestShorten(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]int{0: 0, 119: 119, 120: 120, 121: 120, 500: 120} {
		if got := shorten(strings.Repeat("x", n)); len(got) != want || strings.HasSuffix(got, "...") != (n > want) {
			t.Errorf("of %d bytes %d are left: %s", n, len(got), got)
		}
	}
	if got := shorten("a\xffb"); got != "a?b" {
		t.Errorf("%q", got)
	}
}

// TestClaims: two workloads that claim an interface are two, whoever else claims it and comes first.
func TestClaims(t *testing.T) {
	t.Parallel()
	w := func(n int) *drivers.Endpoint {
		return &drivers.Endpoint{ID: drivers.EndpointID{Sandbox: fmt.Sprint(n)}}
	}
	h := func(n int) *drivers.Endpoint {
		return &drivers.Endpoint{ID: drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: fmt.Sprint(n)}}
	}
	for _, x := range []struct {
		es    []*drivers.Endpoint
		twice bool
	}{{nil, false}, {[]*drivers.Endpoint{w(1), h(1)}, false}, {[]*drivers.Endpoint{w(1), w(2), h(1)}, true}, {[]*drivers.Endpoint{w(1), h(1), h(2)}, true}} {
		for range 30 { // in any order
			i := &iface{endpoints: map[drivers.EndpointID]*drivers.Endpoint{}}
			for _, e := range x.es {
				i.endpoints[e.ID] = e
			}
			if workload, host, twice := i.claim(); twice != x.twice || (workload == nil) != (len(x.es) == 0) || (host == nil) != (len(x.es) == 0) {
				t.Fatalf("%v: %v, %v, %t", x.es, workload, host, twice)
			}
		}
	}
}

// TestInvalidPrefixes: prefixes that are none say nothing.
func TestInvalidPrefixes(t *testing.T) {
	t.Parallel()
	s := smallState()
	good := objects(Render(s))
	s.Masquerade.From, s.Masquerade.Except = append(s.Masquerade.From, netip.Prefix{}), append(s.Masquerade.Except, netip.Prefix{})
	for id, e := range s.Endpoints {
		if id.Kind == drivers.Workload {
			q := *e
			q.SourcePrefixes, q.Addrs = append(q.SourcePrefixes, netip.Prefix{}), append(slices.Clone(q.Addrs), netip.Addr{})
			s.Endpoints[id] = &q
		}
	}
	s.Peers["n3"] = &drivers.Peer{Name: "n3", Addrs: []netip.Addr{{}}}
	for _, id := range []drivers.PolicyID{np("web"), np("pass")} { // of rules, one matches nothing, and one what it did
		p := *s.Policies[id]
		none := drivers.Rule{ID: 1, Action: drivers.Allow, Match: drivers.Match{Src: drivers.Side{Nets: []netip.Prefix{{}}}}}
		p.In = append(slices.Clone(p.In), none)
		for i := range p.In {
			if nets := p.In[i].Match.Src.NotNets; len(nets) > 0 {
				p.In[i].Match.Src.NotNets = append(slices.Clone(nets), netip.Prefix{})
			}
		}
		s.Policies[id] = &p
	}
	if diff := cmp.Diff(good, objects(Render(s))); diff != "" {
		t.Errorf("(-without +with):\n%s", diff)
	}
	s.Masquerade = drivers.Masquerade{From: []netip.Prefix{{}}}
	if c := Render(s).Chains[Key{Inet, baseNAT}]; c != nil {
		t.Errorf("masquerade from a prefix that is none: %v", c.Rules)
	}
}

// TestTwiceClaimed: an interface that two workloads claim, or two of the host's, is nobody's, whatever its name.
func TestTwiceClaimed(t *testing.T) {
	t.Parallel()
	allow := &drivers.Policy{ID: np("all"), In: []drivers.Rule{{Action: drivers.Allow}}, Out: []drivers.Rule{{Action: drivers.Allow}}}
	allow.SetRuleIDs()
	l := &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default", Policies: []drivers.PolicyID{allow.ID}}}}
	d := drivers.Directions{In: l, Out: l}
	for _, kind := range []drivers.EndpointKind{drivers.Workload, drivers.HostInterface} {
		for claims := 1; claims < 3; claims++ {
			s := drivers.NewState()
			s.Node = drivers.Node{WorkloadPrefixes: []string{"tort"}, EndpointToHost: drivers.ToHostReturn}
			s.Policies[allow.ID] = allow
			for i := range claims {
				e := &drivers.Endpoint{ID: drivers.EndpointID{Kind: kind, Sandbox: fmt.Sprint(i), Interface: "eth0"}, Iface: "veth7", Policy: drivers.EndpointPolicy{Normal: d, Forward: d}}
				if kind == drivers.Workload {
					e.Policy.Forward, e.Addrs = drivers.Directions{}, []netip.Addr{addr("10.65.0.1")}
				}
				s.Endpoints[e.ID] = e
			}
			place := drivers.Place{Kind: drivers.PlaceWorkload, Iface: "veth7"}
			if kind == drivers.HostInterface {
				place.Kind = drivers.PlaceHostIface
			}
			process, eth1 := drivers.Place{Kind: drivers.PlaceProcess}, drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth1"}
			var pks []drivers.Packet
			for _, other := range []drivers.Place{process, eth1} {
				for _, arp := range []bool{false, true} {
					if arp && other == eth1 {
						continue
					}
					here, there := addr("10.65.0.1"), addr("10.66.0.1")
					pks = append(pks,
						drivers.Packet{From: place, To: other, Src: here, Dst: there, Proto: l4UDP, SrcPort: 1, DstPort: 2, ARP: arp},
						drivers.Packet{From: other, To: place, Src: there, Dst: here, Proto: l4UDP, SrcPort: 1, DstPort: 2, ARP: arp})
				}
			}
			p := Render(s)
			agree(t, s, &p, pks)
		}
	}
}

// TestTwoForAllInterfaces: where two endpoints claim to be for all interfaces, no workload reaches the host.
func TestTwoForAllInterfaces(t *testing.T) {
	t.Parallel()
	for claims := range 3 {
		s := tierOf(1, func(int) []drivers.Rule { return nil })
		s.Node.EndpointToHost = drivers.ToHostReturn
		open := &drivers.Policy{ID: drivers.PolicyID{Kind: drivers.KindProfile, Name: "open"}, In: []drivers.Rule{{Action: drivers.Allow}}, Out: []drivers.Rule{{Action: drivers.Allow}}}
		open.SetRuleIDs()
		s.Policies[open.ID] = open
		for id, e := range s.Endpoints {
			q := *e
			q.Profiles = []drivers.PolicyID{open.ID}
			s.Endpoints[id] = &q
		}
		for i := range claims {
			id := drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: fmt.Sprint(i), Interface: drivers.AllHostIfaces}
			s.Endpoints[id] = &drivers.Endpoint{ID: id, Iface: drivers.AllHostIfaces, Profiles: []drivers.PolicyID{open.ID}}
		}
		p := Render(s)
		agree(t, s, &p, []drivers.Packet{{
			From: drivers.Place{Kind: drivers.PlaceWorkload, Iface: "torta"}, To: drivers.Place{Kind: drivers.PlaceProcess},
			Src: addr("10.65.0.1"), Dst: addr("172.20.0.1"), Proto: l4UDP, SrcPort: 1, DstPort: 2,
		}})
	}
}
