package calcgraph

import (
	"strings"
	"testing"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestForgedLabels says that nothing which people of one namespace may write can pass for something of another one.
func TestForgedLabels(t *testing.T) {
	forged := map[string]string{
		"app": "web", "pcns.env": "prod", "pcsa.team": "admins", api.LabelServiceAccount: "admin", api.LabelOrchestrator: "k8s",
		api.LabelNamespace: "prod",
	}
	wep := &api.WorkloadEndpoint{Spec: api.WorkloadEndpointSpec{Node: "n1", IPNetworks: []string{"10.0.0.1/32"}}}
	wep.Namespace, wep.Name, wep.Labels = "evil", "w", forged
	set := &api.NetworkSet{Spec: api.NetworkSetSpec{Nets: []string{"10.0.0.2"}}}
	set.Namespace, set.Name, set.Labels = "evil", "s", forged

	for _, selector := range []string{
		"pcns.env == 'prod'", "pcsa.team == 'admins'", api.LabelServiceAccount + " == 'admin'", api.LabelOrchestrator + " == 'k8s'",
		api.LabelNamespace + " == 'prod'", "app == 'web'",
	} {
		g := New(Default("n2"))
		g.Update(api.KeyOf(wep), wep)
		g.Update(api.KeyOf(set), set)
		pol := &api.GlobalNetworkPolicy{Spec: api.GlobalNetworkPolicySpec{
			Selector: "has(host)", Types: []api.PolicyType{api.Ingress}, Ingress: []api.Rule{{Action: api.Allow, Source: api.EntityRule{Selector: selector}}},
		}}
		pol.Name = "p"
		g.Update(api.KeyOf(pol), pol)
		hep := &api.HostEndpoint{Spec: api.HostEndpointSpec{Node: "n2", InterfaceName: "eth0"}}
		hep.Name, hep.Labels = "h", map[string]string{"host": "yes"}
		g.Update(api.KeyOf(hep), hep)
		g.Host([]drivers.HostIface{{Name: "eth0"}})
		u := g.Flush()
		members := 0
		for _, s := range u.Sets {
			members += s.Set.Len()
		}
		if own := strings.HasPrefix(selector, "app"); len(u.Sets) != 1 || own != (members == 2) || !own && members != 0 {
			t.Errorf("%s: %d sets with %d members", selector, len(u.Sets), members)
		}
		if len(g.Problems()) < 8 {
			t.Errorf("%s: the labels that are left out are not reported: %v", selector, g.Problems())
		}
	}
}

// TestMissingProfile: what is said of a missing profile is what becomes of its endpoints: those before it decide first.
func TestMissingProfile(t *testing.T) {
	for _, c := range []struct {
		profiles []string
		want     drivers.Verdict
	}{{[]string{"kns.ns", "ksa.ns.gone"}, drivers.VerdictAllow}, {[]string{"ksa.ns.gone", "kns.ns"}, drivers.VerdictDeny}} {
		ck := newChecked(t)
		ck.set(&api.Profile{ObjectMeta: metav1.ObjectMeta{Name: "kns.ns"}, Spec: api.ProfileSpec{Egress: []api.Rule{{Action: api.Allow}}}})
		ck.set(&api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "w"}, Spec: api.WorkloadEndpointSpec{Node: "me", Profiles: c.profiles}})
		ck.attach(drivers.EndpointID{Sandbox: "s", Interface: "eth0"}, &LedgerEntry{Name: api.Key{Namespace: "ns", Name: "w"}, Iface: "tort1", Addrs: addrs("10.0.0.1")})
		ck.flush()
		ps := ck.g.Problems()
		if len(ps) != 1 || ps[0].Key.Name != "ksa.ns.gone" || !strings.Contains(ps[0].Reason, "none of their profiles before it") || !strings.Contains(ps[0].Reason, "no labels") {
			t.Errorf("%v: problems %v", c.profiles, ps)
		}
		got := drivers.Evaluate(ck.state, drivers.Packet{From: drivers.Place{Kind: drivers.PlaceWorkload, Iface: "tort1"}, To: drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth0"},
			Src: addrs("10.0.0.1")[0], Dst: addrs("192.0.2.200")[0], Proto: 6, SrcPort: 1024, DstPort: 80})
		if got.Verdict != c.want {
			t.Errorf("%v: %s, want %s\n%+v", c.profiles, got.Verdict, c.want, got.Steps)
		}
		ck.clear()
	}
}
