package linux

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// named is a probe and what it is called.
type named struct {
	name string
	drivertest.Probe
}

// everyKind is a probe of every kind between every pair of places.
func everyKind() []named {
	var out []named
	port := uint16(20000)
	add := func(what string, p drivertest.Probe) {
		from, to := p.Packet.From.Iface, p.Packet.To.Iface
		out = append(out, named{fmt.Sprintf("%s %s -> %s %s -> %s", what, from, to, p.Packet.Src, p.Packet.Dst), p})
	}
	for _, from := range drivertest.Sites() {
		for _, to := range drivertest.Sites() {
			if from.Name == to.Name {
				continue
			}
			for _, v6 := range []bool{false, true} {
				base := drivers.Packet{From: from.Place, To: to.Place, Src: from.Addr(v6), Dst: to.Addr(v6), SrcMAC: from.MAC}
				for _, k := range kinds(v6) {
					p := k.Probe
					p.Packet.From, p.Packet.To, p.Packet.Src, p.Packet.Dst, p.Packet.SrcMAC = base.From, base.To, base.Src, base.Dst, base.SrcMAC
					if p.Packet.OrigDst.IsValid() {
						p.Packet.OrigDst = netip.AddrPortFrom(drivertest.ServiceRange[0].Addr().Next(), 80)
						if v6 {
							p.Packet.OrigDst = netip.AddrPortFrom(drivertest.ServiceRange[1].Addr().Next(), 80)
						}
					}
					if hasPortTuple(p.Packet.Proto) && p.Packet.Proto != 47 {
						port++
						p.Packet.SrcPort, p.Packet.DstPort = port, 8080
					}
					add(k.name, p)
				}
			}
		}
	}
	return out
}

// kinds are what can travel between any two places.
func kinds(v6 bool) []named {
	const anyPort = 1
	probe := func(proto uint8, ct drivers.CTState) drivertest.Probe {
		return drivertest.Probe{Packet: drivers.Packet{Proto: proto, CT: ct}}
	}
	icmp, request, reply, unreachable := uint8(protoICMP), uint8(8), uint8(0), uint8(3)
	if v6 {
		icmp, request, reply, unreachable = protoICMPv6, 128, 129, 1
	}
	echo := func(ct drivers.CTState, typ uint8) drivertest.Probe {
		p := probe(icmp, ct)
		p.Packet.ICMPType = typ
		return p
	}
	var out []named
	for _, proto := range []uint8{protoTCP, protoUDP, protoSCTP, protoUDPLite, 253, 47, 4} {
		name := fmt.Sprintf("protocol %d", proto)
		est := probe(proto, drivers.CTEstablished)
		reply := est
		reply.Reply = true
		out = append(out, named{name + " new", probe(proto, drivers.CTNew)}, named{name + " untracked", probe(proto, drivers.CTUntracked)},
			named{name + " established", est})
		if hasPortTuple(proto) && proto != 47 {
			// Without ports the two would be of one flow.
			out = append(out, named{name + " reply", reply})
		}
	}
	for _, proto := range []uint8{protoTCP, protoUDP, protoSCTP} {
		f, e := probe(proto, drivers.CTNew), probe(proto, drivers.CTEstablished)
		f.Fragmented, e.Fragmented = true, true
		out = append(out, named{fmt.Sprintf("protocol %d in fragments", proto), f}, named{fmt.Sprintf("protocol %d established, in fragments", proto), e})
	}
	for _, proto := range []uint8{protoTCP, protoUDP} {
		d := probe(proto, drivers.CTNew)
		d.Packet.OrigDst = netip.AddrPortFrom(netip.IPv4Unspecified(), anyPort)
		out = append(out, named{fmt.Sprintf("protocol %d translated", proto), d}, named{fmt.Sprintf("protocol %d invalid", proto), probe(proto, drivers.CTInvalid)})
	}
	mid := probe(protoTCP, drivers.CTNew)
	mid.MidStream = true
	answer := echo(drivers.CTEstablished, reply)
	answer.Reply = true
	frag := echo(drivers.CTNew, request)
	frag.Fragmented = true
	return append(out, named{"TCP in mid-stream", mid}, named{"echo", echo(drivers.CTNew, request)}, named{"echo in fragments", frag},
		named{"echo established", echo(drivers.CTEstablished, request)}, named{"echo reply", answer},
		named{"unasked echo reply", echo(drivers.CTInvalid, reply)}, named{"related error", echo(drivers.CTRelated, unreachable)},
		named{"unrelated error", echo(drivers.CTInvalid, unreachable)}, named{"echo untracked", echo(drivers.CTUntracked, request)})
}

// linkKinds is ARP and neighbour discovery between workloads and the node.
func linkKinds() []named {
	var out []named
	host, _ := drivertest.SiteByName("host")
	for _, s := range drivertest.Sites() {
		if !s.LinkLocal.IsValid() {
			continue
		}
		arp := drivers.Packet{From: s.Place, To: host.Place, Src: s.Addr(false), Dst: drivertest.Gateway4, SrcMAC: s.MAC, ARP: true, CT: drivers.CTUntracked}
		out = append(out, named{"ARP of " + s.Name, drivertest.Probe{Packet: arp}})
		arp.From, arp.To, arp.Src, arp.Dst, arp.SrcMAC = host.Place, s.Place, drivertest.Gateway4, s.Addr(false), drivers.MAC{}
		out = append(out, named{"ARP to " + s.Name, drivertest.Probe{Packet: arp}})
		for typ := uint8(130); typ <= 143; typ++ {
			if typ > 136 && typ < 143 {
				continue
			}
			nd := drivers.Packet{Proto: protoICMPv6, ICMPType: typ, HopLimit: 255, CT: drivers.CTUntracked, SrcMAC: s.MAC}
			nd.From, nd.To, nd.Src, nd.Dst = s.Place, host.Place, s.LinkLocal, drivertest.HostLinkLocal
			out = append(out, named{fmt.Sprintf("ICMPv6 %d of %s", typ, s.Name), drivertest.Probe{Packet: nd}})
			nd.Dst = netip.IPv6LinkLocalAllNodes()
			out = append(out, named{fmt.Sprintf("ICMPv6 %d of %s to all", typ, s.Name), drivertest.Probe{Packet: nd}})
			nd.From, nd.To, nd.Src, nd.Dst = host.Place, s.Place, drivertest.HostLinkLocal, s.LinkLocal
			out = append(out, named{fmt.Sprintf("ICMPv6 %d to %s", typ, s.Name), drivertest.Probe{Packet: nd}})
			nd.Dst = netip.IPv6LinkLocalAllNodes()
			out = append(out, named{fmt.Sprintf("ICMPv6 %d to %s and all", typ, s.Name), drivertest.Probe{Packet: nd}})
		}
	}
	return out
}

// TestHarnessDelivers: without any policy everything arrives, and with rules that drop everything nothing does, save
// what the same rules let through by one of the states that the harness brings about.
func TestHarnessDelivers(t *testing.T) {
	h := newKernelHarness(t)
	kinds := append(everyKind(), linkKinds()...)
	ps := make([]drivertest.Probe, len(kinds))
	for i, k := range kinds {
		ps[i] = k.Probe
	}
	const dropIP = `
table inet stop {
	chain in { type filter hook prerouting priority -170; %[1]s; }
	chain out { type filter hook output priority -170; %[1]s; }
}
table arp stop {
	chain in { type filter hook input priority 0; %[2]s; }
	chain out { type filter hook output priority 0; %[2]s; }
}`
	stateOf := func(p drivertest.Probe) string {
		switch p.Packet.CT {
		case drivers.CTEstablished:
			return "established"
		case drivers.CTRelated:
			return "related"
		case drivers.CTInvalid:
			return "invalid"
		case drivers.CTUntracked:
			return "untracked"
		}
		return "new"
	}
	isARP := func(p drivertest.Probe) bool { return p.Packet.ARP }
	rules := []struct {
		name, ip, arp string
		want          func(drivertest.Probe) bool
	}{
		{"no rules", "accept", "accept", func(drivertest.Probe) bool { return true }},
		{"stop all", "drop", "drop", func(drivertest.Probe) bool { return false }},
		{"ARP only", "drop", "accept", isARP},
	}
	for _, state := range []string{"new", "established", "related", "invalid", "untracked"} {
		rules = append(rules, struct {
			name, ip, arp string
			want          func(drivertest.Probe) bool
		}{state + " only", "ct state != " + state + " drop", "drop", func(p drivertest.Probe) bool { return stateOf(p) == state && !isARP(p) }})
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			if err := h.nft(fmt.Sprintf(dropIP, r.ip, r.arp)); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := h.nft("delete table inet stop; delete table arp stop"); err != nil {
					t.Fatal(err)
				}
			}()
			begin := time.Now()
			rs, err := h.Verdict(t.Context(), ps)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d probes in %v", len(ps), time.Since(begin))
			wrong := 0
			for i, got := range rs {
				want := r.want(ps[i])
				if got.Delivered == want && (!want || isARP(ps[i]) || got.Src == ps[i].Packet.Src) {
					continue
				}
				if wrong++; wrong <= 40 {
					t.Errorf("%s (%s): delivered %v from %v, want %v", kinds[i].name, stateOf(ps[i]), got.Delivered, got.Src, want)
				}
			}
			if wrong > 0 {
				t.Errorf("%d of %d wrong", wrong, len(ps))
			}
		})
	}
}

// TestHarnessDumpsAndTampers: every damage that the harness does shows in its dump, and is gone from it once the driver
// has mended it.
func TestHarnessDumpsAndTampers(t *testing.T) {
	h := newKernelHarness(t)
	d, err := h.Open(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if empty, err := h.Dump(t.Context()); err != nil || empty.Ours != "" || empty.Foreign == "" {
		t.Errorf("dump of nothing: %+v, %v", empty, err)
	}
	cases, err := drivertest.Cases()
	if err != nil {
		t.Fatal(err)
	}
	var s *drivers.State
	for _, c := range cases {
		if c.Name == "match-set-and-not-set" {
			s, _ = drivers.Lower(c.Scenes[0].State, d.Features())
		}
	}
	if s == nil {
		t.Fatal("the suite has another case no longer: choose one with sets and routes")
	}
	s.Routes[netip.MustParsePrefix("10.68.0.0/26")] = route("10.68.0.0/26", drivers.RouteBlackhole, "")
	dumped := func() string {
		t.Helper()
		if err := d.Apply(t.Context(), s, nil); err != nil {
			t.Fatal(err)
		}
		text, err := h.Dump(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return text.Ours
	}
	want, ways := dumped(), map[string]bool{}
	for n := range uint64(60) {
		what, err := h.Tamper(t.Context(), n)
		if err != nil || what == "" {
			t.Fatalf("damage %d: %q, %v", n, what, err)
		}
		ways[strings.Fields(what)[0]] = true
		if got, err := h.Dump(t.Context()); err != nil || got.Ours == want {
			t.Errorf("%s: the dump does not show it (%v)", what, err)
		}
		if d := cmp.Diff(want, dumped()); d != "" {
			t.Errorf("%s: after the mend (-want +got):\n%s", what, d)
		}
	}
	if len(ways) < 6 {
		t.Errorf("only these kinds of damage: %v", ways)
	}
}
