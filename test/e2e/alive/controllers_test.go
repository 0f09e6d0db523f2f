//go:build e2e && linux

package alive

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// All controllers die: agents do without them, and one of them leads again.
func TestControllersKilled(t *testing.T) {
	s := bedtest.OpenScene(t)
	f := s.StartPatientFlow()
	lease := func(what string) string {
		return field(s.Cluster, "{.spec."+what+"}", "lease", "-n", bedtest.System, "tortie-controllers")
	}
	for _, node := range []string{"node1", "node2"} {
		const kill = `for p in /proc/[0-9]*; do
			case $(tr '\0' ' ' <$p/cmdline 2>/dev/null) in /tortie\ controllers*) kill -9 ${p#/proc/} && echo killed ;; esac
		done`
		if out, err := s.Bed.Exec(context.Background(), node, "sh", "-c", kill); err != nil || !strings.Contains(out, "killed") {
			t.Fatalf("killing the controllers of %s: %q, %v", node, out, err)
		}
	}
	was := lease("renewTime")
	late := s.Start(bedtest.Spec{Name: "late", Node: "node1", Labels: bedtest.IsClient})[0]
	s.Allowed(late.Inside, s.Server.Server())
	s.In("delete", "pod", "late", "--now")
	eventually(s.Cluster, 30*time.Second, "the release of an address without controllers", func() bool { return len(holding(s.Cluster, "late")) == 0 })
	f.Lossless()
	swap(s)
	eventually(s.Cluster, 180*time.Second, "another leader", func() bool { return lease("renewTime") > was })
	s.Kubectl("-n", bedtest.System, "rollout", "status", "deployment/tortie-controllers", "--timeout=120s")
}

// A node is deleted from the cluster, without a word from its agent: what it had is taken back, after the grace and not
// before, but for the address of a pod that lives.
func TestNodeDeleted(t *testing.T) {
	s := bedtest.OpenScene(t)
	const grace = 40 * time.Second
	s.Apply(map[string]any{"apiVersion": "projectcalico.org/v3", "kind": "KubeControllersConfiguration", "metadata": map[string]any{"name": "default"},
		"spec": map[string]any{"controllers": map[string]any{"node": map[string]any{"leakGracePeriod": grace.String(), "reconcilerPeriod": "10s"}}}})
	t.Cleanup(func() { s.Kubectl("delete", "kubecontrollersconfigurations.projectcalico.org", "default") })
	s.Apply(map[string]any{"apiVersion": "v1", "kind": "Node", "metadata": map[string]any{"name": "node9"}})
	ghosts := block(s.Cluster, "10.244.222.0/26", "ghost", "11111111-1111-1111-1111-111111111111")
	lives := block(s.Cluster, "10.244.223.0/26", "stranger", s.Stranger.UID)
	t.Cleanup(func() {
		for _, name := range []string{ghosts, lives} {
			s.Kubectl("delete", "ipamblocks.projectcalico.org", name, "--ignore-not-found")
			s.Kubectl("delete", "blockaffinities.projectcalico.org", "node9-"+name, "--ignore-not-found")
		}
	})
	there := func(name string) bool {
		return field(s.Cluster, "{.metadata.name}", "ipamblocks.projectcalico.org", name, "--ignore-not-found") != ""
	}
	f := s.StartPatientFlow()
	s.Kubectl("delete", "node", "node9")
	deleted := time.Now()
	if bedtest.Eventually(grace/2, func() bool { return !there(ghosts) || len(holding(s.Cluster, "ghost")) == 0 }) {
		t.Errorf("the addresses of a node that is gone are taken back after %s, want %s", time.Since(deleted).Round(time.Second), grace)
	}
	eventually(s.Cluster, 4*time.Minute, "the end of a block of a node that is gone", func() bool {
		return !there(ghosts) && field(s.Cluster, "{.metadata.name}", "blockaffinities.projectcalico.org", "node9-"+ghosts, "--ignore-not-found") == ""
	})
	t.Logf("after %s", time.Since(deleted).Round(time.Second))
	if len(holding(s.Cluster, "stranger")) != 2 {
		t.Error("an address of a pod that lives was taken back")
	}
	f.Lossless()
}

// block makes a block of node9 of which a pod of the test has the first address.
func block(c *bedtest.Cluster, cidr, pod, uid string) (name string) {
	c.Helper()
	name = strings.NewReplacer(".", "-", "/", "-").Replace(cidr)
	allocations, free := []any{0}, []int{}
	for i := 1; i < 64; i++ {
		allocations, free = append(allocations, nil), append(free, i)
	}
	c.Apply(map[string]any{"apiVersion": "projectcalico.org/v3", "kind": "BlockAffinity", "metadata": map[string]any{"name": "node9-" + name},
		"spec": map[string]any{"state": "confirmed", "node": "node9", "type": "host", "cidr": cidr, "deleted": "false"}})
	c.Apply(map[string]any{"apiVersion": "projectcalico.org/v3", "kind": "IPAMBlock", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"cidr": cidr, "affinity": "host:node9", "allocations": allocations, "unallocated": free, "deleted": false,
			"sequenceNumber": 1, "sequenceNumberForAllocation": map[string]any{"0": 1},
			"attributes": []any{map[string]any{"handle_id": "handle-" + pod, "secondary": map[string]string{
				"namespace": c.NS, "pod": pod, "node": "node9", "uid": uid}}}}})
	return name
}
