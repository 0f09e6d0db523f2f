//go:build linux

package faults

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/test/lab"
)

func (s *scene) storeClient(t *testing.T) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.StoreEndpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// compact forgets every old revision of the store.
func (s *scene) compact(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c := s.storeClient(t)
	got, err := c.Put(ctx, "faults", "a revision that has not been compacted yet")
	if err == nil {
		_, err = c.Compact(ctx, got.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// sees waits until each agent has said whether it has its store.
func (s *scene) sees(t *testing.T, store bool, within time.Duration) {
	t.Helper()
	for _, n := range s.Nodes {
		eventually(t, within, fmt.Sprintf("status with a store: %v", store), func() error {
			st, err := n.Client().Status(t.Context(), agentapi.StatusRequest{})
			if err == nil && st.Store.Connected != store {
				err = fmt.Errorf("connected: %v, %s", st.Store.Connected, st.Store.Error)
			}
			return err
		})
	}
}

// TestStoreDies kills the store again and again, has it come back compacted, and asks for something new at once.
func TestStoreDies(t *testing.T) {
	t.Parallel()
	s := newScene(t, lab.Options{})
	p := startProbes(t, s.client, s.server)
	had := descriptors(s.Nodes[0].Agent)
	for range 3 {
		s.Store.Kill()
		s.sees(t, false, 15*time.Second)
		if err := s.StartStore(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.compact(t)
	}
	s.sees(t, true, 15*time.Second)
	s.opens(t, 15*time.Second)
	p.sound(t)
	if now := descriptors(s.Nodes[0].Agent); now > had+5 {
		t.Errorf("the agent had %d open files, and has %d", had, now)
	}
	s.settled(t)
}

// TestSlowStore: each answer takes seconds, and comes in small pieces; then connections break in their middle.
func TestSlowStore(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "tfw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// The lab's name is not known yet: the wire ends at a link to the store's socket, which is made as soon as it is.
	far := filepath.Join(dir, "far")
	w := newWire(t, filepath.Join(dir, "near"), far)
	s := newScene(t, lab.Options{AgentStore: []string{"unix://" + w.path}, Started: func(l *lab.Lab) error {
		return os.Symlink(l.StoreSocket(), far)
	}})
	p := startProbes(t, s.client, s.server)
	w.set(time.Second, 0)
	s.opens(t, 30*time.Second) // late, but in spite of it
	w.set(50*time.Millisecond, 100)
	for range 5 {
		pause(300 * time.Millisecond)
		w.cut()
	}
	mustApply(t, s.Lab, policy())
	w.set(0, 0)
	eventually(t, 30*time.Second, "the policy that was written meanwhile", func() error {
		if err := s.client.Echo(t.Context(), "tcp", s.server.Addr(4), changePort); err == nil {
			return fmt.Errorf("port %d is still open", changePort)
		}
		return nil
	})
	p.sound(t)
	s.settled(t)
}

// TestQuorumLost stops two of three members: what is there goes on, a change waits, and comes through once they are back.
func TestQuorumLost(t *testing.T) {
	t.Parallel()
	ms := newCluster(t)
	var endpoints []string
	for _, m := range ms {
		endpoints = append(endpoints, m.endpoint())
	}
	s := newScene(t, lab.Options{Store: endpoints})
	p := startProbes(t, s.client, s.server)
	ms[1].kill()
	s.opens(t, 30*time.Second) // one of three may go
	ms[2].kill()
	s.sees(t, false, 60*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := apply(ctx, s.Lab, policy()); err == nil {
		t.Error("a store without a quorum took a write")
	}
	w, err := s.NewWorkload(lab.WorkloadSpec{Name: "late", Namespace: "x", Node: 1, Labels: map[string]string{"role": "client"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Attach(ctx); err == nil {
		t.Error("a workload got an address without a store")
	}
	ms[1].start(t)
	ms[2].start(t)
	s.sees(t, true, 30*time.Second)
	eventually(t, 30*time.Second, "an address", func() error { return w.Attach(t.Context()) })
	s.attached[1]++
	eventually(t, 30*time.Second, "a write", func() error { return apply(t.Context(), s.Lab, policy()) })
	p.sound(t)
	s.settled(t)
}

// TestStoreGoesBack restores the store as it was before a policy was written and a workload plugged in. Nodes follow it
// back, and what they know themselves (the workload is there) they write again.
func TestStoreGoesBack(t *testing.T) {
	t.Parallel()
	s := newScene(t, lab.Options{})
	data, backup := filepath.Join(s.Dir, "store"), filepath.Join(s.Dir, "backup")
	if err := s.Store.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(backup, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	if err := s.StartStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.opens(t, 30*time.Second)
	p := startProbes(t, s.client, s.server)
	if err := s.Store.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(data, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	if err := s.StartStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the policy of before", func() error {
		if err := s.client.Echo(t.Context(), "tcp", s.server.Addr(4), changePort); err == nil {
			return fmt.Errorf("port %d is still open", changePort)
		}
		return nil
	})
	s.opens(t, 30*time.Second)
	p.sound(t)
	s.settled(t)
}
