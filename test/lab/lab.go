//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/netns"
)

// Prefix begins the name of everything that a lab makes.
const Prefix = "tortielab"

// Options of a lab. Binary is needed.
type Options struct {
	Binary   string            // path of the tortie binary
	Nodes    int               // 0 = 2
	Progress func(what string) // told of each step; nil = silent
	// AgentConfig is added to each agent's configuration file, as YAML lines.
	AgentConfig string
	// Join puts the store on a host of its own on the fabric, and nodes join it with tokens.
	Join bool
	// StoreArgs are added to the store's command line.
	StoreArgs []string
	// Store are the endpoints of a store that is there already; none = the lab runs one of its own.
	Store []string
	// AgentStore are the endpoints that agents are told, if those are others: a faulty wire to the store, say.
	AgentStore []string
	// Started is called once there is a store, ahead of the agents; nil = nothing to do.
	Started func(*Lab) error
}

// Lab is a running lab.
type Lab struct {
	ID     string // unique on this machine
	Dir    string // of its files: logs, sockets, the store's data
	Binary string
	Nodes  []*Node
	Store  *Process

	opts      Options
	fabric    *Host
	storeHost *Host // nil: the machine that the lab is on
	wires     int   // that the fabric has had
	hosts     []*Host
	workloads []*Workload
	outside   []*Outside
}

// Node is a node of the lab, and the agent on it.
type Node struct {
	*Host
	Index    int // from 1
	Agent    *Process
	AgentEnv []string // "KEY=value", beside the lab's own environment, of agents that are started from now on
	lab      *Lab
}

// New brings up the fabric, the store and the nodes with their agents. What it could not finish it takes down again.
func New(ctx context.Context, o Options) (_ *Lab, err error) {
	if o.Nodes == 0 {
		o.Nodes = 2
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("the lab makes network namespaces, which only root may: run it with sudo")
	}
	l := &Lab{ID: netns.UniqueName(Prefix), Binary: o.Binary, opts: o}
	l.Dir = filepath.Join(os.TempDir(), l.ID)
	if err := os.Mkdir(l.Dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Down())
		}
	}()
	if o.Join {
		if err := l.addStoreHost(); err != nil {
			return nil, err
		}
	}
	if len(o.Store) == 0 {
		o.Progress("starting the store")
		if err := l.StartStore(ctx); err != nil {
			return nil, err
		}
	}
	if o.Started != nil {
		if err := o.Started(l); err != nil {
			return nil, err
		}
	}
	o.Progress(fmt.Sprintf("wiring %d nodes to the fabric", o.Nodes))
	if err := l.buildFabric(); err != nil {
		return nil, err
	}
	for i := 1; i <= o.Nodes; i++ {
		if err := l.addNode(i); err != nil {
			return nil, err
		}
	}
	if err := l.routeBlocks(l.hosts...); err != nil {
		return nil, err
	}
	o.Progress("starting the agents")
	for _, n := range l.Nodes {
		if o.Join {
			if _, err := n.Join(ctx); err != nil {
				return nil, err
			}
		}
		if err := n.StartAgent(); err != nil {
			return nil, err
		}
	}
	for _, n := range l.Nodes {
		if err := n.AwaitReady(ctx); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// StoreSocket is the path of the socket of the lab's own store.
func (l *Lab) StoreSocket() string { return filepath.Join(l.Dir, "store.sock") }

// StoreEndpoint is what the command line calls the store.
func (l *Lab) StoreEndpoint() string {
	if len(l.opts.Store) > 0 {
		return l.opts.Store[0]
	}
	return "unix://" + l.StoreSocket()
}

// agentStore is what agents call the store.
func (l *Lab) agentStore() []string {
	switch {
	case len(l.opts.AgentStore) > 0:
		return l.opts.AgentStore
	case len(l.opts.Store) > 0:
		return l.opts.Store
	}
	return []string{l.StoreEndpoint()}
}

// StartStore starts the store and waits until it answers.
func (l *Lab) StartStore(ctx context.Context) error {
	args := append([]string{"store", "--dir", filepath.Join(l.Dir, "store"), "--listen", l.StoreEndpoint()}, l.opts.StoreArgs...)
	if l.storeHost != nil {
		args = append(args, "--listen", "https://"+l.StoreAddr())
	}
	p, err := l.start("store", l.storeHost, args...)
	if err != nil {
		return err
	}
	l.Store = p
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	return p.await(ctx, "answering", func(ctx context.Context) error {
		_, err := l.Tortie(ctx, nil, "get", "tiers", "-o", "name")
		return err
	})
}

// Tortie runs the command line against the lab's store (and the agent of n, if there is one) and returns what it printed.
func (l *Lab) Tortie(ctx context.Context, n *Node, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, l.Binary, args...)
	cmd.Env = append(os.Environ(), "TORTIE_STORE="+l.StoreEndpoint())
	if n != nil {
		cmd.Env = append(cmd.Env, "TORTIE_SOCKET="+n.Socket())
	}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("tortie %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), nil
}

func (l *Lab) addNode(i int) error {
	h, err := l.newHost(fmt.Sprintf("n%d", i),
		netip.AddrFrom4([4]byte{172, 31, 0, byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd31::%x", i)))
	if err != nil {
		return err
	}
	n := &Node{Host: h, Index: i, lab: l}
	l.Nodes = append(l.Nodes, n)
	return errors.Join(l.plug(h), os.MkdirAll(n.dir(), 0o700))
}

// NodeName is the node's name in the store. It outlives the namespace: a rebooted node has another one.
func (n *Node) NodeName() string { return fmt.Sprintf("n%d", n.Index) }

// settings is the agent's file.
func (n *Node) settings() string { return filepath.Join(n.dir(), "agent.yaml") }

func (n *Node) dir() string { return filepath.Join(n.lab.Dir, n.NodeName()) }

// Socket is the path of the agent's socket.
func (n *Node) Socket() string { return filepath.Join(n.dir(), "agent.sock") }

// StateDir is where the agent keeps what must survive a reboot.
func (n *Node) StateDir() string { return filepath.Join(n.dir(), "state") }

// BootID is the file that the agent takes for the kernel's boot id: a new text in it is a reboot.
func (n *Node) BootID() string { return filepath.Join(n.dir(), "boot_id") }

// Client asks the node's agent.
func (n *Node) Client() *agentapi.Client { return agentapi.NewClient(n.Socket()) }

// Block is the node's block of addresses of a family (4 or 6).
func (n *Node) Block(family int) netip.Prefix {
	if family == 4 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 65, byte(n.Index), 0}), 26)
	}
	return netip.MustParsePrefix(fmt.Sprintf("fd65::%x:0/122", n.Index))
}

// StartAgent starts the node's agent; AwaitReady waits for it.
func (n *Node) StartAgent() error {
	if _, err := os.Stat(n.BootID()); errors.Is(err, os.ErrNotExist) {
		if err := n.Reboot(); err != nil {
			return err
		}
	}
	if !n.lab.opts.Join { // which writes them
		if err := os.WriteFile(n.settings(), []byte(n.config()), 0o600); err != nil {
			return err
		}
	}
	p, err := n.lab.startWith(n.AgentEnv, "agent-"+n.NodeName(), n.Host, "agent", "--config", n.settings())
	n.Agent = p
	return err
}

// Reboot writes a new boot id. The caller makes the namespace as empty as after a reboot, if that matters.
func (n *Node) Reboot() error {
	return os.WriteFile(n.BootID(), []byte(netns.UniqueName("boot")+"\n"), 0o600)
}

// AwaitReady waits until the agent says that it is ready.
func (n *Node) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	return n.Agent.await(ctx, "ready", func(ctx context.Context) error {
		st, err := n.Client().Status(ctx, agentapi.StatusRequest{})
		if err == nil && !st.Ready {
			err = fmt.Errorf("waits for %s", strings.Join(st.NotReady, ", "))
		}
		return err
	})
}

// Down ends the processes of the lab, and removes its namespaces and files. Calling it again is harmless.
func (l *Lab) Down() error {
	var errs []error
	for _, w := range l.workloads {
		w.close()
	}
	for _, o := range l.outside {
		o.close()
	}
	var running []*Process
	for _, n := range l.Nodes {
		running = append(running, n.Agent)
	}
	for _, p := range append(running, l.Store) {
		if p != nil && p.Running() {
			errs = append(errs, p.Stop())
		}
	}
	for _, h := range l.hosts {
		errs = append(errs, h.ns.Close(), netns.Delete(h.Netns()))
	}
	l.hosts, l.workloads, l.outside, l.Nodes = nil, nil, nil, nil
	return errors.Join(append(errs, os.RemoveAll(l.Dir))...)
}

// Clean removes what labs left behind whose process is gone, and returns their ids.
func Clean() ([]string, error) {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), Prefix+"-*"))
	if err != nil {
		return nil, err
	}
	var ids []string
	var errs []error
	for _, dir := range dirs {
		if !netns.Orphaned(filepath.Base(dir), Prefix) {
			continue
		}
		if err := killAll(filepath.Join(dir, "pids")); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, os.RemoveAll(dir))
		ids = append(ids, filepath.Base(dir))
	}
	_, err = netns.Sweep(Prefix)
	return ids, errors.Join(append(errs, err)...)
}

// killAll kills the processes that a lab noted down: those that still are the ones that it started.
func killAll(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		pidText, started, _ := strings.Cut(s.Text(), " ")
		pid, err := strconv.Atoi(pidText)
		if err != nil || started == "" || netns.StartTime(pid) != started {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("ending process %d: %w", pid, err)
		}
	}
	return nil
}
