package convert

import (
	"net/netip"

	"github.com/tortie/tortie/api"
	corev1 "k8s.io/api/core/v1"
)

// PodAddresses is what a pod says of its own addresses.
type PodAddresses struct {
	// IPs is status.podIPs, in order; nil if Finished.
	IPs []netip.Addr
	// Finished says that the pod has succeeded or failed: none of its addresses is its own any more, also those that IPAM
	// holds for it.
	Finished bool
}

// Pod returns the WorkloadEndpoint of a pod, without addresses; nil if it has none: it is not on a node, or it is in the
// node's own network.
func Pod(p *corev1.Pod) (*api.WorkloadEndpoint, PodAddresses, []api.Problem) {
	return nil, PodAddresses{}, nil
}
