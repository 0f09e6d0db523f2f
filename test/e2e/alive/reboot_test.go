//go:build e2e && linux

package alive

import (
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// A node is rebooted: its processes, network namespaces, interfaces, routes and rules are gone, its disks stay. What ran
// on it comes back with the same names and its policy, and is never open in between.
func TestNodeReboot(t *testing.T) {
	s := bedtest.OpenScene(t)
	was := s.Server.Server()
	other := s.Start(bedtest.Spec{Name: "neighbour", Node: "node1", Labels: bedtest.IsServer})[0]
	// A booting node takes what processors it gets: an answer on the other one can be late, but none is lost.
	f := (&bedtest.Scene{Cluster: s.Cluster, Server: other, Client: s.Client, Stranger: s.Stranger}).StartPatientFlow()
	f.Loop(&f.Leaked, func() error { return bedtest.Try(s.Stranger.Inside, was) })
	s.Testbed("reboot", "node2")
	if !bedtest.Eventually(180*time.Second, func() bool {
		return s.Kubectl("get", "node", "node2", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}{.status.conditions[?(@.type=="NetworkUnavailable")].status}`) == "TrueFalse"
	}) {
		t.Fatal("node2 is not ready again")
	}
	s.AgentsReady()
	s.Server = reenter(s.Cluster, "server")
	s.Holds()
	f.Lossless() // of those that had nothing to do with it
}

// reenter waits until the kubelet has made a pod anew after its node's boot, and enters that one. What the API server says of
// the pod is of before for a while.
func reenter(c *bedtest.Cluster, name string) *bedtest.Pod {
	c.Helper()
	was := c.In("get", "pod", name, "-o", "jsonpath={.status.podIP}")
	if !bedtest.Eventually(180*time.Second, func() bool {
		now := strings.Fields(c.In("get", "pod", name, "-o", "jsonpath={.status.podIP} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}"))
		return len(now) == 3 && now[1] != "0" && now[2] == "true"
	}) {
		c.Fatalf("pod %s has not come back; its address was %s", name, was)
	}
	return c.Enter(name)
}
