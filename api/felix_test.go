package api

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// felixOf reads the spec of a FelixConfiguration, which must be valid but for the paths that are said.
func felixOf(t *testing.T, name, spec string, invalid ...string) *FelixConfiguration {
	t.Helper()
	objects, err := Decode([]byte(fmt.Sprintf("apiVersion: %s\nkind: FelixConfiguration\nmetadata: {name: %s}\nspec: {%s}\n", GroupVersion, name, spec)))
	if err != nil {
		t.Fatal(err)
	}
	Default(objects[0])
	var paths []string
	for _, e := range Validate(objects[0]) {
		paths = append(paths, e.Field)
	}
	if diff := cmp.Diff(invalid, paths, cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("validation (-want +got):\n%s", diff)
	}
	return objects[0].(*FelixConfiguration)
}

func ptr[T any](v T) *T { return &v }

func TestFelixSettings(t *testing.T) {
	ssh := Failsafe{Proto: 6, Port: 22}
	for _, c := range []struct {
		name, spec string
		invalid    []string
		want       NodeSettings
		problems   []string // paths
	}{
		{name: "nothing"},
		{name: "all that is honoured",
			spec: `defaultEndpointToHostAction: RETURN, failsafeInboundHostPorts: [{port: 22}, {protocol: udp, port: 68, net: 10.1.2.3/8}],
 failsafeOutboundHostPorts: [{protocol: SCTP, port: 1, net: "2001:db8::1"}], interfacePrefix: "cali,tap", vxlanPort: 4790, logSeverityScreen: warning,
 allowVXLANPacketsFromWorkloads: true, allowIPIPPacketsFromWorkloads: true, iptablesRefreshInterval: 2m, routeRefreshInterval: 90s`,
			want: NodeSettings{EndpointToHost: "Return", FailsafeIn: []Failsafe{ssh, {Proto: 17, Port: 68, Net: netip.MustParsePrefix("10.0.0.0/8")}},
				FailsafeOut: []Failsafe{{Proto: 132, Port: 1, Net: netip.MustParsePrefix("2001:db8::1/128")}}, WorkloadPrefixes: []string{"cali", "tap"},
				VXLANPort: 4790, LogLevel: ptr(slog.LevelWarn), AllowEncapFromWorkloads: ptr(true), ResyncInterval: ptr(90 * time.Second)}},
		{name: "no failsafes at all is not the same as none given", spec: `failsafeInboundHostPorts: []`, want: NodeSettings{FailsafeIn: []Failsafe{}}},
		{name: "one kind of tunnel only", spec: `allowVXLANPacketsFromWorkloads: true`, want: NodeSettings{AllowEncapFromWorkloads: ptr(false)},
			problems: []string{"spec.allowVXLANPacketsFromWorkloads"}},
		{name: "tunnels forbidden", spec: `allowVXLANPacketsFromWorkloads: false`, want: NodeSettings{AllowEncapFromWorkloads: ptr(false)}},
		{name: "no refresh", spec: `routeRefreshInterval: 0s, ipsetsRefreshInterval: 0s`, want: NodeSettings{ResyncInterval: ptr(time.Duration(0))}},
		{name: "one refresh is enough", spec: `routeRefreshInterval: 0s, nftablesRefreshInterval: 3m`, want: NodeSettings{ResyncInterval: ptr(3 * time.Minute)}},
		{name: "refresh without a break", spec: `routeRefreshInterval: 1ms`, want: NodeSettings{ResyncInterval: ptr(time.Second)}},
		{name: "lowest level", spec: `logSeverityScreen: Trace`, want: NodeSettings{LogLevel: ptr(slog.LevelDebug)}},
		{name: "empty words", spec: `logSeverityScreen: "", defaultEndpointToHostAction: ""`},
		{name: "without effect", spec: `bpfEnabled: true, natPortRange: "1:5", healthPort: 1`,
			problems: []string{"spec.bpfEnabled", "spec.healthPort", "spec.natPortRange"}},
		{name: "nothing is asked for", spec: `bpfEnabled: false, liveMigrationRouteConvergenceTime: 30000ms, externalNodesList: [],
 usageReportingEnabled: false, bpfMapSizeRoute: 262144, wireguardEnabled: false, ipv6Support: true`},
		{name: "Calico's default is not what Tortie does", spec: `serviceLoopPrevention: Drop, usageReportingEnabled: true`,
			problems: []string{"spec.serviceLoopPrevention", "spec.usageReportingEnabled"}},
		{name: "sources of workloads", spec: `workloadSourceSpoofing: Any`, want: NodeSettings{SourceSpoofing: "Any"}},
		{name: "floating addresses", spec: `floatingIPs: ENABLED`, want: NodeSettings{FloatingIPs: "Enabled"}},
		{name: "sources of workloads: none", spec: `workloadSourceSpoofing: disabled`, want: NodeSettings{SourceSpoofing: "Disabled"}},
		{name: "refused", spec: `wireguardEnabled: true`, invalid: []string{"spec.wireguardEnabled"}, problems: []string{"spec.wireguardEnabled"}},
		{name: "what is not valid does not count", spec: `defaultEndpointToHostAction: Open, vxlanPort: 70000, failsafeInboundHostPorts: [{port: 22}, {port: 0}], logSeverityScreen: Info`,
			invalid:  []string{"spec.defaultEndpointToHostAction", "spec.failsafeInboundHostPorts[1].port", "spec.vxlanPort"},
			want:     NodeSettings{LogLevel: ptr(slog.LevelInfo)},
			problems: []string{"spec.defaultEndpointToHostAction", "spec.failsafeInboundHostPorts[1].port", "spec.vxlanPort"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := felixOf(t, "default", c.spec, c.invalid...)
			before := DeepCopy(o)
			got, problems := FelixSettings(o)
			if diff := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
			var paths []string
			for _, p := range problems {
				paths = append(paths, p.Path)
				if p.Reason == "" {
					t.Errorf("%s: no reason", p.Path)
				}
			}
			if diff := cmp.Diff(c.problems, paths); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, Object(o)); diff != "" {
				t.Errorf("the object was changed:\n%s", diff)
			}
		})
	}
}

func TestFelixFor(t *testing.T) {
	at := func(c *FelixConfiguration, minute int) *FelixConfiguration {
		c.CreationTimestamp = metav1.NewTime(time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC))
		return c
	}
	all := []*FelixConfiguration{
		felixOf(t, "default", `vxlanMTU: 1, ipipMTU: 1, vxlanVNI: 1, healthPort: 1, debugPort: 1`),
		felixOf(t, "node.n1", `vxlanMTU: 4`),
		felixOf(t, "node.n2", `vxlanMTU: 5, ipipMTU: 5, vxlanVNI: 5, healthPort: 5`),
		at(felixOf(t, "young", `nodeSelector: has(gpu), vxlanMTU: 3, ipipMTU: 3, vxlanVNI: 3`), 2),
		at(felixOf(t, "old", `nodeSelector: gpu == 'a', vxlanMTU: 2, ipipMTU: 2`), 1),
		at(felixOf(t, "same-age", `nodeSelector: has(gpu), vxlanVNI: 7, mtuIfacePattern: x`), 2),
		at(felixOf(t, "other", `nodeSelector: gpu == 'b', debugPort: 9`), 0),
		at(felixOf(t, "nobody", `debugPort: 8`), 0),
	}
	all[1].Spec["healthPort"] = int64(1 << 20) // not valid: what is below it shows
	n1 := FelixConfigurationSpec{"vxlanMTU": int64(4), "ipipMTU": int64(2), "vxlanVNI": int64(1), "healthPort": int64(1), "debugPort": int64(1)}
	if diff := cmp.Diff(n1, FelixFor("n1", map[string]string{"gpu": "a"}, all).Spec); diff != "" {
		t.Errorf("n1 (-want +got):\n%s", diff)
	}
	slices.Reverse(all)
	if diff := cmp.Diff(n1, FelixFor("n1", map[string]string{"gpu": "a"}, all).Spec); diff != "" {
		t.Errorf("n1 in another order (-want +got):\n%s", diff)
	}
	twin := map[string]string{"gpu": "c"} // two of one age: by name
	if got := FelixFor("n4", twin, all).Spec; got["vxlanVNI"] != int64(7) || got["vxlanMTU"] != int64(1) {
		t.Errorf("n4: %v", got)
	}
	n3 := FelixConfigurationSpec{"vxlanMTU": int64(1), "ipipMTU": int64(1), "vxlanVNI": int64(1), "healthPort": int64(1), "debugPort": int64(1)}
	if diff := cmp.Diff(n3, FelixFor("n3", nil, all).Spec); diff != "" {
		t.Errorf("n3 (-want +got):\n%s", diff)
	}
}

// TestFelixFields checks the table itself.
func TestFelixFields(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range FelixFields() {
		if seen[f.Name] || f.Name == "" || f.Section == "" || f.Reason == "" || f.Values == "" {
			t.Errorf("%+v: given twice or not complete", f)
		}
		seen[f.Name] = true
		if strings.ContainsAny(f.Reason+f.Values+f.Default, "|\n") {
			t.Errorf("%s: its words break a table", f.Name)
		}
		if o := felixSample(t, f); f.Effect == Refused && len(Validate(o)) == 0 {
			t.Errorf("%s is refused, but %v is taken", f.Name, o.Spec)
		} else if f.Effect == Ignored && len(Warnings(o)) != 1 {
			t.Errorf("%s has no effect, but of %v is said %v", f.Name, o.Spec, Warnings(o))
		} else if _, problems := FelixSettings(o); f.Effect == Honoured && len(problems) > 0 && !strings.HasPrefix(f.Name, "allow") {
			t.Errorf("%s is honoured, but of %v is said %v", f.Name, o.Spec, problems)
		}
	}
	if n := len(seen); n < 188 {
		t.Errorf("%d settings, want at least 188", n)
	}
}

// felixSample is an object with a value of f that asks for something.
func felixSample(t *testing.T, f FelixField) *FelixConfiguration {
	t.Helper()
	o := &FelixConfiguration{ObjectMeta: metav1.ObjectMeta{Name: DefaultConfiguration}}
	if f.Name == "nodeSelector" {
		o.Name = "some"
	} else {
		o.Spec = FelixConfigurationSpec{}
	}
	words := strings.Split(f.Values, ", ")
	for _, v := range []any{true, false, Duration(7777 * time.Second), int64(77), int64(3 << 16), words[0], words[min(1, len(words)-1)], "all()",
		"192.0.2.1", "2001:db8::1", "abc", "5/day", "a=true", "", []string{"10.0.0.0/8"}, []string{"eth0"}, Port{First: 5, Last: 6}, []Port{{First: 5, Last: 6}},
		[]ProtoPort{{Port: 5}}, RouteTableRange{1, 2}, []RouteTableRange{{1, 2}}, []HealthTimeout{{"a", 5}}, map[string]string{"udpTimeout": "5s"}, DSCP("5")} {
		o.Spec = FelixConfigurationSpec{f.Name: v}
		c := &checker{}
		if c.felixSetting(f.Name, v, nil); !f.asksNothing(v) && (len(c.errs) == 0 || f.Effect == Refused && strings.Contains(c.errs[0].Detail, f.Reason)) {
			return o
		}
	}
	t.Fatalf("no value is known for %s (%s)", f.Name, f.Values)
	return nil
}

func TestStoredFelixIsLenient(t *testing.T) {
	o, problems, err := DecodeStored("FelixConfiguration", []byte(`{"metadata":{"name":"default"},"spec":{"bpfEnabled":"x","vxlanMTU":5,"vxlanMTU":6,
"notYet":{"a":1},"chainInsertMode":"insert","failsafeInboundHostPorts":[{"port":22},{"port":"y"}],"wireguardEnabled":true,"ipipMTU":null}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := FelixConfigurationSpec{"vxlanMTU": int64(5), "chainInsertMode": "Insert", "wireguardEnabled": true}
	if diff := cmp.Diff(want, o.(*FelixConfiguration).Spec); diff != "" {
		t.Error(diff)
	}
	var paths []string
	for _, p := range problems {
		paths = append(paths, p.Path)
	}
	if diff := cmp.Diff([]string{"spec.bpfEnabled", "spec.vxlanMTU", "spec.notYet", "spec.failsafeInboundHostPorts[1].port", "spec.wireguardEnabled"}, paths); diff != "" {
		t.Error(diff)
	}
	if _, _, err := DecodeStored("FelixConfiguration", []byte(`{"metadata":{"name":"a"},"spec":{"nodeSelector":5}}`)); err == nil {
		t.Error("a configuration for nodes that can't be told was read")
	}
}

func TestFelixUnknownSettingHasALine(t *testing.T) {
	_, err := Decode([]byte("apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec:\n  vxlanMTU: 5\n  vxlanMUT: 6\n"))
	const want = "document 1, line 6: FelixConfiguration/default: spec.vxlanMUT: unknown field; did you mean vxlanMTU?"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
