//go:build linux

package faults

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/agent/durable"
	"github.com/tortie/tortie/agent/ledger"
	"github.com/tortie/tortie/agent/persist"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/test/lab"
)

// damages calls fn with good cut off at every byte, and with each of its bits turned.
func damages(good []byte, fn func(what string, bad []byte)) {
	for i := range good {
		fn(fmt.Sprintf("cut at byte %d", i), good[:i])
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			fn(fmt.Sprintf("bit %d of byte %d turned", bit, i), bad)
		}
	}
}

// memDir is a folder in memory: thousands of files are made durable in it.
func memDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tortie-files-")
	if err != nil {
		t.Fatal(err)
	}
	smallDisk(t, dir, "64m")
	t.Cleanup(func() { os.RemoveAll(dir + ".aside") })
	return dir
}

// TestDamagedEntries: no damage of a ledger entry is read as an entry. It is set aside under a name that the error tells,
// and the others stay.
func TestDamagedEntries(t *testing.T) {
	dir := memDir(t)
	l, err := ledger.Open(dir, durable.Writer{})
	if err != nil {
		t.Fatal(err)
	}
	for _, sandbox := range []string{"a", "b"} {
		if err := l.Put(ledger.Entry{Sandbox: sandbox, Interface: "eth0", HostIface: "tort" + sandbox}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.entry"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	damages(good, func(what string, bad []byte) {
		n++
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := ledger.Open(dir, durable.Writer{})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if len(l.List()) != 1 || len(l.Bad()) != 1 || !strings.HasPrefix(l.Bad()[0].File, files[0]+".bad") {
			t.Fatalf("%s: entries %v, bad %v", what, l.List(), l.Bad())
		}
	})
	t.Logf("%d damages, each found", n)
}

// TestDamagedStates: no damage of a persisted State is applied after a reboot; unknown interfaces are closed instead.
func TestDamagedStates(t *testing.T) {
	path := filepath.Join(memDir(t), "state")
	s := drivers.NewState()
	s.Node.Name, s.Node.WorkloadPrefixes = "n1", []string{"tort"}
	if _, err := persist.Save(durable.Writer{}, path, persist.Header{Node: "n1", BootID: "b1"}, s); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o := persist.BeginOptions{Path: path, Marker: path + ".boot", BootID: "b2", Node: drivers.Node{Name: "n1", WorkloadPrefixes: []string{"tort"}}}
	if start := persist.Begin(o); start.Problem != nil || start.State == nil {
		t.Fatalf("undamaged: %+v", start)
	}
	n := 0
	damages(good, func(what string, bad []byte) {
		n++
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		start := persist.Begin(o)
		switch {
		case start.Problem == nil || !strings.Contains(start.Problem.Error(), path):
			t.Fatalf("%s: %v", what, start.Problem)
		case start.State == nil || len(start.State.Endpoints)+len(start.State.Policies) > 0 || len(start.State.Node.WorkloadPrefixes) == 0:
			t.Fatalf("%s: what comes first does not close unknown interfaces: %v", what, start.State)
		}
	})
	t.Logf("%d damages, each found", n)
}

// TestDamagedNotes: a damaged note never detaches something else. It is set aside under a name that the error tells.
func TestDamagedNotes(t *testing.T) {
	dir := memDir(t)
	note := agentapi.Note{Sandbox: "sandbox", Interface: "eth0", Network: "n", Written: time.Unix(1e9, 0).UTC()}
	if err := agentapi.WriteNote(dir, note); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.detach"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	read, refused := 0, 0
	damages(good, func(what string, bad []byte) {
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		notes, err := agentapi.ReadNotes(dir)
		switch {
		case err != nil && len(notes) == 0 && strings.Contains(err.Error(), files[0]):
			refused++
		case err == nil && len(notes) == 1 && notes[0].Sandbox == note.Sandbox && notes[0].Interface == note.Interface:
			read++ // its time or network, which decide nothing about another attachment
		default:
			t.Fatalf("%s: %v, %v", what, notes, err)
		}
	})
	if refused == 0 {
		t.Error("nothing was refused")
	}
	t.Logf("%d damages refused, %d without a meaning", refused, read)
}

// TestDamagedConfigs: whatever becomes of a configuration file, reading it ends in an error that names the file, or in
// settings that validate tells all about; it never panics.
func TestDamagedConfigs(t *testing.T) {
	path := filepath.Join(memDir(t), "agent.yaml")
	good := []byte(`nodeName: n1
nodeAddresses: [172.31.0.1/16, "fd31::1/64"]
store: {endpoints: ["unix:///run/s.sock"]}
failsafeIn: ["tcp:22", "udp:68:192.0.2.0/24"]
resyncInterval: 90s
logLevel: warn
mtu: 1400
`)
	refused, taken := 0, 0
	damages(good, func(what string, bad []byte) {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(path)
		switch {
		case err == nil:
			taken++
			_ = c.Validate() // says what is wrong, and must not panic
		case !strings.Contains(err.Error(), path):
			t.Fatalf("%s: the error does not name the file: %v", what, err)
		default:
			refused++
		}
	})
	if refused == 0 || taken == 0 {
		t.Errorf("%d refused, %d taken", refused, taken)
	}
	t.Logf("%d damages refused, %d can be read as something else", refused, taken)
}

// TestClockJumps: files from the future and from long ago are as good as others. (What is measured inside a process is
// measured with the monotonic clock; the address allocator's cooldowns, which nodes compare, have clocks that jump in its own
// tests.)
func TestClockJumps(t *testing.T) {
	dir := memDir(t)
	state, notes := filepath.Join(dir, "state"), filepath.Join(dir, "notes")
	s := drivers.NewState()
	s.Node.Name = "n1"
	for _, at := range []time.Time{time.Unix(0, 0).UTC(), time.Now().Add(-24 * time.Hour).UTC(), time.Date(2099, 1, 2, 3, 4, 5, 0, time.UTC)} {
		if _, err := persist.Save(durable.Writer{}, state, persist.Header{Node: "n1", BootID: "b1", Written: at}, s); err != nil {
			t.Fatal(err)
		}
		start := persist.Begin(persist.BeginOptions{Path: state, Marker: state + ".boot", BootID: "b2", Node: s.Node})
		if start.Problem != nil || start.State == nil {
			t.Errorf("a State of %v: %+v", at, start)
		}
		if err := agentapi.WriteNote(notes, agentapi.Note{Sandbox: at.String(), Interface: "eth0", Written: at}); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(notes, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range files { // the clock was elsewhere when they were written
		at := time.Now().Add(time.Duration(i-1) * 1000 * time.Hour)
		if err := os.Chtimes(f, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := agentapi.SweepNotes(notes); err != nil {
		t.Error(err)
	}
	if got, err := agentapi.ReadNotes(notes); err != nil || len(got) != 3 {
		t.Errorf("%d notes of 3, %v", len(got), err)
	}
	l, err := ledger.Open(filepath.Join(dir, "ledger"), durable.Writer{})
	if err != nil {
		t.Fatal(err)
	}
	for i, at := range []time.Time{time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, 0).UTC(), {}} {
		if err := l.Put(ledger.Entry{Sandbox: fmt.Sprint(i), Interface: "eth0", Created: at}); err != nil {
			t.Fatal(err)
		}
	}
	if l, err = ledger.Open(filepath.Join(dir, "ledger"), durable.Writer{}); err != nil || len(l.List()) != 3 || len(l.Bad()) != 0 {
		t.Errorf("%v, bad %v, %v", l.List(), l.Bad(), err)
	}
}

// TestDamagedNode damages the files of a node whose agent is down: the ledger entry of the server, a note, and then the
// configuration. The server is closed, never open; attaching it again heals.
func TestDamagedNode(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newScene(t, lab.Options{Nodes: 1})
	n := s.Nodes[0]
	shut := startDenied(t, s.client, s.server)
	entries, err := filepath.Glob(filepath.Join(n.StateDir(), "ledger", "*.entry"))
	if err != nil || len(entries) != 2 {
		t.Fatalf("%v, %v", entries, err)
	}
	n.Agent.Kill()
	for _, file := range entries {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(b, []byte("."+s.server.Name+`"`)) {
			if err := os.WriteFile(file, b[:len(b)/2], 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := agentapi.WriteNote(filepath.Join(n.StateDir(), "notes"), agentapi.Note{Sandbox: "nobody", Interface: "eth0"}); err != nil {
		t.Fatal(err)
	}
	notes, err := filepath.Glob(filepath.Join(n.StateDir(), "notes", "*.detach"))
	if err != nil || len(notes) != 1 {
		t.Fatalf("%v, %v", notes, err)
	}
	if err := os.WriteFile(notes[0], []byte(`{"sandbox":"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(n.StartAgent(), n.AwaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := s.client.Echo(ctx, "udp", s.server.Addr(4), openPort); err == nil {
		t.Error("a workload whose ledger entry is damaged is open")
	}
	log, err := os.ReadFile(n.Agent.Log)
	if err != nil || !strings.Contains(string(log), "a ledger entry is damaged: its workload is closed until it is attached again") ||
		!strings.Contains(string(log), notes[0]) {
		t.Errorf("the log does not say what to do: %v\n%s", err, log)
	}
	eventually(t, 15*time.Second, "attached again", func() error { return s.server.Attach(ctx) })
	for _, family := range []int{4, 6} {
		eventually(t, 15*time.Second, "the server, attached again", func() error {
			return s.client.Echo(ctx, "udp", s.server.Addr(family), openPort)
		})
	}
	n.Agent.Kill()
	half := filepath.Join(n.StateDir(), "half.yaml")
	if err := os.WriteFile(half, []byte("nodeName: n1\nstore: {endpoi"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(tortie, "agent", "--config", half); err == nil || !strings.Contains(out, half) {
		t.Errorf("an agent with half a configuration: %v, %s", err, out)
	}
	if err := errors.Join(os.Remove(half), n.StartAgent(), n.AwaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
	shut.end()
	for _, err := range shut.problems {
		t.Error(err)
	}
	s.settled(t)
}
