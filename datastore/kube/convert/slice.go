package convert

import (
	"fmt"

	"github.com/tortie/tortie/api"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// EndpointSlice returns the part of an EndpointSlice that service matches need.
func EndpointSlice(s *discoveryv1.EndpointSlice) *api.EndpointSlice {
	out := &api.EndpointSlice{
		TypeMeta: typed(api.EndpointSliceVersion, "EndpointSlice"), ObjectMeta: objectMeta(&s.ObjectMeta, s.Name),
		AddressType: string(s.AddressType),
	}
	for i := range s.Endpoints {
		e := &s.Endpoints[i]
		to := api.SliceEndpoint{Addresses: e.Addresses}
		if c := e.Conditions; c != (discoveryv1.EndpointConditions{}) {
			to.Conditions = &api.SliceConditions{Ready: c.Ready, Serving: c.Serving, Terminating: c.Terminating}
		}
		out.Endpoints = append(out.Endpoints, to)
	}
	for i, p := range s.Ports {
		port, err := slicePort(p)
		if err != nil {
			out.Partial = append(out.Partial, fmt.Sprintf("ports[%d]: %s", i, err))
			continue
		}
		out.Ports = append(out.Ports, port)
	}
	return out
}

func slicePort(p discoveryv1.EndpointPort) (api.SlicePort, error) {
	var out api.SlicePort
	if p.Name != nil {
		out.Name = *p.Name
	}
	if p.Protocol != nil {
		out.Protocol = &api.Protocol{Name: string(*p.Protocol)}
		if _, ok := out.Protocol.Num(); !ok {
			return out, fmt.Errorf("protocol %q is not known", *p.Protocol)
		}
	}
	if p.Port != nil {
		if *p.Port < 0 || *p.Port > 65535 {
			return out, fmt.Errorf("port %d is not between 0 and 65535", *p.Port)
		}
		n := uint16(*p.Port)
		out.Port = &n
	}
	return out, nil
}
