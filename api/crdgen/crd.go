package crdgen

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	"sigs.k8s.io/yaml"
)

const (
	group   = "projectcalico.org"
	version = "v3"
)

// derived are the kinds that are no CRDs: in Kubernetes they are made of native objects.
var derived = []string{"Profile", "WorkloadEndpoint", "Node", "EndpointSlice"}

// Kinds returns the kinds that are stored as CRDs.
func Kinds() []api.KindInfo {
	return slices.DeleteFunc(api.Kinds(), func(k api.KindInfo) bool { return slices.Contains(derived, k.Kind) })
}

// FileName is the name of the file with a kind's definition.
func FileName(k api.KindInfo) string { return group + "_" + k.Plural + ".yaml" }

// A definition is a CustomResourceDefinition, as far as it is used.
type definition struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	Spec       definitionSpec `json:"spec"`
}

type definitionSpec struct {
	Group    string              `json:"group"`
	Names    names               `json:"names"`
	Scope    string              `json:"scope"`
	Versions []definitionVersion `json:"versions"`
}

type names struct {
	Kind       string   `json:"kind"`
	ListKind   string   `json:"listKind"`
	Plural     string   `json:"plural"`
	Singular   string   `json:"singular"`
	ShortNames []string `json:"shortNames,omitempty"`
}

type definitionVersion struct {
	Name             string              `json:"name"`
	Served           bool                `json:"served"`
	Storage          bool                `json:"storage"`
	Schema           map[string]*Schema  `json:"schema"`
	Columns          []column            `json:"additionalPrinterColumns,omitempty"`
	SelectableFields []map[string]string `json:"selectableFields,omitempty"`
	Subresources     map[string]struct{} `json:"subresources,omitempty"`
}

type column struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	JSONPath string `json:"jsonPath"`
	Priority int    `json:"priority,omitempty"`
}

// Generate returns the files of deploy/crds by their names. source is the folder of package api, for its comments.
func Generate(source string) (map[string][]byte, error) {
	comments, err := readComments(source)
	if err != nil {
		return nil, err
	}
	g := &generator{comments: comments, used: map[string]bool{}}
	files := map[string][]byte{}
	for _, k := range Kinds() {
		d, err := g.define(k)
		if err != nil {
			return nil, fmt.Errorf("defining %s: %w", k.Kind, err)
		}
		b, err := yaml.Marshal(d)
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", k.Kind, err)
		}
		files[FileName(k)] = append([]byte("# Generated from the types of package api by go test ./api/crdgen -update\n"), b...)
	}
	for _, table := range []map[string]tweak{types, fields} {
		for name := range table {
			if !g.used[name] {
				return nil, fmt.Errorf("there is no %s", name)
			}
		}
	}
	return files, nil
}

func (g *generator) define(k api.KindInfo) (*definition, error) {
	root, err := g.root(k)
	if err != nil {
		return nil, err
	}
	about := kinds[k.Kind]
	v := definitionVersion{Name: version, Served: true, Storage: true, Schema: map[string]*Schema{"openAPIV3Schema": root},
		Columns: slices.Concat(about.columns, []column{{Name: "Age", Type: "date", JSONPath: ".metadata.creationTimestamp"}})}
	if _, ok := root.Properties["status"]; ok {
		v.Subresources = map[string]struct{}{"status": {}}
	}
	if spec := root.Properties["spec"]; spec.Properties["tier"] != nil {
		v.SelectableFields = []map[string]string{{"jsonPath": ".spec.tier"}}
	}
	scope := "Cluster"
	if k.Namespaced {
		scope = "Namespaced"
	}
	return &definition{
		APIVersion: "apiextensions.k8s.io/v1",
		Kind:       "CustomResourceDefinition",
		Metadata:   map[string]any{"name": k.Plural + "." + group},
		Spec: definitionSpec{
			Group: group,
			Names: names{Kind: k.Kind, ListKind: k.Kind + "List", Plural: k.Plural, Singular: k.Singular, ShortNames: shortNames(k)},
			Scope: scope, Versions: []definitionVersion{v},
		},
	}, nil
}

// shortNames leaves out those that Kubernetes has for kinds of its own.
func shortNames(k api.KindInfo) []string {
	return slices.DeleteFunc(slices.Clone(k.Short), func(s string) bool { return slices.Contains([]string{"np", "no"}, s) })
}

// root is the schema of a whole object.
func (g *generator) root(k api.KindInfo) (*Schema, error) {
	t := reflect.TypeOf(k.New()).Elem()
	s := &Schema{Type: "object", Description: description(k), Properties: map[string]*Schema{
		"apiVersion": {Type: "string"},
		"kind":       {Type: "string"},
		"metadata":   {Type: "object"},
	}}
	for _, name := range []string{"Spec", "Status"} {
		f, ok := t.FieldByName(name)
		if !ok {
			continue
		}
		p, err := g.schema(f.Type)
		if err != nil {
			return nil, err
		}
		if name == "Status" {
			// What others report is not ours to refuse.
			p.PreserveUnknown = true
		}
		s.Properties[strings.ToLower(name)] = p
	}
	if hasDefault(s.Properties["spec"]) {
		s.Properties["spec"].Default = map[string]any{}
	}
	if kinds[k.Kind].object != nil {
		kinds[k.Kind].object(s)
	}
	return s, nil
}

// hasDefault says whether a field right below has one: it is filled in only if there is a spec.
func hasDefault(s *Schema) bool {
	for _, p := range s.Properties {
		if p.Default != nil {
			return true
		}
	}
	return false
}

func description(k api.KindInfo) string {
	about := k.About()
	return strings.ToUpper(about[:1]) + about[1:] + "."
}
