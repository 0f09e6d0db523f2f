package linux

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
)

// TestRulesThatDiffer: rules that differ in one thing only are told apart as they are read back.
func TestRulesThatDiffer(t *testing.T) {
	t.Parallel()
	rules := []Rule{
		{Actions: []Action{jump("one")}}, {Actions: []Action{jump("two")}}, {Actions: []Action{{Kind: ActGoto, Chain: "one"}}},
		{Actions: does(ActAccept)}, {Actions: does(ActDrop)}, {Actions: does(ActReturn)},
		when(does(ActDrop), match(FDport, OpEq, bytes16(80))), when(does(ActDrop), match(FDport, OpEq, bytes16(81))),
		when(does(ActDrop), match(FSport, OpEq, bytes16(80))), when(does(ActDrop), match(FDport, OpNe, bytes16(80))),
		when(does(ActDrop), prefixMatch(FSrc4, prefix("10.0.0.0/8"), OpPrefix)), when(does(ActDrop), prefixMatch(FSrc4, prefix("10.0.0.0/9"), OpPrefix)),
		when(does(ActDrop), Match{Fields: []Field{FDport}, Op: OpRange, Lo: bytes16(1), Hi: bytes16(2)}),
		when(does(ActDrop), Match{Fields: []Field{FDport}, Op: OpRange, Lo: bytes16(1), Hi: bytes16(3)}),
		when(does(ActDrop), in("a", FSrc4)), when(does(ActDrop), in("b", FSrc4)), when(does(ActDrop), notIn("a", FSrc4)),
		{Actions: []Action{{Kind: ActVMap, Field: FIIfName, VMap: "a"}}}, {Actions: []Action{{Kind: ActVMap, Field: FOIfName, VMap: "a"}}},
		{Actions: []Action{{Kind: ActVMap, Field: FIIfName, VMap: "b"}}},
	}
	for i := range rules {
		for j := range rules {
			a, err := rules[i].encode(unix.NFPROTO_INET)
			if err != nil {
				t.Fatal(err)
			}
			b, err := rules[j].encode(unix.NFPROTO_INET)
			if err != nil {
				t.Fatal(err)
			}
			if got := sameExprs(a, b); got != (i == j) {
				t.Errorf("%q and %q are the same: %t", rules[i].String(), rules[j].String(), got)
			}
		}
	}
}

// TestRedirected: a jump that leads elsewhere, by somebody's hand or because an older driver left it, is put right.
func TestRedirected(t *testing.T) {
	t.Parallel()
	h := newKernelHarness(t)
	s := drivers.NewState()
	s.Node = drivers.Node{WorkloadPrefixes: []string{"tort"}, EndpointToHost: drivers.ToHostReturn}
	for i, l := range []*drivers.TierList{nil, {Tiers: []drivers.TierPolicies{{Name: "one"}}}, {Tiers: []drivers.TierPolicies{{Name: "two", Default: drivers.Pass}}}} {
		id := drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "h", Interface: drivers.AllHostIfaces}
		s.Endpoints[id] = &drivers.Endpoint{ID: id, Name: "h", Iface: drivers.AllHostIfaces, Policy: drivers.EndpointPolicy{Normal: drivers.Directions{In: l}}}
		d, err := h.Open(t.Context(), i == 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Apply(t.Context(), s.Clone(), nil); err != nil {
			t.Errorf("list %d: %v", i, err)
		}
		d.Close()
	}
}
