//go:build e2e && linux

package alive

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// bootFile is where an agent finds the id of its host's boot in this test: all containers of the bed see that of the one
// kernel. Who starts while it is a pipe waits for somebody to write into that.
const bootFile, bootPipe = state + "/boot-id-of-test", state + "/boot-id-of-test.pipe"

// sayBoot is the command that has agents find an id, those that wait for it, too.
func sayBoot(id string) string {
	return "[ ! -p " + bootFile + " ] || mv " + bootFile + " " + bootPipe + "; echo " + id + " >" + bootFile +
		"; [ ! -p " + bootPipe + " ] || timeout 5 sh -c 'echo " + id + " >" + bootPipe + "' || true; rm -f " + bootPipe
}

// A node is rebooted, and its kubelet says so: its boot has another id. Until its agent has said that it enforces policy in
// that boot, the node has no network, and nobody is placed on it.
func TestNewBoot(t *testing.T) {
	s := bedtest.OpenScene(t)
	was := s.Server.Server()
	now := field(s.Cluster, "{.status.nodeInfo.bootID}", "node", "node2")
	const next = "01234567-89ab-cdef-0123-456789abcdef"
	for _, node := range []string{"node1", "node2"} {
		sh(s.Cluster, node, sayBoot(now))
		t.Cleanup(func() { sh(s.Cluster, node, "rm -f "+bootFile) })
	}
	bootIDFile(s.Cluster)
	of := filepath.Join(s.Bed.State(), "run/machines/node2/boot_id") // machine.sh puts it over the kernel's
	t.Cleanup(func() {
		os.Remove(of)
		sh(s.Cluster, "node2", sayBoot(now))
		s.Testbed("reboot", "node2")
		eventually(s.Cluster, 180*time.Second, "node2", func() bool { return networkOf(s.Cluster, "node2") == (network{Boot: now, Said: now, Status: "False"}) })
	})
	if err := os.WriteFile(of, []byte(next+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sh(s.Cluster, "node2", "rm "+bootFile+" && mkfifo "+bootFile) // it is as if the agent took long to start

	f := s.Flow()
	f.Loop(&f.Leaked, func() error { return bedtest.Try(s.Stranger.Inside, was) })
	s.Testbed("reboot", "node2")
	eventually(s.Cluster, 240*time.Second, "node2 without a network in its new boot", func() bool {
		n := networkOf(s.Cluster, "node2")
		return n.Boot == next && n.Status == "True" && n.Tainted
	})
	if n := networkOf(s.Cluster, "node2"); n.Said == next || !n.Tainted {
		t.Errorf("node2 is used though its agent has not said that it enforces: %+v", n)
	}
	sh(s.Cluster, "node2", sayBoot(next))
	eventually(s.Cluster, 240*time.Second, "node2's network in its new boot", func() bool {
		n := networkOf(s.Cluster, "node2")
		return n.Said == next && n.Status == "False" && !n.Tainted
	})
	f.Sealed()
	s.AgentsReady()
	s.Server = reenter(s.Cluster, "server")
	s.Holds()
}

// network is what a Node says of its boot and network.
type network struct {
	Boot, Said, Status string
	Tainted            bool
}

func networkOf(c *bedtest.Cluster, node string) network {
	c.Helper()
	var o struct {
		Metadata struct{ Annotations map[string]string }
		Spec     struct{ Taints []struct{ Key string } }
		Status   struct {
			NodeInfo   struct{ BootID string }
			Conditions []struct{ Type, Status string }
		}
	}
	if err := json.Unmarshal([]byte(c.Kubectl("get", "node", node, "-o", "json")), &o); err != nil {
		c.Fatal(err)
	}
	n := network{Boot: o.Status.NodeInfo.BootID, Said: o.Metadata.Annotations["tortie.io/boot-id"]}
	for _, t := range o.Spec.Taints {
		n.Tainted = n.Tainted || t.Key == "node.kubernetes.io/network-unavailable"
	}
	for _, x := range o.Status.Conditions {
		if x.Type == "NetworkUnavailable" {
			n.Status = x.Status
		}
	}
	return n
}

// bootIDFile has agents read the id of the boot from a file, until the test ends.
func bootIDFile(c *bedtest.Cluster) {
	c.Helper()
	config := field(c, `{.data.agent\.yaml}`, "configmap", "-n", bedtest.System, "tortie-config")
	set := func(text string) {
		b, err := json.Marshal(map[string]any{"data": map[string]string{"agent.yaml": text}})
		if err != nil {
			c.Fatal(err)
		}
		c.Kubectl("-n", bedtest.System, "patch", "configmap", "tortie-config", "--type=merge", "-p", string(b))
		c.Kubectl("-n", bedtest.System, "rollout", "restart", "daemonset/tortie-agent")
		c.AgentsReady()
	}
	c.Cleanup(func() { set(config) })
	set(strings.TrimSuffix(config, "\n") + "\nbootIDFile: " + bootFile + "\n")
}
