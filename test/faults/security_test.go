//go:build linux

package faults

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tortie/tortie/test/lab"
)

// unit reads what a unit of deploy/systemd says.
func unit(t *testing.T, name string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../deploy/systemd", name))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(k, "#") {
			m[k] = v
		}
	}
	return m
}

// confined is a line of shell that becomes tortie with no more power than a unit gives it.
func confined(t *testing.T, u map[string]string) string {
	t.Helper()
	bounding, given := u["CapabilityBoundingSet"]
	if !given || u["NoNewPrivileges"] != "yes" || u["UMask"] == "" {
		t.Fatalf("the unit does not say what its process may do: %v", u)
	}
	set := "-all"
	for c := range strings.FieldsSeq(bounding) {
		set += ",+" + strings.ToLower(strings.TrimPrefix(c, "CAP_"))
	}
	return fmt.Sprintf(`umask %s; exec setpriv --no-new-privs --inh-caps=-all --bounding-set=%s -- %s "$@"`, u["UMask"], set, tortie)
}

// TestConfined runs agents and the store with the capabilities that their units leave them, and wants everything to work:
// attaching, policy, a restart, resyncs, looking for foreign rules.
func TestConfined(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dir, err := os.MkdirTemp("", "tortie-confined-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	wrapper := filepath.Join(dir, "tortie")
	script := fmt.Sprintf("#!/bin/sh\ncase $1 in\nagent) %s;;\nstore) %s;;\nesac\nexec %s \"$@\"\n",
		confined(t, unit(t, "tortie.service")), confined(t, unit(t, "tortie-store.service")), tortie)
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	s := newSceneOf(t, wrapper, lab.Options{Nodes: 1, AgentConfig: "socketGroup: 4321\nresyncInterval: 1s\ninspectInterval: 1s\npersistDelay: 100ms\n"})
	n := s.Nodes[0]
	if eff := capabilities(t, s.Store.Pid()); eff != 0 {
		t.Errorf("the store has capabilities: %x", eff)
	}
	if eff := capabilities(t, n.Agent.Pid()); eff == 0 || eff&(1<<7|1<<16|1<<19) != 0 { // setuid, sys_module, sys_ptrace
		t.Errorf("the agent has capabilities: %x", eff)
	}
	p := startProbes(t, s.client, s.server)
	if out, err := s.Tortie(ctx, n, "status"); err != nil {
		t.Errorf("status: %v\n%s", err, out)
	}
	n.Agent.Kill()
	if err := errors.Join(n.StartAgent(), n.AwaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
	third := s.add(t, 1, "third", "client")
	if err := third.Detach(ctx); err != nil {
		t.Error(err)
	}
	s.attached[1]--
	s.opens(t, 15*time.Second)
	pause(1500 * time.Millisecond) // a round of resync and of inspection
	p.sound(t)
	s.settled(t)
	for _, log := range []string{n.Agent.Log, s.Store.Log} {
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if strings.Contains(line, "not permitted") || strings.Contains(line, "permission denied") {
				t.Errorf("%s: %s", filepath.Base(log), line)
			}
		}
	}
}

// capabilities reads the effective capabilities of a process.
func capabilities(t *testing.T, pid int) (eff uint64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if _, err := fmt.Sscanf(rest, "%x", &eff); err != nil {
				t.Fatal(err)
			}
			return eff
		}
	}
	t.Fatal("a process without CapEff")
	return 0
}

// TestModes runs a node in an environment whose umask takes nothing away, with the socket for a group, and looks at every
// file that is made: nobody but root may write any, nor read what is not the socket's.
func TestModes(t *testing.T) {
	was := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(was) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := newScene(t, lab.Options{Nodes: 1, AgentConfig: "socketGroup: 4321\npersistDelay: 50ms\n"})
	n := s.Nodes[0]
	n.Agent.Kill() // a State and notes are there, and a ledger
	if err := errors.Join(n.StartAgent(), n.AwaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(n.StateDir(), "state")
	eventually(t, 10*time.Second, "the State is written", func() error {
		_, err := os.Stat(state)
		return err
	})
	files := 0
	err := filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a file that was being written
		}
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return nil
		}
		files++
		mode, want := st.Mode().Perm(), fs.FileMode(0o600)
		switch {
		case path == n.Socket():
			want = 0o660
			if gid := st.Sys().(*syscall.Stat_t).Gid; gid != 4321 {
				t.Errorf("%s: group %d", path, gid)
			}
		case st.IsDir():
			want = 0o700
		}
		if mode&^want != 0 {
			t.Errorf("%s: mode %v, want %v at most", path, mode, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 15 {
		t.Errorf("only %d files", files)
	}
	t.Logf("%d files and folders", files)
}
