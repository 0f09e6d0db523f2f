//go:build e2e && linux

package alive

import (
	"os"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// The API server is away from the nodes for so long that the revisions that they know are gone when it comes back: policy
// and traffic go on, also over an agent's restart; what ends meanwhile is unplugged, what begins waits; and all that was
// missed is made up for, nothing is forgotten. TORTIE_E2E_AWAY says for how long nobody has an API server (40s).
func TestAPIServerDownForLong(t *testing.T) {
	away := 40 * time.Second
	if d := os.Getenv("TORTIE_E2E_AWAY"); d != "" {
		var err error
		if away, err = time.ParseDuration(d); err != nil {
			t.Fatalf("TORTIE_E2E_AWAY: %v", err)
		}
	}
	s := bedtest.OpenScene(t)
	leaving := s.StaticPod("node1", bedtest.Spec{Name: "leaves", Labels: bedtest.IsClient})
	leaves := s.Enter("leaves-node1")
	held(s.Cluster, leaves)
	f := s.StartPatientFlow()
	t.Cleanup(func() { up(s.Cluster) })
	stop(s.Cluster, "hub", "kube-apiserver")
	killAgent(s.Cluster, "node1") // that of node2 will go on from a revision
	if err := os.Remove(leaving); err != nil {
		t.Fatal(err)
	}
	s.StaticPod("node2", bedtest.Spec{Name: "comes", Labels: bedtest.IsClient})
	gone(s.Cluster, "node1", leaves.Addrs[0])
	undisturbed(f, away, "without an API server")

	// it comes back, but not to the nodes
	cut := func(how string) {
		sh(s.Cluster, "hub", "iptables -w "+how+" INPUT -i br0 -p tcp --dport 6443 -j REJECT")
	}
	cut("-I")
	cleared := false
	t.Cleanup(func() {
		if !cleared {
			cut("-D")
		}
	})
	up(s.Cluster)
	s.Only("nobody", bedtest.IsServer, map[string]string{"role": "nobody"})
	s.In("delete", "networkpolicy", "only-clients")
	compact(s.Cluster)
	if len(holding(s.Cluster, "leaves-node1")) != 1 || len(holding(s.Cluster, "comes-node2")) != 0 {
		t.Error("the nodes reach the API server: this test tests nothing")
	}
	undisturbed(f, 10*time.Second, "while the nodes don't reach the API server")
	f.Lossless()

	cut("-D")
	cleared = true
	led(s.Cluster)
	s.Denied(s.Client.Inside, s.Server.Server()) // what was missed
	s.Only("only-clients", bedtest.IsServer, bedtest.IsClient)
	s.In("delete", "networkpolicy", "nobody")
	s.AgentsReady()
	s.Holds()
	comes := s.Enter("comes-node2")
	s.Allowed(comes.Inside, s.Server.Server())
	held(s.Cluster, comes)
	eventually(s.Cluster, 120*time.Second, "the release of the address of who has left", func() bool { return len(holding(s.Cluster, "leaves-node1")) == 0 })
}
