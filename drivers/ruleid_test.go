package drivers

import (
	"fmt"
	"net/netip"
	"testing"
)

// TestRuleIDs: every part of a rule's place and content counts, and nothing else.
func TestRuleIDs(t *testing.T) {
	id := PolicyID{Kind: KindNetworkPolicy, Namespace: "ns", Name: "p"}
	six, one := uint8(6), uint8(1)
	net := netip.MustParsePrefix("10.0.0.0/8")
	type args struct {
		id    PolicyID
		in    bool
		index int
		r     Rule
	}
	side := func(f func(*Side)) Rule {
		r := Rule{}
		f(&r.Match.Src)
		return r
	}
	all := []args{
		{id, true, 0, Rule{}},
		{id, false, 0, Rule{}},
		{id, true, 1, Rule{}},
		{PolicyID{Kind: KindGlobalNetworkPolicy, Namespace: "ns", Name: "p"}, true, 0, Rule{}},
		{PolicyID{Kind: KindNetworkPolicy, Namespace: "n", Name: "sp"}, true, 0, Rule{}},
		{id, true, 0, Rule{Action: Allow}},
		{id, true, 0, Rule{Name: "x"}},
		{id, true, 0, Rule{Match: Match{IPVersion: 4}}},
		{id, true, 0, Rule{Match: Match{Proto: &six}}},
		{id, true, 0, Rule{Match: Match{NotProto: &six}}},
		{id, true, 0, Rule{Match: Match{ICMP: &ICMP{Type: 1}}}},
		{id, true, 0, Rule{Match: Match{NotICMP: &ICMP{Type: 1}}}},
		{id, true, 0, Rule{Match: Match{ICMP: &ICMP{Type: 1, Code: &one}}}},
		{id, true, 0, Rule{Match: Match{Dst: Side{Nets: []netip.Prefix{net}}}}},
		{id, true, 0, side(func(s *Side) { s.Nets = []netip.Prefix{net} })},
		{id, true, 0, side(func(s *Side) { s.NotNets = []netip.Prefix{net} })},
		{id, true, 0, side(func(s *Side) { s.Sets = []SetID{"a"} })},
		{id, true, 0, side(func(s *Side) { s.Sets = []SetID{"a", "b"} })},
		{id, true, 0, side(func(s *Side) { s.Sets = []SetID{"ab"} })},
		{id, true, 0, side(func(s *Side) { s.NotSets = []SetID{"a"} })},
		{id, true, 0, side(func(s *Side) { s.PortSets = []SetID{"a"} })},
		{id, true, 0, side(func(s *Side) { s.NotPortSets = []SetID{"a"} })},
		{id, true, 0, side(func(s *Side) { s.Services = []SetID{"a"} })},
		{id, true, 0, side(func(s *Side) { s.Ports = []PortRange{{1, 2}} })},
		{id, true, 0, side(func(s *Side) { s.Ports = []PortRange{{2, 2}} })},
		{id, true, 0, side(func(s *Side) { s.NotPorts = []PortRange{{1, 2}} })},
		{id, true, 0, Rule{Match: Match{HTTP: &HTTP{}}}},
		{id, true, 0, Rule{Match: Match{HTTP: &HTTP{Methods: []string{"GET"}}}}},
		{id, true, 0, Rule{Match: Match{HTTP: &HTTP{Paths: []HTTPPath{{Exact: "/"}}}}}},
		{id, true, 0, Rule{Match: Match{HTTP: &HTTP{Paths: []HTTPPath{{Prefix: "/"}}}}}},
		{id, true, 0, Rule{Match: Match{Unsupported: []string{"x"}}}},
	}
	seen := map[RuleID]string{0: "no rule"}
	for _, a := range all {
		got := MakeRuleID(a.id, a.in, a.index, a.r)
		what := fmt.Sprintf("%+v", a)
		if was, ok := seen[got]; ok {
			t.Errorf("%s\nand %s\nhave the same id %s", was, what, got)
		}
		seen[got] = what
		a.r.ID = 77
		if MakeRuleID(a.id, a.in, a.index, a.r) != got {
			t.Errorf("%s: the id depends on the id", what)
		}
	}
	// Other processes and nodes must come to the same.
	if got, want := MakeRuleID(id, true, 0, Rule{Action: Allow, Match: Match{Proto: &six}}).String(), "e124b13f1f7e079d"; got != want {
		t.Errorf("id %s, want %s", got, want)
	}
}
