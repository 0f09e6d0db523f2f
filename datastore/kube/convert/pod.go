package convert

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// PodInterface is the interface that a pod's WorkloadEndpoint is named after.
const PodInterface = "eth0"

// PodAddresses is what a pod says of its own addresses.
type PodAddresses struct {
	// IPs is status.podIPs, in order; nil if Finished.
	IPs []netip.Addr
	// Unread says, as "path: reason", what of them can't be read.
	Unread []string
	// Finished says that the pod has succeeded or failed: no address is its own any more, also not those that IPAM holds
	// for it.
	Finished bool
}

// PodKey returns the key of the WorkloadEndpoint of a pod.
func PodKey(node, namespace, name string) api.Key {
	return api.Key{Kind: "WorkloadEndpoint", Namespace: namespace,
		Name: api.WorkloadEndpointName(node, api.OrchestratorKubernetes, name, PodInterface)}
}

// Pod returns the WorkloadEndpoint of a pod, without addresses; nil if it has none: it is not on a node, or it is in the
// node's own network. The endpoint's UID is what the runtime tells CNI.
func Pod(p *corev1.Pod) (*api.WorkloadEndpoint, PodAddresses, []api.Problem) {
	if p.Spec.NodeName == "" || p.Spec.HostNetwork {
		return nil, PodAddresses{}, nil
	}
	key := PodKey(p.Spec.NodeName, p.Namespace, p.Name)
	w := &api.WorkloadEndpoint{TypeMeta: typed(api.GroupVersion, key.Kind), ObjectMeta: objectMeta(&p.ObjectMeta, key.Name)}
	w.UID = podUID(p)
	w.Annotations = only(p.Annotations, cniAnnotations, qosAnnotations)
	w.Spec = api.WorkloadEndpointSpec{
		Orchestrator: api.OrchestratorKubernetes, Workload: p.Name, Pod: p.Name, Node: p.Spec.NodeName, Endpoint: PodInterface,
		ServiceAccountName: p.Spec.ServiceAccountName, Profiles: []string{api.NamespaceProfilePrefix + p.Namespace},
	}
	if sa := p.Spec.ServiceAccountName; sa != "" {
		w.Spec.Profiles = append(w.Spec.Profiles, serviceAccountProfile(p.Namespace, sa))
	}
	problems := podPorts(w, &p.Spec)
	addresses, unread := podAddresses(&p.Status)
	return w, addresses, slices.Concat(problems, unread, podSources(w), podFloating(w))
}

// podUID returns the UID by which the runtime knows a pod. A pod that the kubelet has from a file is shown by the API server
// as a mirror pod, with a UID of its own; its runtime's is a hash, without the dashes of one of the API server's.
func podUID(p *corev1.Pod) types.UID {
	hash := p.Annotations[corev1.MirrorPodAnnotationKey]
	if hash == "" || strings.Contains(hash, "-") {
		return p.UID
	}
	for _, o := range p.OwnerReferences {
		if o.Kind == "Node" && o.APIVersion == "v1" && o.Name == p.Spec.NodeName {
			return types.UID(hash)
		}
	}
	return p.UID
}

// podPorts gives w the ports of a pod that have a name or are ports of the host, also those of init containers: some of
// them run as long as the pod does.
func podPorts(w *api.WorkloadEndpoint, s *corev1.PodSpec) []api.Problem {
	var problems []api.Problem
	for _, list := range []struct {
		field      string
		containers []corev1.Container
	}{{"spec.containers", s.Containers}, {"spec.initContainers", s.InitContainers}} {
		for i := range list.containers {
			for j, p := range list.containers[i].Ports {
				if p.Name == "" && p.HostPort == 0 {
					continue
				}
				port, err := podPort(p)
				if err != nil {
					problem := api.Problem{Path: fmt.Sprintf("%s[%d].ports[%d]", list.field, i, j), Reason: err.Error()}
					problems = append(problems, problem)
					w.Spec.Partial = append(w.Spec.Partial, problem.Error())
					continue
				}
				w.Spec.Ports = append(w.Spec.Ports, port)
			}
		}
	}
	return problems
}

func podPort(p corev1.ContainerPort) (api.EndpointPort, error) {
	out := api.EndpointPort{Name: p.Name, Protocol: api.Protocol{Name: "TCP"}, HostIP: p.HostIP}
	if p.Protocol != "" {
		out.Protocol.Name = string(p.Protocol)
	}
	if _, ok := out.Protocol.Num(); !ok {
		return out, fmt.Errorf("protocol %q is not known", p.Protocol)
	}
	if p.ContainerPort < 1 || p.ContainerPort > 65535 {
		return out, fmt.Errorf("port %d is not between 1 and 65535", p.ContainerPort)
	}
	if p.HostPort < 0 || p.HostPort > 65535 {
		return out, fmt.Errorf("hostPort %d is not between 0 and 65535", p.HostPort)
	}
	out.Port, out.HostPort = uint16(p.ContainerPort), uint16(p.HostPort)
	return out, nil
}

func podAddresses(s *corev1.PodStatus) (PodAddresses, []api.Problem) {
	if s.Phase == corev1.PodSucceeded || s.Phase == corev1.PodFailed {
		return PodAddresses{Finished: true}, nil
	}
	var a PodAddresses
	var problems []api.Problem
	add := func(path, text string) {
		ip, err := api.ParseAddr(text)
		if err != nil {
			problem := api.Problem{Path: path, Reason: err.Error()}
			problems = append(problems, problem)
			a.Unread = append(a.Unread, problem.Error())
			return
		}
		a.IPs = append(a.IPs, ip)
	}
	for i, ip := range s.PodIPs {
		add(fmt.Sprintf("status.podIPs[%d].ip", i), ip.IP)
	}
	if len(s.PodIPs) == 0 && s.PodIP != "" {
		add("status.podIP", s.PodIP)
	}
	return a, problems
}

// podSources gives w what its pod wants to send from beside its addresses. Whether that counts is for the settings of its
// node to say.
func podSources(w *api.WorkloadEndpoint) []api.Problem {
	prefixes, err := api.AnnotationPrefixes(w.Annotations[api.AnnotationSourcePrefixes])
	if err != nil {
		return []api.Problem{{Path: annotationPath(api.AnnotationSourcePrefixes), Reason: err.Error()}}
	}
	for _, p := range prefixes {
		w.Spec.AllowSpoofedSourcePrefixes = append(w.Spec.AllowSpoofedSourcePrefixes, p.String())
	}
	return nil
}

// podFloating gives w the floating addresses that its pod asks for.
func podFloating(w *api.WorkloadEndpoint) []api.Problem {
	addrs, err := api.AnnotationAddrs(w.Annotations[api.AnnotationFloatingIPs])
	if err != nil {
		return []api.Problem{{Path: annotationPath(api.AnnotationFloatingIPs), Reason: err.Error()}}
	}
	for _, a := range addrs {
		w.Spec.IPNATs = append(w.Spec.IPNATs, api.IPNAT{ExternalIP: a.String()})
	}
	return nil
}
