package calcgraph

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

func TestNodeInfo(t *testing.T) {
	c := Default("n1")
	c.EndpointToHost, c.CutEstablished, c.FailsafeIn = drivers.ToHostReturn, true, []drivers.Failsafe{{Proto: 6, Port: 22, Net: netip.MustParsePrefix("192.0.2.0/24")}}
	c.Fixed, c.NATExclusions = map[string]string{"defaultEndpointToHostAction": "endpointToHost"}, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, t := range texts {
			out = append(out, netip.MustParsePrefix(t))
		}
		return out
	}
	want := NewNodeInfo(c, []drivers.HostIface{
		{Name: "lo", Up: true, Addrs: prefixes("127.0.0.1/8")},
		{Name: "ens3", Index: 2, MTU: 1500, Up: true, Addrs: prefixes("192.0.2.1/24", "fe80::1/64", "2001:db8::1/64")},
		{Name: "ens4", Index: 3, Up: true, Addrs: prefixes("10.1.0.1/16")},
		{Name: "down", Addrs: prefixes("10.2.0.1/16")},
		{Name: "veth9", Up: true, Addrs: prefixes("fe80::9/64")},
		{Name: "tort123", Up: true, Addrs: prefixes("10.3.0.1/16")},
	}, [2]string{"ens3", ""})
	if len(want.Ifaces) != 2 || len(want.Ifaces[0].Addrs) != 2 {
		t.Errorf("interfaces: %+v", want.Ifaces)
	}
	n := &api.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Annotations: map[string]string{"mine": "stays"}}}
	for i, changed := range []bool{true, false} {
		if got, err := want.WriteTo(n); got != changed || err != nil {
			t.Errorf("write %d: %v %v", i, got, err)
		}
	}
	got, ok := ReadNodeInfo(n)
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()); d != "" || !ok || n.Annotations["mine"] != "stays" {
		t.Errorf("%v %s", ok, d)
	}
	for far, want := range map[string]string{"192.0.2.9": "ens3", "10.1.2.3": "ens4", "203.0.113.1": "ens3", "2001:db8::5": "ens3", "2001:4860::1": ""} {
		if up := got.Uplink(netip.MustParseAddr(far)); up != want {
			t.Errorf("to %s: %q, want %q", far, up, want)
		}
	}
	for _, text := range []string{"", "{", `[]`, `{"Config":{"WorkloadPrefixes":[""]}}`} {
		n.Annotations[nodeInfoAnnotation] = text
		if _, ok := ReadNodeInfo(n); ok {
			t.Errorf("%q is of use", text)
		}
	}
	n.Annotations[nodeInfoAnnotation] = `{"Config":{"NodeName":"another","CutEstablished":true},"New":1}`
	if got, ok := ReadNodeInfo(n); !ok || got.Config.NodeName != "n1" || !got.Config.CutEstablished || len(got.Config.FailsafeIn) == 0 {
		t.Errorf("of an agent that tells other things: %v %+v", ok, got.Config)
	}
}
