package controllers

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

func automaticConfig(text string) string {
	return "{apiVersion: projectcalico.org/v3, kind: KubeControllersConfiguration, metadata: {name: default}, spec: {controllers: {node: {hostEndpoint: " + text + "}}}}"
}

// endpointsOf is what the store has, as "name iface ip,ip label=value...".
func endpointsOf(b *bench) []string {
	var out []string
	for _, o := range stored[*api.HostEndpoint](b, "HostEndpoint") {
		text := o.Name + " " + o.Spec.Node + " [" + o.Spec.InterfaceName + "] " + strings.Join(o.Spec.ExpectedIPs, ",") + " " + strings.Join(o.Spec.Profiles, ",")
		for _, k := range []string{"zone", "role", createdBy} {
			if v, ok := o.Labels[k]; ok {
				text += " " + k[strings.LastIndex(k, "/")+1:] + "=" + v
			}
		}
		out = append(out, text)
	}
	return out
}

func TestHostEndpoints(t *testing.T) {
	const n1 = nodeHead + "name: n1, labels: {zone: a}}, spec: {bgp: {ipv4Address: 192.0.2.1/24, ipv6Address: '2001:db8::1/64'}, ipv4VXLANTunnelAddr: 10.0.0.1, addresses: [{address: 192.0.2.1, type: InternalIP}, {address: 203.0.113.9, type: ExternalIP}], interfaces: [{name: eth0, addresses: [192.0.2.1]}, {name: eth1.5, addresses: [203.0.113.9]}]}}"
	const n2 = nodeHead + "name: n2, labels: {zone: b}}, spec: {bgp: {ipv4Address: 192.0.2.2/24}}}"
	const end = " projectcalico-default-allow"
	for _, tc := range []struct {
		name, config string
		more         []string
		want         []string
		wrong        string // what the step complains of
	}{
		{name: "no configuration", config: ""},
		{name: "disabled", config: automaticConfig("{autoCreate: Disabled}"), more: []string{
			"{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: n1-auto-hep, labels: {projectcalico.org/created-by: calico-kube-controllers}}, spec: {node: n1, interfaceName: '*'}}",
			"{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: mine}, spec: {node: n1, interfaceName: eth7}}",
		}, want: []string{"mine n1 [eth7]  "}},
		{name: "one of each node", config: automaticConfig("{autoCreate: Enabled}"), more: []string{
			"{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: gone-auto-hep, labels: {projectcalico.org/created-by: calico-kube-controllers}}, spec: {node: gone, interfaceName: '*'}}",
			"{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: n2-auto-hep, labels: {projectcalico.org/created-by: calico-kube-controllers, zone: old}}, spec: {node: n2, interfaceName: '*', expectedIPs: [192.0.2.77]}}",
		}, want: []string{
			"n1-auto-hep n1 [*] 10.0.0.1,192.0.2.1,203.0.113.9,2001:db8::1" + end + " zone=a created-by=calico-kube-controllers",
			"n2-auto-hep n2 [*] 192.0.2.2" + end + " zone=b created-by=calico-kube-controllers",
		}},
		{name: "somebody's own of that name", config: automaticConfig("{autoCreate: Enabled}"), more: []string{
			"{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: n1-auto-hep}, spec: {node: n1, interfaceName: eth7}}",
		}, want: []string{"n1-auto-hep n1 [eth7]  ", "n2-auto-hep n2 [*] 192.0.2.2" + end + " zone=b created-by=calico-kube-controllers"},
			wrong: "HostEndpoint/n1-auto-hep is somebody's own"},
		{name: "templates", config: automaticConfig("{autoCreate: Enabled, createDefaultHostEndpoint: Disabled, templates: [" +
			"{generateName: internal, interfaceCIDRs: [192.0.2.0/24], labels: {role: in}}, " +
			"{generateName: external, interfaceCIDRs: [203.0.113.0/24], nodeSelector: zone == 'a', labels: {zone: mine}}, " +
			"{generateName: nics, interfacePattern: '^eth1'}]}"), want: []string{
			"n1-external-auto-hep n1 [] 203.0.113.9" + end + " zone=mine created-by=calico-kube-controllers",
			"n1-internal-auto-hep n1 [] 192.0.2.1" + end + " zone=a role=in created-by=calico-kube-controllers",
			"n1-nics-eth1.5-auto-hep n1 [eth1.5] 203.0.113.9" + end + " zone=a created-by=calico-kube-controllers",
			"n2-internal-auto-hep n2 [] 192.0.2.2" + end + " zone=b role=in created-by=calico-kube-controllers",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, n1, n2)
			if tc.config != "" {
				b.create(tc.config)
			}
			for _, o := range tc.more {
				b.create(o)
			}
			h := &hostEndpoints{w: b.w, config: newConfig(b.w, nil), store: b.store}
			b.see()
			if err := h.step(t.Context()); tc.wrong == "" && err != nil || tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)) {
				t.Errorf("error %v, want %q", err, tc.wrong)
			}
			if diff := cmp.Diff(tc.want, endpointsOf(b)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, o := range stored[*api.HostEndpoint](b, "HostEndpoint") {
				if errs := api.Validate(o); len(errs) > 0 {
					t.Errorf("%s: %v", o.Name, errs)
				}
			}
			// Once more, with nothing to do: nothing is written.
			b.see()
			before := revisions(b)
			_ = h.step(t.Context())
			if diff := cmp.Diff(before, revisions(b)); diff != "" {
				t.Errorf("a second step writes:\n%s", diff)
			}
		})
	}
}

const nodeHead = "{apiVersion: projectcalico.org/v3, kind: Node, metadata: {"

func revisions(b *bench) map[string]string {
	m := map[string]string{}
	for _, o := range stored[*api.HostEndpoint](b, "HostEndpoint") {
		m[o.Name] = o.ResourceVersion
	}
	return m
}

// TestHostEndpointsFollow keeps them in step with nodes, and where the configuration can't be read leaves them.
func TestHostEndpointsFollow(t *testing.T) {
	b := newBench(t, nodeYAML("n1", ""), automaticConfig("{autoCreate: Enabled}"))
	h := &hostEndpoints{w: b.w, config: newConfig(b.w, nil), store: b.store}
	step := func() {
		t.Helper()
		b.see()
		if err := h.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	step()
	o, err := b.store.Get(t.Context(), api.Key{Kind: "Node", Name: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	n := o.(*api.Node)
	n.Labels["zone"], n.Spec.BGP.IPv4Address = "c", "192.0.2.50/24"
	if _, err := b.store.Update(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	step()
	want := []string{"n1-auto-hep n1 [*] 192.0.2.50 projectcalico-default-allow zone=c created-by=calico-kube-controllers"}
	if diff := cmp.Diff(want, endpointsOf(b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.store.SetRaw(api.Key{Kind: "KubeControllersConfiguration", Name: "default"}, []byte("garbage"))
	fresh := &hostEndpoints{w: newWorld(), config: newConfig(newWorld(), nil), store: b.store}
	fresh.config.w = fresh.w
	b.w, b.told = fresh.w, map[api.Key]string{}
	b.see()
	b.w.take(unreadable("KubeControllersConfiguration", "default"))
	if err := fresh.step(t.Context()); err == nil {
		t.Error("no error of a configuration that can't be read")
	}
	if diff := cmp.Diff(want, endpointsOf(b)); diff != "" {
		t.Errorf("with a configuration that can't be read (-want +got):\n%s", diff)
	}
}

// TestTemplateTypo makes a template unreadable, with and without the watch having noticed: what it has made stays, what the
// configuration said before goes on, and the error says where the mistake is.
func TestTemplateTypo(t *testing.T) {
	config := func(selector string) []byte {
		return []byte(`{"apiVersion":"projectcalico.org/v3","kind":"KubeControllersConfiguration","metadata":{"name":"default"},"spec":{"controllers":{"node":{"hostEndpoint":{` +
			`"autoCreate":"Enabled","createDefaultHostEndpoint":"Disabled","templates":[{"generateName":"all","interfaceCIDRs":["192.0.2.0/24"]},` +
			`{"generateName":"a","interfaceCIDRs":["192.0.2.0/24"],"nodeSelector":"` + selector + `"}]}}}}}`)
	}
	key := api.Key{Kind: "KubeControllersConfiguration", Name: "default"}
	const n2 = nodeHead + "name: n2, labels: {zone: a}}, spec: {bgp: {ipv4Address: 192.0.2.2/24}}}"
	of := func(b *bench) (names []string) {
		for _, o := range stored[*api.HostEndpoint](b, "HostEndpoint") {
			names = append(names, o.Name)
		}
		return names
	}
	first := []string{"n1-a-auto-hep", "n1-all-auto-hep"}
	for _, tc := range []struct {
		name    string
		noticed bool // by the watch
		restart bool // another process leads
		want    []string
	}{
		{"not noticed", false, false, []string{"n1-a-auto-hep", "n1-all-auto-hep", "n2-all-auto-hep"}},
		{"noticed", true, false, []string{"n1-a-auto-hep", "n1-all-auto-hep", "n2-a-auto-hep", "n2-all-auto-hep"}},
		{"not noticed, by another process", false, true, []string{"n1-a-auto-hep", "n1-all-auto-hep", "n2-all-auto-hep"}},
		{"noticed, by another process", true, true, first},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBench(t, nodeYAML("n1", ""))
			h := &hostEndpoints{w: b.w, config: newConfig(b.w, nil), store: b.store}
			b.store.SetRaw(key, config("zone == 'a'"))
			b.see()
			if err := h.step(t.Context()); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first, of(b)); diff != "" {
				t.Fatalf("(-want +got):\n%s", diff)
			}
			if tc.restart {
				h.config = newConfig(b.w, nil)
			}
			b.create(n2)
			b.store.SetRaw(key, config("zone == 'a"))
			b.see()
			if tc.noticed {
				o, problems, err := api.DecodeStored(key.Kind, config("zone == 'a"))
				if err != nil || len(problems) == 0 {
					t.Fatalf("%v, %v", problems, err)
				}
				b.w.take(datastore.Batch{InSync: true, Status: datastore.Status{Connected: true},
					Events: []datastore.Event{{Key: key, Object: o, Problems: problems}}})
			}
			err := h.step(t.Context())
			const where = "KubeControllersConfiguration/default: spec.controllers.node.hostEndpoint.templates[1].nodeSelector: "
			if err == nil || strings.Count(err.Error(), where) != 1 {
				t.Errorf("error %v", err)
			}
			if diff := cmp.Diff(tc.want, of(b)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestLabelsOfPodsOnNodes has a Node say what only a pod's namespace, service account and orchestrator say.
func TestLabelsOfPodsOnNodes(t *testing.T) {
	b := newBench(t, nodeHead+"name: n1, labels: {zone: a, projectcalico.org/orchestrator: k8s, projectcalico.org/namespace: prod, "+
		"projectcalico.org/serviceaccount: admin, pcns.team: prod, pcsa.role: admin, projectcalico.org/kind: node}}, spec: {bgp: {ipv4Address: 192.0.2.1/24}}}",
		automaticConfig("{autoCreate: Enabled}"))
	h := &hostEndpoints{w: b.w, config: newConfig(b.w, nil), store: b.store}
	b.see()
	if err := h.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := stored[*api.HostEndpoint](b, "HostEndpoint")
	if len(all) != 1 {
		t.Fatalf("%d host endpoints", len(all))
	}
	want := map[string]string{"zone": "a", "projectcalico.org/kind": "node", createdBy: createdByUs}
	if diff := cmp.Diff(want, all[0].Labels); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPartOfAConfiguration is what can be read of one at the first look.
func TestPartOfAConfiguration(t *testing.T) {
	b := newBench(t)
	b.see()
	o := &api.KubeControllersConfiguration{}
	o.Name = "default"
	grace := api.Duration(0)
	o.Spec.Controllers.Node = &api.NodeController{LeakGracePeriod: &grace}
	tell := func(problems ...api.Problem) {
		b.w.take(datastore.Batch{InSync: true, Status: datastore.Status{Connected: true},
			Events: []datastore.Event{{Key: api.KeyOf(o), Object: o, Problems: problems}}})
	}
	typo := api.Problem{Path: "spec.controllers.node.hostEndpoint.autoCreate", Reason: "is not Enabled or Disabled"}
	c := newConfig(b.w, nil)
	tell(typo)
	if s, known, err := c.look(); s.grace != 0 || known || err == nil {
		t.Errorf("at the first look: %+v, %v, %v", s, known, err)
	}
	tell(api.Problem{Path: "metadata.labels", Reason: "is odd"})
	if s, known, err := c.look(); s.grace != 0 || !known || err != nil {
		t.Errorf("with a problem elsewhere: %+v, %v, %v", s, known, err)
	}
	o.Spec.Controllers.Node = nil
	tell(typo)
	if s, known, err := c.look(); s.grace != 0 || !known || err == nil {
		t.Errorf("after it had been read: %+v, %v, %v", s, known, err)
	}
}
