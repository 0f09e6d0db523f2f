package api

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecodeStoredWithoutProblems(t *testing.T) {
	o, problems, err := DecodeStored("NetworkPolicy", []byte(`{"apiVersion":"projectcalico.org/v3","kind":"NetworkPolicy",
		"metadata":{"name":"a","namespace":"n","resourceVersion":"7"},
		"spec":{"selector":"all()","egress":[{"action":"Allow","protocol":"udp","source":null,"destination":{"nets":["10.1.2.3/8"],"ports":[53]}}]}}`))
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	p := o.(*NetworkPolicy)
	want := NetworkPolicySpec{
		Tier: "default", Types: []PolicyType{Egress}, Selector: "all()",
		Egress: []Rule{{Action: Allow, Protocol: &Protocol{Name: "UDP"},
			Destination: EntityRule{Nets: []string{"10.0.0.0/8"}, Ports: []Port{{First: 53, Last: 53}}}}},
	}
	if diff := cmp.Diff(want, p.Spec); diff != "" {
		t.Error(diff)
	}
	if p.ResourceVersion != "7" || p.Kind != "NetworkPolicy" || p.APIVersion != GroupVersion {
		t.Errorf("%+v %+v", p.TypeMeta, p.ObjectMeta)
	}
}

// render shows what of a stored object matters for failing closed.
func render(o Object) string {
	var b strings.Builder
	lists := rulesOf(o)
	if lists.types != nil {
		fmt.Fprintf(&b, "types %v;", *lists.types)
	}
	show := func(name string, rules *[]Rule) {
		if rules == nil {
			return
		}
		for _, r := range *rules {
			fmt.Fprintf(&b, " %s %s", name, r.Action)
			if len(r.Unreadable) > 0 {
				b.WriteString(" unreadable")
			}
			b.WriteString(";")
		}
	}
	show("in", lists.ingress)
	show("out", lists.egress)
	switch o := o.(type) {
	case *Tier:
		fmt.Fprintf(&b, "end %s", *o.Spec.DefaultAction)
	case *HostEndpoint:
		fmt.Fprintf(&b, "labels %v; profiles %v; ips %v", o.Labels, o.Spec.Profiles, o.Spec.ExpectedIPs)
	case *WorkloadEndpoint:
		fmt.Fprintf(&b, "labels %v; profiles %v; ips %v; ports %v", o.Labels, o.Spec.Profiles, o.Spec.IPNetworks, o.Spec.Ports)
	case *GlobalNetworkSet:
		fmt.Fprintf(&b, "labels %v; nets %v", o.Labels, o.Spec.Nets)
	case *StagedKubernetesNetworkPolicy:
		in, out, types := KubernetesRules(&o.Spec)
		fmt.Fprintf(&b, "types %v;", types)
		show("in", &in)
		show("out", &out)
	}
	return strings.TrimSpace(b.String())
}

func TestDecodeStoredFailsClosed(t *testing.T) {
	const allow = `{"action":"Allow"}`
	for _, c := range []struct {
		name, kind, in string
		want           string // how it is rendered, or the error
		problems       []string
	}{
		{"unknown fields of metadata and status", "NetworkPolicy",
			`{"metadata":{"name":"a","namespace":"n","x":1},"status":{"y":2},"spec":{"ingress":[` + allow + `]}}`,
			"types [Ingress]; in Allow;", []string{"metadata.x: unknown field"}},
		{"performance hint", "NetworkPolicy",
			`{"metadata":{"name":"a","namespace":"n"},"spec":{"performanceHints":["Hurry"],"ingress":[` + allow + `]}}`,
			"types [Ingress]; in Allow;", []string{`spec.performanceHints[0]: Unsupported value: "Hurry": supported values: "AssumeNeededOnEveryNode"`}},
		{"unknown clause", "NetworkPolicy",
			`{"metadata":{"name":"a","namespace":"n"},"spec":{"ingress":[` + allow + `,{"action":"Allow","source":{"country":"NZ"}},{"action":"Deny","time":{}}],"egress":[` + allow + `]}}`,
			"types [Ingress Egress]; in Allow; in Allow unreadable; in Deny unreadable; out Allow;",
			[]string{"spec.ingress[1].source.country: unknown field", "spec.ingress[2].time: unknown field"}},
		{"invalid clause", "GlobalNetworkPolicy",
			`{"metadata":{"name":"a"},"spec":{"ingress":[{"action":"Allow","source":{"selector":"a ="}},{"action":"Allow","destination":{"ports":[80]}},{"action":"Allow","source":{"nets":["10.0.0.0/33"]}}]}}`,
			"types [Ingress]; in Allow unreadable; in Allow unreadable; in Allow unreadable;",
			[]string{`spec.ingress[0].source.selector: Invalid value: "a =": selector, character 3: expected ==, !=, in, not in, contains, starts with or ends with, found "="`,
				"spec.ingress[1].destination.ports[0]: Forbidden: a port number needs protocol TCP, UDP or SCTP",
				`spec.ingress[2].source.nets[0]: Invalid value: "10.0.0.0/33": "10.0.0.0/33" is not a prefix in CIDR notation`}},
		{"clause of the wrong type", "GlobalNetworkPolicy",
			`{"metadata":{"name":"a"},"spec":{"ingress":[{"action":"Allow","source":{"nets":"10.0.0.0/8"}},{"action":"Allow","source":[]}]}}`,
			"types [Ingress]; in Allow unreadable; in Allow unreadable;",
			[]string{`spec.ingress[0].source.nets: must be a list, not "10.0.0.0/8"`, "spec.ingress[1].source: must be an object, not a list"}},
		{"clause given twice", "GlobalNetworkPolicy",
			`{"metadata":{"name":"a"},"spec":{"ingress":[{"action":"Allow","source":{},"source":{"nets":["10.0.0.0/8"]}}]}}`,
			"types [Ingress]; in Allow unreadable;", []string{"spec.ingress[0].source: given twice"}},
		{"clause in another case", "GlobalNetworkPolicy",
			`{"metadata":{"name":"a"},"spec":{"ingress":[{"action":"Allow","Source":{"nets":["10.0.0.0/8"]}}]}}`,
			"types [Ingress]; in Allow unreadable;", []string{"spec.ingress[0].Source: unknown field; did you mean source?"}},
		{"action", "GlobalNetworkPolicy",
			`{"metadata":{"name":"a"},"spec":{"ingress":[{"action":"allow"},{"action":7},{},null,"Allow"]}}`,
			"types [Ingress]; in Deny unreadable; in Deny unreadable; in Deny unreadable; in Deny unreadable; in Deny unreadable;",
			[]string{
				"spec.ingress[1].action: must be a string (put it in quotes), not 7",
				"spec.ingress[3]: must not be null",
				`spec.ingress[4]: must be an object, not "Allow"`,
				`spec.ingress[0].action: Unsupported value: "allow": supported values: "Allow", "Deny", "Log", "Pass"`,
				`spec.ingress[1].action: Unsupported value: "": supported values: "Allow", "Deny", "Log", "Pass"`,
				`spec.ingress[2].action: Unsupported value: "": supported values: "Allow", "Deny", "Log", "Pass"`,
				`spec.ingress[3].action: Unsupported value: "": supported values: "Allow", "Deny", "Log", "Pass"`,
				`spec.ingress[4].action: Unsupported value: "": supported values: "Allow", "Deny", "Log", "Pass"`}},
		{"rules that are no list", "GlobalNetworkPolicy",
			`{"metadata":{"name":"a"},"spec":{"ingress":{"action":"Allow"},"egress":"all"}}`,
			"types [Ingress Egress]; in Deny unreadable; out Deny unreadable;",
			[]string{"spec.ingress: must be a list, not an object", `spec.egress: must be a list, not "all"`}},
		{"rules given twice", "Profile",
			`{"metadata":{"name":"a"},"spec":{"ingress":[],"ingress":[{"action":"Deny"}]}}`,
			"in Deny unreadable;", []string{"spec.ingress: given twice"}},
		{"unknown field of the spec", "StagedGlobalNetworkPolicy",
			`{"metadata":{"name":"a"},"spec":{"onlyOn":"Sunday","ingress":[` + allow + `,{"action":"Pass"}],"egress":[{"action":"Log"}]}}`,
			"types [Ingress Egress]; in Allow unreadable; in Pass unreadable; out Log unreadable;", []string{"spec.onlyOn: unknown field"}},
		{"unknown field beside the spec", "NetworkPolicy",
			`{"metadata":{"name":"a","namespace":"n"},"scope":{},"spec":{"ingress":[` + allow + `]}}`,
			"types [Ingress]; in Allow unreadable;", []string{"scope: unknown field"}},
		{"another version", "NetworkPolicy",
			`{"apiVersion":"projectcalico.org/v4","metadata":{"name":"a","namespace":"n"},"spec":{"ingress":[` + allow + `]}}`,
			"types [Ingress]; in Allow unreadable;", []string{`apiVersion: "projectcalico.org/v4" is not projectcalico.org/v3`}},
		{"flag of the wrong type", "GlobalNetworkPolicy",
			`{"metadata":{"name":"a"},"spec":{"doNotTrack":"yes","ingress":[` + allow + `]}}`,
			"types [Ingress]; in Allow unreadable;", []string{`spec.doNotTrack: must be true or false, not "yes"`}},
		{"flags that exclude each other", "GlobalNetworkPolicy",
			`{"metadata":{"name":"a"},"spec":{"doNotTrack":true,"preDNAT":true,"applyOnForward":true,"ingress":[` + allow + `]}}`,
			"types [Ingress]; in Allow unreadable;", []string{"spec.preDNAT: Forbidden: can't be combined with doNotTrack"}},
		{"types", "GlobalNetworkPolicy",
			`{"metadata":{"name":"a"},"spec":{"types":"Egress","ingress":[` + allow + `]}}`,
			"types [Ingress Egress]; in Allow unreadable;", []string{`spec.types: must be a list, not "Egress"`}},
		{"a type", "NetworkPolicy",
			`{"metadata":{"name":"a","namespace":"n"},"spec":{"types":["Egress","Sideways"],"ingress":[` + allow + `]}}`,
			"types [Ingress Egress]; in Allow unreadable;", []string{`spec.types[1]: Unsupported value: "Sideways": supported values: "Ingress", "Egress"`}},
		{"a selector longer than may be written", "GlobalNetworkPolicy",
			`{"metadata":{"name":"a"},"spec":{"selector":"a == '` + strings.Repeat("x", 2000) + `'","ingress":[` + allow + `]}}`,
			"types [Ingress]; in Allow;", nil},
		{"selector", "GlobalNetworkPolicy", `{"metadata":{"name":"a"},"spec":{"selector":"a = 'b'"}}`,
			`error decoding a stored GlobalNetworkPolicy: spec.selector: Invalid value: "a = 'b'": selector, character 3: expected ==, !=, in, not in, contains, starts with or ends with, found "= 'b'"`, nil},
		{"selector of namespaces", "GlobalNetworkPolicy", `{"metadata":{"name":"a"},"spec":{"namespaceSelector":{}}}`,
			`error decoding a stored GlobalNetworkPolicy: spec.namespaceSelector: must be a string, not an object`, nil},
		{"selector of service accounts", "NetworkPolicy", `{"metadata":{"name":"a","namespace":"n"},"spec":{"serviceAccountSelector":"global()"}}`,
			`error decoding a stored NetworkPolicy: spec.serviceAccountSelector: Invalid value: "global()": global() can only be the whole of a rule's namespaceSelector`, nil},
		{"selector given twice", "GlobalNetworkPolicy", `{"metadata":{"name":"a"},"spec":{"selector":"has(a)","selector":"has(b)"}}`,
			`error decoding a stored GlobalNetworkPolicy: spec.selector: given twice`, nil},
		{"tier and order", "NetworkPolicy", `{"metadata":{"name":"a","namespace":"n"},"spec":{"tier":5,"order":"x"}}`,
			"error decoding a stored NetworkPolicy: spec.tier: must be a string (put it in quotes), not 5\nspec.order: must be a number, not \"x\"", nil},
		{"spec", "NetworkPolicy", `{"metadata":{"name":"a","namespace":"n"},"spec":[]}`,
			"error decoding a stored NetworkPolicy: spec: must be an object, not a list", nil},
		{"namespace", "NetworkPolicy", `{"metadata":{"name":"a","namespace":5}}`,
			"error decoding a stored NetworkPolicy: metadata.namespace: must be a string (put it in quotes), not 5", nil},
		{"labels that a profile gives", "Profile", `{"metadata":{"name":"a"},"spec":{"labelsToApply":{"a":["b"]}}}`,
			"error decoding a stored Profile: spec.labelsToApply[a]: must be a string, not a list", nil},
		{"not JSON", "Tier", `{`, "error decoding a stored Tier: unexpected EOF", nil},
		{"two values", "Tier", `{}{}`, "error decoding a stored Tier: there is more after the value", nil},
		{"not an object", "Tier", `[]`, "error decoding a stored Tier: it is a list", nil},
		{"another kind", "Tier", `{"kind":"Node"}`, `error decoding a stored Tier: its kind is "Node"`, nil},
		{"unknown kind", "Tire", `{}`, `error kind "Tire" is not known`, nil},

		{"tier", "Tier", `{"metadata":{"name":"a"},"spec":{"defaultAction":"Pass"}}`, "end Pass", nil},
		{"tier that ends oddly", "Tier", `{"metadata":{"name":"a"},"spec":{"defaultAction":"Allow"}}`,
			"end Deny", []string{`spec.defaultAction: Unsupported value: "Allow": supported values: "Deny", "Pass"`}},
		{"tier with an unknown field", "Tier", `{"metadata":{"name":"a"},"spec":{"defaultAction":"Pass","scope":"x"}}`,
			"end Deny", []string{"spec.scope: unknown field"}},
		{"order of a tier", "Tier", `{"metadata":{"name":"a"},"spec":{"order":"first"}}`,
			`error decoding a stored Tier: spec.order: must be a number, not "first"`, nil},
		{"builtin tier", "Tier", `{"metadata":{"name":"default"},"spec":{"order":5}}`,
			"error decoding a stored Tier: spec.order: Invalid value: 5: the order of tier default is 1e+06 and can't be changed", nil},

		{"labels of a host endpoint", "HostEndpoint",
			`{"metadata":{"name":"a","labels":{"a":"b","c":1}},"spec":{"node":"n","interfaceName":"*","profiles":["p"],"expectedIPs":["10.0.0.1",7]}}`,
			"labels map[]; profiles [p]; ips [10.0.0.1]",
			[]string{"metadata.labels[c]: must be a string (put it in quotes), not 1", "spec.expectedIPs[1]: must be a string (put it in quotes), not 7"}},
		{"profiles of a host endpoint", "HostEndpoint",
			`{"metadata":{"name":"a","labels":{"a":"b"}},"spec":{"node":"n","interfaceName":"*","profiles":["p",{}]}}`,
			"labels map[a:b]; profiles []; ips []", []string{"spec.profiles[1]: must be a string, not an object"}},
		{"a tier with an odd name", "NetworkPolicy", `{"metadata":{"name":"a","namespace":"n"},"spec":{"tier":"a.b","ingress":[{"action":"Allow"}]}}`,
			"types [Ingress]; in Allow;", []string{`spec.tier: Invalid value: "a.b": the name of a tier has no dots`}},
		{"a host endpoint of an odd node", "HostEndpoint", `{"metadata":{"name":"a"},"spec":{"interfaceName":"eth 0"}}`,
			"labels map[]; profiles []; ips []", []string{"spec.node: Required value: the name of the node that the interface belongs to",
				`spec.interfaceName: Invalid value: "eth 0": is not the name of an interface`}},
		{"labels and profiles that are only not valid", "HostEndpoint",
			`{"metadata":{"name":"a","labels":{"a":"?"}},"spec":{"node":"n","interfaceName":"*","profiles":["P"]}}`,
			"labels map[a:?]; profiles [P]; ips []", []string{
				"metadata.labels[a]: Invalid value: \"?\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
				"spec.profiles[0]: Invalid value: \"P\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"}},
		{"node of a host endpoint", "HostEndpoint", `{"metadata":{"name":"a"},"spec":{"node":{},"interfaceName":"*"}}`,
			"error decoding a stored HostEndpoint: spec.node: must be a string, not an object", nil},
		{"workload", "WorkloadEndpoint",
			`{"metadata":{"name":"a","namespace":"n","labels":["x"]},"spec":{"speed":1,"profiles":"p","ipNetworks":["10.0.0.1",{}],"ports":[{"name":"web","protocol":"tcp","port":80},{"name":"dns","protocol":"udp","port":-1}]}}`,
			"labels map[]; profiles []; ips [10.0.0.1/32]; ports [{web TCP 80 0 }]",
			[]string{"metadata.labels: must be an object, not a list", "spec.speed: unknown field", `spec.profiles: must be a list, not "p"`,
				"spec.ipNetworks[1]: must be a string, not an object", "spec.ports[1].port: must be a whole number from 0 to 65535, not -1"}},
		{"set", "GlobalNetworkSet", `{"metadata":{"name":"a"},"spec":{"domains":["x"],"nets":["10.0.0.0/8",null]}}`,
			"labels map[]; nets [10.0.0.0/8]", []string{"spec.domains: unknown field", "spec.nets[1]: must not be null"}},
		{"pool", "IPPool", `{"metadata":{"name":"a"},"spec":{"cidr":"x"}}`,
			`error decoding a stored IPPool: spec.cidr: Invalid value: "x": must be a prefix in CIDR notation`, nil},
		{"block", "BlockAffinity", `{"metadata":{"name":"a"},"spec":{"cidr":"10.0.0.0/26","state":"odd","node":"n"}}`,
			`error decoding a stored BlockAffinity: spec.state: Unsupported value: "odd": supported values: "pending", "confirmed", "pendingDeletion"`, nil},

		{"staged Kubernetes", "StagedKubernetesNetworkPolicy",
			`{"metadata":{"name":"a","namespace":"n"},"spec":{"ingress":[{},{"from":[{"peer":"x"}]}],"egress":[{}]}}`,
			"types [Ingress Egress]; in Allow; in Allow unreadable; out Allow;",
			[]string{"spec.ingress[1].from[0].peer: unknown field", "spec.ingress[1].from[0]: Required value: podSelector, namespaceSelector or ipBlock"}},
		{"staged Kubernetes with an unknown field", "StagedKubernetesNetworkPolicy",
			`{"metadata":{"name":"a","namespace":"n"},"spec":{"when":"x","ingress":[{}],"egress":[{}],"policyTypes":["Ingress"]}}`,
			"types [Ingress]; in Allow unreadable; out Allow unreadable;", []string{"spec.when: unknown field"}},
		{"staged Kubernetes with a rule that is null", "StagedKubernetesNetworkPolicy",
			`{"metadata":{"name":"a","namespace":"n"},"spec":{"ingress":[null,{"from":[null]}]}}`,
			"types [Ingress]; in Allow unreadable; in Allow unreadable;", []string{"spec.ingress[0]: must not be null", "spec.ingress[1].from[0]: must not be null"}},
		{"staged Kubernetes with odd types", "StagedKubernetesNetworkPolicy",
			`{"metadata":{"name":"a","namespace":"n"},"spec":{"ingress":[{}],"egress":{}}}`,
			"types [Ingress Egress]; in Allow unreadable;", []string{"spec.egress: must be a list, not an object"}},
		{"staged Kubernetes whose subject is odd", "StagedKubernetesNetworkPolicy",
			`{"metadata":{"name":"a","namespace":"n"},"spec":{"podSelector":{"matchLabels":{"a":1}}}}`,
			"error decoding a stored StagedKubernetesNetworkPolicy: spec.podSelector.matchLabels[a]: must be a string (put it in quotes), not 1", nil},
		{"slice of Kubernetes", "EndpointSlice",
			`{"metadata":{"name":"a","namespace":"n"},"addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"nodeName":"x","zone":"z","hints":{}}],"ports":[{"name":"web","port":80,"appProtocol":"http"}]}`,
			"", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, problems, err := DecodeStored(c.kind, []byte(c.in))
			if err != nil {
				if got := "error " + err.Error(); got != c.want {
					t.Errorf("got  %s\nwant %s", got, c.want)
				}
				return
			}
			if got := render(o); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			var got []string
			for _, p := range problems {
				got = append(got, p.Error())
			}
			if diff := cmp.Diff(c.problems, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnreadableSaysWhy(t *testing.T) {
	o, _, err := DecodeStored("Profile", []byte(`{"metadata":{"name":"a"},"spec":{"when":1,"egress":[{"action":"Allow","x":2}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"spec.when: unknown field", "spec.egress[0].x: unknown field"}
	if diff := cmp.Diff(want, o.(*Profile).Spec.Egress[0].Unreadable); diff != "" {
		t.Error(diff)
	}
}

func FuzzDecodeStored(f *testing.F) {
	f.Add(uint8(10), []byte(storedWorkload))
	f.Add(uint8(1), []byte(storedPolicy))
	f.Add(uint8(5), []byte(`{"spec":{"podSelector":{"matchExpressions":[{"key":"a","operator":"In"}]},"ingress":[{"from":[{}]}]}}`))
	f.Add(uint8(kindIndex["eps"]), []byte(`{"addressType":"IPv4","endpoints":[{"addresses":["x"]}],"ports":[{}]}`))
	index := func(name string) uint8 { return uint8(kindIndex[name]) }
	f.Add(index("bgppeer"), []byte(`{"spec":{"peerIP":"[::1]:1","asNumber":"1.2","maxRestartTime":"1s","password":{"secretKeyRef":{"key":"a"}}}}`))
	f.Add(index("bgpfilter"), []byte(`{"spec":{"exportV4":[{"cidr":"10.1.0.0/8","prefixLength":{"min":1},"operations":[{}]},null]}}`))
	f.Add(index("felixconfig"), []byte(`{"spec":{"chainInsertMode":"APPEND","failsafeInboundHostPorts":[{"port":1,"net":"::1"}],"natPortRange":"1:2","vxlanMTU":null}}`))
	f.Add(index("kcc"), []byte(`{"spec":{"controllers":{"loadBalancer":{},"node":{"hostEndpoint":{"templates":[{}]}}}}}`))
	f.Fuzz(func(t *testing.T, k uint8, data []byte) {
		kind := kinds[int(k)%len(kinds)]
		o, _, err := DecodeStored(kind.Kind, data)
		if err != nil {
			return
		}
		if o.GetKind() != kind.Kind {
			t.Fatalf("a %s came out as %s", kind.Kind, o.GetKind())
		}
		again := DeepCopy(o)
		if Default(again); !cmp.Equal(o, again) {
			t.Fatalf("%s is not defaulted", data)
		}
		if lists := rulesOf(o); lists.types != nil { // what calls itself a policy has a subject
			if _, err := SubjectSelector(o); err != nil && !strings.Contains(err.Error(), "both kinds of quote") && !strings.Contains(err.Error(), "characters, not 1 to") {
				t.Fatalf("%s: %v", data, err)
			}
		}
	})
}

const storedWorkload = `{"kind":"WorkloadEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"node1-k8s-web--0-eth0","namespace":"shop",` +
	`"resourceVersion":"4711","labels":{"app":"web","env":"prod","pod-template-hash":"5d8f"}},"spec":{"orchestrator":"k8s","workload":"web-0",` +
	`"node":"node1","pod":"web-0","endpoint":"eth0","serviceAccountName":"web","ipNetworks":["10.65.1.7/32"],"profiles":["kns.shop","ksa.shop.web"],` +
	`"interfaceName":"tort0123456789a","ports":[{"name":"http","protocol":"TCP","port":8080}]}}`

const storedPolicy = `{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"web","namespace":"shop","resourceVersion":"4712",` +
	`"labels":{"projectcalico.org/tier":"default"}},"spec":{"tier":"default","order":100,"selector":"app == \"web\"","types":["Ingress"],"ingress":[` +
	`{"action":"Allow","protocol":"TCP","source":{"selector":"app == \"lb\""},"destination":{"ports":[8080]}},` +
	`{"action":"Allow","protocol":"TCP","source":{"nets":["10.0.0.0/8"]},"destination":{"ports":["http"]}}]}}`

func BenchmarkDecodeStored(b *testing.B) {
	for kind, data := range map[string]string{"WorkloadEndpoint": storedWorkload, "NetworkPolicy": storedPolicy} {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, problems, err := DecodeStored(kind, []byte(data)); err != nil || len(problems) > 0 {
					b.Fatal(problems, err)
				}
			}
		})
	}
}
