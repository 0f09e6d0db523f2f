//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/build"
)

// binary is the tortie that the tests run, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tortie-lab-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "tortie")
		if err := build.Programs(map[string]string{binary: "./cmd/tortie"}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if _, err := Clean(); err != nil {
			fmt.Fprintln(os.Stderr, "cleaning up after earlier labs:", err)
		}
		return m.Run()
	}())
}

// newLab brings up a lab that the test takes down; logs are shown if the test fails.
func newLab(t *testing.T, o Options) *Lab {
	t.Helper()
	o.Binary = binary
	l, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, n := range l.Nodes {
				t.Logf("agent on %s:\n%s", n.Name, n.Agent.Tail())
			}
			t.Logf("store:\n%s", l.Store.Tail())
		}
		if err := l.Down(); err != nil {
			t.Errorf("taking the lab down: %v", err)
		}
	})
	return l
}

// TestDemo runs the story of `make demo`, in which every connection must be as the oracle says.
func TestDemo(t *testing.T) {
	var out bytes.Buffer
	d := Demo{Out: &out, Examples: "../../examples/demo", Options: Options{Binary: binary}}
	err := d.Run(t.Context())
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
}

// TestHints tries what `make lab` says can be tried.
func TestHints(t *testing.T) {
	d := Demo{Out: io.Discard, Examples: "../../examples/demo", Options: Options{Binary: binary}}
	t.Cleanup(func() {
		if l := d.Lab(); l != nil {
			if err := l.Down(); err != nil {
				t.Error(err)
			}
		}
	})
	if err := d.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	hints, env := d.hints(), ""
	for _, h := range hints {
		if export := strings.HasPrefix(h.command, "export "); export {
			env = h.command + "; "
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-c", env+h.command)
		cmd.Dir = "/"
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != h.exit {
			t.Fatalf("%s\nends with %d, want %d:\n%s", h.command, code, h.exit, out)
		}
	}
	if text := d.Hints(); !strings.Contains(text, "  "+hints[len(hints)-1].command+"\n\nLogs are in") {
		t.Errorf("not all hints are shown:\n%s", text)
	}
}

// TestSideBySide runs two labs at once, and looks for what they leave behind.
func TestSideBySide(t *testing.T) {
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i := range errs {
		wg.Go(func() {
			l, err := New(t.Context(), Options{Binary: binary, Nodes: 1})
			if err == nil {
				err = errors.Join(pairWorks(t.Context(), l), l.Down())
			}
			if err == nil {
				err = leftovers(l.ID)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// pairWorks plugs two workloads in and connects them.
func pairWorks(ctx context.Context, l *Lab) error {
	if _, err := l.applyText(ctx, allowAllProfile); err != nil {
		return err
	}
	a, err := l.AddWorkload(ctx, WorkloadSpec{Name: "a", Namespace: "x", Node: 1, Host: 1, Profiles: []string{"open"}})
	if err != nil {
		return err
	}
	b, err := l.AddWorkload(ctx, WorkloadSpec{Name: "b", Namespace: "x", Node: 1, Host: 2, Profiles: []string{"open"}, Servers: []Server{{Port: 80}}})
	if err != nil {
		return err
	}
	for _, family := range []int{4, 6} {
		for _, proto := range []string{"tcp", "udp"} {
			if err := a.Echo(ctx, proto, b.Addr(family), 80); err != nil {
				return fmt.Errorf("%s over IPv%d: %w", proto, family, err)
			}
		}
	}
	return nil
}

const allowAllProfile = `
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: open}
spec:
  ingress: [{action: Allow}]
  egress: [{action: Allow}]
`

// applyText applies YAML.
func (l *Lab) applyText(ctx context.Context, yaml string) (string, error) {
	path := filepath.Join(l.Dir, "apply.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		return "", err
	}
	return l.Tortie(ctx, nil, "apply", "-f", path)
}

// leftovers is an error if something of a lab is still there.
func leftovers(id string) error {
	for _, glob := range []string{filepath.Join(netns.Dir, id+"*"), filepath.Join(os.TempDir(), id+"*")} {
		if left, _ := filepath.Glob(glob); len(left) > 0 {
			return fmt.Errorf("left behind: %v", left)
		}
	}
	return nil
}

// eventually polls until ok returns nil.
func eventually(t *testing.T, within time.Duration, what string, ok func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

const hostPolicy = `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n1-eth0, labels: {host: "yes"}}
spec: {node: n1, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: host}
spec:
  selector: host == 'yes'
  types: [Ingress, Egress]
  ingress:
    - action: Allow
      protocol: TCP
      destination: {ports: [7001]}
  egress:
    - action: Allow
`

// TestReboot takes the store away, reboots the node (a namespace as empty as after a boot, and a new boot id), and
// measures how long the host stands open after the agent's start.
func TestReboot(t *testing.T) {
	ctx := t.Context()
	l := newLab(t, Options{Nodes: 1, AgentConfig: "persistDelay: 100ms\n"})
	n := l.Nodes[0]
	out, err := l.AddOutside("outside", 9)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.applyText(ctx, hostPolicy); err != nil {
		t.Fatal(err)
	}
	closers, err := n.serve([]Server{{Port: 7001}, {Port: 7002}})
	if err != nil {
		t.Fatal(err)
	}
	judged := func(h *Host) error {
		if err := out.Echo(ctx, "tcp", h.Addr(4), 7001); err != nil {
			return fmt.Errorf("allowed port: %w", err)
		}
		if err := out.Echo(ctx, "tcp", h.Addr(4), 7002); !errors.Is(err, ErrDropped) {
			return fmt.Errorf("denied port: %v", err)
		}
		return nil
	}
	eventually(t, 10*time.Second, "host policy", func() error { return judged(n.Host) })
	eventually(t, 10*time.Second, "persisted State with the policy", func() error {
		files, _ := filepath.Glob(filepath.Join(n.StateDir(), "*"))
		for _, f := range files {
			if b, _ := os.ReadFile(f); bytes.Contains(b, []byte("GlobalNetworkPolicy")) {
				return nil
			}
		}
		return fmt.Errorf("not in %v", files)
	})

	n.Agent.Kill()
	l.Store.Kill()
	for _, c := range closers {
		c.Close()
	}
	if err := n.Replace(); err != nil {
		t.Fatal(err)
	}
	fresh := n.Host
	// The neighbours forget the old node's MAC address, as an announcement of the new one makes them.
	if err := out.ip("neigh flush dev eth0"); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.serve([]Server{{Port: 7001}, {Port: 7002}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the rebooted host, still without an agent, is open", func() error {
		return out.Echo(ctx, "tcp", fresh.Addr(4), 7002)
	})
	began := time.Now()
	if err := n.StartAgent(); err != nil {
		t.Fatal(err)
	}
	// The table is looked at, and not probed: a probe of a denied port takes a time-out.
	eventually(t, 2*time.Second, "policy after the reboot, without a store", func() error {
		out, err := exec.Command("ip", "netns", "exec", fresh.Netns(), "nft", "list", "table", "inet", "tortie").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "7001") {
			return fmt.Errorf("%v: no rule for port 7001", err)
		}
		return nil
	})
	t.Logf("policy stood %v after the agent's start, with the store down", time.Since(began).Round(time.Millisecond))
	if err := judged(fresh); err != nil {
		t.Fatalf("after the reboot: %v", err)
	}
	if err := l.StartStore(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.AwaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if err := judged(fresh); err != nil {
		t.Fatalf("with the store back: %v", err)
	}
}

// TestStoreTrouble stops, kills and compacts the store under running traffic: neither traffic nor policy changes, and
// what is written afterwards comes through.
func TestStoreTrouble(t *testing.T) {
	ctx := t.Context()
	l := newLab(t, Options{Nodes: 2})
	if _, err := l.Tortie(ctx, nil, "apply", "-f", "../../examples/demo/network"); err != nil {
		t.Fatal(err)
	}
	client, server := twoWorkloads(t, l)
	if _, err := l.applyText(ctx, clientPolicy(9001)); err != nil {
		t.Fatal(err)
	}
	only := func(open, shut uint16) func() error {
		return func() error {
			if err := client.Echo(ctx, "tcp", server.Addr(4), open); err != nil {
				return fmt.Errorf("port %d: %w", open, err)
			}
			if err := client.Echo(ctx, "tcp", server.Addr(6), shut); !errors.Is(err, ErrDropped) {
				return fmt.Errorf("port %d: %v", shut, err)
			}
			return nil
		}
	}
	eventually(t, 10*time.Second, "policy", only(9001, 9002))
	traffic, err := StartTraffic(client.Host, server.Addr(4), 9001)
	if err != nil {
		t.Fatal(err)
	}
	defer traffic.Stop()
	denied := StartDenied(client.Host, server.Addr(4), 9002)
	defer denied.Stop()

	t.Log("the store is stopped (slower than any time-out), and goes on")
	if err := l.Store.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	<-time.After(3 * time.Second)
	if err := l.Store.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	t.Log("the store is killed, and comes back compacted")
	l.Store.Kill()
	<-time.After(time.Second)
	if err := l.StartStore(ctx); err != nil {
		t.Fatal(err)
	}
	if err := compact(ctx, l); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(traffic.Lost(), none(denied)); err != nil {
		t.Fatal(err)
	}
	denied.Stop()
	t.Logf("%d exchanges on the open connection and %d new connections, none lost; %d denied", traffic.Kept.OK(), traffic.New.OK(), denied.New.Failed())
	traffic.Stop()

	if _, err := l.applyText(ctx, clientPolicy(9002)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 15*time.Second, "the policy that was written after the trouble", only(9002, 9001))
}

func none(denied *Traffic) error {
	if n := denied.New.OK(); n > 0 {
		return fmt.Errorf("%d denied connections got through", n)
	}
	return nil
}

func twoWorkloads(t *testing.T, l *Lab) (client, server *Workload) {
	t.Helper()
	var err error
	if client, err = l.AddWorkload(t.Context(), WorkloadSpec{Name: "client", Namespace: "x", Node: 1, Host: 1, Labels: map[string]string{"role": "client"}}); err != nil {
		t.Fatal(err)
	}
	server, err = l.AddWorkload(t.Context(), WorkloadSpec{Name: "server", Namespace: "x", Node: 2, Host: 1, Labels: map[string]string{"role": "server"},
		Servers: []Server{{Port: 9001}, {Port: 9002}}})
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// clientPolicy lets the client reach one port of the server.
func clientPolicy(port int) string {
	return fmt.Sprintf(`
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: server, namespace: x}
spec:
  selector: role == 'server'
  ingress:
    - action: Allow
      protocol: TCP
      source: {selector: role == 'client'}
      destination: {ports: [%d]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: client, namespace: x}
spec:
  selector: role == 'client'
  types: [Egress]
  egress: [{action: Allow}]
`, port)
}

// compact forgets every old revision of the store.
func compact(ctx context.Context, l *Lab) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{l.StoreEndpoint()}})
	if err != nil {
		return err
	}
	defer c.Close()
	got, err := c.Get(ctx, "none")
	if err != nil {
		return err
	}
	_, err = c.Compact(ctx, got.Header.Revision, clientv3.WithCompactPhysical())
	return err
}

// crashEnv makes the test binary bring up a lab, print its id, and wait to be killed.
const crashEnv = "TORTIE_LAB_CRASH"

// TestCleanAfterCrash kills a lab's process at once, as a crash does, and has Clean remove what it left; a lab that is
// alive stays.
func TestCleanAfterCrash(t *testing.T) {
	if path := os.Getenv(crashEnv); path != "" {
		l, err := New(t.Context(), Options{Binary: path, Nodes: 1})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(l.ID, l.Store.Pid(), l.Nodes[0].Agent.Pid())
		select {}
	}
	alive := newLab(t, Options{Nodes: 1})
	child := exec.Command(os.Args[0], "-test.run", "^TestCleanAfterCrash$")
	child.Env = append(os.Environ(), crashEnv+"="+binary)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var id string
	var store, agent int
	if _, err := fmt.Fscan(out, &id, &store, &agent); err != nil {
		t.Fatalf("the lab of the child: %v", err)
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if netns.StartTime(agent) == "" || leftovers(id) == nil {
		t.Fatal("the crash left nothing behind, so there is nothing to see")
	}
	ids, err := Clean()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(ids, id) || slices.Contains(ids, alive.ID) {
		t.Errorf("Clean removed %v: it should remove %s and leave %s", ids, id, alive.ID)
	}
	if err := leftovers(id); err != nil {
		t.Error(err)
	}
	for _, pid := range []int{store, agent} {
		eventually(t, 5*time.Second, "the end of a process of the crashed lab", func() error {
			if started := netns.StartTime(pid); started != "" && !zombie(pid) {
				return fmt.Errorf("process %d still runs", pid)
			}
			return nil
		})
	}
	if err := pairWorks(t.Context(), alive); err != nil {
		t.Errorf("the lab that is alive: %v", err)
	}
}

// zombie reports whether a process has ended, and only waits for somebody to take note.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(after, "Z")
}
