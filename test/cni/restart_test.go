//go:build linux

package cni

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/netns"
)

// withoutAgent kills the agent; it is running again when the test ends.
func withoutAgent(t *testing.T) {
	t.Helper()
	shared.node.Agent.Kill()
	t.Cleanup(func() {
		if !shared.node.Agent.Running() {
			startAgent(t)
		}
	})
}

func startAgent(t *testing.T) {
	t.Helper()
	if err := shared.node.StartAgent(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	if err := shared.node.AwaitReady(ctx); err != nil {
		t.Fatal(err)
	}
}

// started is an ADD on its way.
type started struct {
	cmd         *exec.Cmd
	out, stderr bytes.Buffer
	done        chan error
}

func (c *container) startAdd(conf object) *started {
	c.t.Helper()
	s := &started{done: make(chan error, 1)}
	s.cmd = call{verb: "ADD", id: c.id, iface: "eth0", netns: c.path(), conf: conf}.command(&s.out, &s.stderr)
	if err := onNode(s.cmd); err != nil {
		c.t.Fatal(err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	return s
}

func (s *started) end(t *testing.T) ([]byte, error) {
	t.Helper()
	select {
	case err := <-s.done:
		return outcome(err, &s.out, &s.stderr)
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill()
		t.Fatal("the ADD does not end")
		return nil, nil
	}
}

// connected reports whether a process holds a socket.
func connected(pid int) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:") {
			return true
		}
	}
	return false
}

// TestAddWaitsForTheAgent: an agent that is killed while it is asked, and one that starts later.
func TestAddWaitsForTheAgent(t *testing.T) {
	pool := newIPAM(t)
	conf := pluginConf(pool.section(), nil)
	for _, how := range []string{"hangs, is killed", "is away"} {
		t.Run(how, func(t *testing.T) {
			c := newContainer(t)
			var s *started
			if how == "is away" {
				withoutAgent(t)
				s = c.startAdd(conf)
				eventually(t, "the plugin is waiting", func() string {
					if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", s.cmd.Process.Pid)); err != nil || strings.TrimSpace(string(b)) != "tortie-cni" {
						return fmt.Sprintf("%s %v", b, err)
					}
					return ""
				})
			} else {
				if err := shared.node.Agent.Signal(syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				s = c.startAdd(conf)
				eventually(t, "the plugin has asked", func() string {
					if !connected(s.cmd.Process.Pid) {
						return "it has no socket"
					}
					return ""
				})
				withoutAgent(t)
			}
			select {
			case err := <-s.done:
				t.Fatalf("it did not wait: %v %s", err, &s.out)
			default:
			}
			startAgent(t)
			out, err := s.end(t)
			if err != nil {
				t.Fatal(err)
			}
			if res := result(t, out); len(res.IPs) != 2 || len(attachments(t)) != 1 {
				t.Errorf("%v, attachments %v", res, attachments(t))
			}
			c.del(conf)
			nothingLeft(t)
		})
	}
}

// TestAddGivesUp: "try again", and nothing was allocated.
func TestAddGivesUp(t *testing.T) {
	pool := newIPAM(t)
	c := newContainer(t)
	withoutAgent(t)
	conf := pluginConf(pool.section(), object{"timeout": "200ms"})
	start := time.Now()
	_, err := c.verb("ADD", conf)
	wantCode(t, "ADD", err, 11, shared.node.Socket(), "tortie agent")
	if d := time.Since(start); d < 200*time.Millisecond || d > 5*time.Second {
		t.Errorf("it gave up after %v", d)
	}
	if log := pool.log(); log[0] != "" {
		t.Errorf("the IPAM plugin was asked %v", log)
	}
	_, err = call{verb: "GC", conf: pluginConf(pool.section(), object{"cniVersion": "1.1.0", "timeout": "200ms"})}.run()
	wantCode(t, "GC", err, 11)
}

// TestAddTakesBackWithoutAgent: the store is away, so ADD fails, and what it had allocated is free again.
func TestAddTakesBackWithoutStore(t *testing.T) {
	pool := newIPAM(t)
	c := newContainer(t)
	if err := shared.lab.Store.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, err := c.verb("ADD", pluginConf(pool.section(), object{"timeout": "1500ms"}))
	if err := shared.lab.Store.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "ADD", err, 11)
	if pool.held() != 0 {
		t.Errorf("%d addresses are held", pool.held())
	}
	eventually(t, "nothing is left", func() string {
		out, err := shared.tortie(t, "get", "workloadendpoints", "-A", "-o", "name")
		if err != nil || strings.TrimSpace(out) != "" || len(attachments(t))+len(workloadLinks(t)) > 0 {
			return fmt.Sprintf("%q %v %v %v", out, err, attachments(t), workloadLinks(t))
		}
		return ""
	})
}

// TestDelWithoutAgent leaves a note, which the next agent consumes before it lets anything in.
func TestDelWithoutAgent(t *testing.T) {
	pool := newIPAM(t)
	conf := pluginConf(pool.section(), nil)
	c, other := newContainer(t), newContainer(t)
	if out, err := c.verb("ADD", conf); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	withoutAgent(t)
	c.del(conf)
	c.del(conf)
	notes, err := agentapi.ReadNotes(notesDir())
	if err != nil || len(notes) != 1 || notes[0].Sandbox != c.id || notes[0].Network != "testnet" {
		t.Errorf("notes %v, %v", notes, err)
	}
	if len(workloadLinks(t)) != 1 {
		t.Error("who has removed the interface?")
	}
	if pool.held() != 0 {
		t.Error("the address was not released")
	}
	startAgent(t)
	// The next owner of the address does not meet the last one.
	res := other.add(conf)
	if res.IPs[0].Address.IP.String() != "10.65.1.10" {
		t.Errorf("%v", res.IPs)
	}
	eventually(t, "the note is consumed", func() string {
		if ns, _ := agentapi.ReadNotes(notesDir()); len(ns) > 0 || len(attachments(t)) != 1 || len(workloadLinks(t)) != 1 {
			return fmt.Sprint(ns, attachments(t), workloadLinks(t))
		}
		return ""
	})
	other.del(conf)
	nothingLeft(t)
}

// TestNoteAndTheSameContainer: after a DEL without an agent the same container is added again, and stays.
func TestNoteAndTheSameContainer(t *testing.T) {
	pool := newIPAM(t)
	conf := pluginConf(pool.section(), nil)
	c := newContainer(t)
	if out, err := c.verb("ADD", conf); err != nil {
		t.Fatalf("%s %v", out, err)
	}
	withoutAgent(t)
	c.del(conf)
	startAgent(t)
	c.add(conf)
	withoutAgent(t)
	startAgent(t)
	if got := attachments(t); len(got) != 1 || got[0].Detaching {
		t.Errorf("%v", got)
	}
	if _, err := c.verb("ADD", conf); err != nil {
		t.Error(err)
	}
}

// TestNoteCantBeLeft: then DEL fails, and the address stays taken.
func TestNoteCantBeLeft(t *testing.T) {
	pool := newIPAM(t)
	c := newContainer(t)
	c.add(pluginConf(pool.section(), nil))
	withoutAgent(t)
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := c.verb("DEL", pluginConf(pool.section(), object{"notesDir": filepath.Join(file, "notes")}))
	wantCode(t, "DEL", err, 5, "no note could be left", file)
	if pool.held() != 2 {
		t.Errorf("%d addresses are held", pool.held())
	}
	startAgent(t)
}

// TestFlushedWithoutAgent: somebody clears the tables while no agent runs, and the store is away when it starts: what held
// last is enforced at once.
func TestFlushedWithoutAgent(t *testing.T) {
	pool := newIPAM(t)
	conf := pluginConf(pool.section(), nil)
	from, to := newContainer(t), newContainer(t)
	from.add(conf)
	res := to.add(conf)
	to.echo("80")
	node, hostIface := nodeNs(t), res.Interfaces[0].Name
	reach := func() error { return talk(from.ns, netip.Addr{}, addrOf(t, res, 0), 80) }
	if reach() == nil {
		t.Fatal("without any policy one reaches the other")
	}
	eventually(t, "a persisted State with the workloads", func() string {
		b, err := os.ReadFile(filepath.Join(shared.node.StateDir(), "state"))
		if err != nil || !strings.Contains(string(b), hostIface) {
			return fmt.Sprintf("it has no %s (%v)", hostIface, err)
		}
		return ""
	})
	withoutAgent(t)
	if err := shared.lab.Store.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := shared.lab.Store.Signal(syscall.SIGCONT); err != nil {
			t.Error(err)
		}
		if err := shared.node.AwaitReady(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	}()
	output(t, node, "nft", "flush", "ruleset")
	if err := reach(); err != nil {
		t.Fatalf("without tables and agent: %v", err)
	}
	if err := shared.node.StartAgent(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the tables are back", func() string {
		if out := output(t, node, "nft", "list", "ruleset"); !strings.Contains(out, hostIface) {
			return "no " + hostIface
		}
		return ""
	})
	if reach() == nil {
		t.Error("the host stands open")
	}
	if err := talk(node, netip.Addr{}, addrOf(t, res, 0), 80); err != nil {
		t.Errorf("what is allowed: %v", err)
	}
}

// TestUpgradeUnderAdds ends the agent as a package manager does, and starts the next one, while containers come and go: each
// verb succeeds the first time that it is asked for, so that no runtime builds a sandbox anew.
func TestUpgradeUnderAdds(t *testing.T) {
	withPools(t)
	conf := pluginConf(object{"type": "tortie"}, nil)
	const each = 4
	cs := make([]*container, 0, 3*each)
	for range 3 * each {
		cs = append(cs, newContainer(t))
	}
	stays := newContainer(t)
	res := stays.add(conf)
	stays.echo("80")
	conn := dialEcho(t, nodeNs(t), addrOf(t, res, 0))
	leaves := newContainer(t)
	leaves.add(conf)

	var adds []*started
	begin := func() {
		for range each {
			adds = append(adds, cs[len(adds)].startAdd(conf))
		}
	}
	begin()
	if err := shared.node.Agent.Stop(); err != nil {
		t.Fatal(err)
	}
	begin()
	leaves.del(conf)
	if err := shared.node.StartAgent(); err != nil {
		t.Fatal(err)
	}
	begin()
	seen := map[netip.Addr]bool{}
	for i, s := range adds {
		out, err := s.end(t)
		if err != nil {
			t.Errorf("ADD %d: %v", i, err)
			continue
		}
		for n := range result(t, out).IPs {
			a := addrOf(t, result(t, out), n)
			if seen[a] {
				t.Errorf("%s was given twice", a)
			}
			seen[a] = true
		}
	}
	if err := conn.carries(); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
	eventually(t, "only what was added is attached", func() string {
		if got := attachments(t); len(got) != len(cs)+1 {
			return fmt.Sprintf("%d attachments, want %d", len(got), len(cs)+1)
		}
		return ""
	})
	if len(seen) != 2*len(cs) {
		t.Errorf("%d addresses, want %d", len(seen), 2*len(cs))
	}
	for _, c := range cs {
		c.del(conf)
	}
	stays.del(conf)
	nothingLeft(t)
}

// echoConn is a connection to an echo.
type echoConn struct{ net.Conn }

func dialEcho(t *testing.T, ns *netns.Ns, to netip.Addr) echoConn {
	t.Helper()
	var c echoConn
	err := ns.Do(func() (err error) {
		c.Conn, err = net.DialTimeout("tcp", netip.AddrPortFrom(to, 80).String(), 5*time.Second)
		return err
	})
	if err == nil {
		t.Cleanup(func() { c.Close() })
		err = c.carries()
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// carries says something, and wants it back.
func (c echoConn) carries() error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 5))
	return err
}
