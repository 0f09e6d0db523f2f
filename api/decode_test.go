package api

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func keys(objects []Object) []string {
	var out []string
	for _, o := range objects {
		out = append(out, KeyOf(o).String())
	}
	return out
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		name, in string
		objects  []string
		errs     []string
	}{
		{name: "nothing"},
		{name: "comments and empty documents", in: "# x\n---\n---\n# y\n...\n"},
		{
			name: "two documents, the second without a name",
			in: `
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: a}
spec: {order: 1e2}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
spec:
  nets: [10.0.0.0/8]
`,
			objects: []string{"Tier/a", "NetworkSet/"},
		},
		{
			name: "JSON, one document after the other",
			in: `{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"a"}}
				{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"b\/c"}}`,
			objects: []string{"Tier/a", "Tier/b/c"},
		},
		{
			name:    "JSON between separators, with a byte order mark",
			in:      "\xef\xbb\xbf" + `{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"a"}}` + "\n---\n" + `{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: b}}`,
			objects: []string{"Tier/a", "Tier/b"},
		},
		{
			name: "lists, and a status",
			in: `
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}, status: {conditions: []}}
- {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s, namespace: n}, addressType: IPv4,
   endpoints: [{addresses: [10.0.0.1], nodeName: x, targetRef: {kind: Pod}}], ports: [{name: "", port: 80, protocol: TCP, appProtocol: http}]}
---
apiVersion: projectcalico.org/v3
kind: TierList
items: [{metadata: {name: b}}, {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: c}}]
---
apiVersion: projectcalico.org/v3
kind: List
items: []
`,
			objects: []string{"Tier/a", "EndpointSlice/n/s", "Tier/b", "Tier/c"},
		},
		{
			name: "anchors and merged keys",
			in: `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: a, namespace: n}
spec:
  ingress:
  - &web {action: Allow, protocol: TCP, destination: {ports: [80]}}
  - {<<: *web, protocol: UDP}
  - {<<: [*web, {action: Deny}]}
  - *web
`,
			objects: []string{"NetworkPolicy/n/a"},
		},
		{
			name: "everything that is wrong is reported",
			in: `apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: prod, lables: {}}
spec:
  order: "5"
  selector: a == 'b'
  selector: c == 'd'
  types: Ingress
  ingress:
  - action: Allow
    source: {selektor: "has(x)", notNets: [7, null]}
    destination: {ports: [70000, 80.5, "9:8", true]}
  - null
  - [x]
  egress:
  - {action: 3, protocol: [TCP], ipVersion: 4.5, icmp: {type: true}}
  xyzzy: 1
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: good}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: pre, labels: {a: 1, b: "x", b: "y"}}
spec: {preDNAT: "yes"}
Spec: {}
`,
			objects: []string{"HostEndpoint/good"},
			errs: []string{
				`document 1, line 3: NetworkPolicy/prod/web: metadata.lables: unknown field; did you mean labels?`,
				`document 1, line 5: NetworkPolicy/prod/web: spec.order: must be a number, not "5"`,
				`document 1, line 7: NetworkPolicy/prod/web: spec.selector: given twice`,
				`document 1, line 8: NetworkPolicy/prod/web: spec.types: must be a list, not "Ingress"`,
				`document 1, line 11: NetworkPolicy/prod/web: spec.ingress[0].source.selektor: unknown field; did you mean selector?`,
				`document 1, line 11: NetworkPolicy/prod/web: spec.ingress[0].source.notNets[0]: must be a string (put it in quotes), not 7`,
				`document 1, line 11: NetworkPolicy/prod/web: spec.ingress[0].source.notNets[1]: must not be null`,
				`document 1, line 12: NetworkPolicy/prod/web: spec.ingress[0].destination.ports[0]: port "70000" is above 65535`,
				`document 1, line 12: NetworkPolicy/prod/web: spec.ingress[0].destination.ports[1]: port 80.5 is not a whole number from 0 to 65535`,
				`document 1, line 12: NetworkPolicy/prod/web: spec.ingress[0].destination.ports[2]: port range "9:8" ends before it begins`,
				`document 1, line 12: NetworkPolicy/prod/web: spec.ingress[0].destination.ports[3]: true is neither a number nor a string`,
				`document 1, line 13: NetworkPolicy/prod/web: spec.ingress[1]: must not be null`,
				`document 1, line 14: NetworkPolicy/prod/web: spec.ingress[2]: must be an object, not a list`,
				`document 1, line 16: NetworkPolicy/prod/web: spec.egress[0].action: must be a string (put it in quotes), not 3`,
				`document 1, line 16: NetworkPolicy/prod/web: spec.egress[0].protocol: ["TCP"] is neither a number nor a string`,
				`document 1, line 16: NetworkPolicy/prod/web: spec.egress[0].ipVersion: must be a whole number, not 4.5`,
				`document 1, line 16: NetworkPolicy/prod/web: spec.egress[0].icmp.type: must be a whole number, not true`,
				`document 1, line 17: NetworkPolicy/prod/web: spec.xyzzy: unknown field`,
				`document 3, line 25: GlobalNetworkPolicy/pre: metadata.labels[a]: must be a string (put it in quotes), not 1`,
				`document 3, line 25: GlobalNetworkPolicy/pre: metadata.labels[b]: given twice`,
				`document 3, line 26: GlobalNetworkPolicy/pre: spec.preDNAT: must be true or false, not "yes"`,
				`document 3, line 27: GlobalNetworkPolicy/pre: Spec: unknown field; did you mean spec?`,
			},
		},
		{
			name: "kinds and versions",
			in: `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x, namespace: y}}
---
{apiVersion: crd.projectcalico.org/v1, kind: Tier, metadata: {name: x}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolcy, metadata: {name: x}}
---
{apiVersion: projectcalico.org/v3, kind: np}
---
{apiVersion: projectcalico.org/v9, kind: Tier}
---
{apiVersion: v1, kind: Pod}
---
{kind: Tier}
---
{apiVersion: projectcalico.org/v3}
---
[]
---
just text
---
{apiVersion: v1, kind: List, itms: []}
---
{apiVersion: v1, kind: List, items: [null, {kind: Tier}, {apiVersion: v1, kind: List, items: []}]}
`,
			errs: []string{
				`document 1, line 1: NetworkPolicy/y/x: apiVersion: a Kubernetes NetworkPolicy is read from a Kubernetes API server only; a policy of Tortie's own has apiVersion projectcalico.org/v3, and a StagedKubernetesNetworkPolicy shows what a Kubernetes policy would do`,
				`document 2, line 3: Tier/x: apiVersion: crd.projectcalico.org/v1 is the form in which Calico stores objects; write apiVersion: projectcalico.org/v3`,
				`document 3, line 5: GlobalNetworkPolcy/x: kind: "GlobalNetworkPolcy" is not known; did you mean GlobalNetworkPolicy?`,
				`document 4, line 7: np: kind: "np" is not known`,
				`document 5, line 9: Tier: apiVersion: "projectcalico.org/v9" is not known for this kind; write apiVersion: projectcalico.org/v3`,
				`document 6, line 11: Pod: apiVersion: "v1" with kind "Pod" is not known`,
				`document 7, line 13: Tier: apiVersion: must be given; write apiVersion: projectcalico.org/v3`,
				`document 8, line 15: kind: must be given`,
				`document 9, line 17: must be an object with apiVersion and kind, not a list`,
				`document 10, line 19: must be an object with apiVersion and kind, not "just text"`,
				`document 11, line 21: List: itms: unknown field; did you mean items?`,
				`document 11, line 21: List: items: must be a list`,
				`document 12, line 23: must be an object with apiVersion and kind, not null`,
				`document 12, line 23: Tier: apiVersion: must be given; write apiVersion: projectcalico.org/v3`,
				`document 12, line 23: List: apiVersion: "v1" with kind "List" is not known`,
			},
		},
		{
			name:    "YAML syntax: what came before is kept",
			in:      "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}}\n---\na: [\n---\nb: c\n",
			objects: []string{"Tier/a"},
			errs:    []string{"document 2: yaml: line 3: did not find expected node content"},
		},
		{
			name: "JSON syntax",
			in:   "{\"apiVersion\":\n \"projectcalico.org/v3\",}x",
			errs: []string{"document 1: JSON, line 2: invalid character '}'"},
		},
		{name: "JSON that ends too early", in: `{"kind": ["x"`, errs: []string{"document 1: JSON, line 1: unexpected EOF"}},
		{name: "keys that are no strings", in: "a: 1\n80: x\n", errs: []string{`document 1: yaml: line 2: key "80" is not a string; put it in quotes`}},
		{name: "numbers that JSON lacks", in: "a: .nan\n", errs: []string{"document 1: yaml: line 1: .nan is not a number that JSON has"}},
		{name: "tags", in: "a: !!binary aGk=\n", errs: []string{"document 1: yaml: line 1: the tag !!binary is not supported"}},
		{name: "merge of a text", in: "<<: x\n", errs: []string{`document 1: yaml: line 1: << of "x"`}},
		{name: "merge of a list of texts", in: "<<: [x]\n", errs: []string{`document 1: yaml: line 1: << of "x"`}},
		{name: "deep YAML", in: strings.Repeat("[", 100) + strings.Repeat("]", 100), errs: []string{"document 1: yaml: line 1: nested more than 64 deep"}},
		{name: "deep JSON", in: strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100), errs: []string{"document 1: JSON, line 1: nested more than 64 deep"}},
		{name: "too large", in: strings.Repeat("#", MaxInput+1), errs: []string{"document 1: input of 16777217 bytes is larger than 16777216"}},
		{
			name: "aliases that multiply",
			in: "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
				"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n",
			errs: []string{"document 1: yaml: line 1: the aliases expand to too much"},
		},
		{name: "an alias of itself", in: "a: &a [*a]\n", errs: []string{"document 1: yaml: line 1: nested more than 64 deep"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects, err := Decode([]byte(c.in))
			if diff := cmp.Diff(c.objects, keys(objects)); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
			var got []string
			if err != nil {
				got = strings.Split(err.Error(), "\n")
			}
			for i := range got {
				if i < len(c.errs) && strings.HasPrefix(got[i], c.errs[i]) && strings.Contains(got[i], "JSON, line") {
					got[i] = c.errs[i] // the rest is the standard library's wording
				}
			}
			if diff := cmp.Diff(c.errs, got); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeErrorsAreTyped(t *testing.T) {
	_, err := Decode([]byte("---\n{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a},\n spec: {ordr: 5}}"))
	var e *FieldError
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	want := FieldError{Document: 1, Line: 3, Object: "Tier/a", Problem: Problem{"spec.ordr", "unknown field; did you mean order?"}}
	if diff := cmp.Diff(want, *e); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeReportsAtMostAHundredErrors(t *testing.T) {
	_, err := Decode(bytes.Repeat([]byte("--- x\n"), 150))
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 101 || lines[100] != "and 50 more errors" {
		t.Errorf("%d lines, the last: %s", len(lines), lines[len(lines)-1])
	}
}

func TestDecodeKeepsEveryField(t *testing.T) {
	objects, err := Decode([]byte(`
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: prod, creationTimestamp: 2024-01-02T03:04:05Z, generation: 3, annotations: {"a": "b"}}
spec:
  tier: t
  order: -1.5
  types: [Egress]
  egress:
  - action: Allow
    ipVersion: 4
    protocol: 6
    notProtocol: "17"
    source: {ports: [1, "2:3", http], notPorts: ["4"]}
    destination: {services: {name: s}}
    metadata: {annotations: {x: "y"}}
`))
	if err != nil {
		t.Fatal(err)
	}
	p := objects[0].(*NetworkPolicy)
	four, order := 4, -1.5
	want := NetworkPolicySpec{Tier: "t", Order: &order, Types: []PolicyType{Egress}, Egress: []Rule{{
		Action: Allow, IPVersion: &four, Protocol: &Protocol{Number: 6}, NotProtocol: &Protocol{Number: 17},
		Source:      EntityRule{Ports: []Port{{First: 1, Last: 1}, {First: 2, Last: 3}, {Name: "http"}}, NotPorts: []Port{{First: 4, Last: 4}}},
		Destination: EntityRule{Services: &ServiceMatch{Name: "s"}},
		Metadata:    &RuleMetadata{Annotations: map[string]string{"x": "y"}},
	}}}
	if diff := cmp.Diff(want, p.Spec); diff != "" {
		t.Error(diff)
	}
	if p.CreationTimestamp.UTC().Format("2006-01-02T15:04:05") != "2024-01-02T03:04:05" || p.Generation != 3 || p.Annotations["a"] != "b" {
		t.Errorf("metadata %+v", p.ObjectMeta)
	}
	if p.Kind != "NetworkPolicy" || p.APIVersion != GroupVersion {
		t.Errorf("type %+v", p.TypeMeta)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}, spec: {order: 1}}",
		`{"apiVersion":"projectcalico.org/v3","kind":"NetworkPolicy","metadata":{"name":"a"},"spec":{"ingress":[{"action":"Allow","source":{"ports":[1,"x"]}}]}}`,
		"a: &a [*a]", "--- x\n--- y", "<<: {a: b}", "{\"a\":", "? [a]\n: b",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objects, _ := Decode(data)
		for _, o := range objects {
			Default(o)
			Validate(o)
			b, err := Encode(o)
			if err != nil {
				t.Fatalf("Encode: %v", err)
			}
			again, err := Decode(b)
			if err != nil || len(again) != 1 {
				t.Fatalf("Decode of %s: %v", b, err)
			}
			b2, err := Encode(again[0])
			if err != nil || !bytes.Equal(b, b2) {
				t.Fatalf("%s came back as %s, %v", b, b2, err)
			}
		}
	})
}
