//go:build e2e && linux

package alive

import (
	"strings"
	"testing"
	"time"
)

// A node is rebooted: its processes, network namespaces, interfaces, routes and rules are gone, its disks stay. What ran
// on it comes back with the same names and its policy, and is never open in between.
func TestNodeReboot(t *testing.T) {
	s := openScene(t)
	was := s.server.server()
	other := s.start(spec{name: "neighbour", node: "node1", labels: isServer})[0]
	f := &flow{scene: &scene{s.cluster, other, s.client, s.stranger}, stop: make(chan struct{})}
	f.loop(&f.kept, func() error { return try(s.client.inside, other.server()) })
	f.loop(&f.fresh, func() error { return try(s.client.inside, other.server()) })
	f.loop(&f.leaked, func() error { return try(s.stranger.inside, was) })
	s.testbed("reboot", "node2")
	if !eventually(180*time.Second, func() bool {
		return s.kubectl("get", "node", "node2", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}{.status.conditions[?(@.type=="NetworkUnavailable")].status}`) == "TrueFalse"
	}) {
		t.Fatal("node2 is not ready again")
	}
	s.agentsReady()
	s.server = s.reenter("server")
	s.holds()
	f.lossless() // of those that had nothing to do with it
}

// reenter waits until the kubelet has made a pod anew after its node's boot, and enters that one. What the API server says of
// the pod is of before for a while.
func (c *cluster) reenter(name string) *pod {
	c.Helper()
	was := c.in("get", "pod", name, "-o", "jsonpath={.status.podIP}")
	if !eventually(180*time.Second, func() bool {
		now := strings.Fields(c.in("get", "pod", name, "-o", "jsonpath={.status.podIP} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}"))
		return len(now) == 3 && now[1] != "0" && now[2] == "true"
	}) {
		c.Fatalf("pod %s has not come back; its address was %s", name, was)
	}
	return c.enter(name)
}
