//go:build linux

package bedtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/e2e"
)

const (
	// System is the namespace that Tortie is in.
	System = "tortie-system"
	image  = "registry.k8s.io/e2e-test-images/agnhost:2.59"
	port   = 8080
	// answer is how long an exchange may take. It is shorter than the second after which a lost SYN is sent again: what
	// was dropped is seen.
	answer = 900 * time.Millisecond
)

// Cluster is the bed's, with a namespace for one test.
type Cluster struct {
	*testing.T
	Bed *e2e.Bed
	NS  string
}

// Open gives a test of a cluster with Tortie a namespace of its own.
func Open(t *testing.T) *Cluster {
	t.Helper()
	c := OpenBare(t)
	c.AgentsReady()
	c.MakeNamespace()
	return c
}

// OpenBare gives a test the cluster as it is.
func OpenBare(t *testing.T) *Cluster {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: it enters the network namespaces of pods")
	}
	return &Cluster{T: t, Bed: &e2e.Bed{Root: "../../..", Out: os.Stderr}}
}

// MakeNamespace makes the test's namespace, which is removed with all that is in it when the test ends.
func (c *Cluster) MakeNamespace() {
	c.Helper()
	c.NS = "test-" + strings.ToLower(strings.TrimPrefix(strings.ReplaceAll(c.Name(), "/", "-"), "Test"))
	c.Kubectl("create", "namespace", c.NS)
	c.Cleanup(func() { c.Kubectl("delete", "namespace", c.NS, "--timeout=180s") })
}

// Kubectl runs kubectl, and ends the test if it can't.
func (c *Cluster) Kubectl(args ...string) string {
	c.Helper()
	out, err := c.Bed.Kubectl(context.Background(), args...)
	if err != nil {
		c.Fatal(err)
	}
	return out
}

// In is kubectl in the test's namespace.
func (c *Cluster) In(args ...string) string {
	c.Helper()
	return c.Kubectl(append([]string{"-n", c.NS}, args...)...)
}

// Apply applies an object.
func (c *Cluster) Apply(object any) {
	c.Helper()
	b, err := json.Marshal(object)
	if err == nil {
		err = c.Bed.Apply(context.Background(), string(b))
	}
	if err != nil {
		c.Fatal(err)
	}
}

// Testbed runs a command of ./testbed.
func (c *Cluster) Testbed(args ...string) {
	c.Helper()
	if err := c.Bed.Testbed(context.Background(), args...); err != nil {
		c.Fatal(err)
	}
}

// AgentsReady waits until all agents are, and are of the version that is wanted.
func (c *Cluster) AgentsReady() {
	c.Helper()
	c.Kubectl("-n", System, "rollout", "status", "daemonset/tortie-agent", "--timeout=180s")
}

// Agent is the name of the agent's pod on a node.
func (c *Cluster) Agent(node string) string {
	c.Helper()
	return strings.TrimSpace(c.Kubectl("-n", System, "get", "pods", "-l", "app.kubernetes.io/component=agent",
		"--field-selector", "spec.nodeName="+node, "-o", "jsonpath={.items[0].metadata.name}"))
}

// Machine is the pid of a machine's first process, as this one sees it.
func (c *Cluster) Machine(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(c.Bed.State(), "run/pids", name))
	if err != nil {
		return "", err
	}
	return strings.Fields(string(b))[0], nil
}

// NamespaceOf finds the network namespace of a node's pod by its address.
func (c *Cluster) NamespaceOf(node string, addr netip.Addr) (*netns.Ns, error) {
	pid, err := c.Machine(node)
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob("/proc/" + pid + "/root/run/netns/*")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		ns, err := netns.Open(file)
		if err != nil {
			continue // one that is going away
		}
		if has(ns, addr) {
			return ns, nil
		}
		ns.Close()
	}
	return nil, fmt.Errorf("no network namespace on %s has %s", node, addr)
}

func has(ns *netns.Ns, addr netip.Addr) bool {
	found := false
	_ = ns.Do(func() error { // a namespace that is going away has nothing
		addrs, err := net.InterfaceAddrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr {
				found = true
			}
		}
		return err
	})
	return found
}

// Hub is the network namespace of the control plane, which is no node.
func (c *Cluster) Hub() *netns.Ns {
	c.Helper()
	pid, err := c.Machine("hub")
	if err != nil {
		c.Fatal(err)
	}
	ns, err := netns.Open("/proc/" + pid + "/ns/net")
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { ns.Close() })
	return ns
}

// UpOptions are those that the bed was made with.
func (c *Cluster) UpOptions() string {
	c.Helper()
	b, err := os.ReadFile(filepath.Join(c.Bed.State(), "run/args"))
	if err != nil {
		c.Fatal(err)
	}
	return string(b)
}
