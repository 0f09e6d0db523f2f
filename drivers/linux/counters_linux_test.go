package linux

import (
	"context"
	"maps"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/netns/netnstest"
)

// TestCounters: each connection is counted at the rules that the oracle names, and nowhere else.
func TestCounters(t *testing.T) {
	t.Parallel()
	shape := connectShapes["S3"]
	s := connectState(shape, 300, 100)
	w := newDuel(t, s, shape.port(0), func(o *Options) { o.Count = true })
	const n = 7
	if _, err := w.connect(n); err != nil {
		t.Fatal(err)
	}
	pk := drivers.Packet{
		From: drivers.Place{Kind: drivers.PlaceWorkload, Iface: attachment(1, noNs).HostIface},
		To:   drivers.Place{Kind: drivers.PlaceWorkload, Iface: attachment(2, noNs).HostIface},
		Src:  addr("10.65.0.1"), Dst: addr("10.65.0.2"), Proto: l4TCP, SrcPort: 1000, DstPort: shape.port(0),
	}
	want := map[drivers.RuleID]uint64{}
	for _, step := range drivers.Evaluate(s, pk).Steps {
		if step.Rule != 0 {
			want[step.Rule] = n
		}
	}
	if len(want) != 2 { // the profile lets the client send, and the last rule lets the server receive
		t.Fatalf("the oracle names %d rules", len(want))
	}
	got := map[drivers.RuleID]uint64{}
	for id, c := range w.driver.Counters(context.Background()) {
		if c.Packets > 0 {
			got[id] = c.Packets
		}
		if c.Bytes != c.Packets*60 && c.Packets > 0 { // a SYN of Linux
			t.Errorf("%d packets have %d bytes", c.Packets, c.Bytes)
		}
	}
	if !maps.Equal(want, got) {
		t.Errorf("got %v, want %v", got, want)
	}
	before := w.driver.Writes()
	apply(t, w.driver, s, nil)
	if n := w.driver.Writes() - before; n != 0 {
		t.Errorf("a resync beside counters that moved wrote %d objects", n)
	}
}

// TestNoCounters: who has not asked is told nothing, and pays nothing.
func TestNoCounters(t *testing.T) {
	t.Parallel()
	d := openDriver(t, netnstest.New(t), nil)
	apply(t, d, smallState(), nil)
	for id := range d.Counters(context.Background()) {
		t.Errorf("rule %x is counted", id)
	}
}
