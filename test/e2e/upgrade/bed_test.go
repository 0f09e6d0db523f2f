//go:build e2e && linux

package upgrade

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e"
	"github.com/tortie/tortie/test/e2e/bedtest"
)

const (
	repository = "ghcr.io/tortie/tortie"
	daemonSet  = "daemonset/tortie-agent"
	deployment = "deployment/tortie-controllers"
	// patience is for what a machine must get done that does much else.
	patience = 5 * time.Minute
)

// release is one of Tortie: the folder of its sources, in which its image was built.
type release struct{ dir, version string }

func (r release) image() string        { return repository + ":" + r.version }
func (r release) file(s string) string { return filepath.Join(r.dir, s) }
func (r release) archive() string      { return r.file("bin/images/tortie.tar") }
func (r release) manifest() string     { return r.file("deploy/tortie.yaml") }
func (r release) chart() string        { return r.file("deploy/helm/tortie") }

// bed is a cluster, and two releases.
type bed struct {
	*bedtest.Cluster
	old, tree release
}

func open(t *testing.T) *bed {
	t.Helper()
	b := &bed{Cluster: bedtest.OpenBare(t)}
	root, err := filepath.Abs(b.Bed.Root)
	if err != nil {
		t.Fatal(err)
	}
	old, err := b.Bed.BuildOld(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	b.old = release{old, e2e.OldVersion}
	b.tree = release{root, b.chartVersion(root)}
	for _, r := range []release{b.old, b.tree} {
		if _, err := os.Stat(r.archive()); err != nil {
			t.Fatalf("the image of `make images`: %v", err)
		}
	}
	if b.old.version == b.tree.version {
		t.Fatalf("%s is the older release: this tree's chart must have another version", b.tree.version)
	}
	return b
}

var appVersion = regexp.MustCompile(`(?m)^appVersion: *(\S+)$`)

func (b *bed) chartVersion(root string) string {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy/helm/tortie/Chart.yaml"))
	m := appVersion.FindSubmatch(text)
	if err != nil || m == nil {
		b.Fatalf("the chart's version: %v", err)
	}
	return string(m[1])
}

func (b *bed) nodes() []string {
	b.Helper()
	nodes, err := b.Bed.Nodes()
	if err != nil {
		b.Fatal(err)
	}
	return nodes
}

// on runs a script on a node.
func (b *bed) on(node, script string) string {
	b.Helper()
	out, err := b.Bed.Exec(context.Background(), node, "sh", "-c", script)
	if err != nil {
		b.Fatalf("on %s: %v", node, err)
	}
	return out
}

// pull does what a node's runtime does with a registry: from then on the node has the image.
func (b *bed) pull(r release, nodes ...string) {
	b.Helper()
	for _, node := range nodes {
		b.on(node, "ctr -n k8s.io images import "+r.archive()+" >/dev/null")
	}
}

// forget takes the names of an image from nodes, which have no way to a registry.
func (b *bed) forget(r release, nodes ...string) {
	b.Helper()
	for _, node := range nodes {
		b.on(node, "ctr -n k8s.io images ls -q | grep -Fx "+r.image()+" | xargs -r ctr -n k8s.io images rm --sync")
	}
}

// install puts a release on a cluster that has none.
func (b *bed) install(r release) {
	b.Helper()
	b.pull(r, b.nodes()...)
	b.Kubectl("apply", "-f", r.manifest())
	b.Kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/ippools.projectcalico.org")
	b.Kubectl("apply", "-f", r.file("examples/kubernetes/pool.yaml"))
	b.rolledOut()
	b.running(r)
	b.restartOthers()
}

// rolledOut waits until everything is of the version that is wanted, and ready.
func (b *bed) rolledOut() {
	b.Helper()
	for _, what := range []string{daemonSet, deployment} {
		b.Kubectl("-n", bedtest.System, "rollout", "status", what, "--timeout="+patience.String())
	}
	b.Kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout="+patience.String())
}

// set has agents and controllers have settings that the manifest does not know of.
func (b *bed) set(settings string) {
	b.Helper()
	b.Kubectl("-n", bedtest.System, "create", "configmap", "tortie-settings", "--from-literal=agent.yaml="+settings)
}

// logsJSON says that the setting logFormat: json holds.
func (b *bed) logsJSON() {
	b.Helper()
	pods := strings.Fields(b.Kubectl("-n", bedtest.System, "get", "pods", "-l", "app.kubernetes.io/component=agent", "-o", "name"))
	for _, pod := range pods {
		if log := b.Kubectl("-n", bedtest.System, "logs", pod); !strings.HasPrefix(log, "{") {
			b.Errorf("%s does not have the settings of tortie-settings: it logs %.80q", pod, log)
		}
	}
	if len(pods) != len(b.nodes()) {
		b.Errorf("agents are %v", pods)
	}
}

// restartOthers makes pods anew that have their network from what was there before.
func (b *bed) restartOthers() {
	b.Helper()
	b.Kubectl("-n", "kube-system", "delete", "pods", "--all", "--timeout="+patience.String())
	b.Kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout="+patience.String())
}

// running says that all agents and controllers are of a release.
func (b *bed) running(r release) {
	b.Helper()
	for _, node := range b.nodes() {
		if got := b.version(node); (got == b.old.version) != (r == b.old) { // this tree's is what git says of it
			b.Errorf("the agent of %s is %s, want %s", node, got, r.version)
		}
	}
	images := strings.Fields(b.Kubectl("-n", bedtest.System, "get", "pods", "-l", "app.kubernetes.io/name=tortie",
		"--field-selector", "status.phase=Running", "-o", "jsonpath={.items[*].spec.containers[0].image}"))
	for _, image := range images {
		if image != r.image() {
			b.Errorf("there is a pod of %s, want %s", image, r.image())
		}
	}
	if want := 2 * len(b.nodes()); len(images) != want {
		b.Errorf("%d pods of agents and controllers, want %d", len(images), want)
	}
}

// version is what a node's agent says that it is.
func (b *bed) version(node string) string {
	b.Helper()
	f := strings.Fields(b.Kubectl("-n", bedtest.System, "exec", b.Agent(node), "--", "/tortie", "version"))
	if len(f) < 2 {
		b.Fatalf("the agent of %s says of its version: %q", node, f)
	}
	return f[1]
}
