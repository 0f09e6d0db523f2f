//go:build e2e && linux

package alive

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// The API server is away for a while: policy and traffic go on, also over a restart of the agent; a new pod (a static one:
// nobody else makes pods then) waits; and when the server is back, all that was missed is made up for.
func TestAPIServerDown(t *testing.T) {
	s := bedtest.OpenScene(t)
	up := strings.Fields(s.UpOptions())
	f := s.StartFlow()
	s.Testbed("stop", "hub", "kube-apiserver")
	back := func() { s.Testbed(append([]string{"up"}, up...)...) }
	t.Cleanup(back)
	killAgent(s.Cluster, "node1")
	killAgent(s.Cluster, "node2")
	manifest := s.StaticPod("node2", bedtest.Spec{Name: "waits", Labels: bedtest.IsClient})
	away := time.Now()
	if bedtest.Eventually(20*time.Second, func() bool { return f.Kept.Failed.Load()+f.Fresh.Failed.Load()+f.Leaked.OK.Load() > 0 }) {
		t.Errorf("after %s without the API server the traffic is not as it was", time.Since(away).Round(time.Second))
	}
	back()
	f.Lossless()
	s.AgentsReady()
	s.Holds()
	static := s.Enter("waits-node2")
	s.Allowed(static.Inside, s.Server.Server())
	// a policy made after: the watches go on
	s.Only("nobody", bedtest.IsServer, map[string]string{"role": "nobody"})
	s.In("delete", "networkpolicy", "only-clients")
	s.Denied(s.Client.Inside, s.Server.Server())
	if err := os.Remove(manifest); err != nil {
		t.Error(err)
	}
}
