package ctl

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
)

const loggedText = `
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
spec: {bgp: {ipv4Address: 192.0.2.11/24}}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-cni-web-eth0, namespace: shop, labels: {role: web}}
spec: {orchestrator: cni, workload: web, node: n1, endpoint: eth0, interfaceName: tort1, ipNetworks: [10.65.1.1/32]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: n1-cni-db-eth0, namespace: shop, labels: {role: db}}
spec: {orchestrator: cni, workload: db, node: n1, endpoint: eth0, interfaceName: tort2, ipNetworks: [10.65.1.2/32]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: role == 'web'
  egress:
    - action: Allow
      protocol: UDP
    - action: Log
    - action: Deny
`

// TestRuleOfLogLine goes from a connection to the id that the kernel's log has, and from there to the rule.
func TestRuleOfLogLine(t *testing.T) {
	b := newBench(t)
	f := b.file("logged.yaml", loggedText)
	out, code := b.run("explain", "-f", f, "shop/web", "shop/db", "tcp", "80")
	if code != ExitDenied {
		t.Fatalf("exit code %d:\n%s", code, out)
	}
	line := regexp.MustCompile(`NetworkPolicy/shop/web rule 1 log, as "tortie: ([0-9a-f]{16})"`).FindStringSubmatch(out)
	if line == nil {
		t.Fatalf("no line says how the kernel logs it:\n%s", out)
	}
	id := line[1]
	out, _ = b.run("explain", "-f", f, "shop/web", "shop/db", "tcp", "80", "-o", "json")
	wants(t, out, `"rule": "`+id+`"`, `"outcome": "log"`)

	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{id}, 0, "NetworkPolicy/shop/web out rule 1 log\n  on n1\n"},
		{[]string{strings.ToUpper(id)}, 0, "rule 1 log"},
		{[]string{"tortie: " + id + " "}, 0, "rule 1 log"},
		{[]string{id, "-o", "json"}, 0, `"index": 1`},
		{[]string{id, "-o", "yaml"}, 0, "index: 1"},
		{[]string{id, "-o", "xml"}, ExitUsage, "text, json and yaml"},
		{[]string{id, "shop/web"}, ExitError, "unknown command"},
		{[]string{"0123456789abcdef"}, ExitMissing, "no rule that is known here has the id 0123456789abcdef"},
		{[]string{"17"}, ExitUsage, "16 hex digits"},
		{[]string{"0123456789abcdeg"}, ExitUsage, "16 hex digits"},
	} {
		out, code := b.run(append([]string{"explain", "-f", f, "--rule"}, c.args...)...)
		if code != c.code {
			t.Errorf("--rule %q: exit code %d, want %d", c.args, code, c.code)
		}
		wants(t, out, c.want)
	}
}

// TestKeysOfJSON: what programs read has keys that begin with a small letter.
func TestKeysOfJSON(t *testing.T) {
	b := newBench(t)
	f := b.file("logged.yaml", loggedText)
	b.apply(poolText)
	features, err := json.Marshal(drivers.Features{})
	if err != nil {
		t.Fatal(err)
	}
	playAgent(t, filepath.Join(b.dir, "no-agent.sock"), map[agentapi.Verb]any{
		agentapi.VerbStatus: agentapi.Status{Node: "n1", Driver: agentapi.DriverStatus{Name: "nftables", Features: features}},
	})
	for _, args := range [][]string{
		{"explain", "-f", f, "shop/web", "shop/db", "tcp", "80"},
		{"connectivity", "-f", f},
		{"policy", "preview", "-f", f, "--against", f, "--delete"},
		{"ipam", "show"},
		{"ipam", "check"},
		{"status"},
	} {
		out, _ := b.run(append(args, "-o", "json")...)
		end := strings.LastIndexAny(out, "}]")
		if !json.Valid([]byte(out[:end+1])) {
			t.Errorf("%v: no JSON:\n%s", args, out)
		}
		if key := regexp.MustCompile(`(?m)^\s*"[^a-z][^"]*":`).FindString(out); key != "" {
			t.Errorf("%v: the key %s", args, key)
		}
	}
}
