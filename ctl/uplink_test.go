package ctl

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tortie/tortie/drivers"
)

const uplinkPolicy = shop + `
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n1-ens3, labels: {host: "yes"}}
spec: {node: n1, interfaceName: ens3}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: host}
spec: {selector: host == 'yes', types: [Egress], applyOnForward: true}
`

// TestExplainUplink: a host endpoint decides only if the packet goes by its interface. Where that was guessed, and wrong
// as it seems, the answer says so.
func TestExplainUplink(t *testing.T) {
	b := newBench(t)
	f := b.file("shop.yaml", uplinkPolicy)
	const doubt = "its host endpoints are on ens3"
	out, code := b.run("explain", "-f", f, "web-1", "198.51.100.9", "tcp", "80")
	if code != 0 {
		t.Errorf("guessed: exit code %d\n%s", code, out)
	}
	wants(t, out, "ALLOW", doubt, "--uplink")
	for uplink, want := range map[string]int{"ens3": ExitDenied, "eth0": 0} {
		out, code = b.run("explain", "-f", f, "--uplink", uplink, "web-1", "198.51.100.9", "tcp", "80")
		if code != want || strings.Contains(out, doubt) {
			t.Errorf("--uplink %s: exit code %d\n%s", uplink, code, out)
		}
	}
	if out, _ = b.run("explain", "-f", f, "10.65.1.1", "10.65.1.1", "tcp", "80"); strings.Contains(out, doubt) {
		t.Errorf("the packet never leaves the node:\n%s", out)
	}
}

// TestUplinkOfThisNode asks the kernel.
func TestUplinkOfThisNode(t *testing.T) {
	here, far := drivers.NewState(), netip.MustParseAddr("127.0.0.1")
	here.Node.Name = "here"
	u := uplinks{w: &world{live: "here"}}
	if got := u.of(here, far); !strings.HasPrefix(strings.ToLower(got), "lo") || len(u.guessed) > 0 {
		t.Errorf("the interface to %s is %q, guessed for %v", far, got, u.guessed)
	}
	u.w.live = ""
	if got := u.of(here, far); got != uplinkName || len(u.guessed) != 1 {
		t.Errorf("on another node: %q, guessed for %v", got, u.guessed)
	}
}
