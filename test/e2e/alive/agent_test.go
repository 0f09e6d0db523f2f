//go:build e2e && linux

package alive

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// killAgent kills the agent of a node as the OOM killer would. The kubelet starts it again.
func (c *cluster) killAgent(node string) {
	c.Helper()
	// inside the node's own pid namespace: only its processes are seen
	const kill = `for p in /proc/[0-9]*; do
		case $(tr '\0' ' ' <$p/cmdline 2>/dev/null) in /tortie\ agent*) kill -9 ${p#/proc/} && echo killed ;; esac
	done`
	out, err := c.bed.Exec(context.Background(), node, "sh", "-c", kill)
	if err != nil || !strings.Contains(out, "killed") {
		c.Fatalf("killing the agent of %s: %q, %v", node, out, err)
	}
}

// restarts is how often an agent was started again.
func (c *cluster) restarts(node string) string {
	c.Helper()
	return c.kubectl("-n", system, "get", "pod", c.agent(node), "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
}

func TestAgentKilled(t *testing.T) {
	s := openScene(t)
	f := s.startFlow()
	for _, node := range []string{"node1", "node2"} {
		was := s.restarts(node)
		s.killAgent(node)
		// what comes meanwhile waits for the agent
		s.apply(s.object(spec{name: "late-" + node, node: node, labels: isClient}))
		if !eventually(120*time.Second, func() bool {
			now := s.restarts(node)
			return now != was && strings.HasSuffix(now, "true")
		}) {
			t.Errorf("the agent of %s is not ready again: %s, was %s", node, s.restarts(node), was)
		}
		late := s.enter("late-" + node)
		s.allowed(late.inside, s.server.server())
	}
	f.lossless()
	s.holds()
	s.noSandboxRebuilt()
}

func TestRollingRestart(t *testing.T) {
	s := openScene(t)
	f := s.startFlow()
	s.kubectl("-n", system, "rollout", "restart", "daemonset/tortie-agent")
	for _, name := range []string{"late-a", "late-b", "late-c", "late-d"} {
		s.apply(s.object(spec{name: name, node: map[bool]string{true: "node1", false: "node2"}[name < "late-c"], labels: isClient}))
	}
	s.agentsReady()
	for _, name := range []string{"late-a", "late-b", "late-c", "late-d"} {
		s.allowed(s.enter(name).inside, s.server.server())
	}
	f.lossless()
	s.holds()
	s.noSandboxRebuilt()
}

// A second agent on a node, by another manifest for example, says so and ends; the first goes on.
func TestSecondAgentRefuses(t *testing.T) {
	s := openScene(t)
	var ds map[string]any
	if err := json.Unmarshal([]byte(s.kubectl("-n", system, "get", "daemonset", "tortie-agent", "-o", "json")), &ds); err != nil {
		t.Fatal(err)
	}
	template := ds["spec"].(map[string]any)["template"].(map[string]any)
	of := template["spec"].(map[string]any)
	of["nodeName"], of["restartPolicy"] = "node1", "Never"
	of["terminationGracePeriodSeconds"] = 0
	s.apply(map[string]any{"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "second-agent", "namespace": system}, "spec": of})
	t.Cleanup(func() { s.kubectl("-n", system, "delete", "pod", "second-agent", "--now") })
	f := s.startFlow()
	s.kubectl("-n", system, "wait", "pod/second-agent", "--for=jsonpath={.status.phase}=Failed", "--timeout=60s")
	if log := s.kubectl("-n", system, "logs", "second-agent"); !strings.Contains(log, "another agent") {
		t.Errorf("the second agent does not say why it ended:\n%s", log)
	}
	f.lossless()
	s.agentsReady()
	s.holds()
}
