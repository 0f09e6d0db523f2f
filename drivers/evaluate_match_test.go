package drivers

import (
	"fmt"
	"net/netip"
	"testing"
)

// clauseCase is a clause, packets that it is true of, and others. The rule's other clauses are empty.
type clauseCase struct {
	name string
	set  func(m *Match)
	hit  []Packet
	miss []Packet
}

// TestClauses checks every clause, positive and negated, in both families, by one Allow rule.
func TestClauses(t *testing.T) {
	sets := func(s *State) {
		s.Sets["net"] = NewSet(SetNet, member(t, "10.0.0.1"), member(t, "10.9.0.0/16"), member(t, "fd00::1"), member(t, "fd09::/32"))
		s.Sets["b"] = NewSet(SetNet, member(t, "10.0.0.2"), member(t, "fd00::2"))
		s.Sets["port"] = NewSet(SetPort, member(t, "10.0.0.2,6:80"), member(t, "fd00::2,6:80"), member(t, "10.0.0.1,6:40000"), member(t, "fd00::1,6:40000"))
	}
	total := 0
	for _, fam := range []struct {
		version  uint8
		a, b     string
		net      string
		icmp     uint8
		reqType  uint8
		otherNet string
	}{
		{4, "10.0.0.1", "10.0.0.2", "10.0.0.0/31", 1, 8, "fd00::/16"},
		{6, "fd00::1", "fd00::2", "fd00::/127", 58, 128, "10.0.0.0/8"},
	} {
		p := func(more ...func(*Packet)) Packet { return pkt(fromA, fromB, fam.a, fam.b, more...) }
		icmp := func(typ, code uint8) Packet {
			return p(ipProto(fam.icmp), func(p *Packet) { p.ICMPType, p.ICMPCode = typ, code })
		}
		one := uint8(1)
		sport := func(n uint16) func(*Packet) { return func(p *Packet) { p.SrcPort = n } }
		sctp := p(func(p *Packet) { p.Proto = 132 })
		for _, c := range []clauseCase{
			{"ip version", func(m *Match) { m.IPVersion = fam.version }, []Packet{p()}, nil},
			{"the other ip version", func(m *Match) { m.IPVersion = 10 - fam.version }, nil, []Packet{p()}},
			{"protocol", proto(17), []Packet{p(udp(80))}, []Packet{p(), icmp(8, 0)}},
			{"protocol by number", proto(47), []Packet{p(ipProto(47))}, []Packet{p()}},
			{"not protocol", func(m *Match) { n := uint8(17); m.NotProto = &n }, []Packet{p(), icmp(8, 0)}, []Packet{p(udp(80))}},
			{"icmp type", func(m *Match) { m.ICMP = &ICMP{Type: fam.reqType} }, []Packet{icmp(fam.reqType, 0), icmp(fam.reqType, 1)}, []Packet{icmp(fam.reqType+1, 0), p(), p(udp(80))}},
			{"icmp type and code", func(m *Match) { m.ICMP = &ICMP{fam.reqType, &one} }, []Packet{icmp(fam.reqType, 1)}, []Packet{icmp(fam.reqType, 0), p()}},
			{"icmp of the protocol", func(m *Match) { proto(fam.icmp)(m); m.ICMP = &ICMP{Type: 3} }, []Packet{icmp(3, 0)}, []Packet{icmp(4, 0), p()}},
			{"icmp of the other family's protocol", func(m *Match) { proto(59 - fam.icmp)(m); m.ICMP = &ICMP{Type: 3} }, nil, []Packet{icmp(3, 0), p(ipProto(59-fam.icmp), func(p *Packet) { p.ICMPType = 3 })}},
			{"not icmp type", func(m *Match) { m.NotICMP = &ICMP{Type: fam.reqType} }, []Packet{icmp(fam.reqType+1, 0), p()}, []Packet{icmp(fam.reqType, 0), icmp(fam.reqType, 1)}},
			{"not icmp type and code", func(m *Match) { m.NotICMP = &ICMP{fam.reqType, &one} }, []Packet{icmp(fam.reqType, 0), p()}, []Packet{icmp(fam.reqType, 1)}},
			{"src nets", func(m *Match) { m.Src.Nets = prefixes(fam.otherNet, fam.net) }, []Packet{p()}, nil},
			{"src nets of the other family", func(m *Match) { m.Src.Nets = prefixes(fam.otherNet) }, nil, []Packet{p()}},
			{"not src nets", func(m *Match) { m.Src.NotNets = prefixes(fam.net) }, nil, []Packet{p()}},
			{"not src nets of the other family", func(m *Match) { m.Src.NotNets = prefixes(fam.otherNet) }, []Packet{p()}, nil},
			{"dst nets", func(m *Match) { m.Dst.Nets = []netip.Prefix{host1(fam.b)} }, []Packet{p()}, nil},
			{"dst nets elsewhere", func(m *Match) { m.Dst.Nets = []netip.Prefix{host1(fam.a)} }, nil, []Packet{p()}},
			{"not dst nets", func(m *Match) { m.Dst.NotNets = []netip.Prefix{host1(fam.b)} }, nil, []Packet{p()}},
			{"not dst nets elsewhere", func(m *Match) { m.Dst.NotNets = []netip.Prefix{host1(fam.a)} }, []Packet{p()}, nil},
			{"src set", func(m *Match) { m.Src.Sets = []SetID{"net"} }, []Packet{p()}, nil},
			{"src in every set", func(m *Match) { m.Src.Sets = []SetID{"net", "b"} }, nil, []Packet{p()}},
			{"not src set", func(m *Match) { m.Src.NotSets = []SetID{"net"} }, nil, []Packet{p()}},
			{"not src, of sets that have it not", func(m *Match) { m.Src.NotSets = []SetID{"b"} }, []Packet{p()}, nil},
			{"dst set", func(m *Match) { m.Dst.Sets = []SetID{"b"} }, []Packet{p()}, nil},
			{"dst set that has it not", func(m *Match) { m.Dst.Sets = []SetID{"net"} }, nil, []Packet{p()}},
			{"not dst in any set", func(m *Match) { m.Dst.NotSets = []SetID{"net", "b"} }, nil, []Packet{p()}},
			{"not dst set", func(m *Match) { m.Dst.NotSets = []SetID{"net"} }, []Packet{p()}, nil},
			{"dst ports", func(m *Match) { m.Dst.Ports = []PortRange{{1, 9}, {80, 90}} }, []Packet{p(), p(tcp(90)), p(udp(85)), sctp}, []Packet{p(tcp(79)), p(tcp(91)), icmp(8, 0), p(ipProto(47))}},
			{"not dst ports", func(m *Match) { m.Dst.NotPorts = []PortRange{{1, 9}, {80, 90}} }, []Packet{p(tcp(79)), p(tcp(91)), icmp(8, 0)}, []Packet{p(), p(tcp(90)), p(udp(85)), sctp}},
			{"src ports", func(m *Match) { m.Src.Ports = []PortRange{{40000, 40000}} }, []Packet{p()}, []Packet{p(sport(1)), icmp(8, 0)}},
			{"not src ports", func(m *Match) { m.Src.NotPorts = []PortRange{{40000, 40000}} }, []Packet{p(sport(1)), icmp(8, 0)}, []Packet{p()}},
			{"dst named port", func(m *Match) { m.Dst.PortSets = []SetID{"port"} }, []Packet{p()}, []Packet{p(tcp(81)), p(udp(80)), icmp(8, 0)}},
			{"dst port by name or number", func(m *Match) { m.Dst.PortSets, m.Dst.Ports = []SetID{"port"}, []PortRange{{81, 81}} }, []Packet{p(), p(tcp(81)), p(udp(81))}, []Packet{p(udp(80))}},
			{"not dst named port", func(m *Match) { m.Dst.NotPortSets = []SetID{"port"} }, []Packet{p(tcp(81)), p(udp(80)), icmp(8, 0)}, []Packet{p()}},
			{"neither the name nor the number", func(m *Match) { m.Dst.NotPortSets, m.Dst.NotPorts = []SetID{"port"}, []PortRange{{81, 81}} }, []Packet{p(udp(80))}, []Packet{p(), p(tcp(81))}},
			{"src named port", func(m *Match) { m.Src.PortSets = []SetID{"port"} }, []Packet{p()}, []Packet{p(sport(1))}},
			{"not src named port", func(m *Match) { m.Src.NotPortSets = []SetID{"port"} }, []Packet{p(sport(1))}, []Packet{p()}},
			{"dst service", func(m *Match) { m.Dst.Services = []SetID{"port"} }, []Packet{p()}, []Packet{p(tcp(81)), p(udp(80)), icmp(8, 0)}},
			{"src service", func(m *Match) { m.Src.Services = []SetID{"port"} }, []Packet{p()}, []Packet{p(sport(1))}},
			{"no clause", func(*Match) {}, []Packet{p(), icmp(8, 0), p(ipProto(47))}, nil},
			{"every clause of two", func(m *Match) { dport(80)(m); m.Src.NotSets = []SetID{"net"} }, nil, []Packet{p(), p(tcp(81))}},
		} {
			total++
			t.Run(fmt.Sprintf("%s, IPv%d", c.name, fam.version), func(t *testing.T) {
				s := testNode(sets, tierOf("b normal in", "t", Deny, rule(Allow, c.set)))
				for want, packets := range map[Verdict][]Packet{allow: c.hit, deny: c.miss} {
					for _, p := range packets {
						if got := Evaluate(s, p); got.Verdict != want {
							t.Errorf("%s: want %s, got:\n%s", p, want, got)
						}
					}
				}
			})
		}
	}
	t.Logf("%d clauses", total)
}

func host1(a string) netip.Prefix { return AddrMember(netip.MustParseAddr(a)).Prefix }

func member(t *testing.T, s string) Member {
	t.Helper()
	m, err := ParseMember(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestEvaluateIsTotal throws nonsense at Evaluate: it always answers, and always the same.
func TestEvaluateIsTotal(t *testing.T) {
	states := []*State{NewState(), {}, {
		Endpoints: map[EndpointID]*Endpoint{{}: nil}, Policies: map[PolicyID]*Policy{{}: nil}, Sets: map[SetID]*Set{"": nil},
		Routes: map[netip.Prefix]*Route{{}: nil}, Peers: map[string]*Peer{"": nil},
	}}
	for seed := range uint64(50) {
		states = append(states, newGen(seed).state())
	}
	for i, s := range states {
		g := newGen(uint64(i))
		for range 200 {
			p := g.packet(s)
			switch g.IntN(20) {
			case 0:
				p.Src = netip.Addr{}
			case 1:
				p.CT, p.From.Kind, p.To.Kind = CTState(g.IntN(256)), PlaceKind(g.IntN(256)), PlaceKind(g.IntN(256))
			}
			t1, t2 := Evaluate(s, p), NewEvaluator(s).Evaluate(p)
			if t1.String() != t2.String() {
				t.Fatalf("state %d, %s:\n%s\nand then\n%s", i, p, t1, t2)
			}
			if t1.Verdict == VerdictDeny && (len(t1.Steps) == 0 || t1.Steps[len(t1.Steps)-1].Outcome != "deny") {
				t.Fatalf("state %d, %s: denied without a step that says so:\n%s", i, p, t1)
			}
		}
	}
}

func BenchmarkEvaluate(b *testing.B) {
	rules := make([]Rule, 0, 11)
	for i := range 10 {
		rules = append(rules, rule(Allow, proto(6), dport(uint16(1000+i)), dstNet("10.1.0.0/16")))
	}
	rules = append(rules, rule(Allow, proto(6), dport(80)))
	s := testNode(tierOf("a normal out", "t", Deny, rules...), tierOf("b normal in", "t", Deny, rules...))
	p := pkt(fromA, fromB, "10.0.0.1", "10.0.0.2")
	ev := NewEvaluator(s)
	b.Run("verdict", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ev.Verdict(p)
		}
	})
	b.Run("trace", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ev.Evaluate(p)
		}
	})
	b.Run("one-shot", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Evaluate(s, p)
		}
	})
}
