//go:build e2e && linux

package alive

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

func TestHundredPodsAtOnce(t *testing.T) {
	c := bedtest.Open(t)
	c.Apply(map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "many", "namespace": c.NS},
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
	c.In("rollout", "status", "deployment/many", "--timeout=600s")
	t.Logf("100 pods on one node after %s", time.Since(start).Round(time.Second))
	c.NoSandboxRebuilt()
	seen := map[string]bool{}
	for _, ip := range strings.Fields(c.In("get", "pods", "-o", "jsonpath={.items[*].status.podIP}")) {
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
	c := bedtest.Open(t)
	c.Start(bedtest.Spec{Name: "server", Node: "node2", Labels: bedtest.IsServer, HostPort: 18080})
	node := netip.AddrPortFrom(netip.MustParseAddr("172.30.0.12"), 18080)
	c.Allowed(c.Hub(), node)
	client := c.Start(bedtest.Spec{Name: "client", Node: "node1", Labels: bedtest.IsClient}, bedtest.Spec{Name: "stranger", Node: "node1"})
	c.Allowed(client[0].Inside, node)
	// policy sees the pod that the port leads to
	c.Only("only-nobody", bedtest.IsServer, map[string]string{"role": "nobody"})
	c.Denied(client[0].Inside, node)
	c.Denied(c.Hub(), node)
}

func TestStaticPod(t *testing.T) {
	s := bedtest.OpenScene(t)
	manifest := s.StaticPod("node1", bedtest.Spec{Name: "static", Labels: bedtest.IsClient})
	static := s.Enter("static-node1")
	s.Allowed(static.Inside, s.Server.Server())
	if err := os.Remove(manifest); err != nil {
		t.Fatal(err)
	}
	s.In("wait", "pod/static-node1", "--for=delete", "--timeout=60s")
}

// Annotations of a pod and of its namespace choose pools and addresses.
func TestAddressesByAnnotation(t *testing.T) {
	c := bedtest.Open(t)
	pool := func(name, cidr string) {
		c.Apply(map[string]any{"apiVersion": "projectcalico.org/v3", "kind": "IPPool",
			"metadata": map[string]any{"name": name}, "spec": map[string]any{"cidr": cidr, "natOutgoing": true, "nodeSelector": "all()", "assignmentMode": "Manual"}})
		c.Cleanup(func() { c.Kubectl("delete", "ippools.projectcalico.org", name) })
	}
	pool("alive-a", "10.244.250.0/24")
	pool("alive-b", "10.244.251.0/24")
	c.Kubectl("annotate", "namespace", c.NS, `cni.projectcalico.org/ipv4pools=["alive-a"]`)
	pods := c.Start(
		bedtest.Spec{Name: "of-namespace", Node: "node1"},
		bedtest.Spec{Name: "of-pod", Node: "node2", Annotations: map[string]string{"cni.projectcalico.org/ipv4pools": `["alive-b"]`}},
		bedtest.Spec{Name: "by-address", Node: "node2", Annotations: map[string]string{"cni.projectcalico.org/ipAddrs": `["10.244.251.77"]`}},
	)
	for i, want := range []string{"10.244.250.0/24", "10.244.251.0/24", "10.244.251.77/32"} {
		if got := pods[i].Addrs[0]; !netip.MustParsePrefix(want).Contains(got) {
			t.Errorf("%s has %s, want one of %s", pods[i].Name, got, want)
		}
	}
	c.Allowed(pods[0].Inside, pods[1].Server())
	c.Allowed(pods[1].Inside, pods[0].Server())
	c.In("delete", "pods", "--all", "--now")
}

// db-0 of a StatefulSet is made anew elsewhere while its node's kubelet is silent: what still runs of the old one, and
// whoever gets its address next, is not db-0.
func TestNameUsedAgainElsewhere(t *testing.T) {
	s := bedtest.OpenScene(t)
	was := s.Start(bedtest.Spec{Name: "db-0", Node: "node1", Labels: bedtest.IsClient})[0]
	s.Allowed(was.Inside, s.Server.Server())
	up := strings.Fields(s.UpOptions())
	s.Testbed("stop", "node1", "kubelet")
	back := func() { s.Testbed(append([]string{"up"}, up...)...) }
	t.Cleanup(back)
	s.In("delete", "pod", "db-0", "--force", "--grace-period=0")
	now := s.Start(bedtest.Spec{Name: "db-0", Node: "node2", Labels: bedtest.IsClient})[0]
	if now.Addrs[0] == was.Addrs[0] {
		t.Fatalf("the new db-0 has the address of the old one, which still runs: %s", now.Addrs[0])
	}
	s.Allowed(now.Inside, s.Server.Server())
	s.Denied(was.Inside, s.Server.Server())
	back()
	// the kubelet ends what is left, and somebody else asks for the address
	heir := bedtest.Spec{Name: "heir", Node: "node1", Annotations: map[string]string{"cni.projectcalico.org/ipAddrs": fmt.Sprintf("[%q]", was.Addrs[0])}}
	if !bedtest.Eventually(120*time.Second, func() bool {
		ns, err := s.NamespaceOf("node1", was.Addrs[0])
		if err == nil {
			ns.Close()
		}
		return err != nil
	}) {
		t.Fatal("the old db-0 still runs")
	}
	p := s.Start(heir)[0]
	if p.Addrs[0] != was.Addrs[0] {
		t.Fatalf("the heir has %s, want %s", p.Addrs[0], was.Addrs[0])
	}
	s.Denied(p.Inside, s.Server.Server())
}
