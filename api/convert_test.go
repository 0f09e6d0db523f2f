package api

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestSubjectSelector(t *testing.T) {
	np := func(s NetworkPolicySpec) Object {
		return &NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "prod"}, Spec: s}
	}
	gnp := func(s GlobalNetworkPolicySpec) Object { return &GlobalNetworkPolicy{Spec: s} }
	for _, c := range []struct {
		name string
		o    Object
		want string // or
		err  string
	}{
		{"nothing", np(NetworkPolicySpec{}),
			`projectcalico.org/namespace == "prod"`, ""},
		{"all()", np(NetworkPolicySpec{Selector: " all() "}),
			`projectcalico.org/namespace == "prod"`, ""},
		{"selector", np(NetworkPolicySpec{Selector: "a == 'b' || has(c)"}),
			`(a == "b" || has(c)) && projectcalico.org/namespace == "prod"`, ""},
		{"service accounts", np(NetworkPolicySpec{Selector: "a == 'b'", ServiceAccountSelector: "role != 'x'"}),
			`a == "b" && projectcalico.org/namespace == "prod" && pcsa.role != "x"`, ""},
		{"all() with service accounts", np(NetworkPolicySpec{Selector: "all()", ServiceAccountSelector: "role != 'x'"}),
			`has(projectcalico.org/serviceaccount) && projectcalico.org/namespace == "prod" && pcsa.role != "x"`, ""},
		{"any service account", np(NetworkPolicySpec{ServiceAccountSelector: "all()"}),
			`has(projectcalico.org/serviceaccount) && projectcalico.org/namespace == "prod"`, ""},
		{"syntax", np(NetworkPolicySpec{Selector: "a = 'b'"}), "",
			`selector: selector, character 3: expected ==, !=, in, not in, contains, starts with or ends with, found "= 'b'"`},
		{"global()", np(NetworkPolicySpec{Selector: "a == 'b' && global()"}), "",
			`selector: global() can only be the whole of a rule's namespaceSelector`},
		{"bad service accounts", np(NetworkPolicySpec{ServiceAccountSelector: "!"}), "",
			`serviceAccountSelector: selector, character 2: expected a label name, has(), all(), global() or a parenthesis, found the end`},
		{"a namespace that would end the quotes", &NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: `x" || "`}},
			`projectcalico.org/namespace == 'x" || "'`, ""},
		{"a namespace that no quotes hold", &NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: `x" || '`}}, "",
			`value "x\" || '" holds both kinds of quote, which a selector can't say`},

		{"global, nothing", gnp(GlobalNetworkPolicySpec{}), `all()`, ""},
		{"global, selector", gnp(GlobalNetworkPolicySpec{Selector: "has(host)"}), `has(host)`, ""},
		{"global, all() spares hosts with a namespaceSelector",
			gnp(GlobalNetworkPolicySpec{Selector: "all()", NamespaceSelector: "env != 'prod'"}),
			`has(projectcalico.org/namespace) && pcns.env != "prod"`, ""},
		{"global, so does an empty selector", gnp(GlobalNetworkPolicySpec{NamespaceSelector: "env != 'prod'"}),
			`has(projectcalico.org/namespace) && pcns.env != "prod"`, ""},
		{"global, any namespace", gnp(GlobalNetworkPolicySpec{NamespaceSelector: "all()"}),
			`has(projectcalico.org/namespace)`, ""},
		{"global, another selector does not spare hosts",
			gnp(GlobalNetworkPolicySpec{Selector: "a == 'x'", NamespaceSelector: "env != 'prod'"}),
			`a == "x" && pcns.env != "prod"`, ""},
		{"global, all() deep inside",
			gnp(GlobalNetworkPolicySpec{Selector: "a == 'x' || !all()", NamespaceSelector: "b in {'c','d'} && all()"}),
			`(a == "x" || !has(projectcalico.org/namespace)) && (pcns.b in {"c", "d"} && has(projectcalico.org/namespace))`, ""},
		{"global, all() in a value is a value",
			gnp(GlobalNetworkPolicySpec{Selector: "a == 'all()'", NamespaceSelector: "b == 'all()'"}),
			`a == "all()" && pcns.b == "all()"`, ""},
		{"global, service accounts",
			gnp(GlobalNetworkPolicySpec{Selector: "all()", ServiceAccountSelector: "has(x)"}),
			`has(projectcalico.org/serviceaccount) && has(pcsa.x)`, ""},
		{"global, both",
			gnp(GlobalNetworkPolicySpec{Selector: "all()", NamespaceSelector: "has(n)", ServiceAccountSelector: "has(x)"}),
			`has(projectcalico.org/namespace) && has(pcns.n) && has(pcsa.x)`, ""},
		{"global, global()", gnp(GlobalNetworkPolicySpec{NamespaceSelector: "global()"}), "",
			`namespaceSelector: global() can only be the whole of a rule's namespaceSelector`},

		{"staged", &StagedNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "n"},
			Spec: StagedNetworkPolicySpec{NetworkPolicySpec: NetworkPolicySpec{Selector: "has(a)"}}},
			`has(a) && projectcalico.org/namespace == "n"`, ""},
		{"staged global", &StagedGlobalNetworkPolicy{
			Spec: StagedGlobalNetworkPolicySpec{GlobalNetworkPolicySpec: GlobalNetworkPolicySpec{Selector: "has(a)"}}},
			`has(a)`, ""},
		{"staged Kubernetes", &StagedKubernetesNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "n"},
			Spec: StagedKubernetesNetworkPolicySpec{PodSelector: metav1.LabelSelector{
				MatchLabels: map[string]string{"b": "2", "a": "1"},
				MatchExpressions: []metav1.LabelSelectorRequirement{
					{Key: "c", Operator: "NotIn", Values: []string{"y", "x"}},
					{Key: "d", Operator: "Exists"}, {Key: "e", Operator: "DoesNotExist"},
					{Key: "f", Operator: "In", Values: []string{"z"}}}}}},
			`(a == "1" && b == "2" && c not in {"x", "y"} && has(d) && !has(e) && f in {"z"}) && projectcalico.org/namespace == "n" && projectcalico.org/orchestrator == "k8s"`, ""},
		{"staged Kubernetes, empty selector", &StagedKubernetesNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "n"}},
			`projectcalico.org/namespace == "n" && projectcalico.org/orchestrator == "k8s"`, ""},
		{"staged Kubernetes, bad operator", &StagedKubernetesNetworkPolicy{
			Spec: StagedKubernetesNetworkPolicySpec{PodSelector: metav1.LabelSelector{
				MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Is"}}}}}, "",
			`podSelector: matchExpressions[0]: operator "Is" is not In, NotIn, Exists or DoesNotExist`},
		{"no policy", &Tier{}, "", `a Tier applies to no endpoints`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := SubjectSelector(c.o)
			switch {
			case err != nil && err.Error() != c.err:
				t.Fatalf("error %v, want %q", err, c.err)
			case err == nil && (c.err != "" || s.String() != c.want):
				t.Fatalf("got  %s\nwant %s%s", s, c.want, c.err)
			}
		})
	}
}

func TestEntitySelector(t *testing.T) {
	for _, c := range []struct {
		name      string
		namespace string
		e         EntityRule
		want      string // "" = nil
		err       string
	}{
		{"nothing", "prod", EntityRule{}, "", ""},
		{"nothing, global", "", EntityRule{}, "", ""},
		{"nets are not namespaced", "prod", EntityRule{Nets: []string{"10.0.0.0/8"}, Ports: []Port{{First: 80, Last: 80}}}, "", ""},
		{"own namespace", "prod", EntityRule{Selector: "a == 'b'"},
			`a == "b" && projectcalico.org/namespace == "prod"`, ""},
		{"own namespace, all()", "prod", EntityRule{Selector: "all()"}, `projectcalico.org/namespace == "prod"`, ""},
		{"all() of a global policy", "", EntityRule{Selector: "all()"}, `all()`, ""},
		{"only notSelector", "prod", EntityRule{NotSelector: "a == 'b'"}, `projectcalico.org/namespace == "prod"`, ""},
		{"only notSelector, global", "", EntityRule{NotSelector: "a == 'b'"}, "", ""},
		{"other namespaces", "prod", EntityRule{Selector: "a == 'b'", NamespaceSelector: "env == 'test'"},
			`a == "b" && pcns.env == "test"`, ""},
		{"all namespaces", "prod", EntityRule{Selector: "a == 'b'", NamespaceSelector: "all()"},
			`a == "b" && has(projectcalico.org/namespace)`, ""},
		{"only namespaces", "prod", EntityRule{NamespaceSelector: "has(x) || all()"},
			`has(pcns.x) || has(projectcalico.org/namespace)`, ""},
		{"no namespace", "prod", EntityRule{Selector: "a == 'b'", NamespaceSelector: " ( global() )"},
			`a == "b" && !has(projectcalico.org/namespace)`, ""},
		{"only no namespace", "", EntityRule{NamespaceSelector: "global()"}, `!has(projectcalico.org/namespace)`, ""},
		{"service accounts by name", "prod", EntityRule{ServiceAccounts: &ServiceAccountMatch{Names: []string{"b", "a"}}},
			`projectcalico.org/namespace == "prod" && projectcalico.org/serviceaccount in {"a", "b"}`, ""},
		{"service accounts by selector, global", "", EntityRule{ServiceAccounts: &ServiceAccountMatch{Selector: "r == 'x'"}},
			`pcsa.r == "x"`, ""},
		{"service accounts by both, all namespaces", "prod",
			EntityRule{NamespaceSelector: "all()", Selector: "has(a)", ServiceAccounts: &ServiceAccountMatch{Names: []string{"a"}, Selector: "all()"}},
			`has(a) && has(projectcalico.org/namespace) && (projectcalico.org/serviceaccount in {"a"} && has(projectcalico.org/serviceaccount))`, ""},
		{"empty service accounts", "prod", EntityRule{ServiceAccounts: &ServiceAccountMatch{}}, "", ""},
		{"global() in selector", "", EntityRule{Selector: "global()"}, "",
			`selector: global() can only be the whole of a rule's namespaceSelector`},
		{"global() with more", "", EntityRule{NamespaceSelector: "global() || has(a)"}, "",
			`namespaceSelector: global() can only be the whole of a rule's namespaceSelector`},
		{"global() of service accounts", "", EntityRule{ServiceAccounts: &ServiceAccountMatch{Selector: "global()"}}, "",
			`serviceAccounts.selector: global() can only be the whole of a rule's namespaceSelector`},
		{"syntax of namespaceSelector", "", EntityRule{NamespaceSelector: "("}, "",
			`namespaceSelector: selector, character 2: expected a label name, has(), all(), global() or a parenthesis, found the end`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := EntitySelector(c.namespace, &c.e)
			if (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			got := ""
			if s != nil {
				got = s.String()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestKubernetesRules(t *testing.T) {
	pods := func(k, v string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{k: v}}
	}
	num := func(n uint16) *Port { return &Port{First: n, Last: n} }
	end := func(n uint16) *uint16 { return &n }
	udp, icmp, tcp := Protocol{Name: "UDP"}, Protocol{Name: "ICMP"}, Protocol{Name: "TCP"}
	k8s := `projectcalico.org/orchestrator == "k8s"`
	for _, c := range []struct {
		name    string
		ingress KubernetesIngressRule
		want    []Rule
	}{
		{"everything", KubernetesIngressRule{}, []Rule{{Action: Allow}}},
		{"pods of the namespace", KubernetesIngressRule{From: []KubernetesPeer{{PodSelector: pods("a", "b")}}},
			[]Rule{{Action: Allow, Source: EntityRule{Selector: `a == "b" && ` + k8s}}}},
		{"all pods of the namespace", KubernetesIngressRule{From: []KubernetesPeer{{PodSelector: &metav1.LabelSelector{}}}},
			[]Rule{{Action: Allow, Source: EntityRule{Selector: k8s}}}},
		{"all pods of all namespaces", KubernetesIngressRule{From: []KubernetesPeer{{NamespaceSelector: &metav1.LabelSelector{}}}},
			[]Rule{{Action: Allow, Source: EntityRule{Selector: k8s, NamespaceSelector: "all()"}}}},
		{"both selectors", KubernetesIngressRule{From: []KubernetesPeer{{PodSelector: pods("a", "b"), NamespaceSelector: pods("n", "x")}}},
			[]Rule{{Action: Allow, Source: EntityRule{Selector: `a == "b" && ` + k8s, NamespaceSelector: `n == "x"`}}}},
		{"block", KubernetesIngressRule{From: []KubernetesPeer{{IPBlock: &KubernetesIPBlock{CIDR: "10.1.0.0/8", Except: []string{"10.2.0.0/16"}}}}},
			[]Rule{{Action: Allow, Source: EntityRule{Nets: []string{"10.0.0.0/8"}, NotNets: []string{"10.2.0.0/16"}}}}},
		{"ports by protocol, merged",
			KubernetesIngressRule{Ports: []KubernetesPort{{Port: num(82)}, {Port: num(80), EndPort: end(81)}, {Port: num(8080)},
				{Protocol: &udp, Port: num(53)}, {Port: &Port{Name: "web"}}, {Port: &Port{Name: "web"}}, {Port: num(81), EndPort: end(90)}}},
			[]Rule{
				{Action: Allow, Protocol: &tcp, Destination: EntityRule{Ports: []Port{{First: 80, Last: 90}, {First: 8080, Last: 8080}, {Name: "web"}}}},
				{Action: Allow, Protocol: &udp, Destination: EntityRule{Ports: []Port{{First: 53, Last: 53}}}}}},
		{"all ports of a protocol", KubernetesIngressRule{Ports: []KubernetesPort{{Port: num(80)}, {}}},
			[]Rule{{Action: Allow, Protocol: &tcp}}},
		{"peers times protocols",
			KubernetesIngressRule{From: []KubernetesPeer{{PodSelector: pods("a", "1")}, {PodSelector: pods("a", "2")}},
				Ports: []KubernetesPort{{Port: num(1)}, {Protocol: &udp, Port: num(2)}}},
			[]Rule{
				{Action: Allow, Protocol: &tcp, Source: EntityRule{Selector: `a == "1" && ` + k8s}, Destination: EntityRule{Ports: []Port{{First: 1, Last: 1}}}},
				{Action: Allow, Protocol: &udp, Source: EntityRule{Selector: `a == "1" && ` + k8s}, Destination: EntityRule{Ports: []Port{{First: 2, Last: 2}}}},
				{Action: Allow, Protocol: &tcp, Source: EntityRule{Selector: `a == "2" && ` + k8s}, Destination: EntityRule{Ports: []Port{{First: 1, Last: 1}}}},
				{Action: Allow, Protocol: &udp, Source: EntityRule{Selector: `a == "2" && ` + k8s}, Destination: EntityRule{Ports: []Port{{First: 2, Last: 2}}}}}},
		{"a bad port leaves no rule for all ports", KubernetesIngressRule{Ports: []KubernetesPort{{Protocol: &icmp}}},
			[]Rule{{Action: Allow, Unreadable: []string{"spec.ingress[0].ports[0]: protocol ICMP is not TCP, UDP or SCTP"}}}},
		{"bad ports beside a good one",
			KubernetesIngressRule{Ports: []KubernetesPort{{EndPort: end(1)}, {Port: num(5), EndPort: end(4)}, {Port: num(0)},
				{Port: &Port{Name: "a"}, EndPort: end(4)}, {Port: &Port{First: 1, Last: 2}}, {Port: &Port{Name: "a b"}}, {Port: num(7)}}},
			[]Rule{
				{Action: Allow, Unreadable: []string{"spec.ingress[0].ports[0]: endPort needs a port that is a number"}},
				{Action: Allow, Unreadable: []string{"spec.ingress[0].ports[1]: endPort 4 is below port 5"}},
				{Action: Allow, Unreadable: []string{"spec.ingress[0].ports[2]: port 0 is not between 1 and 65535"}},
				{Action: Allow, Unreadable: []string{"spec.ingress[0].ports[3]: endPort needs a port that is a number"}},
				{Action: Allow, Unreadable: []string{"spec.ingress[0].ports[4]: port 1:2 is a range; write endPort"}},
				{Action: Allow, Unreadable: []string{`spec.ingress[0].ports[5]: port name "a b" holds ' ', which is no letter, digit, dot, dash or underscore`}},
				{Action: Allow, Protocol: &tcp, Destination: EntityRule{Ports: []Port{{First: 7, Last: 7}}}}}},
		{"bad peers leave no rule for everybody",
			KubernetesIngressRule{From: []KubernetesPeer{{}, {IPBlock: &KubernetesIPBlock{CIDR: "x"}},
				{IPBlock: &KubernetesIPBlock{CIDR: "10.0.0.0/8", Except: []string{"11.0.0.0/16"}}},
				{IPBlock: &KubernetesIPBlock{CIDR: "10.0.0.0/8", Except: []string{"y"}}},
				{IPBlock: &KubernetesIPBlock{CIDR: "10.0.0.0/8"}, PodSelector: pods("a", "b")},
				{PodSelector: pods("a b", "b")}, {NamespaceSelector: pods("a", `'"`)}}},
			[]Rule{
				{Action: Allow, Unreadable: []string{"spec.ingress[0].from[0]: needs podSelector, namespaceSelector or ipBlock"}},
				{Action: Allow, Unreadable: []string{`spec.ingress[0].from[1]: ipBlock.cidr: "x" is neither an IP address nor a prefix in CIDR notation`}},
				{Action: Allow, Unreadable: []string{"spec.ingress[0].from[2]: ipBlock.except[0]: 11.0.0.0/16 is not a part of 10.0.0.0/8"}},
				{Action: Allow, Unreadable: []string{`spec.ingress[0].from[3]: ipBlock.except[0]: "y" is neither an IP address nor a prefix in CIDR notation`}},
				{Action: Allow, Unreadable: []string{"spec.ingress[0].from[4]: ipBlock can't be combined with selectors"}},
				{Action: Allow, Unreadable: []string{`spec.ingress[0].from[5]: podSelector: label name "a b" holds ' '`}},
				{Action: Allow, Unreadable: []string{`spec.ingress[0].from[6]: namespaceSelector: value "'\"" holds both kinds of quote, which a selector can't say`}}}},
		{"marked when it was decoded", KubernetesIngressRule{Unreadable: []string{"spec.ingress[0].new"}},
			[]Rule{{Action: Allow, Unreadable: []string{"spec.ingress[0].new"}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, egress, types := KubernetesRules(&StagedKubernetesNetworkPolicySpec{Ingress: []KubernetesIngressRule{c.ingress}})
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("ingress (-want +got):\n%s", diff)
			}
			if len(egress) != 0 || len(types) != 1 || types[0] != Ingress {
				t.Errorf("egress %v, types %v", egress, types)
			}
		})
	}

	_, egress, types := KubernetesRules(&StagedKubernetesNetworkPolicySpec{Egress: []KubernetesEgressRule{
		{To: []KubernetesPeer{{PodSelector: pods("a", "b")}}, Ports: []KubernetesPort{{Port: num(5)}}}}})
	want := []Rule{{Action: Allow, Protocol: &tcp, Destination: EntityRule{Selector: `a == "b" && ` + k8s, Ports: []Port{{First: 5, Last: 5}}}}}
	if diff := cmp.Diff(want, egress); diff != "" {
		t.Errorf("egress (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]PolicyType{Ingress, Egress}, types); diff != "" {
		t.Errorf("types:\n%s", diff)
	}
}
