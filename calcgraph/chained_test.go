package calcgraph

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestChained: who is plugged in by another plugin has policy, no route of ours, and an interface that is not the host's own.
func TestChained(t *testing.T) {
	g, s := New(Default("n1")), drivers.NewState()
	hep := &api.HostEndpoint{Spec: api.HostEndpointSpec{Node: "n1", InterfaceName: "*"}}
	hep.Name = "all"
	g.Update(api.Key{Kind: "HostEndpoint", Name: "all"}, hep)
	g.Host([]drivers.HostIface{{Name: "eth0", Up: true}, {Name: "veth1", Up: true}})
	id := drivers.EndpointID{Kind: drivers.Workload, Sandbox: "s", Interface: "eth0"}
	e := &LedgerEntry{Name: api.Key{Namespace: "default", Name: "w"}, Iface: "veth1", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Chained: true}
	host := func(iface string) bool {
		_, ok := s.Endpoints[drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "all", Interface: iface}]
		return ok
	}
	s.Merge(g.Flush(), nil)
	if !host("eth0") || !host("veth1") {
		t.Errorf("before it is known: %v", s.Endpoints)
	}
	g.Attached(id, e)
	s.Merge(g.Flush(), nil)
	if w := s.Endpoints[id]; w == nil || w.Iface != "veth1" || len(s.Routes) != 0 || !host("eth0") || host("veth1") {
		t.Errorf("chained: %v, routes %v", s.Endpoints, s.Routes)
	}
	if w := s.Endpoints[id]; w.Degraded != "it has no WorkloadEndpoint" {
		t.Errorf("%q", w.Degraded)
	}
	closed := *e
	closed.Closed = "so"
	g.Attached(id, &closed)
	o := &api.WorkloadEndpoint{Spec: api.WorkloadEndpointSpec{Node: "n1", ContainerID: "s", InterfaceName: "veth1", Profiles: []string{"p"}}}
	o.Namespace, o.Name = "default", "w"
	g.Update(api.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "w"}, o)
	s.Merge(g.Flush(), nil)
	if w := s.Endpoints[id]; w == nil || w.Degraded != "so" || len(w.Profiles) != 0 || host("veth1") {
		t.Errorf("closed: %v", w)
	}
	g.Attached(id, e)
	s.Merge(g.Flush(), nil)
	if w := s.Endpoints[id]; w == nil || w.Degraded != "" || len(w.Profiles) != 1 {
		t.Errorf("open again: %v", w)
	}
	other := id
	other.Sandbox = "s2"
	both := func() (n int) {
		for _, p := range g.Problems() {
			if strings.Contains(p.Reason, "interface veth1 is another workload's, too") {
				n++
			}
		}
		return n
	}
	if both() != 0 {
		t.Errorf("one has it: %v", g.Problems())
	}
	g.Attached(other, &LedgerEntry{Name: api.Key{Namespace: "default", Name: "w2"}, Iface: "veth1", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, Chained: true})
	if s.Merge(g.Flush(), nil); both() != 2 {
		t.Errorf("two have it: %v", g.Problems())
	}
	g.Attached(other, nil)
	if s.Merge(g.Flush(), nil); both() != 0 {
		t.Errorf("one has it again: %v", g.Problems())
	}
	plain := *e
	plain.Chained = false
	g.Attached(id, &plain)
	s.Merge(g.Flush(), nil)
	if len(s.Routes) != 1 {
		t.Errorf("of ours: routes %v", s.Routes)
	}
	g.Attached(id, e)
	g.Attached(id, nil)
	s.Merge(g.Flush(), nil)
	if len(s.Routes) != 0 || s.Endpoints[id] != nil || !host("veth1") {
		t.Errorf("gone: %v, routes %v", s.Endpoints, s.Routes)
	}
}

// TestNodeRanges: with addresses out of the ranges that the cluster gives nodes, those are routed.
func TestNodeRanges(t *testing.T) {
	for _, with := range []bool{true, false} {
		c := Default("n1")
		c.NodeRanges = with
		g, s := New(c), drivers.NewState()
		set := func(name, addr string, ranges ...string) {
			n := &api.Node{Spec: api.NodeSpec{BGP: &api.NodeBGPSpec{IPv4Address: addr}}, Status: api.NodeStatus{PodCIDRs: ranges}}
			n.Name = name
			g.Update(api.Key{Kind: "Node", Name: name}, n)
			s.Merge(g.Flush(), nil)
		}
		set("n1", "192.0.2.1/24", "10.0.1.0/24")
		set("n2", "192.0.2.2/24", "10.0.2.0/24")
		far, own := netip.MustParsePrefix("10.0.2.0/24"), netip.MustParsePrefix("10.0.1.0/24")
		if r := s.Routes[far]; (r != nil && r.NextHop == netip.MustParseAddr("192.0.2.2")) != with {
			t.Errorf("%v: routes %v", with, s.Routes)
		}
		if r := s.Routes[own]; (r != nil && r.Kind == drivers.RouteBlackhole) != with {
			t.Errorf("%v: routes %v", with, s.Routes)
		}
		set("n2", "192.0.2.2/24", "10.0.3.0/24")
		if r := s.Routes[netip.MustParsePrefix("10.0.3.0/24")]; (r != nil) != with || s.Routes[far] != nil {
			t.Errorf("%v, another range: routes %v", with, s.Routes)
		}
		g.Update(api.Key{Kind: "Node", Name: "n2"}, nil)
		s.Merge(g.Flush(), nil)
		if len(s.Routes) != map[bool]int{true: 1}[with] {
			t.Errorf("%v, node gone: routes %v", with, s.Routes)
		}
	}
}

// TestPoolOfOthers: the addresses of workloads in a pool that is for tunnels alone are another program's to route.
func TestPoolOfOthers(t *testing.T) {
	for _, c := range []struct {
		uses   []string
		routed bool
	}{{nil, true}, {[]string{"Workload"}, true}, {[]string{"LoadBalancer"}, true}, {[]string{"Tunnel"}, false}} {
		g, s := New(Default("n1")), drivers.NewState()
		for name, addr := range map[string]string{"n1": "192.0.2.1/24", "n2": "192.0.2.2/24"} {
			n := &api.Node{Spec: api.NodeSpec{BGP: &api.NodeBGPSpec{IPv4Address: addr}}}
			n.Name = name
			g.Update(api.Key{Kind: "Node", Name: name}, n)
		}
		pool := &api.IPPool{Spec: api.IPPoolSpec{CIDR: "10.9.0.0/16", AllowedUses: c.uses}}
		pool.Name = "p"
		g.Update(api.Key{Kind: "IPPool", Name: "p"}, pool)
		w := &api.WorkloadEndpoint{Spec: api.WorkloadEndpointSpec{Node: "n2", IPNetworks: []string{"10.9.0.5/32"}}}
		w.Namespace, w.Name = "default", "w"
		g.Update(api.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "w"}, w)
		s.Merge(g.Flush(), nil)
		if r := s.Routes[netip.MustParsePrefix("10.9.0.5/32")]; (r != nil) != c.routed {
			t.Errorf("%v: routes %v", c.uses, s.Routes)
		}
	}
}

// TestAddressThatNoPoolGave: an address of a disabled pool that the pool did not give is another program's to route; those
// that it gave are routed, also once their block is nobody's.
func TestAddressThatNoPoolGave(t *testing.T) {
	g, s := New(Default("n1")), drivers.NewState()
	for name, addr := range map[string]string{"n1": "192.0.2.1/24", "n2": "192.0.2.2/24"} {
		n := &api.Node{Spec: api.NodeSpec{BGP: &api.NodeBGPSpec{IPv4Address: addr}}}
		n.Name = name
		g.Update(api.Key{Kind: "Node", Name: name}, n)
	}
	pool := &api.IPPool{Spec: api.IPPoolSpec{CIDR: "10.66.0.0/16", Disabled: true}}
	pool.Name = "p"
	g.Update(api.Key{Kind: "IPPool", Name: "p"}, pool)
	key := api.Key{Kind: "WorkloadEndpoint", Namespace: "default", Name: "w"}
	for i, c := range []struct {
		foreign []string
		block   string // of node n3
		gone    bool
		routed  bool
	}{
		{routed: true},
		{foreign: []string{"10.66.0.6/32"}},
		{foreign: []string{"10.66.0.7/32"}, routed: true},
		{foreign: []string{"10.66.0.6/32"}},
		{routed: true},
		{foreign: []string{"10.66.0.6/32"}, block: "10.66.0.0/29", routed: true},
		{foreign: []string{"10.66.0.6/32"}},
		{gone: true},
		{routed: true},
	} {
		affinity := api.Key{Kind: "BlockAffinity", Name: "b"}
		g.Update(affinity, nil)
		if c.block != "" {
			g.Update(affinity, &api.BlockAffinity{ObjectMeta: metav1.ObjectMeta{Name: "b"}, Spec: api.BlockAffinitySpec{CIDR: c.block, Node: "n3", State: "confirmed"}})
		}
		if c.gone {
			g.Update(key, nil)
		} else {
			g.Update(key, &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "w"},
				Spec: api.WorkloadEndpointSpec{Node: "n2", IPNetworks: []string{"10.66.0.6/32"}, Foreign: c.foreign}})
		}
		s.Merge(g.Flush(), nil)
		if r := s.Routes[netip.MustParsePrefix("10.66.0.6/32")]; (r != nil) != c.routed {
			t.Errorf("step %d: routes %v, want one: %v", i, s.Routes, c.routed)
		}
	}
}
