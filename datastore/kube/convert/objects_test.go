package convert

import (
	"maps"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/drivers"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var created = metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))

func running() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: "red", UID: "4e7f-1", ResourceVersion: "9", Generation: 2, CreationTimestamp: created,
			Labels: map[string]string{"app": "web"}},
		Spec:   corev1.PodSpec{NodeName: "node-1", ServiceAccountName: "robot", Containers: []corev1.Container{{Name: "c"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1", PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}},
	}
}

func ofWebPod() *api.WorkloadEndpoint {
	return &api.WorkloadEndpoint{
		TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "WorkloadEndpoint"},
		ObjectMeta: metav1.ObjectMeta{Name: "node--1-k8s-web--0-eth0", Namespace: "red", UID: "4e7f-1", ResourceVersion: "9", Generation: 2,
			CreationTimestamp: created, Labels: map[string]string{"app": "web"}},
		Spec: api.WorkloadEndpointSpec{Orchestrator: "k8s", Workload: "web-0", Pod: "web-0", Node: "node-1", Endpoint: "eth0",
			ServiceAccountName: "robot", Profiles: []string{"kns.red", "ksa.red.robot"}},
	}
}

func TestPod(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	tcp := api.Protocol{Name: "TCP"}
	type want struct {
		w        *api.WorkloadEndpoint
		a        PodAddresses
		problems []string
	}
	for _, c := range []struct {
		name   string
		change func(*corev1.Pod, *want)
	}{
		{"running", func(*corev1.Pod, *want) {}},
		{"unscheduled", func(p *corev1.Pod, w *want) { p.Spec.NodeName = ""; *w = want{} }},
		{"in the node's network", func(p *corev1.Pod, w *want) { p.Spec.HostNetwork = true; *w = want{} }},
		{"not started yet", func(p *corev1.Pod, w *want) {
			p.Status = corev1.PodStatus{Phase: corev1.PodPending}
			w.a = PodAddresses{}
		}},
		{"succeeded", func(p *corev1.Pod, w *want) {
			p.Status.Phase = corev1.PodSucceeded
			w.a = PodAddresses{Finished: true}
		}},
		{"failed", func(p *corev1.Pod, w *want) {
			p.Status.Phase = corev1.PodFailed
			w.a = PodAddresses{Finished: true}
		}},
		{"terminating: its containers run, and its policy stands", func(p *corev1.Pod, _ *want) {
			now := metav1.Now()
			p.DeletionTimestamp = &now
		}},
		{"of a node that is lost", func(p *corev1.Pod, _ *want) { p.Status.Phase = corev1.PodUnknown }},
		{"an old server's address", func(p *corev1.Pod, w *want) {
			p.Status.PodIPs = nil
			w.a.IPs = addrs[:1]
		}},
		{"an address that is none", func(p *corev1.Pod, w *want) {
			p.Status.PodIPs[0].IP = "10.0.0.1.5"
			w.a.IPs = addrs[1:]
			w.problems = []string{`status.podIPs[0].ip: "10.0.0.1.5" is not an IP address`}
			w.a.Unread = w.problems
		}},
		{"without a service account", func(p *corev1.Pod, w *want) {
			p.Spec.ServiceAccountName = ""
			w.w.Spec.ServiceAccountName, w.w.Spec.Profiles = "", []string{"kns.red"}
		}},
		{"ports of containers, sidecars and init containers", func(p *corev1.Pod, w *want) {
			always := corev1.ContainerRestartPolicyAlways
			p.Spec.Containers = []corev1.Container{
				{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 80, Protocol: "TCP"}, {ContainerPort: 81}}},
				{Ports: []corev1.ContainerPort{{Name: "dns", ContainerPort: 53, Protocol: "UDP"}, {ContainerPort: 82, HostPort: 8082, HostIP: "192.0.2.1"}}}}
			p.Spec.InitContainers = []corev1.Container{
				{RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "mesh", ContainerPort: 15000, Protocol: "SCTP"}}},
				{Ports: []corev1.ContainerPort{{Name: "init", ContainerPort: 1}}}}
			w.w.Spec.Ports = []api.EndpointPort{{Name: "web", Protocol: tcp, Port: 80}, {Name: "dns", Protocol: api.Protocol{Name: "UDP"}, Port: 53},
				{Protocol: tcp, Port: 82, HostPort: 8082, HostIP: "192.0.2.1"}, {Name: "mesh", Protocol: api.Protocol{Name: "SCTP"}, Port: 15000}, {Name: "init", Protocol: tcp, Port: 1}}
		}},
		{"ports that are none", func(p *corev1.Pod, w *want) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "a", ContainerPort: 65536}, {Name: "b", ContainerPort: 80, Protocol: "Morse"},
				{Name: "c", ContainerPort: 80, HostPort: -1}, {}, {Name: "d", ContainerPort: 65535, HostPort: 65535}, {Name: "e"}, {ContainerPort: 80, HostPort: 65536}}
			w.w.Spec.Ports = []api.EndpointPort{{Name: "d", Protocol: tcp, Port: 65535, HostPort: 65535}}
			w.problems = []string{"spec.containers[0].ports[0]: port 65536 is not between 1 and 65535", `spec.containers[0].ports[1]: protocol "Morse" is not known`,
				"spec.containers[0].ports[2]: hostPort -1 is not between 0 and 65535", "spec.containers[0].ports[5]: port 0 is not between 1 and 65535",
				"spec.containers[0].ports[6]: hostPort 65536 is not between 0 and 65535"}
			w.w.Spec.Partial = w.problems
		}},
		{"annotations of the reference", func(p *corev1.Pod, w *want) {
			w.w.Annotations = map[string]string{"cni.projectcalico.org/ipv4pools": `["a"]`, "qos.projectcalico.org/ingressBandwidth": "1M"}
			p.Annotations = maps.Clone(w.w.Annotations)
			p.Annotations["k8s.v1.cni.cncf.io/networks"], p.Annotations["x"] = "n", "y"
		}},
		{"what else it sends from", func(p *corev1.Pod, w *want) {
			w.w.Annotations = map[string]string{"cni.projectcalico.org/allowedSourcePrefixes": `["192.0.2.7/24", "fd00::1"]`}
			p.Annotations = w.w.Annotations
			w.w.Spec.AllowSpoofedSourcePrefixes = []string{"192.0.2.0/24", "fd00::1/128"}
		}},
		{"floating addresses", func(p *corev1.Pod, w *want) {
			w.w.Annotations = map[string]string{"cni.projectcalico.org/floatingIPs": `["192.0.2.7", "2001:db8::7"]`}
			p.Annotations = w.w.Annotations
			w.w.Spec.IPNATs = []api.IPNAT{{ExternalIP: "192.0.2.7"}, {ExternalIP: "2001:db8::7"}}
		}},
		{"floating addresses that can't be read: none of them counts", func(p *corev1.Pod, w *want) {
			w.w.Annotations = map[string]string{"cni.projectcalico.org/floatingIPs": `["192.0.2.7", "192.0.2.0/24"]`}
			p.Annotations = w.w.Annotations
			w.problems = []string{`metadata.annotations[cni.projectcalico.org/floatingIPs]: "192.0.2.0/24" is not an IP address`}
		}},
		{"what else it sends from can't be read: none of it counts", func(p *corev1.Pod, w *want) {
			w.w.Annotations = map[string]string{"cni.projectcalico.org/allowedSourcePrefixes": `["192.0.2.0/24", "all"]`}
			p.Annotations = w.w.Annotations
			w.problems = []string{`metadata.annotations[cni.projectcalico.org/allowedSourcePrefixes]: "all" is neither an IP address nor a prefix in CIDR notation`}
		}},
		{"static", func(p *corev1.Pod, w *want) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "0123456789abcdef0123456789abcdef"}
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "node-1"}}
			w.w.UID = "0123456789abcdef0123456789abcdef"
		}},
		{"static, says the pod alone", func(p *corev1.Pod, _ *want) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "0123456789abcdef0123456789abcdef"}
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "r"}, {APIVersion: "example.com/v1", Kind: "Node", Name: "node-1"},
				{APIVersion: "v1", Kind: "Node", Name: "node-2"}, {APIVersion: "v1", Kind: "ReplicationController", Name: "node-1"}}
		}},
		{"owned by its node, but not static", func(p *corev1.Pod, _ *want) {
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "node-1"}}
		}},
		{"static, with another pod's UID", func(p *corev1.Pod, _ *want) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "11111111-2222-3333-4444-555555555555"}
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "node-1"}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, want := running(), want{w: ofWebPod(), a: PodAddresses{IPs: addrs}}
			c.change(p, &want)
			before := p.DeepCopy()
			w, a, problems := Pod(p)
			if diff := cmp.Diff(want.w, w); diff != "" {
				t.Errorf("endpoint (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want.a, a, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(want.problems, problemWords(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, p); diff != "" {
				t.Errorf("the pod was changed:\n%s", diff)
			}
			if w != nil {
				if key := PodKey(p.Spec.NodeName, p.Namespace, p.Name); key != api.KeyOf(w) {
					t.Errorf("PodKey gives %v", key)
				}
			}
		})
	}
}

func TestProfiles(t *testing.T) {
	meta := metav1.ObjectMeta{Name: "red", UID: "u", ResourceVersion: "7", CreationTimestamp: created,
		Labels:      map[string]string{"env": "prod", "projectcalico.org/name": "blue", "kubernetes.io/metadata.name": "red"},
		Annotations: map[string]string{"cni.projectcalico.org/ipv4pools": "[]", "x": "y"}}
	allow := []api.Rule{{Action: api.Allow}}
	got := Namespace(&corev1.Namespace{ObjectMeta: meta})
	want := &api.Profile{TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "Profile"},
		ObjectMeta: metav1.ObjectMeta{Name: "kns.red", UID: "u", ResourceVersion: "7", CreationTimestamp: created,
			Annotations: map[string]string{"cni.projectcalico.org/ipv4pools": "[]"}},
		Spec: api.ProfileSpec{Ingress: allow, Egress: allow, LabelsToApply: map[string]string{"pcns.env": "prod", "pcns.projectcalico.org/name": "red",
			"pcns.kubernetes.io/metadata.name": "red"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("namespace (-want +got):\n%s", diff)
	}
	meta.Namespace, meta.Name = "red", "robot"
	got = ServiceAccount(&corev1.ServiceAccount{ObjectMeta: meta})
	want = &api.Profile{TypeMeta: want.TypeMeta, ObjectMeta: metav1.ObjectMeta{Name: "ksa.red.robot", UID: "u", ResourceVersion: "7", CreationTimestamp: created},
		Spec: api.ProfileSpec{LabelsToApply: map[string]string{"pcsa.env": "prod", "pcsa.projectcalico.org/name": "robot", "pcsa.kubernetes.io/metadata.name": "red"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("service account (-want +got):\n%s", diff)
	}
}

// TestServiceAccountNames: a name of 63 characters and more is no value of a label, so a rule that names the account matches
// none of its pods; one that selects it by the label of its profile does.
func TestServiceAccountNames(t *testing.T) {
	for _, c := range []struct {
		length   int
		by       string
		admitted bool
	}{{62, "name", true}, {63, "name", false}, {253, "name", false}, {62, "label", true}, {63, "label", true}, {253, "label", true}} {
		sa := strings.Repeat("s", c.length)
		match := &api.ServiceAccountMatch{Names: []string{sa}}
		if c.by == "label" {
			match = &api.ServiceAccountMatch{Selector: `projectcalico.org/name == "` + sa + `"`}
		}
		pod := running()
		pod.Spec.NodeName, pod.Spec.ServiceAccountName = "far", sa
		w, a, _ := Pod(pod)
		w.Spec.IPNetworks = []string{a.IPs[0].String() + "/32"}
		here := running()
		here.Name, here.UID, here.Spec.NodeName = "here", "u2", "me"
		subject, _, _ := Pod(here)
		graph := calcgraph.New(calcgraph.Default("me"))
		order := 1.0
		for _, o := range []api.Object{w, subject, Namespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "red"}}),
			ServiceAccount(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: sa, Namespace: "red"}}),
			&api.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "red"}, Spec: api.NetworkPolicySpec{Tier: "default", Order: &order, Selector: "all()",
				Ingress: []api.Rule{{Action: api.Allow, Source: api.EntityRule{ServiceAccounts: match}}}, Types: []api.PolicyType{api.Ingress}}}} {
			graph.Update(api.KeyOf(o), o)
		}
		graph.Attached(drivers.EndpointID{Sandbox: "s", Interface: "eth0"}, &calcgraph.LedgerEntry{Name: api.KeyOf(subject), UID: "u2", Iface: "tort1",
			Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.9")}})
		state := drivers.NewState()
		state.Merge(graph.Flush(), nil)
		trace := drivers.Evaluate(state, drivers.Packet{From: drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth0"}, To: drivers.Place{Kind: drivers.PlaceWorkload, Iface: "tort1"},
			Src: a.IPs[0], Dst: netip.MustParseAddr("10.0.0.9"), Proto: 6, SrcPort: 1, DstPort: 80})
		if got := trace.Verdict == drivers.VerdictAllow; got != c.admitted {
			t.Errorf("an account of %d characters, selected by %s: allowed=%v\n%+v", c.length, c.by, got, trace.Steps)
		}
	}
}

func fullNode() *api.Node {
	as := api.ASNumber(4200000001)
	return &api.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u", ResourceVersion: "8", CreationTimestamp: created, Labels: map[string]string{"rack": "1"},
			Annotations: map[string]string{"tortie.io/agent": "{}", "tortie.io/boot-id": "b"}},
		Spec: api.NodeSpec{
			BGP:                 &api.NodeBGPSpec{ASNumber: &as, IPv4Address: "192.0.2.1/24", IPv6Address: "2001:db8::1/64", IPv4IPIPTunnelAddr: "10.0.0.1", RouteReflectorClusterID: "1.0.0.1"},
			IPv4VXLANTunnelAddr: "10.0.0.2", VXLANTunnelMACAddr: "66:00:00:00:00:01", IPv6VXLANTunnelAddr: "fd00::2", VXLANTunnelMACAddrV6: "66:00:00:00:00:02",
			Wireguard:  &api.NodeWireguardSpec{InterfaceIPv4Address: "10.0.0.3", InterfaceIPv6Address: "fd00::3"},
			OrchRefs:   []api.OrchRef{{NodeName: "n1", Orchestrator: "k8s"}},
			Addresses:  []api.NodeAddress{{Address: "192.0.2.1", Type: "InternalIP"}, {Address: "198.51.100.1", Type: "ExternalIP"}},
			Interfaces: []api.NodeInterface{{Name: "eth0", Addresses: []string{"192.0.2.1"}}},
		},
		Status: api.NodeStatus{WireguardPublicKey: "a2V5", WireguardPublicKeyV6: "a2V5Ng==", PodCIDRs: []string{"10.244.0.0/24", "fd00:244::/64"}},
	}
}

func kubernetesNode() *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u", ResourceVersion: "8", CreationTimestamp: created, Labels: map[string]string{"rack": "1"},
			Annotations: map[string]string{"tortie.io/boot-id": "b", "node.alpha.kubernetes.io/ttl": "0"}},
		Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/24", PodCIDRs: []string{"10.244.0.0/24", "fd00:244::/64"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "n1"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
			{Type: corev1.NodeExternalIP, Address: "198.51.100.1"}, {Type: corev1.NodeInternalDNS, Address: "n1.example"}}},
	}
}

// annotate does to a Kubernetes node what a patch with annotations does.
func annotate(n *corev1.Node, annotations map[string]*string) {
	for k, v := range annotations {
		if v == nil {
			delete(n.Annotations, k)
		} else {
			n.Annotations[k] = *v
		}
	}
}

func TestNode(t *testing.T) {
	n := kubernetesNode()
	bare := fullNode()
	bare.Annotations = map[string]string{"tortie.io/boot-id": "b"}
	bare.Spec = api.NodeSpec{OrchRefs: bare.Spec.OrchRefs, Addresses: bare.Spec.Addresses}
	bare.Status = api.NodeStatus{PodCIDRs: bare.Status.PodCIDRs}
	if diff := cmp.Diff(bare, nodeOf(n)); diff != "" {
		t.Errorf("a node without our annotations (-want +got):\n%s", diff)
	}
	annotate(n, NodeAnnotations(fullNode()))
	if diff := cmp.Diff(fullNode(), nodeOf(n)); diff != "" {
		t.Errorf("there and back (-want +got):\n%s", diff)
	}
	if got := n.Annotations["projectcalico.org/ASNumber"]; got != "4200000001" {
		t.Errorf("ASNumber is %q", got)
	}
	if got := n.Annotations["projectcalico.org/IPv4Address"]; got != "192.0.2.1/24" {
		t.Errorf("IPv4Address is %q", got)
	}
	annotate(n, NodeAnnotations(bare))
	want := fullNode()
	want.Spec, want.Status = bare.Spec, bare.Status
	if diff := cmp.Diff(want, nodeOf(n)); diff != "" {
		t.Errorf("after taking all back (-want +got):\n%s", diff)
	}
	if n.Annotations["node.alpha.kubernetes.io/ttl"] != "0" {
		t.Error("an annotation of somebody else's is gone")
	}
}

// nodeOf is Node, for one that can be read.
func nodeOf(n *corev1.Node) *api.Node {
	out, _ := Node(n)
	return out
}

// TestNodeAnnotationsThatAreOdd: what can't be read says nothing, is named, and takes nothing else away.
func TestNodeAnnotationsThatAreOdd(t *testing.T) {
	n := kubernetesNode()
	n.Spec.PodCIDRs = nil
	n.Annotations = map[string]string{"projectcalico.org/ASNumber": "many", "projectcalico.org/Interfaces": "{", "projectcalico.org/IPv4Address": "192.0.2.1"}
	got, problems := Node(n)
	if len(problems) != 2 || problems[0].Path != "metadata.annotations[projectcalico.org/ASNumber]" || problems[1].Path != "metadata.annotations[projectcalico.org/Interfaces]" {
		t.Errorf("problems %v, want one of each annotation", problems)
	}
	want := api.NodeSpec{BGP: &api.NodeBGPSpec{IPv4Address: "192.0.2.1"}, OrchRefs: fullNode().Spec.OrchRefs, Addresses: fullNode().Spec.Addresses}
	if diff := cmp.Diff(want, got.Spec); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"10.244.0.0/24"}, got.Status.PodCIDRs); diff != "" {
		t.Errorf("podCIDRs (-want +got):\n%s", diff)
	}
	n.Spec.PodCIDR = ""
	if cidrs := nodeOf(n).Status.PodCIDRs; cidrs != nil {
		t.Errorf("podCIDRs are %q", cidrs)
	}
	n.Annotations["projectcalico.org/ASNumber"] = "1.10"
	if as := nodeOf(n).Spec.BGP.ASNumber; as == nil || *as != 65546 {
		t.Errorf("AS number 1.10 is %v", as)
	}
}

// TestChangeNodeKeepsWhatItCannotRead: a write of a Node takes no annotation away of which nobody knows what it says.
func TestChangeNodeKeepsWhatItCannotRead(t *testing.T) {
	n := kubernetesNode()
	n.Annotations = map[string]string{"projectcalico.org/ASNumber": "many", "projectcalico.org/Interfaces": "{", "tortie.io/boot-id": "b", "projectcalico.org/IPv4Address": "192.0.2.1"}
	was := maps.Clone(n.Annotations)
	annotate(n, ChangeNode(n, nodeOf(n)))
	if diff := cmp.Diff(was, n.Annotations); diff != "" {
		t.Errorf("written as it is (-was +is):\n%s", diff)
	}
	bare := nodeOf(n)
	bare.Annotations, bare.Spec.BGP = nil, nil
	annotate(n, ChangeNode(n, bare))
	if diff := cmp.Diff(map[string]string{"projectcalico.org/ASNumber": "many", "projectcalico.org/Interfaces": "{"}, n.Annotations); diff != "" {
		t.Errorf("what can be read taken away (-want +got):\n%s", diff)
	}
	annotate(n, ChangeNode(n, fullNode()))
	if diff := cmp.Diff(fullNode(), nodeOf(n)); diff != "" {
		t.Errorf("all said anew (-want +got):\n%s", diff)
	}
	annotate(n, ChangeNode(n, bare))
	if len(n.Annotations) != 0 {
		t.Errorf("all taken away, now that it can be read: %v", n.Annotations)
	}
}

func TestEndpointSlice(t *testing.T) {
	yes, no := true, false
	name, udp, odd := "web", corev1.ProtocolUDP, corev1.Protocol("Morse")
	port, zero, top, high, low := int32(80), int32(0), int32(65535), int32(65536), int32(-1)
	got := EndpointSlice(&discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "s-1", Namespace: "red", UID: "u", ResourceVersion: "3", CreationTimestamp: created,
			Labels: map[string]string{"kubernetes.io/service-name": "s"}, Annotations: map[string]string{"x": "y"}},
		AddressType: discoveryv1.AddressTypeIPv6,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"fd00::1"}, Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no}, NodeName: &name},
			{Addresses: []string{"fd00::2"}}},
		Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port}, {Protocol: &udp}, {Protocol: &odd, Port: &port}, {Port: &high}, {Port: &top}, {Port: &zero}, {Port: &low}},
	})
	eighty, none, last := uint16(80), uint16(0), uint16(65535)
	want := &api.EndpointSlice{TypeMeta: metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{Name: "s-1", Namespace: "red", UID: "u", ResourceVersion: "3", CreationTimestamp: created,
			Labels: map[string]string{"kubernetes.io/service-name": "s"}},
		AddressType: "IPv6",
		Endpoints:   []api.SliceEndpoint{{Addresses: []string{"fd00::1"}, Conditions: &api.SliceConditions{Ready: &yes, Serving: &yes, Terminating: &no}}, {Addresses: []string{"fd00::2"}}},
		Ports:       []api.SlicePort{{Name: "web", Port: &eighty}, {Protocol: &api.Protocol{Name: "UDP"}}, {Port: &last}, {Port: &none}},
		Partial:     []string{`ports[2]: protocol "Morse" is not known`, "ports[3]: port 65536 is not between 0 and 65535", "ports[6]: port -1 is not between 0 and 65535"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("slice (-want +got):\n%s", diff)
	}
}
