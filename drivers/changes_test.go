package drivers

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestAfterApplyError: what was applied beside a failed object leaves the hint; suspects and what hangs on them stay, and
// sets that changed by an exact difference are compared once.
func TestAfterApplyError(t *testing.T) {
	id := func(name string) PolicyID { return PolicyID{Kind: KindGlobalNetworkPolicy, Name: name} }
	ep := func(name string) EndpointID { return EndpointID{Sandbox: name} }
	want := NewState()
	for _, name := range []string{"p", "q"} {
		p := &Policy{ID: id(name), In: []Rule{{Action: Allow}}}
		p.In[0].Match.Src.Sets = []SetID{SetID("of-" + name)}
		want.Policies[p.ID] = p
		e := &Endpoint{ID: ep(name)}
		e.Policy.Normal.In = &TierList{Tiers: []TierPolicies{{Policies: []PolicyID{p.ID}}}}
		want.Endpoints[e.ID] = e
	}
	dst := netip.MustParsePrefix("10.0.0.0/26")
	touched := func() *Changes {
		c := NewChanges()
		c.Node, c.Masquerade = true, true
		c.Endpoints[ep("other")], c.Policies[id("other")], c.Routes[dst], c.Peers["n2"] = struct{}{}, struct{}{}, struct{}{}, struct{}{}
		c.set("exact").add(AddrMember(netip.MustParseAddr("10.0.0.1")))
		c.Sets["full"] = &SetChange{Full: true}
		return c
	}
	exact := func(c *Changes) { c.Sets["exact"] = &SetChange{Full: true} }
	for _, tc := range []struct {
		name   string
		before *Changes
		failed ObjectRef
		want   func(*Changes)
	}{
		{"an endpoint", touched(), ObjectRef{Kind: ObjEndpoint, Endpoint: ep("x")}, func(c *Changes) {
			exact(c)
			c.Endpoints[ep("x")] = struct{}{}
		}},
		{"a policy", touched(), ObjectRef{Kind: ObjPolicy, Policy: id("p")}, func(c *Changes) {
			exact(c)
			c.Policies[id("p")], c.Endpoints[ep("p")] = struct{}{}, struct{}{}
		}},
		{"a set", touched(), ObjectRef{Kind: ObjSet, Set: "of-q"}, func(c *Changes) {
			exact(c)
			c.Sets["of-q"], c.Policies[id("q")], c.Endpoints[ep("q")] = &SetChange{Full: true}, struct{}{}, struct{}{}
		}},
		{"the set that changed", touched(), ObjectRef{Kind: ObjSet, Set: "exact"}, exact},
		{"a route", touched(), ObjectRef{Kind: ObjRoute, Route: dst}, func(c *Changes) {
			exact(c)
			c.Routes[dst] = struct{}{}
		}},
		{"a peer", nil, ObjectRef{Kind: ObjPeer, Peer: "n3"}, func(c *Changes) { c.Peers["n3"] = struct{}{} }},
		{"the node", nil, ObjectRef{Kind: ObjNode}, func(c *Changes) { c.Node = true }},
		{"masquerading", nil, ObjectRef{Kind: ObjMasquerade}, func(c *Changes) { c.Masquerade = true }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			expected := NewChanges()
			tc.want(expected)
			got := tc.before.AfterApplyError(&ApplyError{Failed: map[ObjectRef]error{tc.failed: errors.New("no")}}, want)
			if d := cmp.Diff(expected, got, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Prefix{})); d != "" {
				t.Error(d)
			}
		})
	}
}
