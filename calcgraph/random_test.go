package calcgraph

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// gen makes random objects in a small universe, so that names, labels and addresses meet.
type gen struct{ *rand.Rand }

func pick[T any](g gen, of ...T) T { return of[g.IntN(len(of))] }

func (g gen) chance(percent int) bool { return g.IntN(100) < percent }

func ptr[T any](v T) *T { return &v }

func (g gen) meta(ns string, names ...string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: ns, Name: pick(g, names...), Generation: int64(g.IntN(3)), Labels: g.labels()}
}

func (g gen) labels() map[string]string {
	m := map[string]string{}
	for _, k := range []string{"a", "b", "c"} {
		if g.chance(60) {
			m[k] = pick(g, "x", "y", "xy", "z")
		}
	}
	return m
}

func (g gen) atom(keys ...string) string {
	k, v := pick(g, keys...), pick(g, "x", "y", "z")
	return pick(g,
		k+" == '"+v+"'", k+" == '"+v+"'", k+" != '"+v+"'", "has("+k+")", "!has("+k+")", "all()",
		k+" in {'"+v+"', 'xy'}", k+" not in {'"+v+"', 'z'}", k+" contains '"+v+"'", k+" starts with '"+v+"'", k+" ends with '"+v+"'", k+" in {}")
}

func (g gen) selector(keys ...string) string {
	switch g.IntN(8) {
	case 0:
		return ""
	case 1, 2:
		return g.atom(keys...) + " && " + g.atom(keys...)
	case 3:
		return g.atom(keys...) + " || " + g.atom(keys...)
	case 4:
		return "!(" + g.atom(keys...) + " && " + g.atom(keys...) + ") || " + g.atom(keys...)
	}
	return g.atom(keys...)
}

var ownKeys = []string{"a", "b", "c", "pcns.env", "projectcalico.org/namespace"}

func (g gen) addr() string {
	if g.chance(25) {
		return fmt.Sprintf("fd00::%d", 1+g.IntN(6))
	}
	return fmt.Sprintf("10.0.%d.%d", g.IntN(2), 1+g.IntN(8))
}

func (g gen) nets(n int) (out []string) {
	for range g.IntN(n) {
		out = append(out, pick(g, g.addr(), g.addr(), "10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/30", "10.0.0.4/30", "10.0.1.0/29", "fd00::/64", "fd00::/126", "0.0.0.0/0", "::/0"))
	}
	return out
}

// uid is of a pod; most are of the same one, so that workloads and sandboxes meet.
func (g gen) uid() string { return pick(g, "u0", "u0", "u0", "u1", "") }

func (g gen) ports() (out []api.EndpointPort) {
	for range g.IntN(3) {
		out = append(out, api.EndpointPort{Name: pick(g, "http", "dns"), Protocol: api.Protocol{Name: pick(g, "TCP", "UDP")}, Port: uint16(80 + g.IntN(2))})
	}
	return out
}

func (g gen) workload() api.Object {
	o := &api.WorkloadEndpoint{ObjectMeta: g.meta(pick(g, "n0", "n1"), "w0", "w1", "w2", "w3", "w4")}
	o.Spec = api.WorkloadEndpointSpec{Node: pick(g, "me", "me", "n2", "n3"), Profiles: []string{"kns." + o.Namespace}, Ports: g.ports()}
	if g.chance(30) {
		o.Spec.Profiles = append(o.Spec.Profiles, pick(g, "p0", "p1", "projectcalico-default-allow"))
	}
	if g.chance(20) {
		o.Spec.ContainerID = pick(g, "s0", "s1")
	}
	o.UID = types.UID(g.uid())
	if g.chance(30) {
		o.Spec.ServiceAccountName, o.Spec.Orchestrator = "sa", "k8s"
	}
	for range g.IntN(3) {
		o.Spec.IPNetworks = append(o.Spec.IPNetworks, g.addr())
		if a, err := api.ParsePrefix(o.Spec.IPNetworks[0]); err == nil && g.chance(30) {
			o.Spec.Foreign = []string{a.String()}
		}
	}
	if g.chance(5) {
		o.Spec.IPNetworks = append(o.Spec.IPNetworks, "10.0.0.x")
	}
	if g.chance(20) {
		o.Spec.AllowSpoofedSourcePrefixes = []string{"10.9.0.0/16"}
	}
	for range g.IntN(3) {
		o.Spec.IPNATs = append(o.Spec.IPNATs, api.IPNAT{ExternalIP: pick(g, "192.0.2.1", "192.0.2.2", "2001:db8::1", "10.0.0.1", "here"), InternalIP: pick(g, "", "", g.addr())})
	}
	return o
}

func (g gen) entity(e *api.EntityRule, namespaced bool) {
	if g.chance(40) {
		e.Selector = g.selector(ownKeys...)
	}
	if g.chance(15) {
		e.NotSelector = g.atom("a", "b")
	}
	if g.chance(15) {
		e.NamespaceSelector = pick(g, "all()", "global()", "env == 'x'")
	}
	if g.chance(15) {
		e.Nets = g.nets(3)
	}
	if g.chance(10) {
		e.NotNets = g.nets(3)
	}
	if g.chance(15) {
		e.NodeSelector = pick(g, g.selector("a", "b", "c"), "all()")
	}
	if g.chance(10) {
		e.ServiceAccounts = &api.ServiceAccountMatch{Names: []string{"sa"}}
	}
}

func (g gen) rules(namespaced, in bool) (out []api.Rule) {
	for range g.IntN(4) {
		r := api.Rule{Action: pick(g, api.Allow, api.Deny, api.Pass, api.Log)}
		g.entity(&r.Source, namespaced)
		g.entity(&r.Destination, namespaced)
		if g.chance(40) {
			r.Protocol = &api.Protocol{Name: pick(g, "TCP", "UDP")}
			r.Destination.Ports = []api.Port{{First: 80, Last: 81}, {Name: pick(g, "http", "dns")}}
		} else if g.chance(20) {
			r.Source.NotPorts = []api.Port{{Name: pick(g, "http", "dns")}}
		}
		if s := (&api.ServiceMatch{Name: pick(g, "v0", "v1"), Namespace: pick(g, "n0", "n1")}); g.chance(20) {
			if in {
				r.Source.Services = s
			} else {
				r.Destination.Services = s
			}
		}
		out = append(out, r)
	}
	return out
}

func (g gen) types() []api.PolicyType {
	return pick(g, []api.PolicyType{api.Ingress}, []api.PolicyType{api.Egress}, []api.PolicyType{api.Ingress, api.Egress})
}

func (g gen) order() *float64 {
	return pick(g, nil, ptr(1.0), ptr(2.0), ptr(2.5))
}

func (g gen) tierName() string { return pick(g, "", "default", "t0", "t1", "kube-admin") }

func (g gen) networkPolicy(ns string) api.NetworkPolicySpec {
	return api.NetworkPolicySpec{
		Tier: g.tierName(), Order: g.order(), Selector: g.selector("a", "b", "pcns.env"), Types: g.types(),
		Ingress: g.rules(true, true), Egress: g.rules(true, false),
	}
}

func (g gen) globalPolicy() api.GlobalNetworkPolicySpec {
	s := api.GlobalNetworkPolicySpec{
		Tier: g.tierName(), Order: g.order(), Selector: g.selector(ownKeys...), Types: g.types(),
		Ingress: g.rules(false, true), Egress: g.rules(false, false),
		DoNotTrack: g.chance(20), PreDNAT: g.chance(20), ApplyOnForward: g.chance(50),
	}
	if g.chance(30) {
		s.NamespaceSelector = pick(g, "all()", "env == 'x'", "env != 'x'")
	}
	return s
}

func (g gen) policy() api.Object {
	ns := pick(g, "n0", "n1")
	switch g.IntN(9) {
	case 0, 1, 2:
		return &api.NetworkPolicy{ObjectMeta: g.meta(ns, "q0", "q1", "q2"), Spec: g.networkPolicy(ns)}
	case 3, 4, 5:
		return &api.GlobalNetworkPolicy{ObjectMeta: g.meta("", "q0", "q1", "q2"), Spec: g.globalPolicy()}
	case 6:
		return &api.StagedNetworkPolicy{ObjectMeta: g.meta(ns, "q0", "q1"), Spec: api.StagedNetworkPolicySpec{
			StagedAction: pick(g, api.StagedSet, "", api.StagedDelete), NetworkPolicySpec: g.networkPolicy(ns)}}
	}
	if g.chance(50) {
		return &api.StagedGlobalNetworkPolicy{ObjectMeta: g.meta("", "q0", "q1"), Spec: api.StagedGlobalNetworkPolicySpec{
			StagedAction: pick(g, api.StagedSet, "", api.StagedDelete), GlobalNetworkPolicySpec: g.globalPolicy()}}
	}
	return &api.StagedKubernetesNetworkPolicy{ObjectMeta: g.meta(ns, "q0", "q1"), Spec: api.StagedKubernetesNetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: g.labels()},
		Ingress:     []api.KubernetesIngressRule{{From: []api.KubernetesPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: g.labels()}}}}},
	}}
}

func (g gen) network() api.Object {
	switch g.IntN(4) {
	case 0:
		o := &api.Node{ObjectMeta: g.meta("", "me", "n2", "n3"), Spec: api.NodeSpec{BGP: &api.NodeBGPSpec{}}}
		if g.chance(90) {
			o.Spec.BGP.IPv4Address = pick(g, "192.0.2.1/24", "192.0.2.2/24", "198.51.100.3/24")
		}
		if g.chance(50) {
			o.Spec.BGP.IPv6Address = pick(g, "2001:db8::1/64", "2001:db8::2/64")
		}
		o.Spec.Addresses = g.nodeAddresses(o.Spec.BGP)
		return o
	case 1:
		o := &api.IPPool{ObjectMeta: g.meta("", "p0", "p1", "p2"), Spec: api.IPPoolSpec{NATOutgoing: g.chance(50), Disabled: g.chance(20)}}
		o.Spec.CIDR = map[string]string{"p0": "10.0.0.0/23", "p1": pick(g, "10.0.0.0/24", "10.0.1.0/24"), "p2": "fd00::/112"}[o.Name]
		mode := pick(g, "Never", "Always", "CrossSubnet")
		if o.Name != "p2" && g.chance(50) {
			o.Spec.IPIPMode = mode
		} else {
			o.Spec.VXLANMode = mode
		}
		return o
	}
	return &api.BlockAffinity{ObjectMeta: g.meta("", "b0", "b1", "b2", "b3"), Spec: api.BlockAffinitySpec{
		State: pick(g, "confirmed", "confirmed", "confirmed", "pending"), Node: pick(g, "me", "n2", "n3"),
		CIDR: pick(g, "10.0.0.0/30", "10.0.0.4/30", "10.0.0.0/29", "10.0.1.5/32", "fd00::/126"),
	}}
}

func (g gen) object() api.Object {
	switch g.IntN(13) {
	case 0, 1, 2:
		return g.workload()
	case 3, 4, 5:
		return g.policy()
	case 6:
		return g.network()
	case 7:
		spec := api.NetworkSetSpec{Nets: g.nets(6)}
		if g.chance(10) {
			spec.Partial = []string{"spec.nets[0]: must be a string"}
		}
		return pick[api.Object](g,
			&api.NetworkSet{ObjectMeta: g.meta(pick(g, "n0", "n1"), "s0", "s1"), Spec: spec},
			&api.GlobalNetworkSet{ObjectMeta: g.meta("", "s0", "s1", "s2"), Spec: spec})
	case 8:
		o := &api.Profile{ObjectMeta: g.meta("", "kns.n0", "kns.n1", "p0", "p1"), Spec: api.ProfileSpec{Ingress: g.rules(false, true)}}
		o.Spec.LabelsToApply = map[string]string{"pcns.env": pick(g, "x", "y"), pick(g, "a", "b"): pick(g, "x", "y")}
		return o
	case 9:
		o := &api.Tier{ObjectMeta: g.meta("", "t0", "t1"), Spec: api.TierSpec{Order: g.order()}}
		if g.chance(50) {
			o.Spec.DefaultAction = ptr(pick(g, api.Deny, api.Pass))
		}
		return o
	case 10:
		o := &api.HostEndpoint{ObjectMeta: g.meta("", "h0", "h1", "h2"), Spec: api.HostEndpointSpec{Node: pick(g, "me", "me", "me", "n2"), Ports: g.ports()}}
		o.Spec.InterfaceName = pick(g, "eth0", "*", "")
		o.Spec.ExpectedIPs = []string{pick(g, "192.0.2.1", "192.0.2.9")}
		if g.chance(40) {
			o.Spec.Profiles = []string{pick(g, "p0", "p1")}
		}
		return o
	case 11:
		return g.felix()
	}
	o := &api.EndpointSlice{ObjectMeta: g.meta(pick(g, "n0", "n1"), "e0", "e1", "e2")}
	o.Labels = map[string]string{"kubernetes.io/service-name": pick(g, "v0", "v1")}
	if g.chance(10) {
		o.Partial = []string{"endpoints: must be a list"}
	}
	for range g.IntN(3) {
		o.Endpoints = append(o.Endpoints, api.SliceEndpoint{Addresses: []string{g.addr()}})
	}
	for range g.IntN(3) {
		o.Ports = append(o.Ports, api.SlicePort{Port: ptr(uint16(80 + g.IntN(2))), Protocol: pick(g, nil, &api.Protocol{Name: "UDP"})})
	}
	return o
}

// step changes one thing of the world, or says again what is so already.
func (g gen) step(c *checked) {
	switch g.IntN(20) {
	case 0, 1:
		id := drivers.EndpointID{Sandbox: pick(g, "s0", "s1", "s2"), Interface: "eth0"}
		if g.chance(30) {
			c.attach(id, nil)
			return
		}
		e := &LedgerEntry{Name: api.Key{Namespace: pick(g, "n0", "n1"), Name: pick(g, "w0", "w1")}, Iface: "tort" + id.Sandbox, UID: g.uid()}
		for range g.IntN(3) {
			e.Addrs = append(e.Addrs, netip.MustParseAddr(g.addr()))
		}
		c.attach(id, e)
	case 2:
		var ifaces []drivers.HostIface
		for _, n := range []string{"eth0", "eth1", "lo", "torts0"} {
			if g.chance(70) {
				i := drivers.HostIface{Name: n}
				if g.chance(60) {
					i.Addrs = []netip.Prefix{netip.MustParsePrefix(pick(g, "192.0.2.1/24", "192.0.2.9/24"))}
				}
				ifaces = append(ifaces, i)
			}
		}
		c.host(ifaces)
	case 3:
		dst := netip.MustParsePrefix(pick(g, "10.0.0.0/30", "10.0.0.4/30", "10.7.0.0/16", "10.0.0.3/32"))
		if g.chance(40) {
			c.learn(dst, nil)
			return
		}
		c.learn(dst, &drivers.Route{Dst: dst, Kind: drivers.RouteRemote, NextHop: netip.MustParseAddr("192.0.2.77"), Peer: pick(g, "", "n2", "n9"), Learned: true})
	case 4, 5, 6, 7, 8:
		key := api.KeyOf(g.object())
		if g.chance(50) {
			for k := range c.w.objects { // one that is there
				key = k
				break
			}
		}
		c.remove(key)
	case 9:
		for k, o := range c.w.objects { // once more
			c.g.Update(k, o)
			break
		}
	default:
		c.set(g.object())
	}
}

var (
	seeds     = flag.Int("seeds", 100, "how many random walks TestRandomWalks takes")
	firstSeed = flag.Uint64("first", 0, "the seed of the first of them")
)

// TestRandomWalks leads a graph through random changes, and compares it with a computation from scratch at each flush.
func TestRandomWalks(t *testing.T) {
	for i := range *seeds {
		seed := *firstSeed + uint64(i)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			walk(t, rand.New(rand.NewPCG(seed, 1)), 200)
		})
	}
}

func walk(t testing.TB, rng *rand.Rand, steps int) {
	g, c := gen{rng}, newChecked(t)
	batch := 1 + g.IntN(12)
	for i := range steps {
		g.step(c)
		if g.IntN(batch) == 0 || i == steps-1 {
			c.flush()
			if got, want := c.state.String(), c.w.state(c.c).String(); got != want {
				t.Fatalf("after step %d (-got +want):\n%s", i, cmp.Diff(got, want))
			}
		}
	}
	// A graph that is told of the same world at once says the same.
	fresh := newChecked(t)
	for _, o := range c.w.objects {
		fresh.set(o)
	}
	for id, e := range c.w.ledger {
		fresh.attach(id, e)
	}
	for dst, r := range c.w.learned {
		fresh.learn(dst, r)
	}
	fresh.host(c.w.ifaces)
	fresh.flush()
	if got, want := fresh.state.String(), c.state.String(); got != want {
		t.Fatalf("told at once (-at once +walk):\n%s", cmp.Diff(got, want))
	}
	if got, want := fresh.g.Problems(), c.g.Problems(); !slices.Equal(got, want) {
		t.Fatalf("problems (-at once +walk):\n%s", cmp.Diff(got, want))
	}
	c.clear()
}

// FuzzWalk is the same walk from seeds that the fuzzer chooses.
func FuzzWalk(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint16(50))
	f.Fuzz(func(t *testing.T, a, b uint64, steps uint16) {
		walk(t, rand.New(rand.NewPCG(a, b)), 1+int(steps%400))
	})
}
