package calcgraph

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// isPartial reports whether some addresses of o can't be read.
func isPartial(o api.Object) bool {
	var texts, lost []string
	switch o := o.(type) {
	case *api.WorkloadEndpoint:
		texts, lost = o.Spec.IPNetworks, o.Spec.Partial
	case *api.HostEndpoint:
		texts, lost = o.Spec.ExpectedIPs, o.Spec.Partial
	case *api.NetworkSet:
		texts, lost = o.Spec.Nets, o.Spec.Partial
	case *api.GlobalNetworkSet:
		texts, lost = o.Spec.Nets, o.Spec.Partial
	case *api.EndpointSlice:
		lost = o.Partial
	}
	return len(lost) > 0 || slices.ContainsFunc(texts, func(t string) bool { _, err := api.ParsePrefix(t); return err != nil })
}

// closePartial is the model's: what refers to a partial set, and would be wider or narrower than written, is unsupported.
func (m *model) closePartial(p *drivers.Policy) {
	for list, rules := range map[string][]drivers.Rule{"ingress": p.In, "egress": p.Out} {
		for i := range rules {
			r := &rules[i]
			for name, s := range map[string]*drivers.Side{"source": &r.Match.Src, "destination": &r.Match.Dst} {
				partial := func(ids []drivers.SetID) (whole []drivers.SetID, some bool) {
					for _, id := range ids {
						if m.partial[id] {
							some = true
						} else {
							whole = append(whole, id)
						}
					}
					return whole, some
				}
				sets, a := partial(s.Sets)
				services, b := partial(s.Services)
				_, c := partial(s.PortSets)
				notSets, d := partial(s.NotSets)
				notPorts, e := partial(s.NotPortSets)
				in, out := a || b || c, d || e
				in = in && (r.Action == drivers.Deny || r.Action == drivers.Pass)
				out = out && (r.Action == drivers.Allow || r.Action == drivers.Pass)
				if in {
					s.Sets, s.Services = sets, services
					if c {
						s.Ports, s.PortSets = nil, nil
					}
				}
				if out {
					s.NotSets, s.NotPortSets = notSets, notPorts
				}
				if in || out {
					r.Match.Unsupported = append(r.Match.Unsupported, fmt.Sprintf("spec.%s[%d].%s: an address of what it selects can't be read", list, i, name))
				}
			}
			slices.Sort(r.Match.Unsupported)
		}
	}
}

// TestPartialSets: a network set of which a net can't be read makes no Deny narrower and no Allow wider, in the dataplane
// as in explain. From 203.0.113.0/24, which is what could not be read, nothing may come that the whole set would stop.
func TestPartialSets(t *testing.T) {
	rule := func(action api.Action, selector, not string) api.Rule {
		return api.Rule{Action: action, Source: api.EntityRule{Selector: selector, NotSelector: not}}
	}
	allow, deny := api.Rule{Action: api.Allow}, api.Rule{Action: api.Deny}
	const evil = "set == 'evil'"
	for _, c := range []struct {
		name  string
		rules []api.Rule
		// whether packets get in, from: a net that was read, the one that was not, elsewhere. First if all could be
		// read, then as it is.
		whole, partly [3]bool
	}{
		{"deny by it", []api.Rule{rule(api.Deny, evil, ""), allow}, [3]bool{false, false, true}, [3]bool{false, false, false}},
		{"deny all but it", []api.Rule{rule(api.Deny, "", evil), allow}, [3]bool{true, true, false}, [3]bool{true, false, false}},
		{"allow by it", []api.Rule{rule(api.Allow, evil, ""), deny}, [3]bool{true, true, false}, [3]bool{true, false, false}},
		{"allow all but it", []api.Rule{rule(api.Allow, "", evil), deny}, [3]bool{false, false, true}, [3]bool{false, false, false}},
		{"pass by it", []api.Rule{rule(api.Pass, evil, ""), allow}, [3]bool{false, false, true}, [3]bool{false, false, false}},
		{"pass all but it", []api.Rule{rule(api.Pass, "", evil), allow}, [3]bool{true, true, false}, [3]bool{false, false, false}},
		{"log by it", []api.Rule{rule(api.Log, evil, ""), allow}, [3]bool{true, true, true}, [3]bool{true, true, true}},
	} {
		for _, kind := range []string{"GlobalNetworkSet", "NetworkSet"} {
			t.Run(c.name+" "+kind, func(t *testing.T) {
				for _, lost := range []bool{false, true, false} {
					nets, want := `"198.51.100.0/24", "203.0.113.0/24"`, c.whole
					if lost {
						nets, want = `"198.51.100.0/24", {"cidr": "203.0.113.0/24"}`, c.partly
					}
					if got := verdicts(t, kind, nets, c.rules); got != want {
						t.Errorf("partial %v: %v, want %v", lost, got, want)
					}
				}
			})
		}
	}
}

// verdicts says which packets from outside reach a workload whose policy has these rules, and a set of these nets as they
// are stored.
func verdicts(t *testing.T, kind, nets string, rules []api.Rule) (got [3]bool) {
	t.Helper()
	namespace := ""
	if kind == "NetworkSet" {
		namespace = `"namespace": "n0",`
	}
	set, problems, err := api.DecodeStored(kind, []byte(fmt.Sprintf(
		`{"apiVersion": %q, "kind": %q, "metadata": {%s "name": "s", "labels": {"set": "evil"}}, "spec": {"nets": [%s]}}`, api.GroupVersion, kind, namespace, nets)))
	if err != nil {
		t.Fatal(err)
	}
	c := newChecked(t)
	c.set(set)
	c.set(&api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "n0", Name: "w"}, Spec: api.WorkloadEndpointSpec{Node: "me"}})
	p := &api.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
	p.Spec.Selector, p.Spec.Types, p.Spec.Ingress = "all()", []api.PolicyType{api.Ingress}, rules
	c.set(p)
	w := drivers.EndpointID{Sandbox: "s", Interface: "eth0"}
	c.attach(w, &LedgerEntry{Name: api.Key{Kind: "WorkloadEndpoint", Namespace: "n0", Name: "w"}, Iface: "tort1", Addrs: addrs("10.0.0.1")})
	c.flush()
	reported := slices.ContainsFunc(c.g.Problems(), func(p Problem) bool { return p.Key.Kind == kind && strings.HasPrefix(p.Field, "spec.nets[1]") })
	if reported != (len(problems) > 0) {
		t.Errorf("%d problems when it was decoded, and then %v", len(problems), c.g.Problems())
	}
	low, _ := drivers.Lower(c.state, drivers.AllFeatures("all"))
	for i, from := range addrs("198.51.100.1", "203.0.113.1", "192.0.2.200") {
		packet := drivers.Packet{
			From: drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth0"}, To: drivers.Place{Kind: drivers.PlaceWorkload, Iface: "tort1"},
			Src: from, Dst: addrs("10.0.0.1")[0], Proto: 6, SrcPort: 1024, DstPort: 80,
		}
		got[i] = drivers.Evaluate(low, packet).Verdict == drivers.VerdictAllow
		if written := drivers.Evaluate(c.state, packet).Verdict == drivers.VerdictAllow; got[i] && !written {
			t.Errorf("from %s: allowed once lowered, but not as it was written", from)
		}
	}
	return got
}

// TestPartialComesAndGoes: other objects than the set make it partial and whole again, and rules follow.
func TestPartialComesAndGoes(t *testing.T) {
	c := newChecked(t)
	slice := &api.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "n0", Name: "e", Labels: map[string]string{"kubernetes.io/service-name": "v"}},
		Endpoints: []api.SliceEndpoint{{Addresses: []string{"10.9.0.1"}}}, Ports: []api.SlicePort{{Port: ptr(uint16(80))}}}
	remote := &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "n0", Name: "r", Labels: map[string]string{"app": "r"}},
		Spec: api.WorkloadEndpointSpec{Node: "n2", IPNetworks: []string{"10.0.2.1/32"}, Ports: []api.EndpointPort{{Name: "http", Protocol: api.Protocol{Name: "TCP"}, Port: 80}}}}
	local := &api.WorkloadEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "n0", Name: "w"}, Spec: api.WorkloadEndpointSpec{Node: "me", Profiles: []string{"p"}}}
	tcp := &api.Protocol{Name: "TCP"}
	p := &api.Profile{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
	p.Spec.Egress = []api.Rule{
		{Action: api.Deny, Destination: api.EntityRule{Services: &api.ServiceMatch{Namespace: "n0", Name: "v"}}},
		{Action: api.Deny, Protocol: tcp, Destination: api.EntityRule{Selector: "app == 'r'", Ports: []api.Port{{Name: "http"}}}},
		{Action: api.Allow},
	}
	for _, o := range []api.Object{slice, remote, local, p} {
		c.set(o)
	}
	c.attach(drivers.EndpointID{Sandbox: "s", Interface: "eth0"}, &LedgerEntry{Name: api.KeyOf(local), Iface: "tort1", Addrs: addrs("10.0.0.1")})
	check := func(what string, want ...string) {
		t.Helper()
		c.flush()
		if d := cmp.Diff(c.w.state(c.c).String(), c.state.String()); d != "" {
			t.Fatalf("%s (-model +graph):\n%s", what, d)
		}
		var got []string
		for _, r := range c.state.Policies[profileID("p")].Out {
			got = append(got, r.Match.Unsupported...)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s:\n%s", what, d)
		}
	}
	lost := func(rule int) string {
		return fmt.Sprintf("spec.egress[%d].destination: an address of what it selects can't be read", rule)
	}
	check("all can be read")
	badSlice := *slice
	badSlice.Partial = []string{"endpoints[0].addresses[1]: must be a string"}
	c.set(&badSlice)
	check("a slice can't", lost(0))
	badRemote := *remote
	badRemote.Spec.IPNetworks = []string{"10.0.2.1/32", "10.0.2.x"}
	c.set(&badRemote)
	check("nor a workload", lost(0), lost(1))
	c.set(slice)
	check("the slice can", lost(1))
	elsewhere := badRemote
	elsewhere.Labels = map[string]string{"app": "other"}
	c.set(&elsewhere)
	check("the workload is no longer selected")
	c.set(&badRemote)
	check("it is again", lost(1))
	c.remove(api.KeyOf(remote))
	check("it is gone")
	c.clear()
}

func addrs(texts ...string) (out []netip.Addr) {
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

// TestPartialAllowsNoMore: whatever can't be read of the objects of a random world, and whatever it would have said, no
// packet is allowed that would not be if it could be.
func TestPartialAllowsNoMore(t *testing.T) {
	differs := 0
	for seed := range 100 {
		g := gen{rand.New(rand.NewPCG(uint64(seed), 7))}
		whole, partly := newChecked(t), newChecked(t)
		both := func(fn func(*checked)) { fn(whole); fn(partly) }
		for range 60 {
			o := g.object()
			if _, local := o.(*api.WorkloadEndpoint); !isPartial(o) && !local {
				whole.set(o)
				partly.set(g.lose(o))
			}
		}
		for i := range 3 { // policy that would allow, but for what it says of others
			p := &api.GlobalNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("all", i)}}
			p.Spec = api.GlobalNetworkPolicySpec{Selector: "all()", Types: []api.PolicyType{api.Ingress, api.Egress}, Order: ptr(float64(i) - 10)}
			for range 3 {
				p.Spec.Ingress = append(p.Spec.Ingress, api.Rule{Action: pick(g, api.Deny, api.Pass, api.Allow), Source: g.peer()})
				p.Spec.Egress = append(p.Spec.Egress, api.Rule{Action: pick(g, api.Deny, api.Pass, api.Allow), Destination: g.peer()})
			}
			if g.chance(50) {
				p.Spec.Ingress, p.Spec.Egress = append(p.Spec.Ingress, api.Rule{Action: api.Allow}), append(p.Spec.Egress, api.Rule{Action: api.Allow})
			}
			both(func(c *checked) { c.set(p) })
		}
		locals := map[string]netip.Addr{}
		for i, ns := range []string{"n0", "n1"} {
			w := &api.WorkloadEndpoint{ObjectMeta: g.meta(ns, "w0"), Spec: api.WorkloadEndpointSpec{Node: "me", Profiles: []string{"kns." + ns, "p0"}, Ports: g.ports()}}
			sandbox := fmt.Sprint("s", i)
			locals["tort"+sandbox] = netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
			both(func(c *checked) {
				c.set(w)
				c.attach(drivers.EndpointID{Sandbox: sandbox, Interface: "eth0"}, &LedgerEntry{Name: api.KeyOf(w), Iface: "tort" + sandbox, Addrs: []netip.Addr{locals["tort"+sandbox]}})
			})
		}
		both(func(c *checked) {
			c.host([]drivers.HostIface{{Name: "eth0"}})
			c.flush()
		})
		low, _ := drivers.Lower(partly.state, drivers.AllFeatures("all"))
		for range 400 {
			iface := pick(g, "torts0", "torts1")
			far, near := netip.MustParseAddr(fmt.Sprintf("10.0.%d.%d", g.IntN(2), 3+g.IntN(6))), locals[iface]
			p := drivers.Packet{
				From: drivers.Place{Kind: drivers.PlaceHostIface, Iface: "eth0"}, To: drivers.Place{Kind: drivers.PlaceWorkload, Iface: iface},
				Src: far, Dst: near, Proto: pick(g, uint8(6), 17, 1), SrcPort: 1024, DstPort: uint16(79 + g.IntN(4)),
			}
			if g.chance(50) {
				p.From, p.To, p.Src, p.Dst = p.To, p.From, near, far
			}
			was, is := drivers.Evaluate(whole.state, p), drivers.Evaluate(low, p)
			if is.Verdict == drivers.VerdictAllow && was.Verdict != drivers.VerdictAllow {
				t.Fatalf("seed %d: %v is allowed, and would not be if all could be read\nwhole: %v\npartly: %v", seed, p, was.Steps, is.Steps)
			}
			if is.Verdict != was.Verdict {
				differs++
			}
		}
	}
	if differs == 0 {
		t.Error("nothing that was lost made a difference")
	}
}

// peer is what selects other things by their labels.
func (g gen) peer() (e api.EntityRule) {
	if g.chance(60) {
		e.Selector = g.atom("a", "b", "c")
	}
	if e.Selector == "" || g.chance(20) {
		e.NotSelector = g.atom("a", "b", "c")
	}
	return e
}

// lose returns o without some of its addresses, and a note of that; or o.
func (g gen) lose(o api.Object) api.Object {
	lose := func(texts []string) []string {
		return slices.DeleteFunc(slices.Clone(texts), func(string) bool { return g.chance(50) })
	}
	lost := []string{"somewhere: can't be read"}
	if g.chance(30) {
		return o
	}
	switch o := api.DeepCopy(o).(type) {
	case *api.NetworkSet:
		o.Spec.Nets, o.Spec.Partial = lose(o.Spec.Nets), lost
		return o
	case *api.GlobalNetworkSet:
		o.Spec.Nets, o.Spec.Partial = lose(o.Spec.Nets), lost
		return o
	case *api.HostEndpoint:
		if o.Spec.Node != "me" { // else it may be about other interfaces
			o.Spec.ExpectedIPs, o.Spec.Partial = lose(o.Spec.ExpectedIPs), lost
		}
		return o
	case *api.EndpointSlice:
		for i := range o.Endpoints {
			o.Endpoints[i].Addresses = lose(o.Endpoints[i].Addresses)
		}
		o.Partial = lost
		return o
	}
	return o
}
