package convert

import "github.com/tortie/tortie/api"

// NetworkPolicy reads a networking.k8s.io/v1 NetworkPolicy. An error means that the policy can't be used at all, since it
// is not known what it applies to.
func NetworkPolicy(data []byte) (*api.NetworkPolicy, []api.Problem, error) { return nil, nil, nil }
