package linux

import (
	"net/netip"
	"testing"

	"github.com/tortie/tortie/drivers"
)

// cutState has workloads a and b on this node; b accepts nothing but TCP port 80 from a, c and 192.0.2.1, a may go
// anywhere. With a host endpoint eth1 forwards nothing in.
func cutState(host bool) *drivers.State {
	s := drivers.NewState()
	s.Node = drivers.Node{Name: "n", WorkloadPrefixes: []string{"tort"}, CutEstablished: true, EndpointToHost: drivers.ToHostDrop}
	tcp := uint8(6)
	any := &drivers.Policy{ID: np("any"), In: []drivers.Rule{{Action: drivers.Allow}}, Out: []drivers.Rule{{Action: drivers.Allow}}}
	web := &drivers.Policy{ID: np("web"), In: []drivers.Rule{{Action: drivers.Allow, Match: drivers.Match{
		Proto: &tcp, Src: drivers.Side{Sets: []drivers.SetID{"s:may"}}, Dst: drivers.Side{Ports: []drivers.PortRange{{First: 80, Last: 80}}},
	}}}, Out: any.Out}
	none := &drivers.Policy{ID: np("none"), In: []drivers.Rule{{Action: drivers.Deny}}}
	s.Sets["s:may"] = drivers.NewSet(drivers.SetNet, drivers.AddrMember(addr("10.65.0.1")), drivers.AddrMember(addr("fd65::1")), drivers.AddrMember(addr("192.0.2.1")))
	for _, p := range []*drivers.Policy{any, web, none} {
		p.SetRuleIDs()
		s.Policies[p.ID] = p
	}
	list := func(p *drivers.Policy) *drivers.TierList {
		return &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default", Policies: []drivers.PolicyID{p.ID}}}}
	}
	for name, p := range map[string]*drivers.Policy{"a": any, "b": web} {
		e := &drivers.Endpoint{ID: drivers.EndpointID{Sandbox: name, Interface: "eth0"}, Name: name, Iface: "tort" + name}
		e.Addrs = []netip.Addr{addr("10.65.0.1"), addr("fd65::1")}
		if name == "b" {
			e.Addrs = []netip.Addr{addr("10.65.0.2"), addr("fd65::2")}
			e.SourcePrefixes = []netip.Prefix{prefix("10.99.0.0/16")}
		}
		e.Policy.Normal = drivers.Directions{In: list(p), Out: list(p)}
		s.Endpoints[e.ID] = e
	}
	s.Routes[prefix("10.65.0.0/26")] = &drivers.Route{Dst: prefix("10.65.0.0/26"), Kind: drivers.RouteBlackhole}
	if host {
		e := &drivers.Endpoint{ID: drivers.EndpointID{Kind: drivers.HostInterface, Sandbox: "h", Interface: "eth1"}, Name: "h", Iface: "eth1"}
		e.Policy.Forward.In = list(none)
		s.Endpoints[e.ID] = e
	}
	return s
}

func TestJudge(t *testing.T) {
	t.Parallel()
	routes := map[netip.Addr]string{addr("192.0.2.1"): "eth0", addr("198.51.100.1"): "eth1", addr("10.99.0.1"): "tortb", addr("203.0.113.9"): ""}
	tuple := func(src string, sport uint16, dst string, dport uint16) flowTuple {
		return flowTuple{src: addr(src), dst: addr(dst), sport: sport, dport: dport}
	}
	flows := func(src string, sport uint16, dst string, dport uint16) flow {
		return flow{proto: 6, orig: tuple(src, sport, dst, dport), reply: tuple(dst, dport, src, sport)}
	}
	udp := flows("10.65.0.1", 1000, "10.65.0.2", 80)
	udp.proto = 17
	zone := udp
	zone.zone = 7
	service, denied, masq := flows("10.65.0.1", 1000, "10.96.0.1", 8080), flows("10.65.0.1", 1000, "10.96.0.1", 80), flows("10.65.0.2", 1000, "192.0.2.7", 53)
	service.reply = tuple("10.65.0.2", 80, "10.65.0.1", 1000)
	denied.reply = tuple("10.65.0.2", 81, "10.65.0.1", 1000)
	masq.reply.dst = addr("172.16.0.1")
	for _, c := range []struct {
		name       string
		flow       flow
		want, host bool // with no host endpoint, and with one
	}{
		{"allowed", flows("10.65.0.1", 1000, "10.65.0.2", 80), false, false},
		{"allowed, IPv6", flows("fd65::1", 1000, "fd65::2", 80), false, false},
		{"another port", flows("10.65.0.1", 1000, "10.65.0.2", 81), true, true},
		{"another port, IPv6", flows("fd65::1", 1000, "fd65::2", 81), true, true},
		{"another protocol", udp, true, true},
		{"in a zone", zone, false, false},
		{"the way that it was opened counts", flows("10.65.0.2", 81, "10.65.0.1", 1000), false, false},
		{"a service whose backend is allowed", service, false, false},
		{"a service whose backend is not", denied, true, true},
		{"masqueraded, out", masq, false, false},
		{"from outside", flows("192.0.2.1", 1000, "10.65.0.2", 80), false, false},
		{"from outside, another port", flows("192.0.2.1", 1000, "10.65.0.2", 81), true, true},
		{"from outside, no route back", flows("192.0.2.2", 1000, "10.65.0.2", 80), false, false}, // by which way is not known
		{"to an endpoint that forwards nothing in", flows("10.65.0.1", 1000, "198.51.100.1", 80), false, false},
		{"from an endpoint that forwards nothing in", flows("198.51.100.1", 1000, "10.65.0.1", 80), false, true},
		{"through it to the other side", flows("198.51.100.1", 1000, "192.0.2.1", 80), false, true},
		{"none of ours", flows("192.0.2.1", 1000, "192.0.2.1", 80), false, false},
		{"to the host", flows("10.65.0.1", 1000, "172.16.0.1", 22), true, true},
		{"from the host", flows("172.16.0.1", 1000, "10.65.0.2", 81), false, false},
		{"an address of the host that only routes know", flows("203.0.113.9", 1000, "10.65.0.2", 81), false, false},
		{"in a blackhole", flows("10.65.0.1", 1000, "10.65.0.9", 81), false, false},
		{"a workload's other source", flows("10.99.0.1", 1000, "10.65.0.2", 81), false, false}, // to itself
		{"multicast", flows("10.65.0.1", 1000, "224.0.0.5", 81), false, false},
		{"link-local", flows("fe80::1", 1000, "fd65::2", 81), false, false},
	} {
		for _, host := range []bool{false, true} {
			j := newJudge(cutState(host), []netip.Addr{addr("172.16.0.1")}, func(a netip.Addr) (string, bool) {
				iface, ok := routes[a]
				return iface, ok
			})
			want := c.want
			if host {
				want = c.host
			}
			if got := j.denied(&c.flow); got != want {
				t.Errorf("%s (host endpoint: %t): denied = %t", c.name, host, got)
			}
		}
	}
}
