package calcgraph

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/api/selector"
	"github.com/tortie/tortie/drivers"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeAddresses are what a node's status says; those by which other nodes know it stay what its BGP addresses are.
func (g gen) nodeAddresses(bgp *api.NodeBGPSpec) (out []api.NodeAddress) {
	for range g.IntN(4) {
		a := pick(g, api.NodeAddress{Type: "Hostname", Address: pick(g, "n2", "192.0.2.9")}, api.NodeAddress{Type: "ExternalIP", Address: g.addr()},
			api.NodeAddress{Type: "ExternalIP", Address: pick(g, "010.0.0.9", "n2.example.com", "", g.addr(), g.addr())}, api.NodeAddress{Type: "ExternalDNS", Address: "n2.example.com"})
		if bgp.IPv4Address != "" && bgp.IPv6Address != "" && g.chance(50) {
			a = api.NodeAddress{Type: "InternalIP", Address: pick(g, "192.0.2.1", "2001:db8::2")}
		}
		out = append(out, a)
	}
	return out
}

// nodeSet is the model's: all addresses of all nodes whose labels match.
func (m *model) nodeSet(text string) drivers.SetID {
	sel, err := selector.Parse(text)
	if err != nil {
		panic(err)
	}
	id := hashID("nodes:", sel.ID())
	var ms []drivers.Member
	for _, n := range of[*api.Node](m) {
		if !sel.Matches(selector.Map(n.Labels)) {
			continue
		}
		for _, a := range n.Spec.Addresses {
			if ip, err := netip.ParseAddr(a.Address); err == nil {
				ms = append(ms, drivers.AddrMember(ip))
			} else if strings.HasSuffix(a.Type, "IP") && strings.HasPrefix(a.Address, "010.") {
				m.partial[id] = true
			}
		}
	}
	return m.addSet(id, drivers.SetNet, ms)
}

// allMembers returns the members of all sets of a State, as text.
func allMembers(s *drivers.State) (out []string) {
	for _, set := range s.Sets {
		for m := range set.All() {
			out = append(out, m.Prefix.String())
		}
	}
	slices.Sort(out)
	return out
}

// TestSelectorsDoNotSelectNodes: whatever a user's selector says, and whatever labels nodes have, no address of a node is in
// a set because of it; and a selector of nodes selects nothing else.
func TestSelectorsDoNotSelectNodes(t *testing.T) {
	const external, internal, workload = "203.0.113.7", "2001:db8::7", "10.0.0.1"
	labels := map[string]string{"a": "x", api.LabelOrchestrator: "k8s", api.LabelNamespace: "ns", "pcns.env": "x", api.LabelServiceAccount: "sa"}
	scene := func(with func(e *api.EntityRule)) *checked {
		c := newChecked(t)
		for _, name := range []string{"me", "n2"} {
			n := &api.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Spec: api.NodeSpec{BGP: &api.NodeBGPSpec{IPv4Address: "192.0.2.1/24"}}}
			n.Spec.Addresses = []api.NodeAddress{{Type: "ExternalIP", Address: external}, {Type: "ExternalIP", Address: internal}}
			c.set(n)
		}
		c.set(&api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "w", Labels: map[string]string{"a": "x"}},
			Spec: api.WorkloadEndpointSpec{Node: "me", Orchestrator: "k8s", ServiceAccountName: "sa", IPNetworks: []string{workload + "/32"}, Profiles: []string{"kns.ns"}}})
		c.set(&api.Profile{ObjectMeta: metav1.ObjectMeta{Name: "kns.ns"}, Spec: api.ProfileSpec{LabelsToApply: map[string]string{"pcns.env": "x"}}})
		c.attach(drivers.EndpointID{Sandbox: "s", Interface: "eth0"}, &LedgerEntry{Name: api.Key{Namespace: "ns", Name: "w"}, Iface: "tort1"})
		p := &api.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: api.GlobalNetworkPolicySpec{
			Types: []api.PolicyType{api.Egress}, Egress: []api.Rule{{Action: api.Allow}}}}
		with(&p.Spec.Egress[0].Destination)
		c.set(p)
		c.flush()
		return c
	}
	for _, text := range []string{"all()", "a == 'x'", "has(a)", "!has(b)", "b != 'y'", "a in {'x'}", "b not in {'x'}", "a starts with 'x'",
		"projectcalico.org/orchestrator == 'k8s'", "projectcalico.org/namespace == 'ns'", "pcns.env == 'x'", "!(a == 'y') || all()"} {
		for name, with := range map[string]func(e *api.EntityRule){
			"selector": func(e *api.EntityRule) { e.Selector = text }, "notSelector": func(e *api.EntityRule) { e.NotSelector = text },
			"namespaceSelector": func(e *api.EntityRule) { e.NamespaceSelector = "all()"; e.Selector = text },
			"serviceAccounts": func(e *api.EntityRule) {
				e.ServiceAccounts = &api.ServiceAccountMatch{Names: []string{"sa"}}
				e.Selector = text
			},
		} {
			c := scene(with)
			if got := allMembers(c.state); !slices.Equal(got, []string{workload + "/32"}) {
				t.Errorf("%s %s selects %v, want the workload alone", name, text, got)
			}
			c.clear()
		}
		c := scene(func(e *api.EntityRule) { e.NodeSelector = text })
		if got := allMembers(c.state); !slices.Equal(got, []string{internal + "/128", external + "/32"}) {
			t.Errorf("nodeSelector %s selects %v, want the addresses of the nodes alone", text, got)
		}
		c.clear()
	}
	c := scene(func(e *api.EntityRule) { e.NamespaceSelector = "global()" })
	if got := allMembers(c.state); len(got) > 0 {
		t.Errorf("global() selects %v, want nothing", got)
	}
	c.clear()
}

// TestNodeAddressInOtherClothes: an IPv4 address in an IPv6 one is no address of a node. A State with it could be written
// to disk, and not be read after a reboot.
func TestNodeAddressInOtherClothes(t *testing.T) {
	g := New(Default("n1"))
	for _, name := range []string{"n1", "n2"} {
		n := &api.Node{Spec: api.NodeSpec{BGP: &api.NodeBGPSpec{IPv4Address: "172.16.0.2/24", IPv6Address: "::ffff:10.0.0.1/104"}}}
		n.Name = name
		g.Update(api.Key{Kind: "Node", Name: name}, n)
	}
	s := drivers.NewState()
	s.Merge(g.Flush(), nil)
	if ps := g.Problems(); len(ps) != 2 || ps[0].Field != "spec.bgp.ipv6Address" {
		t.Errorf("problems %v, want one of each node's ipv6Address", ps)
	}
	if p := s.Peers["n2"]; p == nil || len(p.Addrs) != 1 || len(s.Node.Addresses) != 1 {
		t.Errorf("peer %v and addresses %v, want the IPv4 address of each", p, s.Node.Addresses)
	}
	var b bytes.Buffer
	if err := drivers.EncodeState(&b, s); err != nil {
		t.Fatal(err)
	}
	if _, err := drivers.DecodeState(&b); err != nil {
		t.Error(err)
	}
}

// TestNodeAddressThatIsNone: text that is no address in any spelling can't be where a packet goes: a Deny of nodes denies
// their other addresses, and nothing else. One that could be an address closes the rule.
func TestNodeAddressThatIsNone(t *testing.T) {
	const good = "203.0.113.7"
	for _, c := range []struct {
		texts  []string
		closed bool
	}{
		{[]string{"", "ec2-203-0-113-9.example.com"}, false},
		{[]string{"face", "dead.beef", "10.0.0.x", "1.2.3.4.5", "10.0.0.9:x", "-", "."}, false},
		{[]string{"010.0.0.9"}, true}, {[]string{"10.9"}, true}, {[]string{"0xa.0.0.9"}, true}, {[]string{"09.0.0.1"}, true}, {[]string{" 10.0.0.9\n"}, true},
		{[]string{"10.0.0.9/32"}, true}, {[]string{"::ffff:10.0.0.9"}, true}, {[]string{"fe80::1%eth0"}, true}, {[]string{"[fd00::1]"}, true},
		{[]string{"02001:db8::1"}, true},
	} {
		ck := newChecked(t)
		for name, texts := range map[string][]string{"n2": {good}, "n3": c.texts} {
			n := &api.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
			for _, text := range texts {
				n.Spec.Addresses = append(n.Spec.Addresses, api.NodeAddress{Type: "ExternalIP", Address: text})
			}
			ck.set(n)
		}
		ck.set(&api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "w"}, Spec: api.WorkloadEndpointSpec{Node: "me"}})
		ck.set(&api.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: api.GlobalNetworkPolicySpec{Selector: "all()", Types: []api.PolicyType{api.Egress},
			Egress: []api.Rule{{Action: api.Deny, Destination: api.EntityRule{NodeSelector: "all()"}}, {Action: api.Allow}}}})
		ck.attach(drivers.EndpointID{Sandbox: "s", Interface: "eth0"}, &LedgerEntry{Name: api.Key{Namespace: "ns", Name: "w"}, Iface: "tort1", Addrs: addrs("10.0.0.1")})
		if ck.flush(); len(ck.g.Problems()) != len(c.texts) {
			t.Errorf("%q: problems %v, want one for each", c.texts, ck.g.Problems())
		}
		low, _ := drivers.Lower(ck.state, drivers.AllFeatures("all"))
		for dst, denied := range map[string]bool{good: true, "192.0.2.200": c.closed} {
			got := drivers.Evaluate(low, drivers.Packet{From: drivers.Place{Kind: drivers.PlaceWorkload, Iface: "tort1"}, To: drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth0"},
				Src: addrs("10.0.0.1")[0], Dst: addrs(dst)[0], Proto: 6, SrcPort: 1024, DstPort: 80})
			if (got.Verdict != drivers.VerdictAllow) != denied {
				t.Errorf("%q: %s to %s, want denied: %v\n%+v", c.texts, got.Verdict, dst, denied, got.Steps)
			}
		}
		ck.clear()
	}
}
