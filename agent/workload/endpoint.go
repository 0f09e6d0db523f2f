package workload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/internal/agentapi"
)

// writeTries is how often a write is tried that someone else gets in the way of.
const writeTries = 5

// newEndpoint makes the WorkloadEndpoint of an attach.
func newEndpoint(node string, e ledger.Entry, w agentapi.Workload) *api.WorkloadEndpoint {
	o := &api.WorkloadEndpoint{
		TypeMeta:   metav1.TypeMeta{APIVersion: api.GroupVersion, Kind: "WorkloadEndpoint"},
		ObjectMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name, Labels: maps.Clone(w.Labels)},
		Spec: api.WorkloadEndpointSpec{
			Orchestrator: w.Orchestrator, Workload: w.Name, Node: node, ContainerID: e.Sandbox, Endpoint: e.Interface,
			ServiceAccountName: w.ServiceAccount, Profiles: slices.Clone(w.Profiles), InterfaceName: e.HostIface, MAC: e.MAC.String(),
		},
	}
	if w.Orchestrator == orchestratorKubernetes {
		o.Spec.Pod = w.Name
	}
	o.Spec.IPNetworks = networks(e.Addrs)
	for _, p := range w.Ports {
		o.Spec.Ports = append(o.Spec.Ports, api.EndpointPort{Name: p.Name, Protocol: api.Protocol{Name: p.Protocol}, Port: p.Port})
	}
	for _, p := range w.SourcePrefixes {
		o.Spec.AllowSpoofedSourcePrefixes = append(o.Spec.AllowSpoofedSourcePrefixes, p.String())
	}
	api.Default(o)
	return o
}

// putEndpoint writes o, with one write if it is new, and returns it as stored.
func putEndpoint(ctx context.Context, s datastore.Store, o *api.WorkloadEndpoint) (*api.WorkloadEndpoint, error) {
	var got api.Object
	var err error
	for range writeTries {
		if got, err = s.Create(ctx, o); err == nil {
			return asEndpoint(got)
		}
		if !errors.Is(err, datastore.ErrExists) {
			return nil, err
		}
		got, err = s.Get(ctx, api.KeyOf(o))
		if errors.Is(err, datastore.ErrNotFound) {
			continue // it has just gone
		}
		if err != nil && !errors.Is(err, datastore.ErrUnreadable) {
			return nil, err
		}
		c := *o
		if was, _ := asEndpoint(got); was != nil {
			if reflect.DeepEqual(was.Spec, o.Spec) && maps.Equal(was.Labels, o.Labels) {
				return was, nil
			}
			c.ResourceVersion = was.ResourceVersion
		}
		if got, err = s.Update(ctx, &c); err == nil {
			return asEndpoint(got)
		}
		if !errors.Is(err, datastore.ErrConflict) && !errors.Is(err, datastore.ErrNotFound) {
			return nil, err
		}
	}
	return nil, err
}

func asEndpoint(o api.Object) (*api.WorkloadEndpoint, error) {
	w, ok := o.(*api.WorkloadEndpoint)
	if !ok || w == nil {
		return nil, fmt.Errorf("the store answers with a %T", o)
	}
	return w, nil
}

// removal is the write that deletes the WorkloadEndpoint of e; none if it is gone, or another sandbox's by now.
func removal(ctx context.Context, s datastore.Store, node string, e ledger.Entry) ([]datastore.Op, error) {
	if e.Name == "" {
		return nil, nil
	}
	op := datastore.Op{Verb: datastore.Delete, Key: endpointKey(e)}
	o, err := s.Get(ctx, op.Key)
	switch {
	case errors.Is(err, datastore.ErrNotFound):
		return nil, nil
	case errors.Is(err, datastore.ErrUnreadable):
		return []datastore.Op{op}, nil
	case err != nil:
		return nil, err
	}
	w, err := asEndpoint(o)
	if err != nil {
		return nil, err
	}
	if w.Spec.ContainerID != e.Sandbox || w.Spec.Node != node {
		return nil, nil
	}
	op.Revision = w.ResourceVersion
	return []datastore.Op{op}, nil
}
