//go:build linux

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/test/lab"
)

// smallDisk mounts a disk of a size over dir, with what was in dir.
func smallDisk(t *testing.T, dir, size string) {
	t.Helper()
	aside := dir + ".aside"
	if err := os.Rename(dir, aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tortie-faults", dir, "tmpfs", 0, "mode=0700,size="+size); err != nil {
		t.Fatalf("mounting a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	if _, err := os.Stat(aside); err == nil {
		if err := os.CopyFS(dir, os.DirFS(aside)); err != nil {
			t.Fatal(err)
		}
	}
}

// fill leaves so many bytes of the disk free.
func fill(t *testing.T, dir string, leave uint64) (empty func()) {
	t.Helper()
	if err := refill(dir, leave); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(filler(dir)); err != nil {
			t.Error(err)
		}
	}
}

func filler(dir string) string { return filepath.Join(dir, "filler") }

// refill fills what has become free: of a file that is being replaced while a disk is filled there are two.
func refill(dir string, leave uint64) error {
	f, err := os.OpenFile(filler(dir), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return err
	}
	if free := st.Bavail * uint64(st.Bsize); free > leave {
		return syscall.Fallocate(int(f.Fd()), 0, size, int64(free-leave))
	}
	return nil
}

// TestStoreDiskFull fills the disk under the store until it fails, starts it again as its supervisor would, and makes
// room. What it acknowledged is there.
func TestStoreDiskFull(t *testing.T) {
	t.Parallel()
	s := newScene(t, lab.Options{Nodes: 1})
	if err := s.Store.Stop(); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(s.Dir, "store")
	smallDisk(t, data, "400m")
	if err := s.StartStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := startProbes(t, s.client, s.server)
	empty := fill(t, data, 8<<20)
	acked := s.writeUntilError(t)
	t.Logf("%d writes of 256 KiB, then: the store runs: %v", acked, s.Store.Running())
	s.Store.Kill() // it may hang in a write
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		err := s.StartStore(ctx)
		cancel()
		t.Logf("started on a full disk: %v", firstLine(err))
		s.Store.Kill()
	}
	empty()
	if err := s.StartStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range acked {
		got, err := s.storeClient(t).Get(t.Context(), fmt.Sprintf("filler%d", i))
		if err != nil || len(got.Kvs) != 1 || len(got.Kvs[0].Value) != 256<<10 {
			t.Fatalf("write %d was acknowledged, and is not there: %v", i, err)
		}
	}
	s.sees(t, true, 30*time.Second)
	s.opens(t, 30*time.Second)
	p.sound(t)
	s.settled(t)
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(fmt.Sprint(err), "\n")
	return line
}

// writeUntilError writes until the store refuses, and returns how many writes it acknowledged.
func (s *scene) writeUntilError(t *testing.T) int {
	t.Helper()
	c := s.storeClient(t)
	value := strings.Repeat("x", 256<<10)
	for i := range 1000 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err := c.Put(ctx, fmt.Sprintf("filler%d", i), value)
		cancel()
		if err != nil {
			return i
		}
	}
	t.Fatal("the disk never got full")
	return 0
}

// TestStateDiskFull fills the disk under the ledger, the notes and the persisted State. What is there goes on, policy still
// changes, an attach fails and leaves nothing, the agent even starts; with room again all of it works.
func TestStateDiskFull(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newScene(t, lab.Options{Nodes: 1, AgentConfig: "persistDelay: 50ms\n"})
	n := s.Nodes[0]
	third, noted := s.add(t, 1, "third", "client"), s.add(t, 1, "noted", "client")
	n.Agent.Kill()
	smallDisk(t, n.StateDir(), "1m")
	if err := errors.Join(n.StartAgent(), n.AwaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
	p := startProbes(t, s.client, s.server)
	empty := fill(t, n.StateDir(), 0)
	state := filepath.Join(n.StateDir(), "state")
	first, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	s.opens(t, 15*time.Second)
	var written agentapi.PersistStatus
	more := changePort
	eventually(t, 10*time.Second, "status says that the State can't be written", func() error {
		st, err := n.Client().Status(ctx, agentapi.StatusRequest{})
		if written = st.Persisted; err != nil || strings.Contains(written.Error, "no space left") {
			return err
		}
		more++ // another State
		return errors.Join(fmt.Errorf("%+v", written), refill(n.StateDir(), 0), apply(ctx, s.Lab, policy(changePort, more)))
	})
	before, err := os.ReadFile(state)
	if same := written.Last.IsZero() && bytes.Equal(before, first) || !written.Last.IsZero() && len(before) == int(written.Bytes); err != nil || !same {
		t.Errorf("the State of before is not what it was: %d bytes, %+v, %v", len(before), written, err)
	}
	w, err := s.NewWorkload(lab.WorkloadSpec{Name: "late", Namespace: "x", Node: 1, Labels: map[string]string{"role": "client"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Attach(ctx); err == nil || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), "ledger") {
		t.Errorf("attaching with a full disk: %v", err)
	}
	if err := third.Detach(ctx); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("detaching with a full disk: %v", err)
	}
	n.Agent.Kill()
	empty()
	notes := filepath.Join(n.StateDir(), "notes")
	if err := agentapi.WriteNote(notes, agentapi.Note{Sandbox: s.ID + "." + noted.Name, Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	empty = fill(t, n.StateDir(), 0)
	if err := errors.Join(n.StartAgent(), n.AwaitReady(ctx)); err != nil {
		t.Fatalf("with a full disk: %v", err)
	}
	empty()
	if err := errors.Join(w.Attach(ctx), third.Detach(ctx)); err != nil {
		t.Errorf("with room again: %v", err)
	}
	eventually(t, 75*time.Second, "what was noted is detached", func() error {
		left, err := agentapi.ReadNotes(notes)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%v", left)
		}
		return err
	})
	s.attached[1]--
	eventually(t, 10*time.Second, "the State is written", func() error {
		now, err := os.ReadFile(state)
		if err == nil && bytes.Equal(now, before) {
			err = errors.New("it is as of before")
		}
		return err
	})
	p.sound(t)
	s.settled(t)
}
