package convert

import "github.com/tortie/tortie/api"

// ClusterNetworkPolicy reads a policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy. An error means that the policy can't
// be used at all, since it is not known what it applies to, or when.
func ClusterNetworkPolicy(data []byte) (*api.GlobalNetworkPolicy, []api.Problem, error) {
	return nil, nil, nil
}
