//go:build e2e && linux

package alive

import (
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
	s.server = s.enter("server")
	s.holds()
	f.lossless() // of those that had nothing to do with it
	if try(s.stranger.inside, s.server.server()) == nil {
		t.Error("a stranger comes through after the reboot")
	}
}
