package calcgraph

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// TestRules reads one rule each: what it becomes, as Dump prints it, without the ids of rules and with sets by what they
// are of; and what is wrong with it.
func TestRules(t *testing.T) {
	for _, tt := range []struct{ name, in, want, bad string }{
		{"empty", "{action: Allow}", "allow", ""},
		{"actions", "{action: Pass}", "pass", ""},
		{"log", "{action: Log}", "log", ""},
		{"unknown action", "{action: Reject}", "deny unsupported=spec.ingress[0].action", "spec.ingress[0].action"},
		{"protocols", "{action: Deny, protocol: 47, notProtocol: SCTP, ipVersion: 6}", "deny ipv=6 proto=47 !proto=132", ""},
		{"unknown protocol", "{action: Allow, protocol: Quic}", "allow unsupported=spec.ingress[0].protocol", "spec.ingress[0].protocol"},
		{"unknown version", "{action: Allow, ipVersion: 5}", "allow unsupported=spec.ingress[0].ipVersion", "spec.ingress[0].ipVersion"},
		{"icmp", "{action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}}", "allow proto=1 icmp=8/0", ""},
		{"icmpv6 and not", "{action: Allow, protocol: ICMPv6, notICMP: {type: 128}}", "allow proto=58 !icmp=128", ""},
		{"icmp without protocol", "{action: Allow, icmp: {type: 8}}", "allow icmp=8 unsupported=spec.ingress[0].icmp", "spec.ingress[0].icmp"},
		{"icmp without type", "{action: Allow, protocol: ICMP, icmp: {}}", "allow proto=1", ""},
		{"icmp code alone", "{action: Allow, protocol: ICMP, icmp: {code: 1}}", "allow proto=1 unsupported=spec.ingress[0].icmp.type", "spec.ingress[0].icmp.type"},
		{"icmp type too large", "{action: Deny, protocol: ICMP, notICMP: {type: 256}}", "deny proto=1 unsupported=spec.ingress[0].notICMP.type", "spec.ingress[0].notICMP.type"},
		{"nets", `{action: Allow, source: {nets: [10.1.2.3/8, 10.0.0.0/24, 192.0.2.1], notNets: ["fd00::1/64"]}}`,
			"allow ipv=6 src.nets=10.0.0.0/8,192.0.2.1/32 !src.nets=fd00::/64", ""},
		{"unreadable net", "{action: Allow, source: {nets: [10.0.0.0/8, nonsense]}}",
			"allow src.nets=10.0.0.0/8 unsupported=spec.ingress[0].source.nets[1]", "spec.ingress[0].source.nets[1]"},
		{"ports", `{action: Allow, protocol: UDP, destination: {ports: [53, "100:200", "150:300", 301], notPorts: [123]}, source: {ports: [1], notPorts: [2]}}`,
			"allow proto=17 src.ports=1 !src.ports=2 dst.ports=53,100-301 !dst.ports=123", ""},
		{"ports without protocol", "{action: Allow, destination: {ports: [53]}}",
			"allow dst.ports=53 unsupported=spec.ingress[0].destination.ports", "spec.ingress[0].destination.ports"},
		{"ports of ICMP", "{action: Deny, protocol: ICMP, source: {ports: [53]}}",
			"deny proto=1 src.ports=53 unsupported=spec.ingress[0].source.ports", "spec.ingress[0].source.ports"},
		{"named ports", `{action: Allow, destination: {ports: [http], selector: app == "web"}, source: {notPorts: [http, dns, dns]}}`,
			"allow !src.port-sets=PORT(all() dns),PORT(all() http) " +
				`dst.sets=NET(app == "web" && projectcalico.org/namespace == "ns") dst.port-sets=PORT(app == "web" && projectcalico.org/namespace == "ns" http)`, ""},
		{"named port of a protocol", "{action: Allow, protocol: TCP, destination: {ports: [http, 80]}}",
			"allow proto=6 dst.ports=80 dst.port-sets=PORT(all() http 6)", ""},
		{"not selector", `{action: Deny, source: {notSelector: has(x)}}`,
			`deny src.sets=NET(projectcalico.org/namespace == "ns") !src.sets=NET(has(x))`, ""},
		{"namespaces", `{action: Deny, source: {namespaceSelector: team == "a"}, destination: {namespaceSelector: global()}}`,
			`deny src.sets=NET(pcns.team == "a") dst.sets=NET(!has(projectcalico.org/namespace))`, ""},
		{"service accounts", `{action: Allow, source: {serviceAccounts: {names: [b, a]}}}`,
			`allow src.sets=NET(projectcalico.org/namespace == "ns" && projectcalico.org/serviceaccount in {"a", "b"})`, ""},
		{"bad selector", "{action: Allow, source: {selector: a ==}, destination: {notSelector: global()}}",
			`allow dst.sets=NET(projectcalico.org/namespace == "ns") unsupported=spec.ingress[0].destination.notSelector,spec.ingress[0].source`,
			"spec.ingress[0].destination.notSelector spec.ingress[0].source"},
		{"services", "{action: Allow, source: {services: {name: s}}}", "allow src.sets=NET(service ns/s)", ""},
		{"services that are nowhere", "{action: Allow, source: {services: {namespace: x}}, destination: {services: {name: s}}}",
			"allow unsupported=spec.ingress[0].destination.services,spec.ingress[0].source.services.name",
			"spec.ingress[0].destination.services spec.ingress[0].source.services.name"},
		{"http", "{action: Allow, http: {methods: [GET], paths: [{exact: /a}, {prefix: /b}]}}", "allow http=GET,=/a,/b*", ""},
		{"name", "{action: Deny, metadata: {annotations: {name: why}}}", "deny", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rule api.Rule
			if err := yaml.UnmarshalStrict([]byte(tt.in), &rule); err != nil {
				t.Fatal(err)
			}
			if got, bad := readRule(t, rule); !sameRule(got, tt.want) || bad != tt.bad {
				t.Errorf("%s\n got %s\nwant %s\nproblems %q, want %q", tt.in, got, tt.want, bad, tt.bad)
			}
		})
	}
	t.Run("unreadable", func(t *testing.T) {
		got, bad := readRule(t, api.Rule{Action: api.Allow, Unreadable: []string{"spec.ingress[0].newClause"}})
		if !strings.Contains(got, "unsupported=spec.ingress[0].newClause") || bad != "spec.ingress[0].newClause" {
			t.Errorf("%s, problems %q", got, bad)
		}
	})
}

// sameRule compares without the name and http, whose form is Dump's affair.
func sameRule(got, want string) bool {
	if strings.Contains(want, "http") {
		return strings.Contains(got, "http")
	}
	return got == want || strings.HasPrefix(got, want+" name=")
}

// readRule returns the rule as a graph gives it, and the fields that it finds bad.
func readRule(t *testing.T, rule api.Rule) (text, bad string) {
	t.Helper()
	c := newChecked(t)
	c.set(&api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "w"}, Spec: api.WorkloadEndpointSpec{Node: "me"}})
	c.attach(drivers.EndpointID{Sandbox: "s", Interface: "eth0"}, &LedgerEntry{Name: api.Key{Namespace: "ns", Name: "w"}, Iface: "tort1"})
	c.set(&api.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"},
		Spec:       api.NetworkPolicySpec{Types: []api.PolicyType{api.Ingress}, Ingress: []api.Rule{rule}},
	})
	c.flush()
	for line := range strings.Lines(c.state.String()) {
		if after, ok := strings.CutPrefix(line, "  in 0 "); ok {
			text, _, _ = strings.Cut(after, " #")
		}
	}
	for id, st := range c.g.sets.byID {
		what := "NET("
		switch {
		case st.service != nil:
			what += "service " + st.service.name.namespace + "/" + st.service.name.name
		case st.kind == drivers.SetPort:
			what = "PORT(" + st.sel.text.String() + " " + st.portName
			if st.proto == 6 {
				what += " 6"
			}
		default:
			what += st.sel.text.String()
		}
		text = strings.ReplaceAll(text, string(id), what+")")
	}
	text = sortSets(text)
	var fields []string
	for _, p := range c.g.Problems() {
		fields = append(fields, p.Field)
	}
	c.clear()
	return text, strings.Join(fields, " ")
}

// sortSets puts the port sets of the source in the order of what they are of: their ids are hashes.
func sortSets(text string) string {
	return strings.ReplaceAll(text, "PORT(all() http),PORT(all() dns)", "PORT(all() dns),PORT(all() http)")
}

func TestConfig(t *testing.T) {
	if err := Default("n").Validate(); err != nil {
		t.Error(err)
	}
	err := Config{WorkloadPrefixes: []string{""}, MTU: -1, NATExclusions: make([]netip.Prefix, 1)}.Validate()
	for _, want := range []string{"no name", "prefix that isn't empty", "MTU of -1", "NAT exclusion"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	u := New(Default("n")).Flush()
	if u.Node == nil || u.Masquerade == nil {
		t.Fatalf("the first Flush says nothing of the node: %+v", u)
	}
	in := []drivers.Failsafe{{Proto: 6, Port: 22}, {Proto: 6, Port: 179}, {Proto: 6, Port: 2379}, {Proto: 6, Port: 2380}, {Proto: 6, Port: 5473},
		{Proto: 6, Port: 6443}, {Proto: 6, Port: 6666}, {Proto: 6, Port: 6667}, {Proto: 17, Port: 68}}
	if d := cmp.Diff(in, u.Node.FailsafeIn, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
	if len(u.Node.FailsafeOut) != 9 {
		t.Errorf("%d failsafes out, want 9", len(u.Node.FailsafeOut))
	}
}

func ExampleProblem_String() {
	fmt.Println(Problem{Key: keyOf(profileID("kns.shop")), Reason: "the profile is missing"})
	// Output: Profile/kns.shop: the profile is missing
}
