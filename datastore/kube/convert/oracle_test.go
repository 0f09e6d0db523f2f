package convert

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// cluster is what Kubernetes' API says of a cluster. Its methods judge connections straight by the words of that API, with
// nothing of our own: each is as simple, and as slow, as it can be.
type cluster struct {
	namespaces []*corev1.Namespace
	pods       []*corev1.Pod
	nodes      []*corev1.Node
	policies   []*policyIn
	clusters   []*clusterIn
}

// policyIn is a NetworkPolicy, and its rules that have a field that nobody knows.
type policyIn struct {
	networkingv1.NetworkPolicy
	oddIngress, oddEgress map[int]bool
}

type clusterIn struct {
	cnp.ClusterNetworkPolicy
	oddIngress, oddEgress map[int]bool
}

// flow is a connection as one pod's policy sees it: to (ingress) or from it.
type flow struct {
	pod     *corev1.Pod
	ingress bool
	far     netip.Addr // the other end
	dst     netip.Addr
	proto   corev1.Protocol // "" for others than these three
	port    int
}

func selects(s *metav1.LabelSelector, m map[string]string) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && sel.Matches(labels.Set(m))
}

// podAt returns the pod whose address a is: those in the node's network have none of their own, and finished ones no more.
func (c *cluster) podAt(a netip.Addr) *corev1.Pod {
	for _, p := range c.pods {
		if p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		if slices.ContainsFunc(p.Status.PodIPs, func(ip corev1.PodIP) bool { return ip.IP == a.String() }) {
			return p
		}
	}
	return nil
}

func (c *cluster) labelsOf(namespace string) map[string]string {
	for _, n := range c.namespaces {
		if n.Name == namespace {
			return n.Labels
		}
	}
	return nil
}

// allows goes through the tiers: Admin, NetworkPolicy, Baseline; what none of them decides is allowed.
func (c *cluster) allows(f flow) bool {
	if verdict := c.tier(cnp.AdminTier, f); verdict != undecided {
		return verdict == accept
	}
	if isolated, allowed := c.networkPolicies(f); isolated {
		return allowed
	}
	return c.tier(cnp.BaselineTier, f) != deny
}

// networkPolicies: a pod is isolated in a direction if a policy that selects it has that type. Then it may do what a rule
// of any such policy allows.
func (c *cluster) networkPolicies(f flow) (isolated, allowed bool) {
	direction := networkingv1.PolicyTypeEgress
	if f.ingress {
		direction = networkingv1.PolicyTypeIngress
	}
	for _, p := range c.policies {
		types := p.Spec.PolicyTypes
		if len(types) == 0 {
			types = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
			if len(p.Spec.Egress) > 0 {
				types = append(types, networkingv1.PolicyTypeEgress)
			}
		}
		if p.Namespace != f.pod.Namespace || !selects(&p.Spec.PodSelector, f.pod.Labels) || !slices.Contains(types, direction) {
			continue
		}
		isolated = true
		if f.ingress {
			for i, r := range p.Spec.Ingress {
				allowed = allowed || !p.oddIngress[i] && c.peers(p.Namespace, r.From, f) && c.ports(r.Ports, f)
			}
		} else {
			for i, r := range p.Spec.Egress {
				allowed = allowed || !p.oddEgress[i] && c.peers(p.Namespace, r.To, f) && c.ports(r.Ports, f)
			}
		}
	}
	return isolated, allowed
}

// peers: a rule with a peer that says nothing is not understood, and allows nothing.
func (c *cluster) peers(namespace string, peers []networkingv1.NetworkPolicyPeer, f flow) bool {
	if slices.Contains(peers, networkingv1.NetworkPolicyPeer{}) {
		return false
	}
	for _, p := range peers {
		if p.IPBlock != nil {
			if within(p.IPBlock.CIDR, f.far) && !slices.ContainsFunc(p.IPBlock.Except, func(x string) bool { return within(x, f.far) }) {
				return true
			}
			continue
		}
		pod := c.podAt(f.far)
		if pod == nil || p.NamespaceSelector == nil && pod.Namespace != namespace {
			continue
		}
		if p.NamespaceSelector != nil && !selects(p.NamespaceSelector, c.labelsOf(pod.Namespace)) {
			continue
		}
		if p.PodSelector == nil || selects(p.PodSelector, pod.Labels) {
			return true
		}
	}
	return len(peers) == 0
}

func within(cidr string, a netip.Addr) bool { return netip.MustParsePrefix(cidr).Contains(a) }

func (c *cluster) ports(ports []networkingv1.NetworkPolicyPort, f flow) bool {
	for _, p := range ports {
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if f.proto != protocol {
			continue
		}
		switch {
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			if c.named(p.Port.StrVal, f) {
				return true
			}
		case p.EndPort == nil:
			if f.port == p.Port.IntValue() {
				return true
			}
		case p.Port.IntValue() <= f.port && f.port <= int(*p.EndPort):
			return true
		}
	}
	return len(ports) == 0
}

// named reports whether the pod that the connection goes to has a port of that name there.
func (c *cluster) named(name string, f flow) bool {
	pod := c.podAt(f.dst)
	if pod == nil {
		return false
	}
	for _, container := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		for _, p := range container.Ports {
			if p.Name == name && p.Protocol == f.proto && int(p.ContainerPort) == f.port {
				return true
			}
		}
	}
	return false
}

type verdict int

const (
	undecided verdict = iota
	accept
	deny
	pass
)

// tier goes through the policies of a tier by priority, and their rules as they are written.
func (c *cluster) tier(tier cnp.Tier, f flow) verdict {
	var in []*clusterIn
	for _, p := range c.clusters {
		s := &p.Spec.Subject
		if p.Spec.Tier == tier && c.podPeer(s.Namespaces, s.Pods, f.pod) {
			in = append(in, p)
		}
	}
	slices.SortFunc(in, func(a, b *clusterIn) int { return int(a.Spec.Priority - b.Spec.Priority) })
	for _, p := range in {
		v := undecided
		if f.ingress {
			for i, r := range p.Spec.Ingress {
				var to []cnp.ClusterNetworkPolicyEgressPeer
				for _, e := range r.From {
					to = append(to, cnp.ClusterNetworkPolicyEgressPeer{Namespaces: e.Namespaces, Pods: e.Pods})
				}
				if v == undecided {
					v = c.rule(r.Action, to, r.Protocols, p.oddIngress[i], f)
				}
			}
		} else {
			for i, r := range p.Spec.Egress {
				if v == undecided {
					v = c.rule(r.Action, r.To, r.Protocols, p.oddEgress[i], f)
				}
			}
		}
		switch v {
		case accept, deny:
			return v
		case pass:
			return undecided
		}
	}
	return undecided
}

// rule: one that is not understood fails closed. It matches nothing if it accepts, and denies everything if it does not.
func (c *cluster) rule(a cnp.ClusterNetworkPolicyRuleAction, peers []cnp.ClusterNetworkPolicyEgressPeer, protocols []cnp.ClusterNetworkPolicyProtocol, odd bool, f flow) verdict {
	named := slices.ContainsFunc(protocols, func(p cnp.ClusterNetworkPolicyProtocol) bool { return p.DestinationNamedPort != "" })
	matches := false
	for _, p := range peers {
		networks := slices.ContainsFunc(p.Networks, func(n cnp.CIDR) bool { return within(string(n), f.far) })
		odd = odd || p.DomainNames != nil || (p.Networks != nil || p.Nodes != nil) && named
		odd = odd || p.Namespaces == nil && p.Pods == nil && p.Networks == nil && p.Nodes == nil
		pod := c.podAt(f.far)
		matches = matches || networks || p.Nodes != nil && c.nodeAt(p.Nodes, f.far) || pod != nil && c.podPeer(p.Namespaces, p.Pods, pod)
	}
	matches = matches && (len(protocols) == 0 || slices.ContainsFunc(protocols, func(p cnp.ClusterNetworkPolicyProtocol) bool { return c.protocol(p, f) }))
	switch {
	case odd && a == cnp.ClusterNetworkPolicyRuleActionAccept, !odd && !matches:
		return undecided
	case odd:
		return deny
	}
	return map[cnp.ClusterNetworkPolicyRuleAction]verdict{"Accept": accept, "Deny": deny, "Pass": pass}[a]
}

// nodeAt reports whether a is an address of a node that s selects: one of the IPs in its status.addresses.
func (c *cluster) nodeAt(s *metav1.LabelSelector, a netip.Addr) bool {
	for _, n := range c.nodes {
		for _, of := range n.Status.Addresses {
			if (of.Type == corev1.NodeInternalIP || of.Type == corev1.NodeExternalIP) && of.Address == a.String() && selects(s, n.Labels) {
				return true
			}
		}
	}
	return false
}

func (c *cluster) podPeer(namespaces *metav1.LabelSelector, pods *cnp.NamespacedPod, pod *corev1.Pod) bool {
	in := c.labelsOf(pod.Namespace)
	if namespaces != nil {
		return selects(namespaces, in)
	}
	return pods != nil && selects(&pods.NamespaceSelector, in) && selects(&pods.PodSelector, pod.Labels)
}

func (c *cluster) protocol(p cnp.ClusterNetworkPolicyProtocol, f flow) bool {
	var port *cnp.Port
	switch {
	case p.DestinationNamedPort != "":
		return c.named(p.DestinationNamedPort, f)
	case p.TCP != nil && f.proto == corev1.ProtocolTCP:
		port = p.TCP.DestinationPort
	case p.UDP != nil && f.proto == corev1.ProtocolUDP:
		port = p.UDP.DestinationPort
	case p.SCTP != nil && f.proto == corev1.ProtocolSCTP:
		port = p.SCTP.DestinationPort
	}
	switch {
	case port == nil:
		return false
	case port.Range != nil:
		return int(port.Range.Start) <= f.port && f.port <= int(port.Range.End)
	}
	return int(port.Number) == f.port
}

// protocolNumbers of what flows are made of; ICMP goes without a name in this API.
var protocolNumbers = map[corev1.Protocol]uint8{corev1.ProtocolTCP: 6, corev1.ProtocolUDP: 17, corev1.ProtocolSCTP: 132}
