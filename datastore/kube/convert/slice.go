package convert

import (
	"github.com/tortie/tortie/api"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// EndpointSlice returns the part of an EndpointSlice that service matches need.
func EndpointSlice(s *discoveryv1.EndpointSlice) *api.EndpointSlice { return &api.EndpointSlice{} }
