package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// namespaces is the labels of namespaces, as pools select them: those that the profile of a namespace hands on to its
// endpoints. Whatever fills the store from Kubernetes makes such a profile of each namespace; without Kubernetes an operator
// writes one.
type namespaces map[string]map[string]string

// take takes in what the watch tells of a profile, and ignores all others.
func (n namespaces) take(e datastore.Event) {
	name, ok := strings.CutPrefix(e.Key.Name, api.NamespaceProfilePrefix)
	if e.Key.Kind != "Profile" || !ok {
		return
	}
	if p, ok := e.Object.(*api.Profile); ok {
		n[name] = namespaceLabels(p)
	} else {
		delete(n, name)
	}
}

// namespaceLabels returns the labels of the namespace that p is the profile of.
func namespaceLabels(p *api.Profile) map[string]string {
	labels := map[string]string{}
	for k, v := range p.Spec.LabelsToApply {
		if own, ok := strings.CutPrefix(k, api.NamespaceLabelPrefix); ok {
			labels[own] = v
		}
	}
	return labels
}

// named adds the labels that every namespace has.
func named(namespace string, labels map[string]string) map[string]string {
	all := map[string]string{"projectcalico.org/name": namespace, "kubernetes.io/metadata.name": namespace}
	maps.Copy(all, labels)
	return all
}

// namespaceLabels returns the labels of a namespace: what the watch has told, or if that may not be all what the store
// says now.
func (a *addresses) namespaceLabels(ctx context.Context, namespace string) (map[string]string, error) {
	a.mu.Lock()
	labels, sure := a.namespaces[namespace], a.inSync && a.doubted == 0
	a.mu.Unlock()
	if sure {
		return named(namespace, labels), nil
	}
	o, err := a.store.Get(ctx, api.Key{Kind: "Profile", Name: api.NamespaceProfilePrefix + namespace})
	switch p, ok := o.(*api.Profile); {
	case errors.Is(err, datastore.ErrNotFound), errors.Is(err, datastore.ErrUnreadable):
		return named(namespace, nil), nil
	case err != nil:
		return nil, fmt.Errorf("reading the labels of namespace %s: %w", namespace, err)
	case !ok:
		return nil, fmt.Errorf("reading the labels of namespace %s: the store answers with a %T", namespace, o)
	default:
		return named(namespace, namespaceLabels(p)), nil
	}
}
