package bench

import (
	"fmt"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
)

var tcp, udp = api.Protocol{Name: "TCP"}, api.Protocol{Name: "UDP"}

// port is one port in a rule.
func port(n int) []api.Port { return []api.Port{{First: uint16(n), Last: uint16(n)}} }

// policy is a global policy of a selector; with egress it speaks of that direction, too.
func policy(name string, order float64, selector string, ingress []api.Rule, egress []api.Rule) *api.GlobalNetworkPolicy {
	p := &api.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	p.Spec.Order, p.Spec.Selector, p.Spec.Ingress, p.Spec.Egress = &order, selector, ingress, egress
	if len(ingress) > 0 {
		p.Spec.Types = append(p.Spec.Types, api.Ingress)
	}
	if len(egress) > 0 {
		p.Spec.Types = append(p.Spec.Types, api.Egress)
	}
	api.Default(p)
	return p
}

// netset is a network set with a label "net" that names it, and addresses from 11.0.0.0/8: the first'th and those after.
func netset(name string, first, addresses int) *api.GlobalNetworkSet {
	s := &api.GlobalNetworkSet{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"net": name}}}
	for i := first; i < first+addresses; i++ {
		s.Spec.Nets = append(s.Spec.Nets, fmt.Sprintf("11.%d.%d.%d/32", i>>16&0xff, i>>8&0xff, i&0xff))
	}
	api.Default(s)
	return s
}

func inNet(name string) string { return fmt.Sprintf("net == '%s'", name) }

// perSet is how many addresses the sets of manyPolicies have.
const perSet = 10

// manyPolicies are n policies on what a selector selects, each with a set of its own in a rule of each direction, of a
// port of its own, and the sets.
func manyPolicies(selector string, n int) []api.Object {
	var out []api.Object
	for i := range n {
		name := fmt.Sprintf("many-%d", i)
		out = append(out, netset(name, i*perSet, perSet), policy(name, 1000+float64(i), selector,
			[]api.Rule{{Action: api.Allow, Protocol: &tcp, Source: api.EntityRule{Selector: inNet(name)}, Destination: api.EntityRule{Ports: port(1 + i)}}},
			[]api.Rule{{Action: api.Allow, Protocol: &tcp, Destination: api.EntityRule{Selector: inNet(name)}}}))
	}
	return out
}

// moreMembers are network sets that join those of manyPolicies, with so many addresses together, 1,000 in each.
func moreMembers(policies, members int) []api.Object {
	const size = 1000
	var out []api.Object
	for i := 0; i*size < members; i++ {
		s := netset(fmt.Sprintf("more-%d", i), policies*perSet+i*size, min(size, members-i*size))
		s.Labels["net"] = fmt.Sprintf("many-%d", i%policies)
		out = append(out, s)
	}
	return out
}

// remote is an endpoint of a node that does not exist.
func remote(n int, labels map[string]string) *api.WorkloadEndpoint {
	ns := fmt.Sprintf("namespace-%d", n%100)
	o := &api.WorkloadEndpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("elsewhere%d-k8s-pod%d-eth0", n%500, n), Labels: labels},
		Spec: api.WorkloadEndpointSpec{
			Orchestrator: "k8s", Workload: "pod" + strconv.Itoa(n), Pod: "pod" + strconv.Itoa(n), ContainerID: fmt.Sprintf("%064x", n), Endpoint: "eth0",
			Node: fmt.Sprintf("elsewhere%d", n%500), Profiles: []string{"kns." + ns}, InterfaceName: fmt.Sprintf("tort%011x", n),
			MAC:        fmt.Sprintf("ee:ee:00:%02x:%02x:%02x", n>>16&0xff, n>>8&0xff, n&0xff),
			IPNetworks: []string{fmt.Sprintf("12.%d.%d.%d/32", n>>16&0xff, n>>8&0xff, n&0xff)},
		},
	}
	api.Default(o)
	return o
}

// namespaces are the profiles of the namespaces of remote endpoints.
func namespaces() []api.Object {
	var out []api.Object
	for i := range 100 {
		name := fmt.Sprintf("namespace-%d", i)
		p := &api.Profile{ObjectMeta: metav1.ObjectMeta{Name: "kns." + name}}
		p.Spec.LabelsToApply = map[string]string{"pcns.projectcalico.org/name": name}
		api.Default(p)
		out = append(out, p)
	}
	return out
}

// labels are six labels of an endpoint, the last of which is one of 29.
func labels(n int) map[string]string {
	m := map[string]string{marker(n): "true"}
	for _, of := range []int{10, 11, 20, 30, 40} {
		m[fmt.Sprintf("one-in-%d", of)] = fmt.Sprintf("value-%d", n%of)
	}
	return m
}

const markers = 29

func marker(n int) string { return fmt.Sprintf("marker-%d", n%markers) }

// markerPolicies are n policies on a marker, each with five rules that select by markers.
func markerPolicies(n int) []api.Object {
	var out []api.Object
	for i := range n {
		var rules []api.Rule
		for j := range 5 {
			rules = append(rules, api.Rule{Action: api.Allow, Protocol: &tcp, Source: api.EntityRule{Selector: fmt.Sprintf("has(%s)", marker(i+j))},
				Destination: api.EntityRule{Ports: port(1 + (i+j)%60000)}})
		}
		out = append(out, policy(fmt.Sprintf("marked-%d", i), 1000+float64(i), fmt.Sprintf("has(%s)", marker(i)), rules, nil))
	}
	return out
}

const (
	// pools are where workloads get addresses, and open a profile of workloads that policy does not concern.
	poolsYAML = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: bench-v4}
spec: {cidr: 10.65.0.0/16}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: bench-v6}
spec: {cidr: "fd65::/48"}
`
	openYAML = `
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: open}
spec:
  ingress: [{action: Allow}]
  egress: [{action: Allow}]
`
)

// remotes are endpoints of other nodes, by number.
func remotes(from, to int) (out []api.Object) {
	for i := from; i < to; i++ {
		out = append(out, remote(i, labels(i)))
	}
	return out
}
