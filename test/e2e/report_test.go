package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/test/page"
)

func TestReport(t *testing.T) {
	date := time.Date(2026, 11, 22, 8, 30, 0, 0, time.UTC)
	v4, dual := Cluster{Proxy: "iptables"}, Cluster{Proxy: "nftables", Dual: true}
	r := &Report{Versions: Versions{Kubernetes: "v1.35.4", Containerd: "containerd 1.6.20", Kernel: "6.18", CPUs: 2}}
	r.Add(&Run{Suite: "netpol", Cluster: dual, Date: date, Tortie: "abc", Seconds: 61.4, Specs: []Spec{
		{Name: "b", State: Passed, Again: true}, {Name: "c", State: Skipped, Reason: "no SCTP"}}})
	r.Add(&Run{Suite: "alive", Cluster: v4, Date: date, Tortie: "abc", Specs: []Spec{{Name: "x", State: Passed}}})
	r.Add(&Run{Suite: "netpol", Cluster: v4, Date: date, Tortie: "old", Specs: []Spec{{Name: "a", State: Passed}}})
	r.Add(&Run{Suite: "netpol", Cluster: v4, Date: date, Tortie: "abc", Specs: []Spec{
		{Name: "a", State: Passed}, {Name: "b", State: Failed, Reason: "no answer"}, {Name: "c", State: Skipped, Reason: "no SCTP"}}})

	file := filepath.Join(t.TempDir(), "e2e.json")
	if err := page.Write(file, r); err != nil {
		t.Fatal(err)
	}
	read, err := page.Read[Report](file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(r, read); d != "" {
		t.Errorf("what is read is not what was written: %s", d)
	}

	want := `
Two nodes on one machine: Kubernetes v1.35.4, containerd 1.6.20, Linux 6.18, 2 processors.

| suite | kube-proxy | addresses | run | passed | failed | skipped | time | of |
|---|---|---|--:|--:|--:|--:|--:|---|
| Kubernetes: NetworkPolicy (` + "`Netpol`" + `) | iptables | IPv4 | 2 | 1 | 1 | 1 | 0s | 2026-11-22 08:30, abc |
| Kubernetes: NetworkPolicy (` + "`Netpol`" + `) | nftables | dual stack | 1 | 1 (1 alone, at the second try) | 0 | 1 | 1m1s | 2026-11-22 08:30, abc |
| Staying alive (test/e2e/alive) | iptables | IPv4 | 1 | 1 | 0 | 0 | 0s | 2026-11-22 08:30, abc |

Failed:

- ` + "`b`" + ` (kube-proxy iptables, IPv4): no answer

Skipped:

- Kubernetes: NetworkPolicy (` + "`Netpol`" + `): no SCTP
  - ` + "`c`" + `
`
	if d := cmp.Diff(want, read.Markdown()); d != "" {
		t.Error(d)
	}
}
