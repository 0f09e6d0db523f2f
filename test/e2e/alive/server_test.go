//go:build e2e && linux

package alive

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The API server is away for a while: policy and traffic go on, also over a restart of the agent; a new pod (a static one:
// nobody else makes pods then) waits; and when the server is back, all that was missed is made up for.
func TestAPIServerDown(t *testing.T) {
	s := openScene(t)
	up := strings.Fields(s.upOptions())
	f := s.startFlow()
	s.testbed("stop", "hub", "kube-apiserver")
	back := func() { s.testbed(append([]string{"up"}, up...)...) }
	t.Cleanup(back)
	s.killAgent("node1")
	s.killAgent("node2")
	manifest := s.staticPod("node2", spec{name: "waits", labels: isClient})
	away := time.Now()
	if eventually(45*time.Second, func() bool { return f.kept.failed.Load()+f.fresh.failed.Load()+f.leaked.ok.Load() > 0 }) {
		t.Errorf("after %s without the API server the traffic is not as it was", time.Since(away).Round(time.Second))
	}
	back()
	f.lossless()
	s.agentsReady()
	s.holds()
	static := s.enter("waits-node2")
	s.allowed(static.inside, s.server.server())
	// a policy made after: the watches go on
	s.only("nobody", isServer, map[string]string{"role": "nobody"})
	s.in("delete", "networkpolicy", "only-clients")
	s.denied(s.client.inside, s.server.server())
	if err := os.Remove(manifest); err != nil {
		t.Error(err)
	}
}

// upOptions are those that the bed was made with.
func (c *cluster) upOptions() string {
	c.Helper()
	b, err := os.ReadFile(filepath.Join(c.bed.State(), "run/args"))
	if err != nil {
		c.Fatal(err)
	}
	return string(b)
}

// staticPod puts a manifest where a node's kubelet looks for some, and returns its path. Its name gets the node's appended.
func (c *cluster) staticPod(node string, s spec) string {
	c.Helper()
	o := c.object(s)
	delete(o["spec"].(map[string]any), "nodeName")
	b, err := json.Marshal(o)
	if err != nil {
		c.Fatal(err)
	}
	pid, err := c.machine(node)
	if err != nil {
		c.Fatal(err)
	}
	path := filepath.Join("/proc", pid, "root/etc/kubernetes/manifests", c.ns+".json")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { os.Remove(path) })
	return path
}
