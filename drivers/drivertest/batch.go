package drivertest

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/tortie/tortie/drivers"
)

// Free source ports: where nobody says which one, the suite takes one of these, a new one for each probe. Rules of cases
// and of the generator do not tell them apart.
const (
	freePortFirst = 33000
	freePortLast  = 60999
)

// flow is what the flow table knows a packet's flow by, the smaller end first.
type flow struct {
	proto uint8
	a, b  netip.AddrPort
}

func flowOf(proto uint8, a, b netip.AddrPort) flow {
	if cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port())) > 0 {
		a, b = b, a
	}
	return flow{proto, a, b}
}

// flowsOf returns the flows of a probe that another probe of the same batch must not meet. ICMP has none: its ids are the
// harness's.
func flowsOf(p drivers.Packet) []flow {
	if p.ARP || isICMP(p.Proto) {
		return nil
	}
	src := netip.AddrPortFrom(p.Src, p.SrcPort)
	fs := []flow{flowOf(p.Proto, src, netip.AddrPortFrom(p.Dst, p.DstPort))}
	if p.OrigDst.IsValid() {
		fs = append(fs, flowOf(p.Proto, src, p.OrigDst))
	}
	return fs
}

// batcher gives probes their free ports and splits them so that no two flows of a batch meet.
type batcher struct {
	next uint16
}

// assign fills in the source port if it is free.
func (b *batcher) assign(p *Probe) {
	if !hasPorts(p.Packet.Proto) || p.Packet.SrcPort != 0 {
		return
	}
	if b.next < freePortFirst || b.next > freePortLast {
		b.next = freePortFirst
	}
	p.Packet.SrcPort = b.next
	b.next++
}

// batches splits ps into runs whose flows do not meet, in order. Every probe has its port.
func batches(ps []Probe) [][]Probe {
	var out [][]Probe
	seen := map[flow]bool{}
	first := 0
	for i, p := range ps {
		fs := flowsOf(p.Packet)
		for _, f := range fs {
			if seen[f] {
				out, first = append(out, ps[first:i]), i
				clear(seen)
				break
			}
		}
		for _, f := range fs {
			seen[f] = true
		}
	}
	if first < len(ps) {
		out = append(out, ps[first:])
	}
	return out
}

// checkBatch reports a probe that the harness could not be asked for; it is a mistake of the suite.
func checkBatch(s *drivers.State, ps []Probe) error {
	for _, p := range ps {
		if err := CheckProbe(s, p); err != nil {
			return fmt.Errorf("probe %s: %w", probeText(p), err)
		}
		if hasPorts(p.Packet.Proto) && p.Packet.SrcPort == 0 {
			return fmt.Errorf("probe %s has no source port", probeText(p))
		}
	}
	return nil
}
