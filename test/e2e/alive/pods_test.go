//go:build e2e && linux

package alive

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// noSandboxRebuilt says that no pod of the test had to be tried again.
func (c *cluster) noSandboxRebuilt() {
	c.Helper()
	events := c.in("get", "events", "--field-selector", "reason=FailedCreatePodSandBox", "-o", `jsonpath={range .items[*]}{.involvedObject.name}: {.message}{"\n"}{end}`)
	if events != "" {
		c.Errorf("sandboxes were made again:\n%s", events)
	}
}

func TestHundredPodsAtOnce(t *testing.T) {
	c := open(t)
	c.apply(map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "many", "namespace": c.ns},
		"spec": map[string]any{
			"replicas": 100, "selector": map[string]any{"matchLabels": map[string]any{"app": "many"}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"app": "many"}},
				"spec": map[string]any{
					"nodeSelector":                  map[string]any{"kubernetes.io/hostname": "node2"},
					"terminationGracePeriodSeconds": 0, "enableServiceLinks": false, "automountServiceAccountToken": false,
					"containers": []any{map[string]any{"name": "main", "image": "registry.k8s.io/pause:3.10.1"}},
				},
			},
		},
	})
	start := time.Now()
	c.in("rollout", "status", "deployment/many", "--timeout=600s")
	t.Logf("100 pods on one node after %s", time.Since(start).Round(time.Second))
	c.noSandboxRebuilt()
	seen := map[string]bool{}
	for _, ip := range strings.Fields(c.in("get", "pods", "-o", "jsonpath={.items[*].status.podIP}")) {
		if seen[ip] {
			t.Errorf("two pods have %s", ip)
		}
		seen[ip] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d addresses, want 100", len(seen))
	}
}

func TestHostPort(t *testing.T) {
	c := open(t)
	c.start(spec{name: "server", node: "node2", labels: isServer, hostPort: 18080})
	node := netip.AddrPortFrom(netip.MustParseAddr("172.30.0.12"), 18080)
	c.allowed(c.hub(), node)
	client := c.start(spec{name: "client", node: "node1", labels: isClient}, spec{name: "stranger", node: "node1"})
	c.allowed(client[0].inside, node)
	// policy sees the pod that the port leads to
	c.only("only-nobody", isServer, map[string]string{"role": "nobody"})
	c.denied(client[0].inside, node)
	c.denied(c.hub(), node)
}

func TestStaticPod(t *testing.T) {
	s := openScene(t)
	manifest := s.staticPod("node1", spec{name: "static", labels: isClient})
	static := s.enter("static-node1")
	s.allowed(static.inside, s.server.server())
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	s.in("wait", "pod/static-node1", "--for=delete", "--timeout=60s")
}

// Annotations of a pod and of its namespace choose pools and addresses.
func TestAddressesByAnnotation(t *testing.T) {
	c := open(t)
	pool := func(name, cidr string) {
		c.apply(map[string]any{"apiVersion": "projectcalico.org/v3", "kind": "IPPool",
			"metadata": map[string]any{"name": name}, "spec": map[string]any{"cidr": cidr, "natOutgoing": true, "nodeSelector": "all()", "assignmentMode": "Manual"}})
		c.Cleanup(func() { c.kubectl("delete", "ippools.projectcalico.org", name) })
	}
	pool("alive-a", "10.244.250.0/24")
	pool("alive-b", "10.244.251.0/24")
	c.kubectl("annotate", "namespace", c.ns, `cni.projectcalico.org/ipv4pools=["alive-a"]`)
	pods := c.start(
		spec{name: "of-namespace", node: "node1"},
		spec{name: "of-pod", node: "node2", annotations: map[string]string{"cni.projectcalico.org/ipv4pools": `["alive-b"]`}},
		spec{name: "by-address", node: "node2", annotations: map[string]string{"cni.projectcalico.org/ipAddrs": `["10.244.251.77"]`}},
	)
	for i, want := range []string{"10.244.250.0/24", "10.244.251.0/24", "10.244.251.77/32"} {
		if got := pods[i].addrs[0]; !netip.MustParsePrefix(want).Contains(got) {
			t.Errorf("%s has %s, want one of %s", pods[i].name, got, want)
		}
	}
	c.allowed(pods[0].inside, pods[1].server())
	c.allowed(pods[1].inside, pods[0].server())
	c.in("delete", "pods", "--all", "--now")
}

// db-0 of a StatefulSet is made anew elsewhere while its node's kubelet is silent: what still runs of the old one, and
// whoever gets its address next, is not db-0.
func TestNameUsedAgainElsewhere(t *testing.T) {
	s := openScene(t)
	was := s.start(spec{name: "db-0", node: "node1", labels: isClient})[0]
	s.allowed(was.inside, s.server.server())
	up := strings.Fields(s.upOptions())
	s.testbed("stop", "node1", "kubelet")
	back := func() { s.testbed(append([]string{"up"}, up...)...) }
	t.Cleanup(back)
	s.in("delete", "pod", "db-0", "--force", "--grace-period=0")
	now := s.start(spec{name: "db-0", node: "node2", labels: isClient})[0]
	if now.addrs[0] == was.addrs[0] {
		t.Fatalf("the new db-0 has the address of the old one, which still runs: %s", now.addrs[0])
	}
	s.allowed(now.inside, s.server.server())
	s.denied(was.inside, s.server.server())
	back()
	// the kubelet ends what is left, and somebody else asks for the address
	heir := spec{name: "heir", node: "node1", annotations: map[string]string{"cni.projectcalico.org/ipAddrs": fmt.Sprintf("[%q]", was.addrs[0])}}
	if !eventually(120*time.Second, func() bool {
		ns, err := s.namespaceOf("node1", was.addrs[0])
		if err == nil {
			ns.Close()
		}
		return err != nil
	}) {
		t.Fatal("the old db-0 still runs")
	}
	p := s.start(heir)[0]
	if p.addrs[0] != was.addrs[0] {
		t.Fatalf("the heir has %s, want %s", p.addrs[0], was.addrs[0])
	}
	s.denied(p.inside, s.server.server())
}
