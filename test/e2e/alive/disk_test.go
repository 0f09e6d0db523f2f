//go:build e2e && linux

package alive

import (
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// state is where agents keep what must outlive them.
const state = "/var/lib/tortie"

// The disk with the agent's state is full: new pods are refused, and told why; traffic and policy go on, also over an agent's
// restart; and when there is room again, so do new pods. No entry of the ledger is torn.
func TestFullDisk(t *testing.T) {
	s := bedtest.OpenScene(t)
	going := s.Start(bedtest.Spec{Name: "going", Node: "node1", Labels: bedtest.IsClient})[0]
	smallDisk(s.Cluster, "node1")
	f := s.StartPatientFlow()
	sh(s.Cluster, "node1", "! dd if=/dev/zero of="+state+"/filler bs=4k 2>/dev/null; df "+state+" | grep -q 100%")

	s.Apply(s.Object(bedtest.Spec{Name: "refused", Node: "node1", Labels: bedtest.IsClient}))
	eventually(s.Cluster, 90*time.Second, "an event that says why a pod does not start", func() bool {
		return strings.Contains(field(s.Cluster, "{.items[*].message}", "events", "-n", s.NS, "--field-selector",
			"reason=FailedCreatePodSandBox,involvedObject.name=refused"), "no space left on device")
	})
	killAgent(s.Cluster, "node1")
	s.In("delete", "pod", "going", "--now", "--wait=false")
	s.Only("also-strangers", map[string]string{"app": "other"}, nil) // node1 has news
	undisturbed(f, 20*time.Second, "with a full disk")
	f.Lossless()
	s.AgentsReady()
	swap(s)

	sh(s.Cluster, "node1", "rm "+state+"/filler")
	refused := s.Enter("refused")
	s.Allowed(refused.Inside, s.Server.Server())
	held(s.Cluster, refused)
	s.In("wait", "pod/going", "--for=delete", "--timeout=120s")
	gone(s.Cluster, "node1", going.Addrs[0])
	eventually(s.Cluster, 60*time.Second, "the release of the address of a pod that is gone", func() bool { return len(holding(s.Cluster, "going")) == 0 })
	if torn := sh(s.Cluster, "node1", "find "+state+" -name '*.bad-*'"); torn != "" {
		t.Errorf("damaged: %s", torn)
	}
	s.Holds()
}

// smallDisk gives the agent of a node a disk of its own for its state, for the time of the test.
func smallDisk(c *bedtest.Cluster, node string) {
	c.Helper()
	restart := func() {
		c.Kubectl("-n", bedtest.System, "delete", "pod", c.Agent(node), "--now")
		c.AgentsReady()
	}
	sh(c, node, "cp -a "+state+" /run/state && mount -t tmpfs -o size=1m,mode=700 tmpfs "+state+" && cp -a /run/state/. "+state)
	c.Cleanup(func() {
		// a bind mount shows what is below
		sh(c, node, "rm -f "+state+"/filler; mkdir -p /run/below && mount --bind /var /run/below && rm -rf /run/below/lib/tortie/* && "+
			"cp -a "+state+"/. /run/below/lib/tortie && umount /run/below && umount -l "+state)
		restart()
	})
	restart()
}
