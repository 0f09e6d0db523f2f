package ctl

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/drivers"
)

// told is the shop with what the agent of n1 has told of its node: workloads may reach it, as it says itself, and its way
// out is ens3.
func told(t *testing.T, change func(*calcgraph.NodeInfo)) string {
	t.Helper()
	n1 := api.Node{}
	n1.Kind, n1.APIVersion, n1.Name = "Node", api.GroupVersion, "n1"
	n1.Spec.BGP = &api.NodeBGPSpec{IPv4Address: "192.0.2.1/24"}
	info := calcgraph.NewNodeInfo(calcgraph.Default("n1"), []drivers.HostIface{
		{Name: "ens3", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}},
		{Name: "ens4", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("172.16.0.1/16")}},
	}, [2]string{"ens3", ""})
	if change != nil {
		change(&info)
	}
	if _, err := info.WriteTo(&n1); err != nil {
		t.Fatal(err)
	}
	text, err := api.EncodeYAML(&n1)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(shop, "---") // the node as it is without
	return string(text) + "---" + rest
}

const toHostAccept = `
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {defaultEndpointToHostAction: Accept}
`

// TestSettingsOfNodes: explain, preview and connectivity go by the settings that the nodes have: FelixConfigurations, over
// what the agents have of their own.
func TestSettingsOfNodes(t *testing.T) {
	accept := func(i *calcgraph.NodeInfo) { i.Config.EndpointToHost = drivers.ToHostAccept }
	fixed := func(i *calcgraph.NodeInfo) {
		i.Config.Fixed = map[string]string{"defaultEndpointToHostAction": "endpointToHost"}
	}
	for _, c := range []struct {
		name, files string
		reached     bool
	}{
		{"defaults", shop, false},
		{"a FelixConfiguration", shop + toHostAccept, true},
		{"the agent's own", told(t, accept), true},
		{"a FelixConfiguration over the agent's", told(t, nil) + toHostAccept, true},
		{"the agent's own, which is fixed", told(t, fixed) + toHostAccept, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			f := b.file("world.yaml", c.files)
			out, code := b.run("explain", "-f", f, "shop/web-1", "n1", "tcp", "80")
			if want := map[bool]int{true: 0, false: ExitDenied}[c.reached]; code != want {
				t.Errorf("explain: exit code %d, want %d:\n%s", code, want, out)
			}
			out, _ = b.run("connectivity", "-f", f, "--nodes", "--each", "--from", "role == 'web'", "--family", "4", "-o", "json")
			if got := reaches(t, out, "shop/web-1", "n1"); got != c.reached {
				t.Errorf("connectivity: web-1 reaches its node: %v, want %v:\n%s", got, c.reached, out)
			}
		})
	}
	b := newBench(t)
	out, code := b.run("policy", "preview", "-f", b.file("felix.yaml", strings.TrimPrefix(toHostAccept, "\n---")), "--against", b.file("shop.yaml", shop))
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	wants(t, out, "Newly allowed", "shop/web-1 -> node n1")
}

// TestUplinkThatAgentsTold: a host endpoint counts if packets go by its interface, which nobody has to guess.
func TestUplinkThatAgentsTold(t *testing.T) {
	_, host, _ := strings.Cut(uplinkPolicy, shop)
	for _, c := range []struct {
		to   string
		want int
	}{{"198.51.100.9", ExitDenied}, {"10.65.2.1", ExitDenied}, {"172.16.0.9", 0}} {
		b := newBench(t)
		f := b.file("world.yaml", told(t, nil)+host)
		out, code := b.run("explain", "-f", f, "web-1", c.to, "tcp", "80")
		if code != c.want || strings.Contains(out, "--uplink") {
			t.Errorf("to %s: exit code %d, want %d\n%s", c.to, code, c.want, out)
		}
	}
	b := newBench(t)
	cluster, f := b.file("town.yaml", told(t, nil)), b.file("host.yaml", host)
	b.steps([]step{
		{[]string{"policy", "preview", "-f", f, "--against", cluster}, 0, []string{"Newly denied", "GlobalNetworkPolicy/host"}},
		{[]string{"policy", "preview", "-f", f, "--against", cluster, "--uplink", "eth0"}, 0, []string{"Nothing would be allowed or denied"}},
	})
	out, _ := b.run("policy", "preview", "-f", f, "--against", cluster)
	if strings.Contains(out, "n1: taken to reach") {
		t.Errorf("a doubt about what is known:\n%s", out)
	}
}

// reaches reads connectivity's JSON: whether a link leads from one end to another.
func reaches(t *testing.T, out, from, to string) bool {
	t.Helper()
	var c struct {
		Groups []struct{ Members []string }
		Links  []struct{ From, To int }
	}
	out, _, _ = strings.Cut(out, "\nTo know:") // which goes to the other stream
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	has := func(i int, name string) bool {
		return slices.ContainsFunc(c.Groups[i].Members, func(m string) bool { return strings.HasSuffix(m, name) })
	}
	for _, l := range c.Links {
		if has(l.From, from) && has(l.To, to) {
			return true
		}
	}
	return false
}
