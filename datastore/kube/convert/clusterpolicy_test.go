package convert

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const allPods = "{selector:projectcalico.org/orchestrator == 'k8s',namespaceSelector:all()}"

// spec gives a policy of the Admin tier for all pods, with more fields.
func spec(more string) string {
	return `{"tier":"Admin","priority":10,"subject":{"namespaces":{}},` + more + `}`
}

func TestClusterNetworkPolicy(t *testing.T) {
	head := func(types string, rules ...string) []string {
		out := []string{"select " + k8s, "of namespaces all()"}
		if types != "" {
			out = append(out, "types "+types)
		}
		return append(out, rules...)
	}
	for _, c := range []struct {
		name     string
		spec     string
		want     []string
		problems []string
	}{
		{"no rules", spec(`"ingress":[],"egress":null`), head(""), nil},
		{"actions, names and order", spec(`"ingress":[
			{"name":"one","action":"Accept","from":[{"namespaces":{}}]},{"action":"Pass","from":[{"namespaces":{"matchLabels":{"a":"x"}}}]},
			{"action":"Deny","from":[{"pods":{"namespaceSelector":{"matchLabels":{"a":"x"}},"podSelector":{"matchExpressions":[{"key":"b","operator":"DoesNotExist"}]}}}]}]`),
			head("[Ingress]", "in Allow from "+allPods+" named one", "in Pass from {selector:projectcalico.org/orchestrator == 'k8s',namespaceSelector:a == 'x'}",
				"in Deny from {selector:!has(b) && projectcalico.org/orchestrator == 'k8s',namespaceSelector:a == 'x'}"), nil},
		{"a subject of pods", `{"tier":"Baseline","priority":0,"subject":{"pods":{"namespaceSelector":{"matchLabels":{"a":"x"}},"podSelector":{"matchLabels":{"b":"y"}}}},
			"egress":[{"action":"Deny","name":"none","to":[{"namespaces":{}}]}]}`,
			[]string{`select b == "y" && ` + k8s, `of namespaces a == "x"`, "types [Egress]", "out Deny to " + allPods + " named none"}, nil},
		{"networks by family", spec(`"egress":[{"action":"Deny","to":[{"networks":["10.0.0.1/8","::/0","192.0.2.0/24"]}]}]`),
			head("[Egress]", "out Deny to {nets:[10.0.0.0/8,192.0.2.0/24]}", "out Deny to {nets:[::/0]}"), nil},
		{"protocols", spec(`"egress":[{"action":"Accept","to":[{"networks":["10.0.0.0/8"]}],"protocols":[
			{"tcp":{"destinationPort":{"number":80}}},{"udp":{"destinationPort":{"range":{"start":5000,"end":6000}}}},{"tcp":{"destinationPort":{"range":{"start":90,"end":99}}}},{"sctp":{"destinationPort":{"number":7}}}]}]`),
			head("[Egress]", "out Allow TCP to {nets:[10.0.0.0/8],ports:[80,90:99]}", "out Allow UDP to {nets:[10.0.0.0/8],ports:[5000:6000]}",
				"out Allow SCTP to {nets:[10.0.0.0/8],ports:[7]}"), nil},
		{"named ports have any protocol", spec(`"ingress":[{"action":"Accept","from":[{"namespaces":{}}],"protocols":[{"destinationNamedPort":"web"},{"tcp":{"destinationPort":{"number":1}}},{"destinationNamedPort":"dns"}]}]`),
			head("[Ingress]", "in Allow from "+allPods+" to {ports:[web,dns]}", "in Allow TCP from "+allPods+" to {ports:[1]}"), nil},

		{"an unknown field closes its rule", spec(`"ingress":[{"action":"Accept","from":[{"namespaces":{}}],"when":"night"},{"action":"Deny","when":"day","from":[{"namespaces":{"matchLabels":{"a":"x"}}}]},{"action":"Pass","from":[{"namespaces":{}}]}]`),
			head("[Ingress]", "in Allow UNREADABLE", "in Deny UNREADABLE", "in Pass from "+allPods),
			[]string{"spec.ingress[0].when: unknown field", "spec.ingress[1].when: unknown field"}},
		{"an unknown field of a peer, and networks where there are none", spec(`"ingress":[{"name":"n","action":"Pass","from":[{"namespaces":{},"zone":"x"}]},{"action":"Deny","from":[{"networks":["10.0.0.0/8"]}]}]`),
			head("[Ingress]", "in Pass named n UNREADABLE", "in Deny UNREADABLE"),
			[]string{"spec.ingress[0].from[0].zone: unknown field", "spec.ingress[1].from[0].networks: unknown field"}},
		{"an unknown field of the policy closes every rule, as it is", spec(`"when":"night","ingress":[{"action":"Accept","from":[{"namespaces":{}}]}],"egress":[{"action":"Deny","to":[{"networks":["10.0.0.0/8"]}]}]`),
			head("[Ingress Egress]", "in Allow from "+allPods+" UNREADABLE", "out Deny to {nets:[10.0.0.0/8]} UNREADABLE"), []string{"spec.when: unknown field"}},
		{"an action that nobody knows denies", spec(`"ingress":[{"action":"Audit","from":[{"namespaces":{}}]},{"from":[{"namespaces":{}}]},{"action":7,"from":[{"namespaces":{}}]}]`),
			head("[Ingress]", "in Deny UNREADABLE", "in Deny UNREADABLE", "in Deny UNREADABLE"),
			[]string{`spec.ingress[0].action: "Audit" is none of Accept, Deny, Pass`, `spec.ingress[1].action: "" is none of Accept, Deny, Pass`,
				"spec.ingress[2]: json: cannot unmarshal number into Go struct field ClusterNetworkPolicyIngressRule.action of type v1alpha2.ClusterNetworkPolicyRuleAction",
				`spec.ingress[2].action: "" is none of Accept, Deny, Pass`}},
		{"so does one given twice", spec(`"ingress":[{"action":"Deny","action":"Accept","from":[{"namespaces":{}}]}]`),
			head("[Ingress]", "in Deny UNREADABLE"), []string{"spec.ingress[0].action: given twice"}},
		{"no peers", spec(`"ingress":[{"action":"Deny"},{"action":"Deny","from":[]},{"action":"Accept","from":[{}]},{"action":"Pass","from":[null]}]`),
			head("[Ingress]", "in Deny UNREADABLE", "in Deny UNREADABLE", "in Allow UNREADABLE", "in Pass UNREADABLE"),
			[]string{"spec.ingress[0].from: must hold at least one peer", "spec.ingress[1].from: must hold at least one peer",
				"spec.ingress[2].from[0]: has no peer that this release knows", "spec.ingress[3].from[0]: must not be null"}},
		{"two peers in one", spec(`"ingress":[{"action":"Accept","from":[{"namespaces":{},"pods":{"podSelector":{},"namespaceSelector":{}}}]}]`),
			head("[Ingress]", "in Allow UNREADABLE"), []string{"spec.ingress[0].from[0]: must hold exactly one kind of peer"}},
		{"nodes", spec(`"egress":[{"action":"Accept","name":"one","to":[{"namespaces":{}},{"nodes":{}}]},
			{"action":"Deny","to":[{"nodes":{"matchLabels":{"kubernetes.io/os":"linux"},"matchExpressions":[{"key":"b","operator":"NotIn","values":["x"]}]}}],"protocols":[{"tcp":{"destinationPort":{"number":22}}}]}]`),
			head("[Egress]", "out Allow to "+allPods+" named one", "out Allow to nodes all() named one",
				`out Deny TCP to {ports:[22]} to nodes kubernetes.io/os == "linux" && b not in {"x"}`), nil},
		{"nodes that can't be selected", spec(`"egress":[{"action":"Deny","to":[{"nodes":{"matchExpressions":[{"key":"a","operator":"Near"}]}}]},{"action":"Accept","to":[{"nodes":{"fieldSelector":{}}}]},
			{"action":"Accept","to":[{"nodes":{}}],"protocols":[{"destinationNamedPort":"web"}]},{"action":"Deny","to":[{"nodes":{},"networks":["10.0.0.0/8"]}]},{"action":"Pass","to":[{"nodes":null}]}],
			"ingress":[{"action":"Accept","from":[{"nodes":{}}]}]`),
			head("[Ingress Egress]", "in Allow UNREADABLE", "out Deny UNREADABLE", "out Allow UNREADABLE", "out Allow UNREADABLE", "out Deny UNREADABLE", "out Pass UNREADABLE"),
			[]string{"spec.ingress[0].from[0].nodes: unknown field",
				`spec.egress[0].to[0].nodes: matchExpressions[0]: operator "Near" is not In, NotIn, Exists or DoesNotExist`,
				"spec.egress[1].to[0].nodes.fieldSelector: unknown field",
				"spec.egress[2].to[0].nodes: can't be combined with destinationNamedPort: only pods have named ports",
				"spec.egress[3].to[0]: must hold exactly one kind of peer", "spec.egress[4].to[0].nodes: must not be null"}},
		{"domains", spec(`"egress":[{"action":"Accept","to":[{"domainNames":["example.com"]}]},{"action":"Deny","to":[{"domainNames":["example.com"]}]}]`),
			head("[Egress]", "out Allow UNREADABLE", "out Deny UNREADABLE"),
			[]string{"spec.egress[0].to[0].domainNames: domain names are not followed; name networks", "spec.egress[1].to[0].domainNames: domain names are not followed; name networks"}},
		{"networks that are none", spec(`"egress":[{"action":"Deny","to":[{"networks":["10.0.0.0"]}]},{"action":"Deny","to":[{"networks":[]}]},{"action":"Accept","to":[{"networks":["::ffff:10.0.0.0/104"]}]}]`),
			head("[Egress]", "out Deny UNREADABLE", "out Deny UNREADABLE", "out Allow UNREADABLE"),
			[]string{`spec.egress[0].to[0].networks[0]: netip.ParsePrefix("10.0.0.0"): no '/'`, "spec.egress[1].to[0].networks: must hold at least one network",
				`spec.egress[2].to[0].networks[0]: "::ffff:10.0.0.0/104" is an IPv4 address inside an IPv6 one; write it as IPv4`}},
		{"a named port of a network", spec(`"egress":[{"action":"Deny","to":[{"namespaces":{}},{"networks":["10.0.0.0/8"]}],"protocols":[{"destinationNamedPort":"web"}]}]`),
			head("[Egress]", "out Deny UNREADABLE"), []string{"spec.egress[0].to[1].networks: can't be combined with destinationNamedPort: only pods have named ports"}},
		{"protocols that say nothing", spec(`"ingress":[{"action":"Accept","from":[{"namespaces":{}}],"protocols":[]},{"action":"Deny","from":[{"namespaces":{}}],"protocols":[{}]},
			{"action":"Deny","from":[{"namespaces":{}}],"protocols":[{"tcp":{}},{"tcp":{"destinationPort":{}}},{"udp":{"destinationPort":{"number":1,"range":{"start":1,"end":2}}}},{"sctp":{"destinationPort":{"range":{"start":9,"end":9}}}},
			{"tcp":{"destinationPort":{"number":65536}}},{"tcp":{"destinationPort":{"number":1}},"udp":{"destinationPort":{"number":1}}},{"destinationNamedPort":"Web"},{"udp":{"destinationPort":{"number":-1}}},{"udp":{"destinationPort":{"range":{"start":0,"end":5}}}},{"udp":{"destinationPort":{"range":{"start":5,"end":4}}}},{"udp":{"destinationPort":{"range":{"start":5,"end":65536}}}}]}]`),
			head("[Ingress]", "in Allow UNREADABLE", "in Deny UNREADABLE", "in Deny UNREADABLE"),
			[]string{"spec.ingress[0].protocols: must hold at least one protocol, if it is there",
				"spec.ingress[1].protocols[0]: must be exactly one of tcp, udp, sctp and destinationNamedPort",
				"spec.ingress[2].protocols[0]: has no destinationPort", "spec.ingress[2].protocols[1]: destinationPort must be either a number or a range",
				"spec.ingress[2].protocols[2]: destinationPort must be either a number or a range", "spec.ingress[2].protocols[3]: the range 9 to 9 ends before it begins, or where",
				"spec.ingress[2].protocols[4]: port 65536 is not between 1 and 65535",
				"spec.ingress[2].protocols[5]: must be exactly one of tcp, udp, sctp and destinationNamedPort",
				`spec.ingress[2].protocols[6]: destinationNamedPort "Web": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)`, "spec.ingress[2].protocols[7]: port -1 is not between 1 and 65535",
				"spec.ingress[2].protocols[8]: port 0 is not between 1 and 65535", "spec.ingress[2].protocols[9]: the range 5 to 4 ends before it begins, or where",
				"spec.ingress[2].protocols[10]: port 65536 is not between 1 and 65535"}},
		{"ports at the ends", spec(`"ingress":[{"action":"Deny","from":[{"namespaces":{}}],"protocols":[{"tcp":{"destinationPort":{"range":{"start":1,"end":65535}}}}]}]`),
			head("[Ingress]", "in Deny TCP from "+allPods+" to {ports:[1:65535]}"), nil},
		{"every peer is looked at", spec(`"egress":[{"action":"Deny","to":[{"networks":["x"]},{},{"pods":{"namespaceSelector":{},"podSelector":{"matchExpressions":[{"key":"a","operator":"Near"}]}}}]}]`),
			head("[Egress]", "out Deny UNREADABLE"),
			[]string{`spec.egress[0].to[0].networks[0]: netip.ParsePrefix("x"): no '/'`, "spec.egress[0].to[1]: has no peer that this release knows",
				`spec.egress[0].to[2].pods.podSelector: matchExpressions[0]: operator "Near" is not In, NotIn, Exists or DoesNotExist`}},
		{"a bad operator, and a label without a value", spec(`"ingress":[{"action":"Deny","from":[{"namespaces":{"matchExpressions":[{"key":"a","operator":"In"}]}}]},{"action":"Deny","from":[{"namespaces":{"matchLabels":{"a":null}}}]}]`),
			head("[Ingress]", "in Deny UNREADABLE", "in Deny UNREADABLE"),
			[]string{`spec.ingress[0].from[0].namespaces: matchExpressions[0]: operator "In" with 0 values`, "spec.ingress[1].from[0].namespaces.matchLabels.a: must not be null"}},
		{"rules that are no list deny everything", spec(`"ingress":{},"egress":[]`), head("[Ingress]", "in Deny UNREADABLE"), []string{"spec.ingress: must be a list"}},
		{"a rule that is none", spec(`"ingress":[null,7]`), head("[Ingress]", "in Deny UNREADABLE", "in Deny UNREADABLE"),
			[]string{"spec.ingress[0]: must not be null", `spec.ingress[0].action: "" is none of Accept, Deny, Pass`,
				"spec.ingress[1]: json: cannot unmarshal number into Go value of type v1alpha2.ClusterNetworkPolicyIngressRule", `spec.ingress[1].action: "" is none of Accept, Deny, Pass`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, problems, err := ClusterNetworkPolicy([]byte(`{"apiVersion":"policy.networking.k8s.io/v1alpha2","kind":"ClusterNetworkPolicy","metadata":{"name":"cnp"},"spec":` + c.spec + `}`))
			if err != nil {
				t.Fatal(err)
			}
			got := policyWords(p.Spec.Selector, p.Spec.NamespaceSelector, p.Spec.Types, p.Spec.Ingress, p.Spec.Egress)
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

func TestClusterNetworkPolicyPlace(t *testing.T) {
	for _, c := range []struct {
		tier     string
		priority string
		wantName string
		wantTier string
		order    float64
	}{
		{"Admin", "0", "kcnp.admin.a", "kube-admin", 0},
		{"Baseline", "1000", "kcnp.baseline.a", "kube-baseline", 1000},
	} {
		p, problems, err := ClusterNetworkPolicy([]byte(`{"metadata":{"name":"a","uid":"u","resourceVersion":"5","generation":2,"labels":{"x":"y"},"annotations":{"b":"c"},"odd":1},
			"spec":{"tier":"` + c.tier + `","priority":` + c.priority + `,"subject":{"namespaces":{}}},"status":{"conditions":[],"future":1}}`))
		if err != nil || len(problems) > 0 {
			t.Fatal(err, problems)
		}
		want := metav1.ObjectMeta{Name: c.wantName, UID: "u", ResourceVersion: "5", Generation: 2, Labels: map[string]string{"x": "y", api.LabelTier: c.wantTier}}
		if diff := cmp.Diff(want, p.ObjectMeta); diff != "" {
			t.Errorf("metadata (-want +got):\n%s", diff)
		}
		if p.Spec.Tier != c.wantTier || *p.Spec.Order != c.order || p.Kind != "GlobalNetworkPolicy" {
			t.Errorf("%s in tier %s, order %v", p.Kind, p.Spec.Tier, *p.Spec.Order)
		}
	}
}

// TestClusterNetworkPolicyUnusable: what can't be told whom it selects, or when, is absent.
func TestClusterNetworkPolicyUnusable(t *testing.T) {
	const meta = `{"metadata":{"name":"a"},"spec":{`
	for name, c := range map[string]struct{ in, want string }{
		"no JSON":               {`{"metadata"`, "unexpected end"},
		"no object":             {`[]`, "cannot unmarshal array"},
		"no name":               {`{"metadata":{},"spec":{}}`, "metadata.name: is missing"},
		"no metadata":           {`{}`, "metadata.name: is missing"},
		"another kind":          {`{"kind":"NetworkPolicy","metadata":{"name":"a"}}`, `kind: "NetworkPolicy" is not ClusterNetworkPolicy`},
		"no spec":               {`{"metadata":{"name":"a"}}`, "spec.tier: must be Admin or Baseline"},
		"unknown tier":          {meta + `"tier":"Developer","priority":1,"subject":{"namespaces":{}}}}`, `spec.tier: "Developer" is neither Admin nor Baseline`},
		"tier null":             {meta + `"tier":null,"priority":1,"subject":{"namespaces":{}}}}`, "reading ClusterNetworkPolicy a: spec.tier: must be Admin or Baseline"},
		"tier of a wrong type":  {meta + `"tier":7,"priority":1,"subject":{"namespaces":{}}}}`, "spec.tier: must be Admin or Baseline"},
		"both tier and subject": {meta + `"tier":7,"priority":1,"subject":{}}}`, "spec.tier: must be Admin or Baseline\nspec.subject: must hold either namespaces or pods"},
		"too large":             {strings.Repeat(" ", api.MaxInput) + "{}", "reading a ClusterNetworkPolicy: value of 16777218 bytes is larger than 16777216"},
		"tier twice":            {meta + `"tier":"Admin","tier":"Baseline","priority":1,"subject":{"namespaces":{}}}}`, "spec.tier: given twice"},
		"spec twice":            {`{"metadata":{"name":"a"},"spec":{"tier":"Admin"},"spec":{"priority":1,"subject":{"namespaces":{}}}}`, "spec: given twice"},
		"no priority":           {meta + `"tier":"Admin","subject":{"namespaces":{}}}}`, "spec.priority: must be a whole number"},
		"priority null":         {meta + `"tier":"Admin","priority":null,"subject":{"namespaces":{}}}}`, "spec.priority: must be a whole number"},
		"priority in words":     {meta + `"tier":"Admin","priority":"high","subject":{"namespaces":{}}}}`, "spec.priority: must be a whole number"},
		"no subject":            {meta + `"tier":"Admin","priority":1}}`, "spec.subject: is missing"},
		"empty subject":         {meta + `"tier":"Admin","priority":1,"subject":{}}}`, "spec.subject: must hold either namespaces or pods"},
		"two subjects":          {meta + `"tier":"Admin","priority":1,"subject":{"namespaces":{},"pods":{}}}}`, "spec.subject: must hold either namespaces or pods"},
		"unknown subject":       {meta + `"tier":"Admin","priority":1,"subject":{"namespaces":{},"nodes":{}}}}`, "spec.subject.nodes: unknown field"},
		"subject null":          {meta + `"tier":"Admin","priority":1,"subject":null}}`, "spec.subject: must not be null"},
		"subject without value": {meta + `"tier":"Admin","priority":1,"subject":{"namespaces":{"matchLabels":{"a":null}}}}}`, "spec.subject.namespaces.matchLabels.a: must not be null"},
		"subject's operator":    {meta + `"tier":"Admin","priority":1,"subject":{"pods":{"podSelector":{"matchExpressions":[{"key":"a","operator":"Near"}]},"namespaceSelector":{}}}}}`, `spec.subject.pods.podSelector: matchExpressions[0]: operator "Near"`},
	} {
		t.Run(name, func(t *testing.T) {
			p, _, err := ClusterNetworkPolicy([]byte(c.in))
			if p != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, error %v, not %q", p, err, c.want)
			}
		})
	}
}

// TestClusterNetworkPolicyVersion: a version that is not known may mean other things by the same words.
func TestClusterNetworkPolicyVersion(t *testing.T) {
	p, problems, err := ClusterNetworkPolicy([]byte(`{"apiVersion":"policy.networking.k8s.io/v1","metadata":{"name":"a"},"spec":` + spec(`"ingress":[{"action":"Accept","from":[{"namespaces":{}}]}]`) + `}`))
	if err != nil || len(problems) != 1 || problems[0].Error() != `apiVersion: "policy.networking.k8s.io/v1" is not policy.networking.k8s.io/v1alpha2` || len(p.Spec.Ingress[0].Unreadable) != 1 {
		t.Errorf("got %+v, %v, %v", p, problems, err)
	}
}
