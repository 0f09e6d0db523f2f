package crdgen

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/tortie/tortie/api"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Schema is the part of a CRD's OpenAPI schema that is used.
type Schema struct {
	Description          string             `json:"description,omitempty"`
	Type                 string             `json:"type,omitempty"`
	Format               string             `json:"format,omitempty"`
	IntOrString          bool               `json:"x-kubernetes-int-or-string,omitempty"`
	Nullable             bool               `json:"nullable,omitempty"`
	Default              any                `json:"default,omitempty"`
	Enum                 []any              `json:"enum,omitempty"`
	Pattern              string             `json:"pattern,omitempty"`
	MinLength            *int64             `json:"minLength,omitempty"`
	MaxLength            *int64             `json:"maxLength,omitempty"`
	Minimum              *float64           `json:"minimum,omitempty"`
	Maximum              *float64           `json:"maximum,omitempty"`
	MinItems             *int64             `json:"minItems,omitempty"`
	MaxItems             *int64             `json:"maxItems,omitempty"`
	MaxProperties        *int64             `json:"maxProperties,omitempty"`
	Items                *Schema            `json:"items,omitempty"`
	Properties           map[string]*Schema `json:"properties,omitempty"`
	AdditionalProperties *Schema            `json:"additionalProperties,omitempty"`
	Required             []string           `json:"required,omitempty"`
	AnyOf                []*Schema          `json:"anyOf,omitempty"`
	AllOf                []*Schema          `json:"allOf,omitempty"`
	Not                  *Schema            `json:"not,omitempty"`
	ListType             string             `json:"x-kubernetes-list-type,omitempty"`
	ListMapKeys          []string           `json:"x-kubernetes-list-map-keys,omitempty"`
	PreserveUnknown      bool               `json:"x-kubernetes-preserve-unknown-fields,omitempty"`
	Rules                []Rule             `json:"x-kubernetes-validations,omitempty"`
}

// Rule is a check in CEL.
type Rule struct {
	Rule    string `json:"rule"`
	Message string `json:"message"`
}

// generator makes schemas and remembers which rows of the tables it has used, so that a row for a field that is gone
// does not stay unnoticed.
type generator struct {
	comments map[string]string
	used     map[string]bool
}

// schema makes the schema of a Go type from its JSON form.
func (g *generator) schema(t reflect.Type) (*Schema, error) {
	if t.Kind() == reflect.Pointer {
		return g.schema(t.Elem())
	}
	s, err := g.plain(t)
	if err != nil {
		return nil, err
	}
	g.apply(types, t.Name(), s)
	return s, nil
}

// known are the types whose JSON form is not what their Go type says.
func known(t reflect.Type) *Schema {
	switch t {
	case reflect.TypeFor[metav1.Time]():
		return &Schema{Type: "string", Format: "date-time"}
	case reflect.TypeFor[api.Port](), reflect.TypeFor[api.Protocol](), reflect.TypeFor[api.ASNumber](), reflect.TypeFor[api.DSCP]():
		return &Schema{IntOrString: true}
	case reflect.TypeFor[api.Duration]():
		return &Schema{Type: "string"}
	case reflect.TypeFor[api.Allocations]():
		return &Schema{Type: "array", Items: &Schema{Type: "integer", Nullable: true}}
	}
	return nil
}

func (g *generator) plain(t reflect.Type) (*Schema, error) {
	if s := known(t); s != nil {
		return s, nil
	}
	if t == reflect.TypeFor[api.FelixConfigurationSpec]() {
		return g.felix()
	}
	switch t.Kind() {
	case reflect.String:
		return &Schema{Type: "string"}, nil
	case reflect.Bool:
		return &Schema{Type: "boolean"}, nil
	case reflect.Float64:
		return &Schema{Type: "number"}, nil
	case reflect.Int, reflect.Int64:
		return &Schema{Type: "integer", Format: "int64"}, nil
	case reflect.Int32:
		return &Schema{Type: "integer", Format: "int32"}, nil
	case reflect.Uint64:
		return &Schema{Type: "integer", Format: "int64", Minimum: num(0)}, nil
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return &Schema{Type: "integer", Format: "int64", Minimum: num(0), Maximum: num(float64(uint64(1)<<t.Bits() - 1))}, nil
	case reflect.Slice:
		items, err := g.schema(t.Elem())
		return &Schema{Type: "array", Items: items}, err
	case reflect.Map:
		values, err := g.schema(t.Elem())
		return &Schema{Type: "object", AdditionalProperties: values}, err
	case reflect.Struct:
		return g.object(t)
	}
	return nil, fmt.Errorf("%s has a type that is not known here", t)
}

func (g *generator) object(t reflect.Type) (*Schema, error) {
	s := &Schema{Type: "object", Properties: map[string]*Schema{}}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
			continue
		case name == "": // inline
			inner, err := g.schema(f.Type)
			if err != nil {
				return nil, err
			}
			for name, p := range inner.Properties {
				s.Properties[name] = p
			}
			s.Required = append(s.Required, inner.Required...)
			s.Rules = append(s.Rules, inner.Rules...)
			continue
		}
		p, err := g.schema(f.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		at := t.Name() + "." + name
		if d := g.comments[at]; d != "" {
			p.Description = d
		}
		g.apply(fields, at, p)
		s.Properties[name] = p
	}
	return s, nil
}

func (g *generator) apply(table map[string]tweak, name string, s *Schema) {
	if f, ok := table[name]; ok {
		f(s)
		g.used[name] = true
	}
}

func num(n float64) *float64 { return &n }
func count(n int64) *int64   { return &n }
