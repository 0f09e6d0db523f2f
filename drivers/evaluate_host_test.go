package drivers

import "testing"

// TestUntracked is about step 4.
func TestUntracked(t *testing.T) {
	in := func(rules ...Rule) change { return tierOf("eth0 untracked in", "u", Deny, rules...) }
	out := func(rules ...Rule) change { return tierOf("eth0 untracked out", "u", Deny, rules...) }
	closed := tierOf("eth0 normal in", "t", Deny)
	fwd := tierOf("eth0 forward in", "t", Deny)
	self := "172.16.0.1"
	reply := func(p *Packet) { p.Proto, p.SrcPort, p.DstPort = 17, 53, 40000 }
	runCases(t, []evalCase{
		{"an untracked allow skips the host's policy", []change{in(rule(Allow, dport(80))), closed}, pkt(eth0, process, world, self), allow, StageHost, "allowed before"},
		{"and its pre-DNAT policy", []change{in(rule(Allow)), tierOf("eth0 pre-dnat in", "d", Deny, rule(Deny))}, pkt(eth0, process, world, self), allow, StageHost, "allowed before"},
		{"and forward policy, of both interfaces", []change{in(rule(Allow)), fwd, tierOf("eth1 forward out", "t", Deny)}, pkt(eth0, eth1, world, "198.51.100.1"), allow, StageUntracked, "allow"},
		{"but never a workload's", []change{in(rule(Allow)), fwd, tierOf("b normal in", "t", Deny)}, pkt(eth0, fromB, world, "10.0.0.2"), deny, StageIngress, "end of tier"},
		{"an untracked deny ends it, also in an established flow", []change{in(rule(Deny))}, pkt(eth0, process, world, self, ct(CTEstablished)), deny, StageUntracked, "deny"},
		{"there is no end of tier", []change{in(rule(Allow, dport(1)))}, pkt(eth0, process, world, self, ct(CTEstablished)), allow, StageConntrack, ""},
		{"nor do profiles count", []change{in(rule(Allow, dport(1))), closed, with("eth0", func(e *Endpoint) { e.Profiles = []PolicyID{allowAll} })}, pkt(eth0, process, world, self), deny, StageHost, "end of tier"},
		{"a pass leads to the next tier", []change{in(rule(Pass)), in(rule(Deny))}, pkt(eth0, process, world, self), deny, StageUntracked, "deny"},
		{"out: an allow skips the host's policy", []change{out(rule(Allow)), tierOf("eth0 normal out", "t", Deny)}, pkt(process, eth0, self, world), allow, StageHost, "allowed before"},
		{"out: a deny ends it", []change{out(rule(Deny))}, pkt(process, eth0, self, world, ct(CTEstablished)), deny, StageUntracked, ""},
		{"out is not for what is forwarded", []change{out(rule(Deny))}, pkt(eth1, eth0, world, "198.51.100.1"), allow, StageForward, ""},
		{"replies are judged by themselves", []change{in(rule(Allow)), out(rule(Deny))}, pkt(process, eth0, self, world, ct(CTUntracked)), deny, StageUntracked, ""},
		{"failsafes pass", []change{in(rule(Deny)), closed, failsafes}, pkt(eth0, process, world, self, tcp(22)), allow, StageFailsafe, ""},
		{"from where they are meant to be", []change{in(rule(Deny)), failsafes}, pkt(eth0, process, world, self, tcp(6443)), deny, StageUntracked, ""},
		{"and so do the replies of outgoing ones", []change{in(rule(Deny)), failsafes}, pkt(eth0, process, world, self, reply, ct(CTEstablished)), allow, StageConntrack, ""},
		{"failsafes do not open a workload", []change{in(rule(Deny)), failsafes, tierOf("b normal in", "t", Deny)}, pkt(eth0, fromB, world, "10.0.0.2", tcp(22)), deny, StageIngress, ""},
		{"out: failsafes pass", []change{out(rule(Deny)), tierOf("eth0 normal out", "t", Deny), failsafes}, pkt(process, eth0, self, world, udp(53)), allow, StageFailsafe, ""},
	})
	got := Evaluate(testNode(in(rule(Allow)), closed), pkt(eth0, process, world, self))
	if !got.NoTrack {
		t.Error("an untracked allow did not set NoTrack")
	}
	for name, s := range map[string]*State{"deny": testNode(in(rule(Deny))), "failsafe": testNode(in(rule(Deny)), failsafes), "no match": testNode(in())} {
		if Evaluate(s, pkt(eth0, process, world, self, tcp(22))).NoTrack {
			t.Errorf("%s set NoTrack", name)
		}
	}
}

// TestPreDNAT is about step 6.
func TestPreDNAT(t *testing.T) {
	in := func(rules ...Rule) change { return tierOf("eth0 pre-dnat in", "d", Deny, rules...) }
	nodePort := []func(*Match){proto(6), dport(30080), dstNet("172.16.0.0/24")}
	dnat := sentTo("172.16.0.1:30080")
	closed := tierOf("eth0 forward in", "t", Deny)
	runCases(t, []evalCase{
		{"it sees where the packet was sent", []change{in(rule(Deny, nodePort...))}, pkt(eth0, fromB, world, "10.0.0.2", dnat), deny, StagePreDNAT, ""},
		{"and not where it goes", []change{in(rule(Deny, dport(80)))}, pkt(eth0, fromB, world, "10.0.0.2", dnat), allow, StageIngress, ""},
		{"what was not translated was sent where it goes", []change{in(rule(Deny, dport(80)))}, pkt(eth0, fromB, world, "10.0.0.2"), deny, StagePreDNAT, ""},
		{"later stages see where it goes", []change{in(rule(Allow, dport(1))), tierOf("eth0 forward in", "t", Deny, rule(Allow, dport(80)))}, pkt(eth0, fromB, world, "10.0.0.2", dnat), allow, StageIngress, ""},
		{"an allow skips forward policy", []change{in(rule(Allow, nodePort...)), closed}, pkt(eth0, fromB, world, "10.0.0.2", dnat), allow, StageIngress, ""},
		{"and that of the interface it leaves by", []change{in(rule(Allow)), closed, tierOf("eth1 forward out", "t", Deny)}, pkt(eth0, eth1, world, "198.51.100.1"), allow, StagePreDNAT, ""},
		{"and the host's own", []change{in(rule(Allow))}, pkt(eth0, process, world, "172.16.0.1"), allow, StageHost, "allowed before"},
		{"but never a workload's", []change{in(rule(Allow)), tierOf("b normal in", "t", Deny)}, pkt(eth0, fromB, world, "10.0.0.2", dnat), deny, StageIngress, ""},
		{"there is no end of tier", []change{in(rule(Allow, dport(1)))}, pkt(eth0, fromB, world, "10.0.0.2"), allow, StageIngress, ""},
		{"an established flow is past it", []change{in(rule(Deny))}, pkt(eth0, fromB, world, "10.0.0.2", ct(CTEstablished)), allow, StageConntrack, ""},
		{"it is not about what the host sends", []change{in(rule(Deny)), tierOf("eth0 normal out", "t", Deny, rule(Allow))}, pkt(process, eth0, "172.16.0.1", world), allow, StageHost, ""},
		{"it is not about what leaves by the interface", []change{in(rule(Deny))}, pkt(fromA, eth0, "10.0.0.1", world), allow, StageForward, ""},
		{"failsafes pass", []change{in(rule(Deny)), failsafes}, pkt(eth0, process, world, "172.16.0.1", tcp(22)), allow, StageFailsafe, ""},
		{"by the port it was sent to", []change{in(rule(Deny)), failsafes}, pkt(eth0, fromB, world, "10.0.0.2", tcp(22), dnat), deny, StagePreDNAT, ""},
		{"there are no failsafes for replies here", []change{in(rule(Deny)), failsafes}, pkt(eth0, process, world, "172.16.0.1", func(p *Packet) { p.Proto, p.SrcPort = 17, 53 }), deny, StagePreDNAT, ""},
		{"an untracked allow skips it", []change{tierOf("eth0 untracked in", "u", Deny, rule(Allow)), in(rule(Deny))}, pkt(eth0, fromB, world, "10.0.0.2"), allow, StageIngress, ""},
	})
}

// TestRows is step 7, row by row.
func TestRows(t *testing.T) {
	const self = "172.16.0.1"
	aOut, bIn := tierOf("a normal out", "t", Deny), tierOf("b normal in", "t", Deny)
	aIn := tierOf("a normal in", "t", Deny)
	fwdIn, fwdOut := tierOf("eth0 forward in", "t", Deny), tierOf("eth1 forward out", "t", Deny)
	wildcard := tierOf("* normal in", "t", Deny, rule(Allow, dport(80)))
	runCases(t, []evalCase{
		{"workload to workload", nil, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"), allow, StageIngress, "ns/b"},
		{"workload to workload, IPv6", nil, pkt(fromA, fromB, "fd00::1", "fd00::2"), allow, StageIngress, "ns/b"},
		{"workload to workload: the sender's egress", []change{aOut}, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"), deny, StageEgress, "ns/a"},
		{"workload to workload: the receiver's ingress", []change{bIn}, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"), deny, StageIngress, "ns/b"},
		{"workload to workload: not the sender's ingress", []change{aIn}, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"), allow, StageIngress, ""},
		{"workload to itself", []change{aOut, aIn}, pkt(fromA, fromA, "10.0.0.1", "10.0.0.1"), allow, StageEgress, "itself"},

		{"workload to process: drop", []change{toHost(ToHostDrop)}, pkt(fromA, process, "10.0.0.1", self), deny, StageToHost, "drop"},
		{"workload to process: accept", []change{toHost(ToHostAccept)}, pkt(fromA, process, "10.0.0.1", self), allow, StageToHost, "accept"},
		{"workload to process: egress first", []change{toHost(ToHostAccept), aOut}, pkt(fromA, process, "10.0.0.1", self), deny, StageEgress, ""},
		{"workload to process: return, no host endpoint", []change{toHost(ToHostReturn)}, pkt(fromA, process, "10.0.0.1", self), allow, StageHost, ""},
		{"workload to process: return, the endpoint of some interface", []change{toHost(ToHostReturn), host("eth0")}, pkt(fromA, process, "10.0.0.1", self), allow, StageHost, ""},
		{"workload to process: return, the host allows", []change{toHost(ToHostReturn), wildcard}, pkt(fromA, process, "10.0.0.1", self), allow, StageHost, "rule 0"},
		{"workload to process: return, the host denies", []change{toHost(ToHostReturn), wildcard}, pkt(fromA, process, "10.0.0.1", self, tcp(81)), deny, StageHost, "end of tier"},
		{"workload to process: return, failsafes are not for workloads", []change{toHost(ToHostReturn), wildcard, failsafes}, pkt(fromA, process, "10.0.0.1", self, tcp(22)), deny, StageHost, ""},
		{"workload to process: return, two endpoints for the host", []change{toHost(ToHostReturn), host(AllHostIfaces), with("eth1", func(e *Endpoint) { e.Iface = AllHostIfaces })}, pkt(fromA, process, "10.0.0.1", self), deny, StageHost, "more than one"},
		{"workload to process: an action that nobody knows", []change{toHost(7)}, pkt(fromA, process, "10.0.0.1", self), deny, StageToHost, ""},

		{"workload to interface", nil, pkt(fromA, eth1, "10.0.0.1", world), allow, StageEgress, ""},
		{"workload to interface: egress", []change{aOut}, pkt(fromA, eth1, "10.0.0.1", world), deny, StageEgress, ""},
		{"workload to interface: forward out", []change{fwdOut}, pkt(fromA, eth1, "10.0.0.1", world), deny, StageForward, "hep-eth1"},
		{"workload to interface: an endpoint without forward policy", []change{host("eth1")}, pkt(fromA, eth1, "10.0.0.1", world), allow, StageForward, "continue"},
		{"workload to interface: the host's normal policy is not asked", []change{tierOf("eth1 normal out", "t", Deny)}, pkt(fromA, eth1, "10.0.0.1", world), allow, StageForward, ""},

		{"interface to workload", nil, pkt(eth0, fromB, world, "10.0.0.2"), allow, StageIngress, ""},
		{"interface to workload: forward in", []change{fwdIn}, pkt(eth0, fromB, world, "10.0.0.2"), deny, StageForward, "in hep-eth0"},
		{"interface to workload: ingress", []change{bIn}, pkt(eth0, fromB, world, "10.0.0.2"), deny, StageIngress, ""},

		{"interface to interface", nil, pkt(eth0, eth1, world, "198.51.100.1"), allow, "", ""},
		{"interface to interface: forward in", []change{fwdIn}, pkt(eth0, eth1, world, "198.51.100.1"), deny, StageForward, "in hep-eth0"},
		{"interface to interface: forward out", []change{fwdOut}, pkt(eth0, eth1, world, "198.51.100.1"), deny, StageForward, "out hep-eth1"},
		{"interface to interface: a forward allow ends only its own stage", []change{tierOf("eth0 forward in", "t", Deny, rule(Allow)), fwdOut}, pkt(eth0, eth1, world, "198.51.100.1"), deny, StageForward, "out hep-eth1"},
		{"interface to interface: a pass out of the last forward tier", []change{tierOf("eth0 forward in", "t", Deny, rule(Pass))}, pkt(eth0, eth1, world, "198.51.100.1"), allow, StageForward, "continue"},
		{"interface to interface: profiles are not for forwarded packets", []change{tierOf("eth0 forward in", "t", Pass), with("eth0", func(e *Endpoint) { e.Profiles = []PolicyID{{Kind: KindProfile, Name: "missing"}} })}, pkt(eth0, eth1, world, "198.51.100.1"), allow, StageForward, ""},

		{"interface to process: no host endpoint", nil, pkt(eth0, process, world, self), allow, StageHost, "no host endpoint"},
		{"interface to process: an endpoint without anything denies", []change{host("eth0")}, pkt(eth0, process, world, self), deny, StageHost, "no policy and no profile"},
		{"interface to process: failsafes pass", []change{host("eth0"), failsafes}, pkt(eth0, process, world, self, tcp(22)), allow, StageFailsafe, ""},
		{"interface to process: failsafes of a network", []change{host("eth0"), failsafes}, pkt(eth0, process, peerAddr, self, tcp(6443)), allow, StageFailsafe, ""},
		{"interface to process: the network of a failsafe", []change{host("eth0"), failsafes}, pkt(eth0, process, world, self, tcp(6443)), deny, StageHost, ""},
		{"interface to process: the protocol of a failsafe", []change{host("eth0"), failsafes}, pkt(eth0, process, world, self, udp(22)), deny, StageHost, ""},
		{"interface to process: profiles", []change{with("eth0", func(e *Endpoint) { e.Profiles = []PolicyID{allowAll} })}, pkt(eth0, process, world, self), allow, StageHost, "Profile/allow"},
		{"interface to process: forward policy is not asked", []change{fwdIn, tierOf("eth0 normal in", "t", Deny, rule(Allow))}, pkt(eth0, process, world, self), allow, StageHost, ""},

		{"process to interface: no host endpoint", nil, pkt(process, eth0, self, world), allow, StageHost, "no host endpoint"},
		{"process to interface: an endpoint without anything denies", []change{host("eth0")}, pkt(process, eth0, self, world), deny, StageHost, ""},
		{"process to interface: failsafes pass", []change{host("eth0"), failsafes}, pkt(process, eth0, self, world, udp(53)), allow, StageFailsafe, ""},
		{"process to interface: those of the other direction do not", []change{host("eth0"), failsafes}, pkt(process, eth0, self, world, tcp(22)), deny, StageHost, ""},
		{"process to interface: it sees where the packet goes", []change{tierOf("eth0 normal out", "t", Deny, rule(Allow, dport(80)))}, pkt(process, eth0, self, world, sentTo("10.96.0.1:443")), allow, StageHost, ""},

		{"process to workload", []change{aIn}, pkt(process, fromA, self, "10.0.0.1"), allow, StageIngress, "own host"},
		{"process to process", []change{host("eth0")}, pkt(process, process, self, self), allow, StageHost, ""},
	})
}

// TestDegraded is about deny stand-ins.
func TestDegraded(t *testing.T) {
	broken := func(name string) change { return with(name, func(e *Endpoint) { e.Degraded = "broken" }) }
	standIn := func(s *State) { *s.endpoint("eth0") = *s.endpoint("eth0").StandIn("broken") }
	const self = "172.16.0.1"
	untracked := tierOf("eth0 untracked in", "u", Deny, rule(Allow))
	runCases(t, []evalCase{
		{"a workload's egress", []change{broken("a")}, pkt(fromA, eth1, "10.0.0.1", world), deny, StageEgress, "broken"},
		{"a workload's ingress", []change{broken("b")}, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"), deny, StageIngress, "broken"},
		{"not its established flows", []change{broken("b")}, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2", ct(CTEstablished)), allow, StageConntrack, ""},
		{"a host endpoint", []change{broken("eth0")}, pkt(eth0, process, world, self), deny, StageHost, "broken"},
		{"a host endpoint's failsafes", []change{broken("eth0"), failsafes}, pkt(eth0, process, world, self, tcp(22)), allow, StageFailsafe, ""},
		{"what a host endpoint forwards", []change{broken("eth0")}, pkt(eth0, fromB, world, "10.0.0.2"), deny, StageForward, "broken"},
		{"what leaves by it", []change{broken("eth1")}, pkt(fromA, eth1, "10.0.0.1", world), deny, StageForward, "broken"},
		{"established flows where it has no untracked policy", []change{broken("eth0")}, pkt(eth0, process, world, self, ct(CTEstablished)), allow, StageConntrack, ""},
		{"established flows where it has", []change{untracked, broken("eth0")}, pkt(eth0, process, world, self, ct(CTEstablished)), deny, StageUntracked, "broken"},
		{"a stand-in keeps that", []change{untracked, standIn}, pkt(eth0, process, world, self, ct(CTEstablished)), deny, StageUntracked, "broken"},
		{"a stand-in without it", []change{host("eth0"), standIn}, pkt(eth0, process, world, self, ct(CTEstablished)), allow, StageConntrack, ""},
		{"a stand-in for pre-DNAT policy", []change{tierOf("eth0 pre-dnat in", "d", Deny, rule(Allow)), standIn}, pkt(eth0, fromB, world, "10.0.0.2"), deny, StagePreDNAT, "broken"},
		{"a degraded endpoint's missing policies are not asked for", []change{with("b", func(e *Endpoint) { *e = *e.StandIn("broken") })}, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"), deny, StageIngress, "broken"},
	})
}
