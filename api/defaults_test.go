package api

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDefault(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"tier", `{kind: Tier, metadata: {name: a}}`,
			`{kind: Tier, metadata: {name: a}, spec: {defaultAction: Deny}}`},
		{"tier with its own", `{kind: Tier, metadata: {name: a}, spec: {order: 5, defaultAction: Pass}}`,
			`{kind: Tier, metadata: {name: a}, spec: {order: 5, defaultAction: Pass}}`},
		{"built-in tiers", `{kind: Tier, metadata: {name: kube-baseline}}`,
			`{kind: Tier, metadata: {name: kube-baseline}, spec: {order: 10000000, defaultAction: Pass}}`},
		{"policy without rules", `{kind: NetworkPolicy, metadata: {name: a}}`,
			`{kind: NetworkPolicy, metadata: {name: a, labels: {projectcalico.org/tier: default}}, spec: {tier: default, types: [Ingress]}}`},
		{"policy with ingress", `{kind: NetworkPolicy, metadata: {name: a, labels: {projectcalico.org/tier: x, b: c}}, spec: {tier: t, ingress: [{action: Allow}]}}`,
			`{kind: NetworkPolicy, metadata: {name: a, labels: {projectcalico.org/tier: t, b: c}}, spec: {tier: t, types: [Ingress], ingress: [{action: Allow}]}}`},
		{"policy with egress", `{kind: GlobalNetworkPolicy, metadata: {name: a}, spec: {egress: [{action: Allow}], types: []}}`,
			`{kind: GlobalNetworkPolicy, metadata: {name: a, labels: {projectcalico.org/tier: default}}, spec: {tier: default, types: [Egress], egress: [{action: Allow}]}}`},
		{"policy with both", `{kind: GlobalNetworkPolicy, metadata: {name: a}, spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}}`,
			`{kind: GlobalNetworkPolicy, metadata: {name: a, labels: {projectcalico.org/tier: default}}, spec: {tier: default, types: [Ingress, Egress], ingress: [{action: Allow}], egress: [{action: Allow}]}}`},
		{"types that are given", `{kind: NetworkPolicy, metadata: {name: a}, spec: {types: [Egress], ingress: [{action: Allow}]}}`,
			`{kind: NetworkPolicy, metadata: {name: a, labels: {projectcalico.org/tier: default}}, spec: {tier: default, types: [Egress], ingress: [{action: Allow}]}}`},
		{"spelling in rules", `{kind: Profile, metadata: {name: a}, spec: {ingress: [{action: Allow, protocol: udplite, notProtocol: 6, source: {nets: [10.1.2.3/8, 10.1.2.3, x], notNets: ["FD00::1/8"]}, destination: {nets: [1.2.3.4]}}], egress: [{action: Deny, protocol: odd, notProtocol: 99}]}}`,
			`{kind: Profile, metadata: {name: a}, spec: {ingress: [{action: Allow, protocol: UDPLite, notProtocol: TCP, source: {nets: [10.0.0.0/8, 10.1.2.3/32, x], notNets: ["fd00::/8"]}, destination: {nets: [1.2.3.4/32]}}], egress: [{action: Deny, protocol: odd, notProtocol: 99}]}}`},
		{"staged", `{kind: StagedNetworkPolicy, metadata: {name: a}, spec: {egress: [{action: Allow}]}}`,
			`{kind: StagedNetworkPolicy, metadata: {name: a, labels: {projectcalico.org/tier: default}}, spec: {stagedAction: Set, tier: default, types: [Egress], egress: [{action: Allow}]}}`},
		{"staged deletion", `{kind: StagedGlobalNetworkPolicy, metadata: {name: a}, spec: {stagedAction: Delete}}`,
			`{kind: StagedGlobalNetworkPolicy, metadata: {name: a, labels: {projectcalico.org/tier: default}}, spec: {stagedAction: Delete, tier: default}}`},
		{"staged global", `{kind: StagedGlobalNetworkPolicy, metadata: {name: a}}`,
			`{kind: StagedGlobalNetworkPolicy, metadata: {name: a, labels: {projectcalico.org/tier: default}}, spec: {stagedAction: Set, tier: default, types: [Ingress]}}`},
		{"staged Kubernetes", `{kind: StagedKubernetesNetworkPolicy, metadata: {name: a}}`,
			`{kind: StagedKubernetesNetworkPolicy, metadata: {name: a}, spec: {stagedAction: Set, policyTypes: [Ingress]}}`},
		{"staged Kubernetes with egress", `{kind: StagedKubernetesNetworkPolicy, metadata: {name: a}, spec: {egress: [{}]}}`,
			`{kind: StagedKubernetesNetworkPolicy, metadata: {name: a}, spec: {stagedAction: Set, policyTypes: [Ingress, Egress], egress: [{}]}}`},
		{"staged Kubernetes deletion", `{kind: StagedKubernetesNetworkPolicy, metadata: {name: a}, spec: {stagedAction: Delete}}`,
			`{kind: StagedKubernetesNetworkPolicy, metadata: {name: a}, spec: {stagedAction: Delete}}`},
		{"sets", `{kind: NetworkSet, metadata: {name: a}, spec: {nets: [10.1.2.3/8, "2001:DB8::1"]}}`,
			`{kind: NetworkSet, metadata: {name: a}, spec: {nets: [10.0.0.0/8, "2001:db8::1/128"]}}`},
		{"global sets", `{kind: GlobalNetworkSet, metadata: {name: a}, spec: {nets: [10.1.2.3/8]}}`,
			`{kind: GlobalNetworkSet, metadata: {name: a}, spec: {nets: [10.0.0.0/8]}}`},
		{"host endpoint", `{kind: HostEndpoint, metadata: {name: a}, spec: {expectedIPs: ["FD00::0:1"], ports: [{name: a, protocol: tcp, port: 1}]}}`,
			`{kind: HostEndpoint, metadata: {name: a}, spec: {expectedIPs: ["fd00::1"], ports: [{name: a, protocol: TCP, port: 1}]}}`},
		{"workload endpoint", `{kind: WorkloadEndpoint, metadata: {name: a}, spec: {ipNetworks: [10.0.0.1, 10.0.0.2/24], allowSpoofedSourcePrefixes: [10.0.0.1/8], ports: [{name: a, protocol: 17, port: 1}]}}`,
			`{kind: WorkloadEndpoint, metadata: {name: a}, spec: {ipNetworks: [10.0.0.1/32, 10.0.0.2/24], allowSpoofedSourcePrefixes: [10.0.0.0/8], ports: [{name: a, protocol: UDP, port: 1}]}}`},
		{"pool", `{kind: IPPool, metadata: {name: a}, spec: {cidr: 10.0.0.0/16}}`,
			`{kind: IPPool, metadata: {name: a}, spec: {cidr: 10.0.0.0/16, vxlanMode: Never, ipipMode: Never, blockSize: 26, nodeSelector: all(), allowedUses: [Workload, Tunnel], assignmentMode: Automatic}}`},
		{"IPv6 pool with its own", `{kind: IPPool, metadata: {name: a}, spec: {cidr: "fd00::/64", vxlanMode: Always, nodeSelector: has(x), allowedUses: [Tunnel], assignmentMode: Manual}}`,
			`{kind: IPPool, metadata: {name: a}, spec: {cidr: "fd00::/64", vxlanMode: Always, ipipMode: Never, blockSize: 122, nodeSelector: has(x), allowedUses: [Tunnel], assignmentMode: Manual}}`},
		{"pool that can't be read", `{kind: IPPool, metadata: {name: a}, spec: {cidr: x}}`,
			`{kind: IPPool, metadata: {name: a}, spec: {cidr: x, vxlanMode: Never, ipipMode: Never, nodeSelector: all(), allowedUses: [Workload, Tunnel], assignmentMode: Automatic}}`},
		{"block", `{kind: BlockAffinity, metadata: {name: a}, spec: {cidr: 10.0.0.0/26, state: pending, node: n1}}`,
			`{kind: BlockAffinity, metadata: {name: a}, spec: {cidr: 10.0.0.0/26, state: pending, node: n1, type: host}}`},
		{"node", `{kind: Node, metadata: {name: a}}`, `{kind: Node, metadata: {name: a}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, want := decodeOne(t, c.in), decodeOne(t, c.want)
			Default(got)
			if diff := cmp.Diff(encodeOne(t, want), encodeOne(t, got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			again := DeepCopy(got)
			Default(again)
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("a second time:\n%s", diff)
			}
		})
	}
}

func decodeOne(t *testing.T, s string) Object {
	t.Helper()
	objects, err := Decode([]byte(strings.Replace(s, "{", "{apiVersion: projectcalico.org/v3, ", 1)))
	if err != nil || len(objects) != 1 {
		t.Fatal(objects, err)
	}
	return objects[0]
}

func encodeOne(t *testing.T, o Object) string {
	t.Helper()
	b, err := EncodeYAML(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBuiltins(t *testing.T) {
	var got []string
	for _, tier := range BuiltinTiers() {
		got = append(got, tier.Name)
		if errs := Validate(tier); len(errs) > 0 {
			t.Error(errs)
		}
		c := DeepCopy(tier)
		if Default(c); !cmp.Equal(Object(tier), c) {
			t.Errorf("tier %s lacks defaults", tier.Name)
		}
	}
	if diff := cmp.Diff([]string{"kube-admin", "default", "kube-baseline"}, got); diff != "" {
		t.Error(diff)
	}
	if !slices.IsSortedFunc(BuiltinTiers(), func(a, b *Tier) int { return int(*a.Spec.Order - *b.Spec.Order) }) {
		t.Error("tiers are not in their order")
	}
	for _, p := range BuiltinProfiles() {
		if errs := Validate(p); len(errs) > 0 || p.Name != DefaultAllowProfile || p.Spec.Ingress[0].Action != Allow || p.Spec.Egress[0].Action != Allow {
			t.Error(p, errs)
		}
	}
}

func TestKinds(t *testing.T) {
	seen := map[string]string{}
	for _, k := range Kinds() {
		o := k.New()
		if o.GetKind() != k.Kind || k.Kind == "" {
			t.Errorf("New of %s makes a %s", k.Kind, o.GetKind())
		}
		b := encodeOne(t, o)
		if !strings.Contains(b, "kind: "+k.Kind+"\n") || !strings.Contains(b, "apiVersion: "+k.APIVersion+"\n") {
			t.Errorf("New of %s encodes as %s", k.Kind, b)
		}
		for _, name := range append([]string{k.Kind, k.Singular, k.Plural, strings.ToUpper(k.Plural)}, k.Short...) {
			if got, ok := KindByName(name); !ok || got.Kind != k.Kind {
				t.Errorf("%s finds %q, want %s", name, got.Kind, k.Kind)
			}
		}
		for _, name := range append([]string{k.Singular, k.Plural}, k.Short...) {
			if other := seen[name]; other != "" {
				t.Errorf("%s is a name of %s and %s", name, other, k.Kind)
			}
			seen[name] = k.Kind
		}
	}
	for name, want := range map[string]string{
		"np": "NetworkPolicy", "CNP": "NetworkPolicy", "caliconetworkpolicy": "NetworkPolicy", "gnp": "GlobalNetworkPolicy", "cgnp": "GlobalNetworkPolicy",
		"snp": "StagedNetworkPolicy", "scnp": "StagedNetworkPolicy", "sgnp": "StagedGlobalNetworkPolicy", "sknp": "StagedKubernetesNetworkPolicy",
		"hep": "HostEndpoint", "heps": "HostEndpoint", "netset": "NetworkSet", "gns": "GlobalNetworkSet", "wep": "WorkloadEndpoint", "profiles": "Profile",
		"Tier": "Tier", "nodes": "Node", "ippools": "IPPool", "blockaffinities": "BlockAffinity", "endpointslices": "EndpointSlice",
	} {
		if k, ok := KindByName(name); !ok || k.Kind != want {
			t.Errorf("%s finds %q, want %s", name, k.Kind, want)
		}
	}
	if k, ok := KindByName("pod"); ok {
		t.Errorf("pod finds %s", k.Kind)
	}
	if Kinds()[0] = (KindInfo{}); Kinds()[0].Kind == "" {
		t.Error("the table can be changed from outside")
	}
}
