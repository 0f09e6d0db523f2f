package calcgraph

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
)

func TestDeparted(t *testing.T) {
	g := New(Config{NodeName: "here"})
	put := func(name, node string, nets ...string) {
		o := &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name}, Spec: api.WorkloadEndpointSpec{Node: node, IPNetworks: nets}}
		o.Kind = "WorkloadEndpoint"
		g.Update(api.KeyOf(o), o)
	}
	for _, step := range []struct {
		name string
		do   func()
		want string
	}{
		{"new", func() { put("a", "there", "10.0.0.1/32", "fd00::1/128"); put("mine", "here", "10.0.0.2/32") }, "[]"},
		{"again", func() { put("a", "there", "10.0.0.1/32", "fd00::1/128") }, "[]"},
		{"another address", func() { put("a", "there", "10.0.0.3/32", "fd00::1/128") }, "[10.0.0.1]"},
		{"gone", func() { g.Update(api.Key{Kind: "WorkloadEndpoint", Namespace: "n", Name: "a"}, nil) }, "[10.0.0.3 fd00::1]"},
		{"gone again", func() { g.Update(api.Key{Kind: "WorkloadEndpoint", Namespace: "n", Name: "a"}, nil) }, "[]"},
		{"of this node", func() { g.Update(api.Key{Kind: "WorkloadEndpoint", Namespace: "n", Name: "mine"}, nil) }, "[]"},
		{"to another owner at once", func() {
			put("b", "there", "10.0.0.4/32")
			g.Update(api.Key{Kind: "WorkloadEndpoint", Namespace: "n", Name: "b"}, nil)
			put("c", "elsewhere", "10.0.0.4/32")
		}, "[10.0.0.4]"},
		{"a network set", func() {
			o := &api.GlobalNetworkSet{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Spec: api.NetworkSetSpec{Nets: []string{"10.9.0.1/32"}}}
			o.Kind = "GlobalNetworkSet"
			g.Update(api.KeyOf(o), o)
			g.Update(api.KeyOf(o), nil)
		}, "[]"},
	} {
		step.do()
		g.Flush()
		if got := fmt.Sprint(g.Departed()); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
	}
}
