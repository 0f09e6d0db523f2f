package linux

import (
	"fmt"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// fragmentState has the workloads a and b, which may do everything or nothing.
func fragmentState(allow bool) *drivers.State {
	s := drivers.NewState()
	s.Node = drivers.Node{Name: drivertest.NodeName, WorkloadPrefixes: []string{"tort"}}
	if allow {
		s.Node.EndpointToHost = drivers.ToHostAccept
	}
	p := &drivers.Policy{ID: np("all"), In: []drivers.Rule{{Action: drivers.Deny}}, Out: []drivers.Rule{{Action: drivers.Deny}}}
	if allow {
		p.In, p.Out = []drivers.Rule{{Action: drivers.Allow}}, []drivers.Rule{{Action: drivers.Allow}}
	}
	p.SetRuleIDs()
	s.Policies[p.ID] = p
	l := &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default", Policies: []drivers.PolicyID{p.ID}}}}
	for _, name := range []string{"a", "b"} {
		site, _ := drivertest.SiteByName(name)
		e := &drivers.Endpoint{
			ID: drivers.EndpointID{Sandbox: name, Interface: "eth0"}, Name: name, Iface: site.Place.Iface, MAC: site.MAC, Addrs: site.Addrs,
			Policy: drivers.EndpointPolicy{Normal: drivers.Directions{In: l, Out: l}},
		}
		s.Endpoints[e.ID] = e
	}
	return s
}

// fragmentProbes go from and to workloads, the host and the world, as new flows and as established ones.
func fragmentProbes() []drivertest.Probe {
	var ps []drivertest.Probe
	for _, way := range [][2]string{{"a", "b"}, {"out0", "b"}, {"a", "out1"}, {"a", "host"}} {
		from, _ := drivertest.SiteByName(way[0])
		to, _ := drivertest.SiteByName(way[1])
		for _, v6 := range []bool{false, true} {
			for _, proto := range []uint8{protoTCP, protoUDP, protoSCTP} {
				for _, ct := range []drivers.CTState{drivers.CTNew, drivers.CTEstablished} {
					ps = append(ps, drivertest.Probe{Fragmented: true, Packet: drivers.Packet{
						From: from.Place, To: to.Place, Src: from.Addr(v6), Dst: to.Addr(v6), SrcMAC: from.MAC,
						Proto: proto, SrcPort: uint16(20000 + len(ps)), DstPort: 7, CT: ct,
					}})
				}
			}
		}
	}
	return ps
}

// TestFragments: a later fragment goes nowhere without its first, whatever policy says and whatever is established. With
// it the whole is judged: an established flow's fragments arrive. The driver's own rules see to that: nobody else's look
// at connections.
func TestFragments(t *testing.T) {
	t.Parallel()
	h := newKernelHarness(t)
	d, err := h.Open(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, allow := range []bool{true, false} {
		t.Run(fmt.Sprintf("allow %t", allow), func(t *testing.T) {
			apply(t, h.driver, fragmentState(allow), nil)
			if allow {
				if err := h.nft("delete table inet foreign"); err != nil {
					t.Fatal(err)
				}
			}
			ps := fragmentProbes()
			if err := h.flows.forget(); err != nil {
				t.Fatal(err)
			}
			added, err := h.addNeighs(ps)
			if err != nil {
				t.Fatal(err)
			}
			gs := h.wire.tag(ps)
			if err := h.flows.prepare(gs); err != nil {
				t.Fatal(err)
			}
			w := &watcher{wire: h.wire, gs: gs, seen: make([]outcome, len(gs))}
			sendFragment(t, w, 1)
			for i, o := range w.seen {
				if o.parts != [2]bool{} {
					t.Errorf("%+v: a fragment without its first came out", ps[i].Packet)
				}
			}
			sendFragment(t, w, 0)
			for i, o := range w.seen {
				want := allow || ps[i].Packet.CT == drivers.CTEstablished
				if o.parts != [2]bool{want, want} {
					t.Errorf("%+v: parts that came out: %v, want both: %t", ps[i].Packet, o.parts, want)
				}
			}
			if err := h.deleteNeighs(added); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// sendFragment sends one of the two fragments of each probe, and notes what comes out.
func sendFragment(t *testing.T, w *watcher, part int) {
	t.Helper()
	unpin, err := pin()
	if err != nil {
		t.Fatal(err)
	}
	defer unpin()
	for _, g := range w.gs {
		packets, err := g.packets()
		if err != nil || len(packets) != 2 {
			t.Fatalf("%d packets, %v", len(packets), err)
		}
		if err := w.sendIP(g, packets[part]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.collect(); err != nil {
		t.Fatal(err)
	}
}
