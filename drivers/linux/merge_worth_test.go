package linux

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/drivers"
)

// tierOf has one workload whose ingress is one tier of policies: policy i has what rules(i) says.
func tierOf(n int, rules func(i int) []drivers.Rule) *drivers.State {
	s := drivers.NewState()
	l := &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default"}}}
	for i := range n {
		p := &drivers.Policy{ID: np(fmt.Sprintf("t%d", i)), Tier: "default", In: rules(i)}
		p.SetRuleIDs()
		s.Policies[p.ID] = p
		l.Tiers[0].Policies = append(l.Tiers[0].Policies, p.ID)
	}
	e := &drivers.Endpoint{ID: drivers.EndpointID{Sandbox: "a", Interface: "eth0"}, Iface: "torta", Addrs: []netip.Addr{addr("10.65.0.1")}}
	e.Policy.Normal.In = l
	s.Endpoints[e.ID] = e
	return s
}

// portRule is about TCP to a port.
func portRule(a drivers.Action, port int) drivers.Rule {
	return drivers.Rule{Action: a, Match: drivers.Match{
		Proto: ptr(uint8(l4TCP)), Dst: drivers.Side{Ports: []drivers.PortRange{{First: uint16(port), Last: uint16(port)}}}}}
}

// counted is what a program has.
type counted struct{ groups, sets, maps, elements int }

func count(p Program) counted {
	var n counted
	for k := range p.Chains {
		if strings.HasPrefix(k.Name, "g-") {
			n.groups++
		}
	}
	for _, s := range p.Sets {
		m, ok := s.Content.(*merged)
		switch {
		case ok && m.ranks != nil:
			n.maps++
		case ok:
			n.sets++
		}
		if ok {
			for range m.All() {
				n.elements++
			}
		}
	}
	return n
}

// TestWorthMerging: what is merged, and where that ends. Where groups end is for a hash of the policies' names to say.
func TestWorthMerging(t *testing.T) {
	t.Parallel()
	allow := func(i int) []drivers.Rule { return []drivers.Rule{portRule(drivers.Allow, i)} }
	logs := []drivers.Rule{{Action: drivers.Log}}
	few := func(n int) func(int) []drivers.Rule { // n policies in a row that allow, among others that log
		return func(i int) []drivers.Rule {
			if i%(n+1) == n {
				return logs
			}
			return allow(i)
		}
	}
	long := func(n int, a drivers.Action) func(int) []drivers.Rule {
		return func(int) []drivers.Rule {
			var rs []drivers.Rule
			for i := range n {
				rs = append(rs, portRule(a, i))
			}
			return rs
		}
	}
	turns := func(allows, denies int) func(int) []drivers.Rule {
		return func(int) []drivers.Rule {
			return append(long(allows, drivers.Allow)(0), long(denies, drivers.Deny)(0)...)
		}
	}
	set := func(members int) *drivers.State {
		s := tierOf(1, func(int) []drivers.Rule {
			var rs []drivers.Rule
			for i := range 16 {
				r := portRule(drivers.Allow, i)
				r.Match.Src.Sets = []drivers.SetID{"s"}
				rs = append(rs, r)
			}
			return rs
		})
		var ms []drivers.Member
		for i := range members {
			ms = append(ms, drivers.AddrMember(netip.AddrFrom4([4]byte{10, 66, byte(i >> 8), byte(i)})))
		}
		s.Sets["s"] = drivers.NewSet(drivers.SetNet, ms...)
		return s
	}
	addresses := func(n int) func(int) []drivers.Rule {
		return func(int) []drivers.Rule {
			r := drivers.Rule{Action: drivers.Allow}
			for i := range n {
				r.Match.Src.Nets = append(r.Match.Src.Nets, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 66, 0, byte(i)}), 32))
			}
			return slices.Repeat([]drivers.Rule{r}, 16)
		}
	}
	ports := func(first, last uint16, nets ...string) func(int) []drivers.Rule {
		return func(i int) []drivers.Rule {
			r := portRule(drivers.Allow, i)
			r.Match.Dst.Ports = []drivers.PortRange{{First: first, Last: last}}
			for _, n := range nets {
				r.Match.Src.Nets = append(r.Match.Src.Nets, prefix(n))
			}
			return slices.Repeat([]drivers.Rule{r}, 16)
		}
	}
	for name, c := range map[string]struct {
		s    *drivers.State
		want counted
	}{
		"as many policies as need no groups":       {tierOf(64, allow), counted{}},
		"one more":                                 {tierOf(65, allow), counted{groups: 2, sets: 2, elements: 65}},
		"long enough for several":                  {tierOf(1000, allow), counted{groups: 10, sets: 10, elements: 1000}},
		"three policies in a row":                  {tierOf(80, few(3)), counted{groups: 2}},
		"four policies in a row":                   {tierOf(80, few(4)), counted{groups: 2, sets: 15, elements: 60}},
		"fifteen rules of a policy":                {tierOf(1, long(15, drivers.Allow)), counted{}},
		"sixteen":                                  {tierOf(1, long(16, drivers.Allow)), counted{sets: 1, elements: 16}},
		"sixteen that log":                         {tierOf(1, long(16, drivers.Log)), counted{}},
		"sixteen that pass":                        {tierOf(1, long(16, drivers.Pass)), counted{sets: 1, elements: 16}},
		"as many as one set takes":                 {tierOf(1, long(512, drivers.Deny)), counted{sets: 1, elements: 512}},
		"and more":                                 {tierOf(1, long(528, drivers.Deny)), counted{sets: 2, elements: 528}},
		"as many as one map takes":                 {tierOf(1, turns(262, 250)), counted{maps: 1, elements: 262}},
		"and more, which are two sets":             {tierOf(1, turns(262, 251)), counted{sets: 2, elements: 262 + 251}},
		"policies as long as a group takes":        {tierOf(65, long(512, drivers.Deny)), counted{groups: 2, sets: 2, elements: 2 * 512}},
		"and longer":                               {tierOf(65, long(513, drivers.Deny)), counted{groups: 2, sets: 65, elements: 65 * 512}},
		"a set as large as is taken apart":         {set(256), counted{sets: 1, elements: 256 * 16}},
		"one more member":                          {set(257), counted{}},
		"a range as long as is spelled out":        {tierOf(1, ports(1, 64)), counted{sets: 1, elements: 64}},
		"one more port":                            {tierOf(1, ports(1, 65)), counted{}},
		"as many addresses and ports as one takes": {tierOf(1, ports(1, 32, "10.0.0.1/32", "10.0.0.2/32")), counted{sets: 1, elements: 64}},
		"as many addresses":                        {tierOf(1, addresses(64)), counted{sets: 1, elements: 64}},
		"one more address":                         {tierOf(1, addresses(65)), counted{}},
		"one more address and port":                {tierOf(1, ports(1, 33, "10.0.0.1/32", "10.0.0.2/32")), counted{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := count(Render(c.s)); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
	plain := newCompiler()
	plain.limits = noMerging()
	plain.update(tierOf(200, long(20, drivers.Allow)), nil)
	if got := count(plain.prog); got != (counted{groups: got.groups}) {
		t.Errorf("with no merging: %+v", got)
	}
}

// TestGroups: groups are the policies in their order, of bounded size, and one policy more or less changes its own group, and
// the next one where it was the last.
func TestGroups(t *testing.T) {
	t.Parallel()
	l := limits{groupMin: 3, groupCut: 4}
	var ids []drivers.PolicyID
	for i := range 400 {
		id := np(fmt.Sprint("g", i))
		if i >= 100 && i < 200 { // without an end of their own
			for n := 0; cutHash(id)&3 == 0; n++ {
				id = np(fmt.Sprint("g", i, "-", n))
			}
		}
		ids = append(ids, id)
	}
	for n := range 4 {
		if gs := l.groups(ids[:n]); gs != nil {
			t.Errorf("groups of %d policies: %v", n, gs)
		}
	}
	gs := l.groups(ids)
	largest := 0
	for _, g := range gs {
		largest = max(largest, len(g))
	}
	if !slices.Equal(slices.Concat(gs...), ids) || largest != 16 || len(gs) < 300/8 || len(gs) > 300/2 {
		t.Fatalf("%d groups, the largest has %d", len(gs), largest)
	}
	known := map[string]bool{}
	for _, g := range gs {
		known[policyIDs(g)] = true
	}
	for i := range 100 {
		fresh := 0
		for _, g := range l.groups(slices.Concat(ids[:i], ids[i+1:100])) {
			if !known[policyIDs(g)] {
				fresh++
			}
		}
		if fresh > 2 { // the last one ends with the list
			t.Errorf("without policy %d there are %d new groups", i, fresh)
		}
	}
	a, b := []drivers.PolicyID{{Kind: "K", Namespace: "a", Name: "bc"}}, []drivers.PolicyID{{Kind: "K", Namespace: "ab", Name: "c"}}
	if policyIDs(a) == policyIDs(b) || policyIDs(append(a, b...)) == policyIDs(append(b, a...)) || cutHash(a[0]) == cutHash(b[0]) {
		t.Error("two lists of policies have one name")
	}
}
