package crdgen

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apivalidation "k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// A server does with the objects of one kind what an API server does: the same code, without HTTP and storage.
type server struct {
	kind       schema.GroupVersionKind
	structural *structuralschema.Structural
	strategy   interface {
		Validate(ctx context.Context, obj runtime.Object) apivalidation.ErrorList
		ValidateUpdate(ctx context.Context, obj, old runtime.Object) apivalidation.ErrorList
	}
}

// definitionOf reads a CRD as the API server does.
func definitionOf(t testing.TB, data []byte) *apiextensions.CustomResourceDefinition {
	t.Helper()
	var external apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(data, &external); err != nil {
		t.Fatal(err)
	}
	apiextensionsv1.SetDefaults_CustomResourceDefinition(&external)
	apiextensionsv1.SetDefaults_CustomResourceDefinitionSpec(&external.Spec)
	scheme := runtime.NewScheme()
	if err := errors.Join(apiextensions.AddToScheme(scheme), apiextensionsv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	var internal apiextensions.CustomResourceDefinition
	if err := scheme.Convert(&external, &internal, nil); err != nil {
		t.Fatal(err)
	}
	return &internal
}

// TestDefinitions makes every check that the API server makes of a new CRD, of which one is that no rule costs too much.
func TestDefinitions(t *testing.T) {
	for name, data := range generated(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := definitionOf(t, data)
			d.Status.StoredVersions = []string{version}
			for _, err := range crdvalidation.ValidateCustomResourceDefinition(t.Context(), d) {
				t.Error(err)
			}
			if len(data) > 256<<10 {
				t.Errorf("%d bytes: kubectl apply keeps a copy in an annotation, which has room for 262144", len(data))
			}
		})
	}
}

func newServer(t testing.TB, data []byte) *server {
	t.Helper()
	d := definitionOf(t, data)
	props := d.Spec.Validation.OpenAPIV3Schema
	s := &server{kind: schema.GroupVersionKind{Group: group, Version: version, Kind: d.Spec.Names.Kind}}
	var err error
	if s.structural, err = structuralschema.NewStructural(props); err != nil {
		t.Fatal(err)
	}
	validator, _, err := validation.NewSchemaValidator(props)
	if err != nil {
		t.Fatal(err)
	}
	s.strategy = customresource.NewStrategy(nil, d.Spec.Scope == apiextensions.NamespaceScoped, s.kind, validator, nil, s.structural, nil, nil, nil)
	return s
}

// admit reads an object as the API server does for a client that asks for strict validation, as kubectl does: unknown fields
// are errors. For others it would take them away and go on. It fills in the defaults.
func (s *server) admit(object map[string]any) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(object)}
	meta, _, unknown, err := objectmeta.GetObjectMetaWithOptions(u.Object, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
	if err != nil {
		return nil, err
	}
	defaulting.Default(u.Object, s.structural)
	unknown = append(unknown, pruning.PruneWithOptions(u.Object, s.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})...)
	defaulting.PruneNonNullableNullsWithoutDefaults(u.Object, s.structural)
	if len(unknown) > 0 {
		return nil, fmt.Errorf("unknown fields %v", unknown)
	}
	if meta != nil {
		err = objectmeta.SetObjectMeta(u.Object, meta)
	}
	return u, err
}

// create returns the object as it would be stored.
func (s *server) create(ctx context.Context, object map[string]any) (*unstructured.Unstructured, error) {
	u, err := s.admit(object)
	if err != nil {
		return nil, err
	}
	return u, s.strategy.Validate(ctx, u).ToAggregate()
}

// update says what is wrong with a change from one stored object to another.
func (s *server) update(ctx context.Context, from, to map[string]any) error {
	old, err := s.create(ctx, from)
	if err != nil {
		return fmt.Errorf("the old object: %w", err)
	}
	u, err := s.admit(to)
	if err != nil {
		return err
	}
	u.SetResourceVersion("1")
	old.SetResourceVersion("1")
	return s.strategy.ValidateUpdate(ctx, u, old).ToAggregate()
}
