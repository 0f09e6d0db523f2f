package api

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxErrors bounds how many errors of one file are reported.
const maxErrors = 100

// Problem is something that is wrong with an object.
type Problem struct {
	Path   string // of the field: "spec.ingress[0].source.selector"; "" = the object as a whole
	Reason string
}

// Error gives "path: reason".
func (p Problem) Error() string {
	if p.Path == "" {
		return clip(p.Reason)
	}
	return clip(p.Path) + ": " + clip(p.Reason)
}

// maxText bounds what is said of one thing that is wrong, in bytes: it repeats what somebody wrote, and goes to logs,
// status and terminals.
const maxText = 1000

// clip shortens s to maxText.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "..."
}

// FieldError is a Problem in a file.
type FieldError struct {
	Document int    // from 1
	Line     int    // of the file, from 1
	Object   string // "NetworkPolicy/prod/web", as far as it says what it is
	Problem
}

// Error names document, line, object and field.
func (e *FieldError) Error() string {
	where := fmt.Sprintf("document %d, line %d: ", e.Document, e.Line)
	if e.Object != "" {
		where += e.Object + ": "
	}
	return where + e.Problem.Error()
}

func (e *FieldError) Unwrap() error { return e.Problem }

// Decode reads the objects of a file: YAML or JSON, several documents, and lists (kind List, or a kind's own, like
// NetworkPolicyList). It is strict: unknown fields, repeated fields and wrong types are errors. All of them are reported
// together, each a *FieldError, beside the objects that have none. What is unknown in the status of an object is ignored.
//
// Decode neither defaults nor validates.
func Decode(data []byte) ([]Object, error) {
	docs, err := parseDocuments(data)
	f := file{}
	for i, doc := range docs {
		f.document = i + 1
		f.decode(doc, "")
	}
	if err != nil {
		f.errs = append(f.errs, fmt.Errorf("document %d: %w", len(docs)+1, err))
	}
	if n := len(f.errs); n > maxErrors {
		f.errs = append(f.errs[:maxErrors:maxErrors], fmt.Errorf("and %d more errors", n-maxErrors))
	}
	return f.objects, errors.Join(f.errs...)
}

// file gathers the objects and errors of one file.
type file struct {
	document int
	objects  []Object
	errs     []error
}

func (f *file) fail(v *value, object string, p Problem) {
	f.errs = append(f.errs, &FieldError{Document: f.document, Line: v.line, Object: object, Problem: p})
}

// anyKind is what a list without a kind of its own holds.
const anyKind = "*"

// decode reads a document, or an item of a list of kind listed.
func (f *file) decode(v *value, listed string) {
	switch {
	case v.kind == nullValue && listed == "":
		return // an empty document
	case v.kind != objectValue:
		f.fail(v, "", Problem{Reason: fmt.Sprintf("must be an object with apiVersion and kind, not %s", v)})
		return
	}
	apiVersion, kind := v.get("apiVersion").str(), v.get("kind").str()
	if listed == "" {
		if items, ok := listKind(apiVersion, kind); ok {
			f.decodeList(v, kind, items)
			return
		}
	} else if k, ok := KindByName(listed); ok { // an API server leaves out what the list says already
		apiVersion, kind = cmp.Or(apiVersion, k.APIVersion), cmp.Or(kind, k.Kind)
	}
	k, problem := findKind(apiVersion, kind)
	if problem != nil {
		f.fail(v, nameOf(kind, v), *problem)
		return
	}
	o, problems := readObject(k, v)
	for _, p := range problems {
		f.errs = append(f.errs, &FieldError{Document: f.document, Line: p.line, Object: nameOf(kind, v), Problem: p.Problem})
	}
	if len(problems) == 0 {
		f.objects = append(f.objects, o)
	}
}

// listKind says whether an object is a list, and the kind of its items.
func listKind(apiVersion, kind string) (items string, ok bool) {
	if kind == "List" && (apiVersion == "v1" || apiVersion == GroupVersion) {
		return anyKind, true
	}
	items, ok = strings.CutSuffix(kind, "List")
	if !ok {
		return "", false
	}
	k, known := KindByName(items)
	return items, known && k.Kind == items && k.APIVersion == apiVersion
}

func (f *file) decodeList(v *value, kind, items string) {
	known := map[string]bool{"apiVersion": true, "kind": true, "metadata": true, "items": true}
	for _, m := range v.fields {
		if !known[m.name] {
			f.fail(m.value, kind, Problem{m.name, "unknown field" + didYouMean(m.name, known)})
		}
	}
	list := v.get("items")
	if list == nil || list.kind != listValue {
		f.fail(v, kind, Problem{"items", "must be a list"})
		return
	}
	for _, item := range list.items {
		f.decode(item, items)
	}
}

// nameOf names an object in an error, as far as it can be told.
func nameOf(kind string, v *value) string {
	m := v.get("metadata")
	key := Key{Kind: kind, Namespace: m.get("namespace").str(), Name: m.get("name").str()}
	switch {
	case kind == "":
		return ""
	case key.Name == "":
		return kind
	}
	return key.String()
}

func findKind(apiVersion, kind string) (KindInfo, *Problem) {
	k, known := KindByName(kind)
	known = known && k.Kind == kind
	switch {
	case kind == "":
		return k, &Problem{"kind", "must be given"}
	case apiVersion == "":
		return k, &Problem{"apiVersion", "must be given" + versionHint(k, known)}
	case known && apiVersion == k.APIVersion:
		return k, nil
	case apiVersion == "networking.k8s.io/v1" && kind == "NetworkPolicy":
		return k, &Problem{"apiVersion", "a Kubernetes NetworkPolicy is read from a Kubernetes API server only; a policy of Tortie's own has apiVersion " +
			GroupVersion + ", and a StagedKubernetesNetworkPolicy shows what a Kubernetes policy would do"}
	case strings.HasPrefix(apiVersion, "crd.projectcalico.org/"):
		return k, &Problem{"apiVersion", apiVersion + " is the form in which Calico stores objects" + versionHint(k, known)}
	case known:
		return k, &Problem{"apiVersion", fmt.Sprintf("%q is not known for this kind%s", apiVersion, versionHint(k, known))}
	case apiVersion != GroupVersion && apiVersion != EndpointSliceVersion:
		return k, &Problem{"apiVersion", fmt.Sprintf("%q with kind %q is not known", apiVersion, kind)}
	}
	names := map[string]bool{}
	for _, k := range kinds {
		names[k.Kind] = true
	}
	return k, &Problem{"kind", fmt.Sprintf("%q is not known%s", kind, didYouMean(kind, names))}
}

func versionHint(k KindInfo, known bool) string {
	if !known {
		return ""
	}
	return "; write apiVersion: " + k.APIVersion
}

// readObject makes an object of kind k from v, with everything that is wrong with it.
func readObject(k KindInfo, v *value) (Object, []located) {
	o := k.New()
	r := reader{}
	r.read((*field.Path)(nil), v, reflect.ValueOf(o).Elem())
	setType(o, k.APIVersion, k.Kind)
	kept := r.problems[:0]
	for _, p := range r.problems {
		if !ignored(k.Kind, p.Path) {
			kept = append(kept, p)
		}
	}
	return o, kept
}

var indexes = regexp.MustCompile(`\[\d+\]`)

// ignoredFields are the fields of EndpointSlice that Kubernetes fills in and that policy has no use for.
var ignoredFields = map[string]bool{
	"endpoints[].hostname": true, "endpoints[].nodeName": true, "endpoints[].zone": true, "endpoints[].targetRef": true,
	"endpoints[].hints": true, "endpoints[].deprecatedTopology": true, "ports[].appProtocol": true,
}

// ignored says whether a field that is not in our types is known all the same.
func ignored(kind, path string) bool {
	return under(path, "status") || kind == "EndpointSlice" && ignoredFields[indexes.ReplaceAllString(path, "[]")]
}
