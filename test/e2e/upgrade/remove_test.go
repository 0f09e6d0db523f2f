//go:build e2e && linux

package upgrade

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// bare leaves a cluster without Tortie.
func (b *bed) bare() {
	b.Helper()
	if b.Kubectl("get", "namespace", bedtest.System, "--ignore-not-found", "-o", "name") != "" {
		b.pull(b.tree, b.nodes()...)
		b.follow("Remove it")
	}
	b.gone()
}

// TestRemove: after what docs/install-kubernetes.md says nothing is left, in the cluster and on its nodes. Somebody has used
// it: there are pods, and objects of every sort that a finalizer might keep.
func TestRemove(t *testing.T) {
	b := open(t)
	if b.Kubectl("get", "namespace", bedtest.System, "--ignore-not-found", "-o", "name") == "" {
		b.install(b.tree)
	}
	b.rolledOut()
	b.MakeNamespace()
	s := b.Scene()
	b.objects()
	b.pull(b.tree, b.nodes()...)
	b.follow("Remove it")
	b.gone()
	// pods run on, as the page says, and can be removed when there is a network again
	if b.interfaces(s.Server.Node) == 0 {
		t.Error("the interfaces of pods that run are gone")
	}
	b.install(b.tree)
	b.In("delete", "pods", "--all", "--timeout="+patience.String())
	for _, node := range b.nodes() {
		got, want := 0, 0
		same := func() bool { got, want = b.interfaces(node), b.podsOn(node); return got == want }
		if !bedtest.Eventually(patience, same) {
			t.Errorf("%s has interfaces of %d pods, and %d pods", node, got, want)
		}
	}
}

// objects makes a tier with a policy in it, and a pool: a controller has to let go of tiers.
func (b *bed) objects() {
	b.Helper()
	v3 := func(kind, name string, spec map[string]any) {
		b.Apply(map[string]any{"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec})
	}
	v3("Tier", "ops", map[string]any{"order": 300})
	v3("GlobalNetworkPolicy", "ops.pass", map[string]any{"tier": "ops", "selector": "all()", "types": []any{"Ingress"}, "ingress": []any{map[string]any{"action": "Pass"}}})
	v3("GlobalNetworkSet", "friends", map[string]any{"nets": []any{"192.0.2.0/24"}})
	held := func() bool {
		return b.Kubectl("get", "tiers.projectcalico.org", "ops", "-o", "jsonpath={.metadata.finalizers}") != ""
	}
	if !bedtest.Eventually(patience, held) {
		b.Error("no controller holds the tier")
	}
}

// follow does what a section of docs/install-kubernetes.md says, each command within a time in which it must not hang.
func (b *bed) follow(section string) {
	b.Helper()
	for _, command := range b.commands(section) {
		b.do(command)
	}
}

// do runs a command of the page.
func (b *bed) do(command string) {
	b.Helper()
	f := strings.Fields(command)
	if f[0] != "kubectl" {
		b.Fatalf("docs/install-kubernetes.md: %q is not a command of kubectl", command)
	}
	for i := range f {
		if strings.HasPrefix(f[i], "deploy/") {
			f[i] = b.tree.file(f[i]) // kubectl runs elsewhere
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := b.Bed.Kubectl(ctx, f[1:]...); err != nil {
		b.Fatalf("docs/install-kubernetes.md: %s: %v", command, err)
	}
}

var block = regexp.MustCompile("(?s)```sh\n(.*?)```")

// commands are those of a section's first block.
func (b *bed) commands(section string) []string {
	b.Helper()
	text, err := os.ReadFile(b.tree.file("docs/install-kubernetes.md"))
	if err != nil {
		b.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "\n## "+section+"\n")
	m := block.FindStringSubmatch(after)
	if !found || m == nil {
		b.Fatalf("docs/install-kubernetes.md has no commands in a section %q", section)
	}
	var commands []string
	for line := range strings.Lines(m[1]) {
		line, _, _ = strings.Cut(line, " #")
		commands = append(commands, strings.TrimSpace(line))
	}
	return commands
}

// gone says that nothing of Tortie is in the cluster, and on its nodes nothing but the interfaces of pods that still run.
func (b *bed) gone() {
	b.Helper()
	for name := range strings.Lines(b.Kubectl("get", "-o", "name", "namespaces,crds,clusterroles,clusterrolebindings,priorityclasses,"+
		"validatingadmissionpolicies,validatingadmissionpolicybindings,roles,rolebindings,configmaps,leases,poddisruptionbudgets", "-A")) {
		if strings.Contains(name, "tortie") || strings.Contains(name, "projectcalico.org") {
			b.Errorf("in the cluster is left: %s", strings.TrimSpace(name))
		}
	}
	annotations := b.Kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.annotations}")
	if strings.Contains(annotations, "tortie.io") || strings.Contains(annotations, "projectcalico.org") {
		b.Errorf("on Node objects is left: %s", annotations)
	}
	const look = `nft list tables | grep -w tortie
		ip -4 route show table all proto 84; ip -6 route show table all proto 84; ip rule show | grep -w 84
		ls /etc/cni/net.d/*tortie* /opt/cni/bin/*tortie* 2>/dev/null
		find /var/lib/tortie /run/tortie -mindepth 1 2>/dev/null | grep -v /agent.lock$ # it is locked while this is looked at, and gone with the next boot
		true`
	for _, node := range b.nodes() {
		if left := strings.TrimSpace(b.on(node, look)); left != "" {
			b.Errorf("on %s is left:\n%s", node, left)
		}
	}
}

// interfaces is how many a node has that are pods'.
func (b *bed) interfaces(node string) int {
	b.Helper()
	return strings.Count(b.on(node, "ls -d /proc/sys/net/ipv4/conf/tort* 2>/dev/null || true"), "tort")
}

// podsOn is how many pods a node has that have a network of their own.
func (b *bed) podsOn(node string) int {
	b.Helper()
	host := strings.Fields(b.Kubectl("get", "pods", "-A", "--field-selector", "spec.nodeName="+node, "-o", "jsonpath={range .items[*]}host:{.spec.hostNetwork} {end}"))
	return len(slices.DeleteFunc(host, func(s string) bool { return s == "host:true" }))
}
