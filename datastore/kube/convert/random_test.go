package convert

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/drivers"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

var (
	seeds     = flag.Int("seeds", 200, "how many clusters TestAgreesWithKubernetes makes")
	firstSeed = flag.Uint64("first", 0, "the seed of the first of them")
)

// TestAgreesWithKubernetes makes small clusters at random, and compares what becomes of their packets, by the converted
// objects in the graph and the oracle of the drivers, with what Kubernetes' API says in so many words.
// The flags -seeds and -first, behind -args, say how many and which.
func TestAgreesWithKubernetes(t *testing.T) {
	var judged, denied, judgedByPolicy int
	for i := range *seeds {
		seed := *firstSeed + uint64(i)
		g := &generator{Rand: rand.New(rand.NewPCG(seed, 1)), ends: map[netip.Addr]drivers.Place{}}
		g.cluster()
		state, graph := g.state(t)
		for i := range 200 {
			if i >= 100 && i%25 == 0 {
				g.renode(graph)
				state.Merge(graph.Flush(), nil)
			}
			pk, flows := g.packet()
			want := true
			for _, f := range flows {
				want = want && g.c.allows(f)
				if isolated, _ := g.c.networkPolicies(f); isolated || len(g.c.clusters) > 0 {
					judgedByPolicy++
				}
			}
			trace := drivers.Evaluate(state, pk)
			judged++
			if !want {
				denied++
			}
			if got := trace.Verdict == drivers.VerdictAllow; got != want {
				t.Fatalf("-seeds 1 -first %d: %v %s -> %s %d/%d: Kubernetes says allowed=%v\n%+v\n%s", seed, pk.Src, pk.From.Iface, pk.Dst, pk.Proto, pk.DstPort, want, trace.Steps, g.show())
			}
		}
	}
	if *seeds > 100 && (denied < judged/5 || denied > judged*4/5 || judgedByPolicy < judged/2) {
		t.Errorf("%d of %d packets denied, %d judgements of policy: the clusters are not varied enough", denied, judged, judgedByPolicy)
	}
}

// generator makes a cluster, and the packets on its node "me".
type generator struct {
	*rand.Rand
	c    cluster
	ends map[netip.Addr]drivers.Place
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *generator, of ...T) T { return of[g.IntN(len(of))] }

func (g *generator) labels() map[string]string {
	m := map[string]string{}
	for _, k := range []string{"a", "b", "example.com/c"} {
		if g.chance(55) {
			m[k] = pick(g, "x", "y", "")
		}
	}
	return m
}

func (g *generator) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	if g.chance(25) {
		return s
	}
	if g.chance(50) {
		s.MatchLabels = map[string]string{pick(g, "a", "b", "example.com/c"): pick(g, "x", "y", "")}
	}
	for range g.IntN(3) {
		r := metav1.LabelSelectorRequirement{Key: pick(g, "a", "b", "example.com/c", "none"),
			Operator: pick(g, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}
		if r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn {
			r.Values = pick(g, []string{"x"}, []string{"x", "y"}, []string{"y", ""})
		}
		s.MatchExpressions = append(s.MatchExpressions, r)
	}
	return s
}

func (g *generator) cluster() {
	for _, name := range []string{"red", "green", "blue"} {
		n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: g.labels()}}
		n.Labels["kubernetes.io/metadata.name"] = name
		g.c.namespaces = append(g.c.namespaces, n)
	}
	for i := range 9 {
		g.c.pods = append(g.c.pods, g.pod(i))
	}
	// A finished pod may have had the address of one that runs.
	if old := g.c.pods[8]; old.Status.Phase == corev1.PodFailed {
		old.Status.PodIPs = g.c.pods[0].Status.PodIPs
	}
	for i := range g.IntN(5) {
		g.c.policies = append(g.c.policies, g.policy(i))
	}
	priorities := g.Perm(1001)
	for i := range pick(g, 0, 0, 1, 2, 4) {
		g.c.clusters = append(g.c.clusters, g.clusterPolicy(i, int32(priorities[i])))
	}
	for _, name := range []string{"me", "far", "third"} {
		if g.chance(85) {
			g.c.nodes = append(g.c.nodes, g.node(name))
		}
	}
	for _, a := range g.outside() {
		g.ends[netip.MustParseAddr(a)] = drivers.Place{Kind: drivers.PlaceHostIface, Iface: pick(g, "eth0", "eth1")}
	}
}

// outside are addresses that no pod has.
func (*generator) outside() []string {
	return []string{"192.0.2.1", "192.0.2.200", "10.0.0.77", "10.1.0.77", "2001:db8::1", "fd00::77"}
}

func (g *generator) pod(i int) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p-%d", i), Namespace: pick(g, "red", "green", "blue"),
		UID: types.UID(fmt.Sprintf("uid-%d", i)), Labels: g.labels()}}
	if g.chance(10) { // what a pod says of itself that is not its own to say
		p.Labels[pick(g, "pcns.a", "pcns.kubernetes.io/metadata.name", api.LabelNamespace, api.LabelOrchestrator)] = pick(g, "x", "red", "blue")
	}
	p.Spec.ServiceAccountName = pick(g, "default", "robot", "")
	p.Spec.NodeName = pick(g, "me", "me", "far")
	p.Status.Phase = corev1.PodRunning
	for j := range g.IntN(3) {
		container := corev1.Container{Ports: []corev1.ContainerPort{{Name: pick(g, "web", "dns", ""), Protocol: pick(g, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP), ContainerPort: pick[int32](g, 80, 81, 53)}}}
		if j == 0 {
			p.Spec.Containers = append(p.Spec.Containers, container)
		} else {
			p.Spec.InitContainers = append(p.Spec.InitContainers, container)
		}
	}
	v4, v6 := fmt.Sprintf("10.%d.0.%d", i%2, i+1), fmt.Sprintf("fd00:%d::%d", i%2+1, i+1)
	ips := pick(g, []string{v4, v6}, []string{v4}, []string{v6})
	if i == 0 { // there is always one that packets can come from
		p.Spec.NodeName, ips = "me", []string{v4, v6}
	}
	for k, ip := range ips {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
		if k == 0 {
			p.Status.PodIP = ip
		}
	}
	switch {
	case i == 7 && g.chance(50):
		p.Spec.HostNetwork = true
	case i == 8 && g.chance(50):
		p.Status.Phase = corev1.PodFailed
	}
	for _, ip := range p.Status.PodIPs {
		place := drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth0"}
		if p.Spec.NodeName == "me" && !p.Spec.HostNetwork && p.Status.Phase == corev1.PodRunning {
			place = drivers.Place{Kind: drivers.PlaceWorkload, Iface: ifaceOf(p)}
		}
		g.ends[netip.MustParseAddr(ip.IP)] = place
	}
	return p
}

func ifaceOf(p *corev1.Pod) string { return "tort" + string(p.UID) }

func (g *generator) block() *networkingv1.IPBlock {
	b := pick(g,
		networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16"}},
		networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.0.0.2/32", "10.1.0.9/24"}},
		networkingv1.IPBlock{CIDR: "0.0.0.0/0"}, networkingv1.IPBlock{CIDR: "::/0", Except: []string{"fd00::/16"}},
		networkingv1.IPBlock{CIDR: "fd00::9/12"}, networkingv1.IPBlock{CIDR: "192.0.2.0/25"})
	return &b
}

func (g *generator) policyPeers() (out []networkingv1.NetworkPolicyPeer) {
	for range g.IntN(4) {
		out = append(out, pick(g,
			networkingv1.NetworkPolicyPeer{PodSelector: g.selector()},
			networkingv1.NetworkPolicyPeer{NamespaceSelector: g.selector()},
			networkingv1.NetworkPolicyPeer{PodSelector: g.selector(), NamespaceSelector: g.selector()},
			networkingv1.NetworkPolicyPeer{IPBlock: g.block()}))
	}
	if g.chance(3) {
		out = append(out, networkingv1.NetworkPolicyPeer{})
	}
	return out
}

func (g *generator) policyPorts() (out []networkingv1.NetworkPolicyPort) {
	for range pick(g, 0, 0, 1, 2, 4) {
		p := networkingv1.NetworkPolicyPort{}
		if g.chance(70) {
			proto := pick(g, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
			p.Protocol = &proto
		}
		switch g.IntN(4) {
		case 0:
			port := intstr.FromString(pick(g, "web", "dns"))
			p.Port = &port
		case 1:
			port := intstr.FromInt32(pick[int32](g, 53, 80, 81))
			p.Port = &port
		case 2:
			port, end := intstr.FromInt32(pick[int32](g, 53, 80)), pick[int32](g, 80, 81, 65535)
			p.Port, p.EndPort = &port, &end
		}
		out = append(out, p)
	}
	return out
}

func (g *generator) policy(i int) *policyIn {
	p := &policyIn{oddIngress: map[int]bool{}, oddEgress: map[int]bool{}}
	p.Name, p.Namespace = fmt.Sprintf("np.%d", i), pick(g, "red", "green", "blue")
	p.Spec.PodSelector = *g.selector()
	p.Spec.PolicyTypes = pick(g, nil, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"},
		[]networkingv1.PolicyType{"Ingress", "Egress"}, []networkingv1.PolicyType{"Ingress", "Ingress"})
	for j := range g.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: g.policyPeers(), Ports: g.policyPorts()})
		p.oddIngress[j] = g.chance(5)
	}
	for j := range g.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: g.policyPeers(), Ports: g.policyPorts()})
		p.oddEgress[j] = g.chance(5)
	}
	return p
}

func (g *generator) podPeer() (*metav1.LabelSelector, *cnp.NamespacedPod) {
	if g.chance(50) {
		return g.selector(), nil
	}
	return nil, &cnp.NamespacedPod{NamespaceSelector: *g.selector(), PodSelector: *g.selector()}
}

func (g *generator) clusterPolicy(i int, priority int32) *clusterIn {
	p := &clusterIn{oddIngress: map[int]bool{}, oddEgress: map[int]bool{}}
	p.Name = fmt.Sprintf("cnp.%d", i)
	p.Spec.Tier, p.Spec.Priority = pick(g, cnp.AdminTier, cnp.BaselineTier), priority
	p.Spec.Subject.Namespaces, p.Spec.Subject.Pods = g.podPeer()
	action := func() cnp.ClusterNetworkPolicyRuleAction {
		return pick(g, cnp.ClusterNetworkPolicyRuleActionAccept, cnp.ClusterNetworkPolicyRuleActionDeny, cnp.ClusterNetworkPolicyRuleActionPass)
	}
	for j := range g.IntN(4) {
		r := cnp.ClusterNetworkPolicyIngressRule{Action: action(), Protocols: g.protocols()}
		for range 1 + g.IntN(2) {
			var peer cnp.ClusterNetworkPolicyIngressPeer
			if !g.chance(3) {
				peer.Namespaces, peer.Pods = g.podPeer()
			}
			r.From = append(r.From, peer)
		}
		p.Spec.Ingress = append(p.Spec.Ingress, r)
		p.oddIngress[j] = g.chance(3)
	}
	for j := range g.IntN(4) {
		p.Spec.Egress = append(p.Spec.Egress, cnp.ClusterNetworkPolicyEgressRule{Name: "r", Action: action(), Protocols: g.protocols(), To: g.egressPeers()})
		p.oddEgress[j] = g.chance(3)
	}
	return p
}

func (g *generator) egressPeers() (out []cnp.ClusterNetworkPolicyEgressPeer) {
	for range 1 + g.IntN(2) {
		var peer cnp.ClusterNetworkPolicyEgressPeer
		switch n := g.IntN(100); {
		case n < 60:
			peer.Namespaces, peer.Pods = g.podPeer()
		case n < 80:
			peer.Networks = pick(g, []cnp.CIDR{"10.0.0.0/16", "fd00::/12"}, []cnp.CIDR{"0.0.0.0/0"}, []cnp.CIDR{"192.0.2.1/32", "10.0.0.0/30"}, []cnp.CIDR{"::/0"})
		case n < 96:
			peer.Nodes = g.selector()
		case n < 98:
			peer.DomainNames = []cnp.DomainName{"example.com"}
		}
		out = append(out, peer)
	}
	return out
}

func (g *generator) protocols() (out []cnp.ClusterNetworkPolicyProtocol) {
	for range pick(g, 0, 0, 1, 2, 4) {
		var p cnp.ClusterNetworkPolicyProtocol
		port := &cnp.Port{Number: pick[int32](g, 53, 80, 81)}
		if g.chance(30) {
			port = &cnp.Port{Range: &cnp.PortRange{Start: pick[int32](g, 1, 53), End: pick[int32](g, 80, 65535)}}
		}
		switch g.IntN(7) {
		case 0, 1, 2:
			p.TCP = &cnp.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}
		case 3, 4:
			p.UDP = &cnp.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}
		case 5:
			p.SCTP = &cnp.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}
		case 6:
			p.DestinationNamedPort = pick(g, "web", "dns")
		}
		out = append(out, p)
	}
	return out
}

// encode gives the JSON of a policy, with a field that nobody knows in its odd rules.
func encode(t testing.TB, policy any, oddIngress, oddEgress map[int]bool) []byte {
	t.Helper()
	data, err := json.Marshal(policy)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		t.Fatal(err)
	}
	delete(tree, "status")
	for name, odd := range map[string]map[int]bool{"ingress": oddIngress, "egress": oddEgress} {
		rules, _ := tree["spec"].(map[string]any)[name].([]any)
		for i, r := range rules {
			if odd[i] {
				r.(map[string]any)["when"] = "night"
			}
		}
	}
	if data, err = json.Marshal(tree); err != nil {
		t.Fatal(err)
	}
	return data
}

// state converts the cluster, and gives it to the graph of the node "me" in any order.
func (g *generator) state(t testing.TB) (*drivers.State, *calcgraph.Graph) {
	t.Helper()
	graph := calcgraph.New(calcgraph.Default("me"))
	var objects []api.Object
	for _, n := range g.c.namespaces {
		objects = append(objects, Namespace(n))
		for _, sa := range []string{"default", "robot"} {
			objects = append(objects, ServiceAccount(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: sa, Namespace: n.Name, Labels: g.labels()}}))
		}
	}
	for _, n := range g.c.nodes {
		objects = append(objects, nodeOf(n))
	}
	for i, p := range g.c.pods {
		w, addrs, problems := Pod(p)
		if len(problems) > 0 {
			t.Fatalf("pod %s: %v", p.Name, problems)
		}
		if w == nil {
			continue
		}
		for _, a := range addrs.IPs {
			w.Spec.IPNetworks = append(w.Spec.IPNetworks, netip.PrefixFrom(a, a.BitLen()).String())
		}
		objects = append(objects, w)
		if p.Spec.NodeName == "me" && !addrs.Finished {
			graph.Attached(drivers.EndpointID{Sandbox: fmt.Sprint(i), Interface: "eth0"}, &calcgraph.LedgerEntry{
				Name: api.KeyOf(w), UID: string(w.UID), Iface: ifaceOf(p), Addrs: addrs.IPs})
		}
	}
	for _, p := range g.c.policies {
		o, _, err := NetworkPolicy(encode(t, &p.NetworkPolicy, p.oddIngress, p.oddEgress))
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o)
	}
	for _, p := range g.c.clusters {
		o, _, err := ClusterNetworkPolicy(encode(t, &p.ClusterNetworkPolicy, p.oddIngress, p.oddEgress))
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, o)
	}
	for _, tier := range api.BuiltinTiers() {
		objects = append(objects, tier)
	}
	g.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
	for _, o := range objects {
		graph.Update(api.KeyOf(o), o)
	}
	state := drivers.NewState()
	state.Merge(graph.Flush(), nil)
	return state, graph
}

// node makes a node whose addresses are among those that packets go to, sometimes also those of a pod in its network, or
// what another node has, too.
func (g *generator) node(name string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: g.labels()}}
	if g.chance(20) { // a node may have any labels; to be a pod by them it has to be one
		n.Labels[api.LabelOrchestrator], n.Labels["pcns.kubernetes.io/metadata.name"] = "k8s", "red"
	}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: pick(g, name, "192.0.2.200")}}
	for range g.IntN(4) {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: pick(g, corev1.NodeInternalIP, corev1.NodeExternalIP),
			Address: pick(g, append(g.outside(), g.c.pods[7].Status.PodIPs[0].IP)...)})
	}
	return n
}

// renode changes a node, takes it away, or brings it back.
func (g *generator) renode(graph *calcgraph.Graph) {
	name := pick(g, "me", "far", "third")
	at := slices.IndexFunc(g.c.nodes, func(n *corev1.Node) bool { return n.Name == name })
	if at >= 0 {
		g.c.nodes = slices.Delete(g.c.nodes, at, at+1)
	}
	if at >= 0 && g.chance(30) {
		graph.Update(api.Key{Kind: "Node", Name: name}, nil)
		return
	}
	n := g.node(name)
	g.c.nodes = append(g.c.nodes, n)
	graph.Update(api.Key{Kind: "Node", Name: name}, nodeOf(n))
}

// packet returns a packet of a new connection with an end on the node "me", and how the policies there see it.
func (g *generator) packet() (drivers.Packet, []flow) {
	var all []netip.Addr
	for a := range g.ends {
		all = append(all, a)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	for {
		src, dst := pick(g, all...), pick(g, all...)
		from, to := g.ends[src], g.ends[dst]
		if src.Is4() != dst.Is4() || from == to || from.Kind != drivers.PlaceWorkload && to.Kind != drivers.PlaceWorkload {
			continue
		}
		pk := drivers.Packet{From: from, To: to, Src: src, Dst: dst, SrcPort: 40000}
		proto := pick(g, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, "")
		if proto == "" {
			pk.Proto, pk.SrcPort, pk.ICMPType = 1, 0, 8
			if src.Is6() {
				pk.Proto, pk.ICMPType = 58, 128
			}
		} else {
			pk.Proto, pk.DstPort = protocolNumbers[proto], pick[uint16](g, 53, 80, 81, 443)
		}
		var flows []flow
		if from.Kind == drivers.PlaceWorkload {
			flows = append(flows, flow{pod: g.c.podAt(src), far: dst, dst: dst, proto: proto, port: int(pk.DstPort)})
		}
		if to.Kind == drivers.PlaceWorkload {
			flows = append(flows, flow{pod: g.c.podAt(dst), ingress: true, far: src, dst: dst, proto: proto, port: int(pk.DstPort)})
		}
		return pk, flows
	}
}

func (g *generator) show() string {
	var b strings.Builder
	line := func(o any) {
		data, _ := json.Marshal(o)
		b.Write(data)
		b.WriteByte('\n')
	}
	for _, n := range g.c.namespaces {
		line(n)
	}
	for _, p := range g.c.pods {
		line(p)
	}
	for _, n := range g.c.nodes {
		line(n)
	}
	for _, p := range g.c.policies {
		line(p)
	}
	for _, p := range g.c.clusters {
		line(p)
	}
	return b.String()
}
