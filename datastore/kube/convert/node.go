package convert

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tortie/tortie/api"
	corev1 "k8s.io/api/core/v1"
)

// Annotations of a Kubernetes node that say what its own fields can't. The names of the first group are Calico's.
const (
	nodeAnnotations       = "projectcalico.org/"
	nodeASNumber          = nodeAnnotations + "ASNumber"
	nodeInterfaces        = nodeAnnotations + "Interfaces"
	ownNodeAnnotations    = "tortie.io/"
	orchestratorReference = api.OrchestratorKubernetes
)

// nodeTexts returns the fields of a Node that are annotations as they are.
func nodeTexts(s *api.NodeSpec, bgp *api.NodeBGPSpec, wireguard *api.NodeWireguardSpec, status *api.NodeStatus) map[string]*string {
	return map[string]*string{
		nodeAnnotations + "IPv4Address":                &bgp.IPv4Address,
		nodeAnnotations + "IPv6Address":                &bgp.IPv6Address,
		nodeAnnotations + "IPv4IPIPTunnelAddr":         &bgp.IPv4IPIPTunnelAddr,
		nodeAnnotations + "RouteReflectorClusterID":    &bgp.RouteReflectorClusterID,
		nodeAnnotations + "IPv4VXLANTunnelAddr":        &s.IPv4VXLANTunnelAddr,
		nodeAnnotations + "IPv6VXLANTunnelAddr":        &s.IPv6VXLANTunnelAddr,
		nodeAnnotations + "VXLANTunnelMACAddr":         &s.VXLANTunnelMACAddr,
		nodeAnnotations + "VXLANTunnelMACAddrV6":       &s.VXLANTunnelMACAddrV6,
		nodeAnnotations + "IPv4WireguardInterfaceAddr": &wireguard.InterfaceIPv4Address,
		nodeAnnotations + "IPv6WireguardInterfaceAddr": &wireguard.InterfaceIPv6Address,
		nodeAnnotations + "WireguardPublicKey":         &status.WireguardPublicKey,
		nodeAnnotations + "WireguardPublicKeyV6":       &status.WireguardPublicKeyV6,
	}
}

// Node returns the Node of a Kubernetes node. What Kubernetes has no field for is in annotations; those that can't be read
// say nothing, and are named.
func Node(n *corev1.Node) (*api.Node, []api.Problem) {
	out := &api.Node{TypeMeta: typed(api.GroupVersion, "Node"), ObjectMeta: objectMeta(&n.ObjectMeta, n.Name)}
	out.Annotations = only(n.Annotations, ownNodeAnnotations)
	var bgp api.NodeBGPSpec
	var wireguard api.NodeWireguardSpec
	for name, field := range nodeTexts(&out.Spec, &bgp, &wireguard, &out.Status) {
		*field = n.Annotations[name]
	}
	var problems []api.Problem
	unread := func(name string, err error) {
		problems = append(problems, api.Problem{Path: annotationPath(name), Reason: fmt.Sprintf("does not count: %v", err)})
	}
	if text := n.Annotations[nodeASNumber]; text != "" {
		var as api.ASNumber
		if err := as.UnmarshalJSON([]byte(strconv.Quote(text))); err != nil {
			unread(nodeASNumber, err)
		} else {
			bgp.ASNumber = &as
		}
	}
	if bgp != (api.NodeBGPSpec{}) {
		out.Spec.BGP = &bgp
	}
	if wireguard != (api.NodeWireguardSpec{}) {
		out.Spec.Wireguard = &wireguard
	}
	if text := n.Annotations[nodeInterfaces]; text != "" {
		var interfaces []api.NodeInterface
		if err := json.Unmarshal([]byte(text), &interfaces); err != nil {
			unread(nodeInterfaces, err)
		} else {
			out.Spec.Interfaces = interfaces
		}
	}
	out.Spec.OrchRefs = []api.OrchRef{{NodeName: n.Name, Orchestrator: orchestratorReference}}
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
			out.Spec.Addresses = append(out.Spec.Addresses, api.NodeAddress{Address: a.Address, Type: string(a.Type)})
		}
	}
	if out.Status.PodCIDRs = n.Spec.PodCIDRs; len(out.Status.PodCIDRs) == 0 && n.Spec.PodCIDR != "" {
		out.Status.PodCIDRs = []string{n.Spec.PodCIDR}
	}
	return out, problems
}

func annotationPath(name string) string { return "metadata.annotations[" + name + "]" }

// ChangeNode returns the annotations by which n differs from the Node that old became; nil for one that is to go. One that
// could not be read stays as it is, unless n says something in its place.
func ChangeNode(old *corev1.Node, n *api.Node) map[string]*string {
	was, unread := Node(old)
	want := NodeAnnotations(n)
	for name := range NodeAnnotations(was) {
		if _, ok := want[name]; !ok {
			want[name] = nil
		}
	}
	maps.DeleteFunc(want, func(name string, value *string) bool {
		now, ok := old.Annotations[name]
		if value == nil {
			return !ok || slices.ContainsFunc(unread, func(p api.Problem) bool { return p.Path == annotationPath(name) })
		}
		return ok && *value == now
	})
	return want
}

// NodeAnnotations returns the annotations of a Kubernetes node that say what n does; nil for one that is not to be. Node
// reads them again. Of Tortie's own it has those that are there: one that is to go is among the NodeAnnotations of what
// was before, and not among these.
func NodeAnnotations(n *api.Node) map[string]*string {
	bgp, wireguard := n.Spec.BGP, n.Spec.Wireguard
	if bgp == nil {
		bgp = &api.NodeBGPSpec{}
	}
	if wireguard == nil {
		wireguard = &api.NodeWireguardSpec{}
	}
	out := map[string]*string{nodeASNumber: nil, nodeInterfaces: nil}
	set := func(name, value string) { out[name] = &value }
	for name, field := range nodeTexts(&n.Spec, bgp, wireguard, &n.Status) {
		out[name] = nil
		if *field != "" {
			set(name, *field)
		}
	}
	if bgp.ASNumber != nil {
		set(nodeASNumber, strconv.FormatUint(uint64(*bgp.ASNumber), 10))
	}
	if len(n.Spec.Interfaces) > 0 {
		if text, err := json.Marshal(n.Spec.Interfaces); err == nil {
			set(nodeInterfaces, string(text))
		}
	}
	for name, value := range n.Annotations {
		if strings.HasPrefix(name, ownNodeAnnotations) {
			set(name, value)
		}
	}
	return out
}
