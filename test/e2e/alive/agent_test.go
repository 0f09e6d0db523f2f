//go:build e2e && linux

package alive

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// killAgent kills the agent of a node as the OOM killer would. The kubelet starts it again.
func killAgent(c *bedtest.Cluster, node string) {
	c.Helper()
	// inside the node's own pid namespace: only its processes are seen
	const kill = `for p in /proc/[0-9]*; do
		case $(tr '\0' ' ' <$p/cmdline 2>/dev/null) in /tortie\ agent*) kill -9 ${p#/proc/} && echo killed ;; esac
	done`
	out, err := c.Bed.Exec(context.Background(), node, "sh", "-c", kill)
	if err != nil || !strings.Contains(out, "killed") {
		c.Fatalf("killing the agent of %s: %q, %v", node, out, err)
	}
}

// restarts is how often an agent was started again.
func restarts(c *bedtest.Cluster, node string) string {
	c.Helper()
	return c.Kubectl("-n", bedtest.System, "get", "pod", c.Agent(node), "-o", "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}")
}

func TestAgentKilled(t *testing.T) {
	s := bedtest.OpenScene(t)
	f := s.StartFlow()
	for _, node := range []string{"node1", "node2"} {
		was := restarts(s.Cluster, node)
		killAgent(s.Cluster, node)
		// what comes meanwhile waits for the agent
		s.Apply(s.Object(bedtest.Spec{Name: "late-" + node, Node: node, Labels: bedtest.IsClient}))
		if !bedtest.Eventually(120*time.Second, func() bool {
			now := restarts(s.Cluster, node)
			return now != was && strings.HasSuffix(now, "true")
		}) {
			t.Errorf("the agent of %s is not ready again: %s, was %s", node, restarts(s.Cluster, node), was)
		}
		late := s.Enter("late-" + node)
		s.Allowed(late.Inside, s.Server.Server())
	}
	f.Lossless()
	s.Holds()
	s.NoSandboxRebuilt()
}

func TestRollingRestart(t *testing.T) {
	s := bedtest.OpenScene(t)
	f := s.StartFlow()
	s.Kubectl("-n", bedtest.System, "rollout", "restart", "daemonset/tortie-agent")
	for _, name := range []string{"late-a", "late-b", "late-c", "late-d"} {
		s.Apply(s.Object(bedtest.Spec{Name: name, Node: map[bool]string{true: "node1", false: "node2"}[name < "late-c"], Labels: bedtest.IsClient}))
	}
	s.AgentsReady()
	for _, name := range []string{"late-a", "late-b", "late-c", "late-d"} {
		s.Allowed(s.Enter(name).Inside, s.Server.Server())
	}
	f.Lossless()
	s.Holds()
	s.NoSandboxRebuilt()
}

// A second agent on a node, by another manifest for example, says so and ends; the first goes on.
func TestSecondAgentRefuses(t *testing.T) {
	s := bedtest.OpenScene(t)
	var ds map[string]any
	if err := json.Unmarshal([]byte(s.Kubectl("-n", bedtest.System, "get", "daemonset", "tortie-agent", "-o", "json")), &ds); err != nil {
		t.Fatal(err)
	}
	template := ds["spec"].(map[string]any)["template"].(map[string]any)
	of := template["spec"].(map[string]any)
	of["nodeName"], of["restartPolicy"] = "node1", "Never"
	of["terminationGracePeriodSeconds"] = 0
	s.Apply(map[string]any{"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": "second-agent", "namespace": bedtest.System}, "spec": of})
	t.Cleanup(func() { s.Kubectl("-n", bedtest.System, "delete", "pod", "second-agent", "--now") })
	f := s.StartFlow()
	s.Kubectl("-n", bedtest.System, "wait", "pod/second-agent", "--for=jsonpath={.status.phase}=Failed", "--timeout=60s")
	if log := s.Kubectl("-n", bedtest.System, "logs", "second-agent"); !strings.Contains(log, "another agent") {
		t.Errorf("the second agent does not say why it ended:\n%s", log)
	}
	f.Lossless()
	s.AgentsReady()
	s.Holds()
}
