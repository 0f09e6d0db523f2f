//go:build e2e && linux

package alive

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tortie/tortie/test/e2e/bedtest"
)

// The kernel kills the agent since there is no memory for it: it comes back, traffic does not notice.
func TestOutOfMemory(t *testing.T) {
	s := bedtest.OpenScene(t)
	f := s.StartPatientFlow()
	for _, node := range []string{"node1", "node2"} {
		starve(s.Cluster, node)
		eventually(s.Cluster, 120*time.Second, "the agent of "+node+", ready, after it was killed for its memory", func() bool {
			return field(s.Cluster, "{.status.containerStatuses[0].lastState.terminated.reason} {.status.containerStatuses[0].ready}",
				"pod", "-n", bedtest.System, s.Agent(node)) == "OOMKilled true"
		})
	}
	late := s.Start(bedtest.Spec{Name: "late-1", Node: "node1", Labels: bedtest.IsClient}, bedtest.Spec{Name: "late-2", Node: "node2", Labels: bedtest.IsClient})
	for _, p := range late {
		s.Allowed(p.Inside, s.Server.Server())
	}
	f.Lossless()
	swap(s)
}

// starve leaves the agent of a node no more memory than it has, and makes it want some. The limit goes with its container.
func starve(c *bedtest.Cluster, node string) {
	c.Helper()
	id := strings.TrimPrefix(field(c, "{.status.containerStatuses[0].containerID}", "pod", "-n", bedtest.System, c.Agent(node)), "containerd://")
	groups, err := filepath.Glob(filepath.Join("/sys/fs/cgroup/memory", filepath.Base(c.Bed.State()), node, "kubepods/*/*", id))
	if err != nil || len(groups) != 1 {
		c.Fatalf("the memory cgroup of container %s: %v, %v", id, groups, err)
	}
	b, err := os.ReadFile(filepath.Join(groups[0], "memory.usage_in_bytes"))
	if err != nil {
		c.Fatal(err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		c.Fatal(err)
	}
	// what can be written to disk or read again goes, until nothing of that is left
	for err = nil; err == nil && limit > 0; limit -= 1 << 20 {
		err = os.WriteFile(filepath.Join(groups[0], "memory.limit_in_bytes"), []byte(strconv.Itoa(limit)), 0)
	}
	var wg sync.WaitGroup
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); {
		b, err := os.ReadFile(filepath.Join(groups[0], "memory.oom_control"))
		if err != nil || !strings.Contains(string(b), "oom_kill 0\n") {
			return
		}
		for range 50 {
			wg.Go(func() { _, _, _ = ask(c, node, "GET", "http://127.0.0.1:9091/metrics", nil) }) // whatever it answers
		}
		wg.Wait()
	}
	c.Fatalf("the agent of %s lives with %d bytes", node, limit)
}
