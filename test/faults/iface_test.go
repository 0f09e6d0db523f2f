//go:build linux

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/tortie/tortie/test/lab"
)

// TestInterfaceVanishes deletes interfaces of workloads (with their namespaces, as a container's crash does) at any moment
// of attaching, of policy changes about them, and of detaching. Others suffer nothing, and nothing is left.
func TestInterfaceVanishes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newScene(t, lab.Options{Nodes: 1})
	n := s.Nodes[0]
	p := startProbes(t, s.client, s.server)
	vanished := 0
	for round := range 12 {
		w, err := s.NewWorkload(lab.WorkloadSpec{Name: fmt.Sprintf("v%d", round), Namespace: "x", Node: 1, Labels: map[string]string{"role": "client"}})
		if err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 { // it is there already, and policy about it changes
			if err := w.Attach(ctx); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			pause(time.Duration(rand.IntN(40)) * time.Millisecond)
			if _, err := run("ip", "-netns", w.Netns(), "link", "del", "eth0"); err == nil {
				vanished++
			}
		})
		if round%2 == 0 {
			mustApply(t, s.Lab, policy(7000+round))
		} else {
			// Who asks for a container that has died gives up at some time; nobody answers before that.
			short, cancel := context.WithTimeout(ctx, 2*time.Second)
			if err := w.Attach(short); err != nil {
				t.Logf("round %d: %v", round, err)
			}
			cancel()
		}
		wg.Wait()
		if err := w.Detach(ctx); err != nil {
			t.Errorf("round %d: detaching a workload whose interface is gone: %v", round, err)
		}
	}
	t.Logf("%d interfaces vanished", vanished)
	if vanished == 0 {
		t.Error("no interface vanished in time")
	}
	s.opens(t, 15*time.Second)
	// An interface that comes back under its name is nobody's: it is closed, and in nobody's way.
	if _, err := run("ip", "-netns", n.Netns(), "link", "add", "tortstranger", "type", "veth", "peer", "name", "stranger"); err != nil {
		t.Fatal(err)
	}
	s.opens(t, 15*time.Second)
	if _, err := run("ip", "-netns", n.Netns(), "link", "del", "tortstranger"); err != nil {
		t.Fatal(err)
	}
	p.sound(t)
	s.settled(t)
}
