package convert

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// policyWords shows what a policy says, a line for each thing.
func policyWords(selector, namespaces string, types []api.PolicyType, ingress, egress []api.Rule) []string {
	out := []string{"select " + selector}
	if namespaces != "" {
		out = append(out, "of namespaces "+namespaces)
	}
	if len(types) > 0 {
		out = append(out, fmt.Sprintf("types %v", types))
	}
	for _, d := range []struct {
		name  string
		rules []api.Rule
	}{{"in ", ingress}, {"out ", egress}} {
		for _, r := range d.rules {
			out = append(out, d.name+ruleWords(r))
		}
	}
	return out
}

func ruleWords(r api.Rule) string {
	words := []string{string(r.Action)}
	if r.Protocol != nil {
		words = append(words, r.Protocol.String())
	}
	for _, e := range []struct {
		name string
		rule api.EntityRule
	}{{"from", r.Source}, {"to", r.Destination}} {
		if data, err := json.Marshal(e.rule); err == nil && string(data) != "{}" {
			words = append(words, e.name, strings.NewReplacer(`\"`, "'", `"`, "", `\u0026`, "&").Replace(string(data)))
		}
		if e.rule.NodeSelector != "" {
			words = append(words, e.name, "nodes", e.rule.NodeSelector)
		}
	}
	if r.Metadata != nil {
		if name := r.Metadata.Annotations["name"]; name != "" {
			words = append(words, "named "+name)
		}
		if nodes := r.Metadata.Annotations[destinationNodes]; nodes != r.Destination.NodeSelector {
			words = append(words, "said to be to nodes", nodes)
		}
	}
	if len(r.Unreadable) > 0 {
		words = append(words, "UNREADABLE")
	}
	return strings.Join(words, " ")
}

func problemWords(problems []api.Problem) []string {
	var out []string
	for _, p := range problems {
		out = append(out, p.Error())
	}
	return out
}

const k8s = `projectcalico.org/orchestrator == "k8s"`

func TestNetworkPolicy(t *testing.T) {
	for _, c := range []struct {
		name     string
		spec     string
		want     []string
		problems []string
	}{
		{"empty podSelector, no rules", `{"podSelector":{},"policyTypes":["Ingress"]}`, []string{"select " + k8s, "types [Ingress]"}, nil},
		{"nothing at all isolates every pod", `{}`, []string{"select " + k8s, "types [Ingress]"}, nil},
		{"an absent from means everybody", `{"podSelector":{},"ingress":[{}]}`, []string{"select " + k8s, "types [Ingress]", "in Allow"}, nil},
		{"so does an empty one", `{"podSelector":{},"ingress":[{"from":[],"ports":[]}]}`, []string{"select " + k8s, "types [Ingress]", "in Allow"}, nil},
		{"and one that is null", `{"podSelector":{},"ingress":[{"from":null,"ports":null}]}`, []string{"select " + k8s, "types [Ingress]", "in Allow"}, nil},
		{"policyTypes default to both with egress rules", `{"podSelector":{},"egress":[{}]}`,
			[]string{"select " + k8s, "types [Ingress Egress]", "out Allow"}, nil},
		{"an empty list of egress rules is none", `{"podSelector":{},"egress":[]}`, []string{"select " + k8s, "types [Ingress]"}, nil},
		{"policyTypes win over rules", `{"podSelector":{},"policyTypes":["Egress"],"ingress":[{}]}`,
			[]string{"select " + k8s, "types [Egress]", "in Allow"}, nil},
		{"a type given twice", `{"podSelector":{},"policyTypes":["Ingress","Ingress"],"ingress":[{}]}`,
			[]string{"select " + k8s, "types [Ingress]", "in Allow"}, nil},
		{"matchLabels and every operator", `{"podSelector":{"matchLabels":{"app":"db","tier":""},"matchExpressions":[
			{"key":"a","operator":"In","values":["x","y"]},{"key":"b","operator":"NotIn","values":["x"]},
			{"key":"c","operator":"Exists"},{"key":"example.com/d","operator":"DoesNotExist"}]},"policyTypes":["Ingress"]}`,
			[]string{`select (app == "db" && tier == "" && a in {"x", "y"} && b not in {"x"} && has(c) && !has(example.com/d)) && ` + k8s, "types [Ingress]"}, nil},
		{"pods of the same namespace", `{"ingress":[{"from":[{"podSelector":{"matchLabels":{"a":"x"}}},{"podSelector":{}}]}]}`,
			[]string{"select " + k8s, "types [Ingress]",
				`in Allow from {selector:a == 'x' && projectcalico.org/orchestrator == 'k8s'}`,
				`in Allow from {selector:projectcalico.org/orchestrator == 'k8s'}`}, nil},
		{"an empty namespaceSelector means all namespaces", `{"ingress":[{"from":[{"namespaceSelector":{}}]}]}`,
			[]string{"select " + k8s, "types [Ingress]", `in Allow from {selector:projectcalico.org/orchestrator == 'k8s',namespaceSelector:all()}`}, nil},
		{"pods of some namespaces", `{"egress":[{"to":[{"podSelector":{"matchLabels":{"a":"x"}},"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"red"}}}]}],"policyTypes":["Egress"]}`,
			[]string{"select " + k8s, "types [Egress]",
				`out Allow to {selector:a == 'x' && projectcalico.org/orchestrator == 'k8s',namespaceSelector:kubernetes.io/metadata.name == 'red'}`}, nil},
		{"blocks of both families", `{"egress":[{"to":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16","10.2.3.4/32"]}},{"ipBlock":{"cidr":"2001:db8::/32","except":["2001:db8:1::/48"]}},{"ipBlock":{"cidr":"0.0.0.0/0"}}]}],"policyTypes":["Egress"]}`,
			[]string{"select " + k8s, "types [Egress]",
				`out Allow to {nets:[10.0.0.0/8],notNets:[10.1.0.0/16,10.2.3.4/32]}`,
				`out Allow to {nets:[2001:db8::/32],notNets:[2001:db8:1::/48]}`, `out Allow to {nets:[0.0.0.0/0]}`}, nil},
		{"ports: a protocol is TCP by default, ranges merge, names stay", `{"ingress":[{"ports":[
			{"port":80},{"protocol":"TCP","port":81},{"protocol":"UDP","port":5000,"endPort":6000},{"protocol":"UDP","port":"dns"},{"protocol":"SCTP"},{"protocol":"SCTP","port":7}]}]}`,
			[]string{"select " + k8s, "types [Ingress]", "in Allow TCP to {ports:[80:81]}", "in Allow UDP to {ports:[5000:6000,dns]}", "in Allow SCTP"}, nil},
		{"every port of one protocol", `{"ingress":[{"ports":[{"protocol":"UDP"}]}]}`, []string{"select " + k8s, "types [Ingress]", "in Allow UDP"}, nil},
		{"peers times protocols", `{"ingress":[{"from":[{"podSelector":{}},{"ipBlock":{"cidr":"10.0.0.0/8"}}],"ports":[{"port":1},{"port":2,"protocol":"UDP"}]}]}`,
			[]string{"select " + k8s, "types [Ingress]",
				`in Allow TCP from {selector:projectcalico.org/orchestrator == 'k8s'} to {ports:[1]}`,
				`in Allow UDP from {selector:projectcalico.org/orchestrator == 'k8s'} to {ports:[2]}`,
				`in Allow TCP from {nets:[10.0.0.0/8]} to {ports:[1]}`, `in Allow UDP from {nets:[10.0.0.0/8]} to {ports:[2]}`}, nil},

		{"an unknown field closes its rule only", `{"ingress":[{"from":[{"podSelector":{},"serviceAccount":"x"}]},{}],"policyTypes":["Ingress"]}`,
			[]string{"select " + k8s, "types [Ingress]", "in Allow UNREADABLE", "in Allow"}, []string{"spec.ingress[0].from[0].serviceAccount: unknown field"}},
		{"an unknown field of an egress rule does not govern egress", `{"policyTypes":["Ingress"],"ingress":[{}],"egress":[{"x":1}]}`,
			[]string{"select " + k8s, "types [Ingress]", "in Allow", "out Allow UNREADABLE"}, []string{"spec.egress[0].x: unknown field"}},
		{"an unknown field of the policy closes every rule", `{"when":"night","ingress":[{}],"egress":[{}],"policyTypes":["Ingress","Egress"]}`,
			[]string{"select " + k8s, "types [Egress Ingress]", "in Allow UNREADABLE", "out Allow UNREADABLE"}, []string{"spec.when: unknown field"}},
		{"unknown types isolate in both directions", `{"policyTypes":["Sideways"]}`, []string{"select " + k8s, "types [Ingress Egress]"},
			[]string{`spec.policyTypes[0]: Unsupported value: "Sideways": supported values: "Ingress", "Egress"`}},
		{"so do types that are no list", `{"policyTypes":"Ingress"}`, []string{"select " + k8s, "types [Ingress Egress]"},
			[]string{`spec.policyTypes: must be a list, not "Ingress"`}},
		{"egress rules that are no list", `{"egress":{}}`, []string{"select " + k8s, "types [Ingress Egress]"}, []string{"spec.egress: must be a list, not an object"}},
		{"a peer without anything", `{"ingress":[{"from":[{}]}]}`, []string{"select " + k8s, "types [Ingress]", "in Allow UNREADABLE"},
			[]string{"spec.ingress[0].from[0]: Required value: podSelector, namespaceSelector or ipBlock"}},
		{"a peer that is null", `{"ingress":[{"from":[null]}]}`, []string{"select " + k8s, "types [Ingress]", "in Allow UNREADABLE"},
			[]string{"spec.ingress[0].from[0]: must not be null"}},
		{"an operator that nobody knows", `{"ingress":[{"from":[{"podSelector":{"matchExpressions":[{"key":"a","operator":"Near"}]}}]}]}`,
			[]string{"select " + k8s, "types [Ingress]", "in Allow UNREADABLE"},
			[]string{`spec.ingress[0].from[0].podSelector.matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator`}},
		{"a block with selectors", `{"ingress":[{"from":[{"podSelector":{},"ipBlock":{"cidr":"10.0.0.0/8"}}]}]}`,
			[]string{"select " + k8s, "types [Ingress]", "in Allow UNREADABLE"}, []string{"spec.ingress[0].from[0].ipBlock: Forbidden: can't be combined with selectors"}},
		{"an exception that is not within", `{"ingress":[{"from":[{"ipBlock":{"cidr":"10.0.0.0/8","except":["192.0.2.0/24"]}}]}]}`,
			[]string{"select " + k8s, "types [Ingress]", "in Allow UNREADABLE"},
			[]string{`spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "192.0.2.0/24": must be a part of 10.0.0.0/8, and smaller`}},
		{"a block with bits behind its length", `{"ingress":[{"from":[{"ipBlock":{"cidr":"10.1.2.3/8","except":["10.1.2.3/16"]}}]}]}`,
			[]string{"select " + k8s, "types [Ingress]", "in Allow from {nets:[10.0.0.0/8],notNets:[10.1.0.0/16]}"}, nil},
		{"blocks that old servers took, and that can be read in two ways", `{"ingress":[{"from":[{"ipBlock":{"cidr":"010.0.0.0/8"}}]},{"from":[{"ipBlock":{"cidr":"::ffff:10.0.0.0/104"}}]},{}]}`,
			[]string{"select " + k8s, "types [Ingress]", "in Allow UNREADABLE", "in Allow UNREADABLE", "in Allow"},
			[]string{`spec.ingress[0].from[0].ipBlock.cidr: Invalid value: "010.0.0.0/8": "010.0.0.0/8" is not a prefix in CIDR notation`,
				`spec.ingress[1].from[0].ipBlock.cidr: Invalid value: "::ffff:10.0.0.0/104": "::ffff:10.0.0.0/104" is an IPv4 address inside an IPv6 one; write it as IPv4`}},
		{"a protocol that has no ports", `{"ingress":[{"ports":[{"protocol":"ICMP"}]}]}`, []string{"select " + k8s, "types [Ingress]", "in Allow UNREADABLE"},
			[]string{`spec.ingress[0].ports[0]: Invalid value: "": protocol ICMP is not TCP, UDP or SCTP`}},
		{"an endPort of a name", `{"ingress":[{"ports":[{"port":"web","endPort":90}]}]}`, []string{"select " + k8s, "types [Ingress]", "in Allow UNREADABLE"},
			[]string{`spec.ingress[0].ports[0]: Invalid value: "web": endPort needs a port that is a number`}},
		{"a field of our own kind", `{"stagedAction":"Delete","ingress":[{}]}`, []string{"select " + k8s, "types [Ingress]", "in Allow UNREADABLE"},
			[]string{"spec.stagedAction: unknown field"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, problems, err := NetworkPolicy([]byte(`{"metadata":{"name":"np","namespace":"red"},"spec":` + c.spec + `}`))
			if err != nil {
				t.Fatal(err)
			}
			got := policyWords(p.Spec.Selector, "", p.Spec.Types, p.Spec.Ingress, p.Spec.Egress)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the policy (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.problems, problemWords(problems)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if _, err := api.SubjectSelector(p); err != nil {
				t.Errorf("its subject: %v", err)
			}
		})
	}
}

func TestNetworkPolicyMetadata(t *testing.T) {
	p, problems, err := NetworkPolicy([]byte(`{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"a.b","namespace":"red",
		"uid":"4e7f","resourceVersion":"12","generation":3,"creationTimestamp":"2026-01-02T03:04:05Z","labels":{"x":"y","projectcalico.org/tier":"z"},
		"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}"},"managedFields":[{"manager":"kubectl","fieldsV1":{"f:spec":{}}}],"future":1},
		"spec":{"podSelector":{}},"status":{"conditions":null}}`))
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	want := metav1.ObjectMeta{Name: "knp.default.a.b", Namespace: "red", UID: "4e7f", ResourceVersion: "12", Generation: 3,
		CreationTimestamp: metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), Labels: map[string]string{"x": "y", api.LabelTier: "default"}}
	if diff := cmp.Diff(want, p.ObjectMeta); diff != "" {
		t.Errorf("metadata (-want +got):\n%s", diff)
	}
	if p.Kind != "NetworkPolicy" || p.APIVersion != api.GroupVersion || p.Spec.Tier != "default" || *p.Spec.Order != 1000 {
		t.Errorf("%s %s in tier %s, order %v", p.APIVersion, p.Kind, p.Spec.Tier, *p.Spec.Order)
	}
}

// TestNetworkPolicyLarge: a server has no limits on these, and what it has taken is enforced.
func TestNetworkPolicyLarge(t *testing.T) {
	var values, expressions, ports []string
	for i := range 3000 {
		values = append(values, fmt.Sprintf(`"v%d"`, i))
	}
	for i := range 300 {
		expressions = append(expressions, fmt.Sprintf(`{"key":"k%d","operator":"NotIn","values":[%s]}`, i, strings.Join(values[:10], ",")))
		ports = append(ports, fmt.Sprintf(`{"port":%d}`, 2*i+1))
	}
	expressions = append(expressions, `{"key":"a","operator":"In","values":[`+strings.Join(values, ",")+`]}`)
	selector := `{"matchExpressions":[` + strings.Join(expressions, ",") + `]}`
	p, problems, err := NetworkPolicy([]byte(`{"metadata":{"name":"np","namespace":"red"},"spec":{"podSelector":` + selector +
		`,"ingress":[{"from":[{"podSelector":` + selector + `}],"ports":[` + strings.Join(ports, ",") + `]}]}}`))
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	if _, err := api.SubjectSelector(p); err != nil {
		t.Error(err)
	}
	r := p.Spec.Ingress[0]
	if _, err := api.EntitySelector("red", &r.Source); err != nil || len(r.Unreadable) > 0 || len(r.Destination.Ports) != 300 {
		t.Errorf("%v, %v, %d ports", err, r.Unreadable, len(r.Destination.Ports))
	}
}

// TestNetworkPolicyUnusable: what can't be told whom it selects is absent.
func TestNetworkPolicyUnusable(t *testing.T) {
	for name, c := range map[string]struct{ in, want string }{
		"no JSON":       {`{"metadata"`, "unexpected"},
		"another kind":  {`{"kind":"Pod","metadata":{"name":"a"}}`, "its kind is"},
		"unknown field": {`{"metadata":{"name":"a","namespace":"n"},"spec":{"podSelector":{"matchFields":{}}}}`, "spec.podSelector.matchFields: unknown field"},
		"operator":      {`{"metadata":{"name":"a","namespace":"n"},"spec":{"podSelector":{"matchExpressions":[{"key":"a","operator":"Near"}]}}}`, "spec.podSelector.matchExpressions[0].operator"},
		"wrong type":    {`{"metadata":{"name":"a","namespace":"n"},"spec":{"podSelector":{"matchLabels":{"a":1}}}}`, "spec.podSelector.matchLabels[a]: must be a string"},
		"null label":    {`{"metadata":{"name":"a","namespace":"n"},"spec":{"podSelector":{"matchLabels":{"a":null}}}}`, "spec.podSelector.matchLabels[a]: must not be null"},
		"too large":     {strings.Repeat(" ", api.MaxInput) + "{}", "value of 16777218 bytes is larger than 16777216"},
		"no spec":       {`{"metadata":{"name":"a","namespace":"n"},"spec":7}`, "spec: must be an object"},
	} {
		t.Run(name, func(t *testing.T) {
			p, _, err := NetworkPolicy([]byte(c.in))
			if p != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, error %v, not %q", p, err, c.want)
			}
		})
	}
}
