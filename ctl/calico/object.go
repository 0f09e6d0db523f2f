package calico

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/tortie/tortie/api"
)

// object is one of Calico's, as stored.
type object struct {
	Metadata metadata        `json:"metadata"`
	Spec     json.RawMessage `json:"spec"`
}

type metadata struct {
	Name        string            `json:"name,omitempty"`
	Namespace   string            `json:"namespace,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

const (
	// metadataAnnotation holds the metadata that the user gave, as JSON.
	metadataAnnotation = "projectcalico.org/metadata"
	lastApplied        = "kubectl.kubernetes.io/last-applied-configuration"
	interfacePrefix    = "interfacePrefix" // of a FelixConfiguration
)

// users is the metadata that the user gave.
func (o *object) users() (metadata, error) {
	m := metadata{Name: o.Metadata.Name, Namespace: o.Metadata.Namespace, Labels: o.Metadata.Labels, Annotations: map[string]string{}}
	for k, v := range o.Metadata.Annotations {
		if k != metadataAnnotation && k != lastApplied {
			m.Annotations[k] = v
		}
	}
	text := o.Metadata.Annotations[metadataAnnotation]
	if text == "" {
		return m, nil
	}
	var kept metadata
	if err := json.Unmarshal([]byte(text), &kept); err != nil {
		return m, fmt.Errorf("the annotation %s: %w", metadataAnnotation, err)
	}
	m.Labels = kept.Labels
	for k, v := range kept.Annotations {
		if k != lastApplied {
			m.Annotations[k] = v
		}
	}
	return m, nil
}

// policyName is the name that a user knows a policy of the tier default by: Calico has stored it with the tier before it.
// Names of policies of other tiers begin with theirs for users, too.
func policyName(kind, name string, spec json.RawMessage) string {
	if !strings.HasSuffix(kind, "Policy") {
		return name
	}
	var s struct {
		Tier string `json:"tier"`
	}
	if err := json.Unmarshal(spec, &s); err != nil || s.Tier != "" && s.Tier != api.DefaultTier {
		return name
	}
	return strings.TrimPrefix(name, api.DefaultTier+".")
}

// convert makes Tortie's object of one of Calico's, strictly: what it can't say is an error, not left out. It says what it
// has changed.
func convert(k kind, o *object) (_ api.Object, changes []string, err error) {
	m, err := o.users()
	if err != nil {
		return nil, nil, err
	}
	m.Name = policyName(k.to, m.Name, o.Spec)
	doc := map[string]any{"apiVersion": api.GroupVersion, "kind": k.to, "metadata": m}
	if len(o.Spec) > 0 {
		doc["spec"] = o.Spec
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return nil, nil, err
	}
	objects, err := api.Decode(data)
	if err != nil {
		return nil, nil, plain(err)
	}
	if len(objects) != 1 {
		return nil, nil, errors.New("it can't be read")
	}
	changes = adapt(objects[0])
	api.Default(objects[0])
	if errs := api.Validate(objects[0]); len(errs) > 0 {
		return nil, nil, errs.ToAggregate()
	}
	return objects[0], changes, nil
}

// adapt changes what would mean something else here, and says so.
func adapt(o api.Object) []string {
	var types *[]api.PolicyType
	preDNAT := false
	switch o := o.(type) {
	case *api.NetworkPolicy:
		types = &o.Spec.Types
	case *api.StagedNetworkPolicy:
		types = &o.Spec.Types
	case *api.GlobalNetworkPolicy:
		types, preDNAT = &o.Spec.Types, o.Spec.PreDNAT
	case *api.StagedGlobalNetworkPolicy:
		types, preDNAT = &o.Spec.Types, o.Spec.PreDNAT
	case *api.FelixConfiguration:
		if _, ok := o.Spec[interfacePrefix]; ok {
			delete(o.Spec, interfacePrefix)
			return []string{"spec." + interfacePrefix + " stays behind: interfaces with that prefix are Calico's until their pods are made anew, and Tortie would take them for its own"}
		}
	}
	if types == nil || len(*types) > 0 {
		return nil
	}
	// calicoctl and Calico's API server fill it in; without them, its agents take none for both.
	*types = []api.PolicyType{api.Ingress, api.Egress}
	if preDNAT { // which has no other direction
		*types = (*types)[:1]
	}
	return []string{fmt.Sprintf("spec.types becomes %v: it was stored without, which Calico's agents take for both directions", *types)}
}

// plain takes the place in a document that nobody has written out of errors.
func plain(err error) error {
	var out []error
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			out = append(out, plain(e))
		}
		return errors.Join(out...)
	}
	var f *api.FieldError
	if errors.As(err, &f) {
		return f.Problem
	}
	return err
}
