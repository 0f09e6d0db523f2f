package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Keep writes what helps to find out why specs failed into a folder: the agents' and controllers' logs, what each agent
// says of itself, its rules, and what the cluster knows.
func (b *Bed) Keep(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	keep := func(name string, get func() (string, error)) {
		text, err := get()
		if err != nil {
			text += fmt.Sprintf("\n%v\n", err)
		}
		_ = os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644) // one file less is no reason to lose the others
	}
	kubectl := func(args ...string) func() (string, error) {
		return func() (string, error) { return b.Kubectl(ctx, args...) }
	}
	keep("pods.txt", kubectl("get", "pods", "-A", "-o", "wide"))
	keep("nodes.txt", kubectl("describe", "nodes"))
	keep("events.txt", kubectl("get", "events", "-A", "--sort-by=.lastTimestamp"))
	keep("policies.yaml", kubectl("get", "networkpolicies,clusternetworkpolicies", "-A", "-o", "yaml"))
	pods, err := b.Kubectl(ctx, "-n", namespace, "get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.metadata.labels.app\.kubernetes\.io/component}{"\n"}{end}`)
	if err != nil {
		return err
	}
	for line := range strings.Lines(pods) {
		f := append(strings.Fields(line), "", "", "")
		pod := f[0]
		keep(pod+".log", kubectl("-n", namespace, "logs", pod, "--all-containers", "--tail=-1"))
		keep(pod+".before.log", kubectl("-n", namespace, "logs", pod, "--all-containers", "--previous"))
		if strings.HasPrefix(pod, "tortie-agent-") {
			keep(f[1]+".status.txt", kubectl("-n", namespace, "exec", pod, "--", "/tortie", "status"))
		}
	}
	nodes, err := b.Nodes()
	for _, n := range nodes {
		keep(n+".nft.txt", func() (string, error) { return b.Exec(ctx, n, "nft", "list", "ruleset") })
		keep(n+".ip.txt", func() (string, error) {
			return b.Exec(ctx, n, "sh", "-c", "ip address; ip route show table all; ip -6 route; ip neigh")
		})
	}
	return err
}
