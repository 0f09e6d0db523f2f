package drivers

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The node of these tests: workloads a and b, interfaces eth0 and eth1, and whatever a case adds.
const (
	ifaceA, ifaceB = "tortaaaa", "tortbbbb"
	world          = "192.0.2.1"
	peerAddr       = "172.16.0.2"
)

var (
	fromA, fromB = Place{PlaceWorkload, ifaceA}, Place{PlaceWorkload, ifaceB}
	eth0, eth1   = Place{PlaceHostIface, "eth0"}, Place{PlaceHostIface, "eth1"}
	process      = Place{Kind: PlaceProcess}
	macA         = MAC{2, 0, 0, 0, 0, 0xa}
	allowAll     = PolicyID{Kind: KindProfile, Name: "allow"}
)

// change is what a case does to the node.
type change func(s *State)

func testNode(changes ...change) *State {
	s := NewState()
	s.Node = Node{Name: "n", Addresses: addrs("172.16.0.1", "fd10::1"), WorkloadPrefixes: []string{"tort"}}
	s.Policies[allowAll] = &Policy{ID: allowAll, In: []Rule{{Action: Allow}}, Out: []Rule{{Action: Allow}}}
	for _, e := range []*Endpoint{
		{ID: EndpointID{Sandbox: "a", Interface: "eth0"}, Name: "ns/a", Iface: ifaceA, MAC: macA, Addrs: addrs("10.0.0.1", "fd00::1")},
		{ID: EndpointID{Sandbox: "b", Interface: "eth0"}, Name: "ns/b", Iface: ifaceB, Addrs: addrs("10.0.0.2", "fd00::2")},
	} {
		e.Profiles = []PolicyID{allowAll}
		s.Endpoints[e.ID] = e
	}
	s.Peers["m"] = &Peer{Name: "m", Addrs: addrs(peerAddr, "fd10::2")}
	for _, c := range changes {
		c(s)
	}
	return s
}

// endpoint is a's, b's, or the host endpoint of an interface, which it makes if there is none.
func (s *State) endpoint(name string) *Endpoint {
	switch name {
	case "a", "b":
		return s.Endpoints[EndpointID{Sandbox: name, Interface: "eth0"}]
	}
	id := EndpointID{Kind: HostInterface, Sandbox: "hep", Interface: name}
	if s.Endpoints[id] == nil {
		s.Endpoints[id] = &Endpoint{ID: id, Name: "hep-" + name, Iface: name}
	}
	return s.Endpoints[id]
}

// with changes an endpoint.
func with(name string, f func(e *Endpoint)) change { return func(s *State) { f(s.endpoint(name)) } }

func host(iface string) change { return with(iface, func(*Endpoint) {}) }

// tierOf appends a tier with one policy, of the rules given, to a list of an endpoint: "a normal out", "eth0 forward in".
func tierOf(where, name string, def Action, rules ...Rule) change {
	return func(s *State) {
		words := strings.Fields(where)
		p := &s.endpoint(words[0]).Policy
		d := map[string]*Directions{"normal": &p.Normal, "forward": &p.Forward, "pre-dnat": &p.PreDNAT, "untracked": &p.Untracked}[words[1]]
		l := map[string]**TierList{"in": &d.In, "out": &d.Out}[words[2]]
		id := PolicyID{Kind: KindGlobalNetworkPolicy, Name: name + " of " + where}
		pol := &Policy{ID: id, Tier: name, In: rules, Out: slices.Clone(rules), Staged: strings.HasPrefix(name, "staged")}
		pol.SetRuleIDs()
		s.Policies[id] = pol
		if *l == nil {
			*l = &TierList{}
		}
		(*l).Tiers = append((*l).Tiers, TierPolicies{Name: name, Default: def, Policies: []PolicyID{id}, Staged: pol.Staged})
	}
}

func rule(a Action, m ...func(*Match)) Rule {
	r := Rule{Action: a}
	for _, f := range m {
		f(&r.Match)
	}
	return r
}

func proto(n uint8) func(*Match) { return func(m *Match) { m.Proto = &n } }

func dport(n uint16) func(*Match) {
	return func(m *Match) { m.Dst.Ports = append(m.Dst.Ports, PortRange{n, n}) }
}

func dstNet(p string) func(*Match) {
	return func(m *Match) { m.Dst.Nets = append(m.Dst.Nets, netip.MustParsePrefix(p)) }
}

func failsafes(s *State) {
	s.Node.FailsafeIn = []Failsafe{{Proto: 6, Port: 22}, {Proto: 6, Port: 6443, Net: netip.MustParsePrefix("172.16.0.0/24")}}
	s.Node.FailsafeOut = []Failsafe{{Proto: 17, Port: 53}}
}

func toHost(a EndpointToHost) change { return func(s *State) { s.Node.EndpointToHost = a } }

// tunnelTo gives the node a route through an encapsulation.
func tunnelTo(e Encap) change {
	return func(s *State) {
		dst := netip.MustParsePrefix("10.0.9.0/24")
		s.Routes[dst] = &Route{Dst: dst, Kind: RouteRemote, Encap: e, Peer: "m", NextHop: netip.MustParseAddr(peerAddr)}
	}
}

// pkt is a new TCP packet to port 80.
func pkt(from, to Place, src, dst string, more ...func(*Packet)) Packet {
	p := Packet{From: from, To: to, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Proto: 6, SrcPort: 40000, DstPort: 80}
	for _, f := range more {
		f(&p)
	}
	return p
}

func ct(c CTState) func(*Packet) { return func(p *Packet) { p.CT = c } }
func tcp(n uint16) func(*Packet) { return func(p *Packet) { p.DstPort = n } }
func udp(n uint16) func(*Packet) { return func(p *Packet) { p.Proto, p.DstPort = 17, n } }
func ipProto(n uint8) func(*Packet) {
	return func(p *Packet) { p.Proto, p.SrcPort, p.DstPort = n, 0, 0 }
}
func arp(p *Packet) { p.ARP, p.Proto, p.SrcPort, p.DstPort = true, 0, 0, 0 }
func icmpv6(typ, hops uint8) func(*Packet) {
	return func(p *Packet) { p.Proto, p.ICMPType, p.HopLimit, p.SrcPort, p.DstPort = 58, typ, hops, 0, 0 }
}
func sentTo(ap string) func(*Packet) {
	return func(p *Packet) { p.OrigDst = netip.MustParseAddrPort(ap) }
}

// evalCase is one sentence: on a node with these changes, this packet has this fate, decided by the step that the last line of
// the trace names.
type evalCase struct {
	name    string
	node    []change
	packet  Packet
	want    Verdict
	by      Stage
	because string // what the last line says, in part
}

func runCases(t *testing.T, cases []evalCase) {
	t.Helper()
	var all []string // cases may come out of a map
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := testNode(c.node...)
			got := Evaluate(s, c.packet)
			var traces strings.Builder
			fmt.Fprintf(&traces, "%s: %s\n", c.name, c.packet)
			for _, step := range got.Steps {
				fmt.Fprintf(&traces, "\t%s [in=%t index=%d]\n", step, step.In, step.Index)
				checkRuleID(t, s, step)
			}
			fmt.Fprintf(&traces, "\t%s, not tracked: %t\n", got.Verdict, got.NoTrack)
			all = append(all, traces.String())
			var last Step
			if n := len(got.Steps); n > 0 {
				last = got.Steps[n-1]
			}
			if got.Verdict != c.want || last.Stage != c.by || !strings.Contains(last.String(), c.because) {
				t.Errorf("%s\ngot:\n%s\nwant %s by %s %q", c.packet, got, c.want, c.by, c.because)
			}
			ev := NewEvaluator(s)
			if v, noTrack := ev.Verdict(c.packet); v != got.Verdict || noTrack != got.NoTrack {
				t.Errorf("Verdict says %s %v, Evaluate %s %v", v, noTrack, got.Verdict, got.NoTrack)
			}
			if d := cmp.Diff(got, ev.Evaluate(c.packet)); d != "" {
				t.Errorf("an Evaluator sees it otherwise (-Evaluate +Evaluator):\n%s", d)
			}
		})
	}
	slices.Sort(all)
	golden(t, filepath.Join("traces", t.Name()+".golden"), strings.Join(all, ""))
}

// checkRuleID sees that a step names the rule that it is about.
func checkRuleID(t *testing.T, s *State, step Step) {
	t.Helper()
	want := RuleID(0)
	if p := s.Policies[step.Policy]; p != nil && step.Index >= 0 {
		rules := p.Out
		if step.In {
			rules = p.In
		}
		want = rules[step.Index].ID
	}
	if step.Rule != want {
		t.Errorf("step %s has rule %v, want %v", step, step.Rule, want)
	}
}

// golden compares text with a file of testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got), -update rewrites it:\n%s", file, d)
	}
}

const deny, allow = VerdictDeny, VerdictAllow

func TestUnknownInterfaces(t *testing.T) {
	cases := []evalCase{
		{"to a workload's interface without endpoint", nil, pkt(eth1, Place{PlaceWorkload, "tortzzzz"}, world, "10.0.0.9"), deny, StageInterface, "no workload endpoint"},
		{"from an interface that is only named like a workload's", nil, pkt(Place{PlaceHostIface, "tortzzzz"}, eth1, "10.0.0.9", world), deny, StageInterface, "named like"},
		{"a host interface that is a workload's is a workload's", nil, pkt(Place{PlaceHostIface, ifaceA}, eth1, "10.0.0.2", world), deny, StageSource, "source address"},
		{"an interface that two endpoints claim", []change{with("b", func(e *Endpoint) { e.Iface = ifaceA })}, pkt(fromA, eth1, "10.0.0.1", world), deny, StageInterface, "more than one"},
		{"a packet of two families", nil, pkt(fromA, eth1, "10.0.0.1", "fd00::9"), deny, StageInterface, "one family"},
		{"a packet without addresses", nil, Packet{From: eth1, To: eth0}, deny, StageInterface, "one family"},
		{"a host interface that nobody knows is nobody's business", nil, pkt(Place{PlaceHostIface, "eth7"}, process, world, "172.16.0.1"), allow, StageHost, "no host endpoint"},
	}
	for c := CTNew; c <= CTUntracked; c++ {
		cases = append(cases, evalCase{"unknown source, " + c.String(), nil, pkt(Place{Iface: "tortzzzz"}, eth1, "10.0.0.1", world, ct(c)), deny, StageInterface, "unknown"})
		cases = append(cases, evalCase{"unknown destination, " + c.String(), nil, pkt(eth1, Place{Iface: "tortzzzz"}, world, "10.0.0.1", ct(c)), deny, StageInterface, "unknown"})
	}
	runCases(t, cases)
}

func TestSourcesOfWorkloads(t *testing.T) {
	sources := with("a", func(e *Endpoint) { e.SourcePrefixes = prefixes("10.5.0.0/16", "fd05::/32") })
	anyMAC := with("a", func(e *Endpoint) { e.MAC = MAC{} })
	mac := func(m MAC) func(*Packet) { return func(p *Packet) { p.SrcMAC = m } }
	cases := []evalCase{
		{"its IPv4 address", nil, pkt(fromA, eth1, "10.0.0.1", world), allow, StageEgress, "allow"},
		{"its IPv6 address", nil, pkt(fromA, eth1, "fd00::1", "2001:db8::1"), allow, StageEgress, "allow"},
		{"its address in IPv6 clothes", nil, pkt(fromA, eth1, "::ffff:10.0.0.1", "::ffff:192.0.2.1"), allow, StageEgress, "allow"},
		{"another's address", nil, pkt(fromA, eth1, "10.0.0.2", world), deny, StageSource, "source address"},
		{"another's IPv6 address", nil, pkt(fromA, eth1, "fd00::2", "2001:db8::1"), deny, StageSource, "source address"},
		{"the unspecified address", nil, pkt(fromA, process, "0.0.0.0", "255.255.255.255", udp(67)), deny, StageSource, "source address"},
		{"link-local, not link traffic", []change{toHost(ToHostAccept)}, pkt(fromA, process, "fe80::5", "fe80::1"), deny, StageSource, "source address"},
		{"in an allowed source prefix", []change{sources}, pkt(fromA, eth1, "10.5.1.1", world), allow, StageEgress, "allow"},
		{"in an allowed IPv6 source prefix", []change{sources}, pkt(fromA, eth1, "fd05::7", "2001:db8::1"), allow, StageEgress, "allow"},
		{"its own MAC", nil, pkt(fromA, eth1, "10.0.0.1", world, mac(macA)), allow, StageEgress, "allow"},
		{"another MAC", nil, pkt(fromA, eth1, "10.0.0.1", world, mac(MAC{2, 9})), deny, StageSource, "MAC"},
		{"any MAC where none is known", []change{anyMAC}, pkt(fromA, eth1, "10.0.0.1", world, mac(MAC{2, 9})), allow, StageEgress, "allow"},
		{"spoofed towards another workload", nil, pkt(fromA, fromB, "10.0.0.3", "10.0.0.2"), deny, StageSource, "source address"},
		{"spoofed towards itself", nil, pkt(fromA, fromA, "10.0.0.3", "10.0.0.1"), deny, StageSource, "source address"},
	}
	for c := CTNew; c <= CTUntracked; c++ {
		cases = append(cases, evalCase{"spoofed, " + c.String(), nil, pkt(fromA, eth1, "10.0.0.7", world, ct(c)), deny, StageSource, "source address"})
	}
	runCases(t, cases)
}

func TestTunnels(t *testing.T) {
	may := func(s *State) { s.Node.AllowEncapFromWorkloads = true }
	port := func(s *State) { s.Node.VXLANPort = 8472 }
	vxlan, ipip := tunnelTo(EncapVXLAN), tunnelTo(EncapIPIP)
	runCases(t, []evalCase{
		{"a workload may not send IPIP", nil, pkt(fromA, eth1, "10.0.0.1", world, ipProto(4)), deny, StageSource, "encapsulated"},
		{"nor IPv6 in IPv4", nil, pkt(fromA, eth1, "10.0.0.1", world, ipProto(41)), deny, StageSource, "encapsulated"},
		{"nor VXLAN", nil, pkt(fromA, eth1, "10.0.0.1", world, udp(4789)), deny, StageSource, "encapsulated"},
		{"nor VXLAN over IPv6, in an established flow", nil, pkt(fromA, eth1, "fd00::1", "2001:db8::1", udp(4789), ct(CTEstablished)), deny, StageSource, "encapsulated"},
		{"nor to the node's own VXLAN port", []change{port}, pkt(fromA, eth1, "10.0.0.1", world, udp(8472)), deny, StageSource, "encapsulated"},
		{"but to the usual one where the node's is another", []change{port}, pkt(fromA, eth1, "10.0.0.1", world, udp(4789)), allow, StageEgress, ""},
		{"unless the node lets it", []change{may}, pkt(fromA, eth1, "10.0.0.1", world, ipProto(4)), allow, StageEgress, ""},
		{"a peer's VXLAN passes a host endpoint that denies", []change{vxlan, host("eth0")}, pkt(eth0, process, peerAddr, "172.16.0.1", udp(4789)), allow, StageSource, "peer"},
		{"a stranger's does not, though no host endpoint denies it", []change{vxlan}, pkt(eth0, process, world, "172.16.0.1", udp(4789)), deny, StageSource, "no peer"},
		{"nor in an established flow", []change{vxlan}, pkt(eth0, process, world, "172.16.0.1", udp(4789), ct(CTEstablished)), deny, StageSource, "no peer"},
		{"VXLAN to a peer", []change{vxlan, host("eth0")}, pkt(process, eth0, "172.16.0.1", peerAddr, udp(4789)), allow, StageSource, "peer"},
		{"VXLAN to a stranger", []change{vxlan}, pkt(process, eth0, "172.16.0.1", world, udp(4789)), deny, StageSource, "no peer"},
		{"VXLAN over IPv6 to a peer", []change{vxlan}, pkt(process, eth0, "fd10::1", "fd10::2", udp(4789)), allow, StageSource, "peer"},
		{"a peer's IPIP, invalid to conntrack", []change{ipip}, pkt(eth0, process, peerAddr, "172.16.0.1", ipProto(4), ct(CTInvalid)), allow, StageSource, "peer"},
		{"a peer's IPv6 in IPv4", []change{ipip, host("eth0")}, pkt(eth0, process, peerAddr, "172.16.0.1", ipProto(41)), allow, StageSource, "peer"},
		{"a stranger's IPIP", []change{ipip}, pkt(eth0, process, world, "172.16.0.1", ipProto(4)), deny, StageSource, "no peer"},
		{"IPIP where only VXLAN is in use is policy's", []change{vxlan}, pkt(eth0, process, world, "172.16.0.1", ipProto(4)), allow, StageHost, ""},
		{"VXLAN on a node without tunnels is policy's", []change{host("eth0")}, pkt(eth0, process, peerAddr, "172.16.0.1", udp(4789)), deny, StageHost, "no policy"},
		{"forwarded VXLAN is policy's", []change{vxlan}, pkt(eth0, eth1, world, "198.51.100.1", udp(4789)), allow, "", ""},
	})
}

func TestLinkTraffic(t *testing.T) {
	denyAll := tierOf("a normal out", "t", Deny)
	node := []change{denyAll, toHost(ToHostDrop)}
	const solicited = "ff02::1:ff00:1"
	cases := []evalCase{
		{"ARP with its own address", node, pkt(fromA, process, "10.0.0.1", "169.254.1.1", arp), allow, StageLink, ""},
		{"ARP with another's address", node, pkt(fromA, process, "10.0.0.2", "169.254.1.1", arp), deny, StageSource, "source address"},
		{"ARP probe for its own address", node, pkt(fromA, process, "0.0.0.0", "10.0.0.1", arp), allow, StageLink, ""},
		{"ARP probe for another's address", node, pkt(fromA, process, "0.0.0.0", "10.0.0.2", arp), deny, StageSource, ""},
		{"ARP with another MAC", node, pkt(fromA, process, "10.0.0.1", "169.254.1.1", arp, func(p *Packet) { p.SrcMAC = MAC{9} }), deny, StageSource, "MAC"},
		{"ARP from the host", node, pkt(process, fromA, "169.254.1.1", "10.0.0.1", arp), allow, StageLink, ""},
		{"ARP between workloads", nil, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2", arp), deny, StageLink, "neighbours"},
		{"ARP on a host interface that denies", []change{host("eth0")}, pkt(eth0, process, world, "172.16.0.1", arp), allow, StageLink, ""},
		{"ARP from the host on it", []change{host("eth0")}, pkt(process, eth0, "172.16.0.1", world, arp), allow, StageLink, ""},
		{"ARP through the host", nil, pkt(eth0, eth1, world, "172.16.0.1", arp), deny, StageLink, "neighbours"},
		{"ARP of IPv6 addresses", nil, pkt(fromA, process, "fd00::1", "fd00::2", arp), deny, StageInterface, "IPv4"},
		{"duplicate address detection", node, pkt(fromA, process, "::", solicited, icmpv6(135, 255)), allow, StageLink, ""},
		{"a neighbour advertisement from nowhere", node, pkt(fromA, process, "::", "ff02::1", icmpv6(136, 255)), deny, StageSource, ""},
		{"a solicitation from a link-local address", node, pkt(fromA, process, "fe80::5", solicited, icmpv6(135, 255)), allow, StageLink, ""},
		{"a solicitation from its own address", node, pkt(fromA, process, "fd00::1", solicited, icmpv6(135, 255)), allow, StageLink, ""},
		{"a solicitation from another's address", node, pkt(fromA, process, "fd00::2", solicited, icmpv6(135, 255)), deny, StageSource, ""},
		{"a solicitation that a router has forwarded", node, pkt(fromA, process, "fd00::1", "fd10::1", icmpv6(135, 254)), deny, StageEgress, ""},
		{"an advertisement from a link-local address", node, pkt(fromA, process, "fe80::5", "fe80::1", icmpv6(136, 255)), allow, StageLink, ""},
		{"a router solicitation before there is an address", node, pkt(fromA, process, "::", "ff02::2", icmpv6(133, 255)), allow, StageLink, ""},
		{"a router advertisement from a workload", node, pkt(fromA, process, "fe80::5", "ff02::1", icmpv6(134, 255)), deny, StageSource, ""},
		{"a router advertisement to a workload", node, pkt(process, fromA, "fe80::1", "ff02::1", icmpv6(134, 255)), allow, StageLink, ""},
		{"a multicast query from a workload", node, pkt(fromA, process, "fe80::5", "ff02::1", icmpv6(130, 1)), deny, StageSource, ""},
		{"a multicast query to a workload", node, pkt(process, fromA, "fe80::1", "ff02::1", icmpv6(130, 1)), allow, StageLink, ""},
		{"a multicast report", node, pkt(fromA, process, "::", "ff02::16", icmpv6(143, 1)), allow, StageLink, ""},
		{"an old multicast report", node, pkt(fromA, process, "fe80::5", "ff02::16", icmpv6(131, 1)), allow, StageLink, ""},
		{"a multicast done", node, pkt(fromA, process, "fe80::5", "ff02::2", icmpv6(132, 1)), allow, StageLink, ""},
		{"a redirect from a workload", node, pkt(fromA, process, "fe80::5", "fe80::1", icmpv6(137, 255)), deny, StageSource, ""},
		{"a ping from a link-local address", node, pkt(fromA, process, "fe80::5", "fe80::1", icmpv6(128, 255)), deny, StageSource, ""},
		{"a solicitation to another workload", []change{denyAll}, pkt(fromA, fromB, "fd00::1", "fd00::2", icmpv6(135, 255)), deny, StageEgress, ""},
	}
	for c := CTNew; c <= CTUntracked; c++ {
		cases = append(cases, hostLinkCases(c)...)
		cases = append(cases, evalCase{"an advertisement, " + c.String(), node, pkt(fromA, process, "fd00::1", "fe80::1", icmpv6(136, 255), ct(c)), allow, StageLink, ""})
	}
	runCases(t, cases)
}

// hostLinkCases are IPv6's link traffic on a host interface where every stage denies.
func hostLinkCases(c CTState) []evalCase {
	closed := []change{host("eth0")}
	for _, list := range []string{"normal in", "normal out", "untracked in", "untracked out", "pre-dnat in", "forward in", "forward out"} {
		closed = append(closed, tierOf("eth0 "+list, "t", Deny, rule(Deny)))
	}
	in := func(typ, hops uint8) Packet {
		return pkt(eth0, process, "fe80::9", "ff02::1", icmpv6(typ, hops), ct(c))
	}
	out := func(typ, hops uint8) Packet {
		return pkt(process, eth0, "fd10::1", "fd10::9", icmpv6(typ, hops), ct(c))
	}
	var cases []evalCase
	for _, typ := range []uint8{133, 134, 135, 136, 130, 131, 132, 143} {
		name := fmt.Sprintf("on a closed host interface, ICMPv6 %d, %s: ", typ, c)
		hops := uint8(255)
		if typ < 133 || typ > 136 {
			hops = 1
		}
		cases = append(cases,
			evalCase{name + "in", closed, in(typ, hops), allow, StageLink, ""},
			evalCase{name + "out", closed, out(typ, hops), allow, StageLink, ""},
			evalCase{name + "forwarded", closed, pkt(eth0, eth1, "fd10::9", "fd11::9", icmpv6(typ, 255), ct(c)), deny, StageUntracked, ""},
			evalCase{name + "to a workload", closed, pkt(eth0, fromA, "fd10::9", "fd00::1", icmpv6(typ, 255), ct(c)), deny, StageUntracked, ""},
			evalCase{name + "from an unknown interface", closed, pkt(Place{Iface: "tortzzzz"}, process, "fe80::9", "ff02::1", icmpv6(typ, hops), ct(c)), deny, StageInterface, ""},
			evalCase{name + "to an unknown interface", closed, pkt(process, Place{Iface: "tortzzzz"}, "fe80::9", "ff02::1", icmpv6(typ, hops), ct(c)), deny, StageInterface, ""},
		)
		if hops == 255 {
			cases = append(cases,
				evalCase{name + "in, from beyond a router", closed, in(typ, 254), deny, StageUntracked, ""},
				evalCase{name + "out, for beyond a router", closed, out(typ, 254), deny, StageUntracked, ""})
		}
	}
	return append(cases,
		evalCase{"a redirect to a closed host, " + c.String(), closed, in(137, 255), deny, StageUntracked, ""},
		evalCase{"a redirect from a closed host, " + c.String(), closed, out(137, 255), deny, StageUntracked, ""})
}

func TestConntrack(t *testing.T) {
	closed := []change{tierOf("b normal in", "t", Deny), tierOf("eth0 normal in", "t", Deny), tierOf("eth0 forward in", "t", Deny)}
	var cases []evalCase
	for c, want := range map[CTState]evalCase{
		CTNew:         {want: deny, by: StageIngress},
		CTEstablished: {want: allow, by: StageConntrack, because: "established"},
		CTRelated:     {want: allow, by: StageConntrack, because: "related"},
		CTInvalid:     {want: deny, by: StageConntrack, because: "invalid"},
		CTUntracked:   {want: deny, by: StageIngress},
		CTState(9):    {want: deny, by: StageConntrack},
	} {
		cases = append(cases, evalCase{"to a closed workload, " + c.String(), closed, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2", ct(c)), want.want, want.by, want.because})
		if want.by == StageIngress {
			want.by = StageHost
		}
		cases = append(cases, evalCase{"to a closed host, " + c.String(), closed, pkt(eth0, process, world, "172.16.0.1", ct(c)), want.want, want.by, want.because})
	}
	cases = append(cases,
		evalCase{"invalid, from the host to a workload", nil, pkt(process, fromA, "172.16.0.1", "10.0.0.1", ct(CTInvalid)), deny, StageConntrack, "invalid"},
		evalCase{"invalid, to a failsafe port", append(closed, failsafes), pkt(eth0, process, world, "172.16.0.1", tcp(22), ct(CTInvalid)), deny, StageConntrack, "invalid"},
	)
	runCases(t, cases)
}
