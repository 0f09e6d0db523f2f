package linux

import (
	"strings"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// floatState is two workloads, of which holder (a, b or none) has the floating addresses.
func floatState(holder string) *drivers.State {
	s := drivers.NewState()
	s.Node.WorkloadPrefixes = []string{"tort"}
	for i, name := range []string{"a", "b"} {
		id := drivers.EndpointID{Sandbox: name, Interface: "eth0"}
		own := []string{"10.65.0.1", "10.65.0.2"}[i]
		e := &drivers.Endpoint{ID: id, Name: "ns/" + name, Iface: "tort" + name}
		e.Addrs = append(e.Addrs, addr(own))
		if name == holder {
			e.Floating = []drivers.Floating{{External: addr("192.0.2.7"), Internal: addr(own)}, {External: addr("192.0.2.8"), Internal: addr(own)}}
		}
		s.Endpoints[id] = e
	}
	return s
}

// TestFloatingMoves: an address goes from one workload to another in one batch, whichever of them is looked at first; with the
// last address the chains go.
func TestFloatingMoves(t *testing.T) {
	t.Parallel()
	for range 8 {
		c := newCompiler()
		was := drivers.NewState()
		for _, holder := range []string{"a", "b", "a", "", "b", ""} {
			now := floatState(holder)
			c.update(now, drivertest.Diff(was, now))
			want := Render(now)
			if got := c.prog.String(); got != want.String() {
				t.Fatalf("moved to %q:\n%s\nwant:\n%s", holder, got, want.String())
			}
			if there := strings.Contains(want.String(), "dnat to"); there != (holder != "") {
				t.Errorf("translated for %q: %v", holder, there)
			}
			was = now
		}
	}
	text := Render(floatState("a")).String()
	for _, want := range []string{
		"map floating4 { type ipv4_addr : ipv4_addr; elements = { 192.0.2.7 : 10.65.0.1, 192.0.2.8 : 10.65.0.1 } }",
		"set floating-self4 { type ipv4_addr . ipv4_addr . ipv4_addr; elements = { 10.65.0.1 . 10.65.0.1 . 192.0.2.7, 10.65.0.1 . 10.65.0.1 . 192.0.2.8 } }",
		"type nat hook prerouting priority -101", "type nat hook output priority -101", "type nat hook postrouting priority 99",
		"meta nfproto 2 dnat to ip daddr map @floating4", "ip saddr . ip daddr . ct original ip daddr @floating-self4 snat to ct original ip daddr",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "floating6") {
		t.Errorf("something for IPv6 in\n%s", text)
	}
}
