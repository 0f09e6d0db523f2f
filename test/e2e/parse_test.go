package e2e

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseGinkgo(t *testing.T) {
	const report = `[{"SuiteSucceeded": false, "SpecReports": [
		{"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"},
		{"ContainerHierarchyTexts": ["[sig-network] Netpol", "between server and client"], "LeafNodeType": "It", "LeafNodeText": "should deny", "State": "passed", "RunTime": 1500000000},
		{"ContainerHierarchyTexts": ["[sig-network] DNS"], "LeafNodeType": "It", "LeafNodeText": "should answer", "State": "failed", "RunTime": 2e9, "Failure": {"Message": "no answer\nfor long"}},
		{"ContainerHierarchyTexts": ["[sig-network] DNS"], "LeafNodeType": "It", "LeafNodeText": "should end", "State": "interrupted"},
		{"ContainerHierarchyTexts": ["[sig-network] DNS"], "LeafNodeType": "It", "LeafNodeText": "on GCE", "State": "skipped", "Failure": {"Message": "Only supported for gce"}},
		{"ContainerHierarchyTexts": null, "LeafNodeType": "It", "LeafNodeText": "something else", "State": "skipped"}]}]`
	got, err := parseGinkgo([]byte(report))
	if err != nil {
		t.Fatal(err)
	}
	want := []Spec{
		{Name: "[sig-network] Netpol between server and client should deny", State: Passed, Seconds: 1.5},
		{Name: "[sig-network] DNS should answer", State: Failed, Reason: "no answer", Seconds: 2},
		{Name: "[sig-network] DNS should end", State: Failed, Reason: "interrupted"},
		{Name: "[sig-network] DNS on GCE", State: Skipped, Reason: "Only supported for gce"},
		{Name: "something else", State: Skipped},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := parseGinkgo([]byte("[{")); err == nil {
		t.Error("half a report is read without an error")
	}
}

func TestParseGoTest(t *testing.T) {
	const out = `=== RUN   TestAll
=== RUN   TestAll/A
=== RUN   TestAll/A/one
=== RUN   TestAll/A/two
    x_test.go:12: was denied
    x_test.go:14: and again
=== RUN   TestAll/B
    cnp_test.go:53: this kernel has no SCTP
=== RUN   TestAll/C
=== RUN   TestAll/C/inside
=== NAME  TestAll/C
    c.go:9: broke after its parts
--- FAIL: TestAll (9.00s)
    --- FAIL: TestAll/A (3.50s)
        --- PASS: TestAll/A/one (1.25s)
        --- FAIL: TestAll/A/two (2.25s)
    --- SKIP: TestAll/B (0.00s)
    --- FAIL: TestAll/C (1.00s)
        --- PASS: TestAll/C/inside (1.00s)
FAIL
`
	want := []Spec{
		{Name: "TestAll/A/one", State: Passed, Seconds: 1.25},
		{Name: "TestAll/A/two", State: Failed, Reason: "and again", Seconds: 2.25},
		{Name: "TestAll/B", State: Skipped, Reason: "this kernel has no SCTP"},
		{Name: "TestAll/C", State: Failed, Reason: "broke after its parts", Seconds: 1},
		{Name: "TestAll/C/inside", State: Passed, Seconds: 1},
	}
	if d := cmp.Diff(want, parseGoTest(out)); d != "" {
		t.Error(d)
	}
}

func TestChoose(t *testing.T) {
	all := []string{
		"[sig-network] Networking Granular Checks: Services should function for pod-Service: http",
		"[sig-network] Networking Granular Checks: Services should function for pod-Service: sctp [Feature:SCTPConnectivity]",
		"[sig-network] Networking Granular Checks: Services should update nodePort: http [Slow]",
		"[sig-network] [Feature:IPv6DualStack] should create pod, add ipv6 and ipv4 ip to pod ips",
		"[sig-network] Services should check NodePort out-of-range",
	}
	var network Suite
	for _, s := range Suites() {
		if s.Name == "network" {
			network = s
		}
	}
	for _, c := range []struct {
		cluster      Cluster
		focus        string
		run, skipped int
	}{
		{Cluster{Proxy: "iptables"}, "", 1, 2},
		{Cluster{Proxy: "nftables", Dual: true}, "", 2, 2},
		{Cluster{Proxy: "nftables", Dual: true}, "IPv6", 1, 0},
	} {
		specs, err := network.choose(all, c.cluster, c.focus)
		if err != nil {
			t.Fatal(err)
		}
		run, skipped := 0, 0
		for _, s := range specs {
			if s.Reason == "" {
				run++
			} else {
				skipped++
			}
		}
		if run != c.run || skipped != c.skipped {
			t.Errorf("%s, focus %q: %d to run and %d skipped, want %d and %d", c.cluster, c.focus, run, skipped, c.run, c.skipped)
		}
	}
	if _, err := network.choose(all, Cluster{}, "("); err == nil {
		t.Error("a focus that is no regular expression is taken")
	}
}

// Every suite's regular expressions are some, and no two suites of Kubernetes's run the same spec.
func TestSuites(t *testing.T) {
	names := map[string]bool{}
	for _, s := range Suites() {
		if names[s.Name] || s.Title == "" || (s.Focus == "") == (s.Program == "") {
			t.Errorf("suite %+v: a name of its own, a title, and either a focus or a program are wanted", s)
		}
		names[s.Name] = true
		if _, err := s.choose([]string{"x"}, Cluster{Dual: true}, ""); err != nil {
			t.Error(err)
		}
		for _, k := range s.Skips {
			if k.Reason == "" || strings.Contains(k.Reason, "\n") {
				t.Errorf("suite %s skips %s with reason %q", s.Name, k.Match, k.Reason)
			}
		}
	}
}
