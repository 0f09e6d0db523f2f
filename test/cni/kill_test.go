//go:build linux

package cni

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/faultpoint"
	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/build"
	"github.com/tortie/tortie/test/lab"
)

// killNodes is how many nodes share the work: a scenario mostly waits.
const killNodes = 4

// killRun is one scenario: a process dies at a point, and something comes next.
type killRun struct {
	point string
	verb  string // during which it dies: ADD or DEL
	next  string // "ADD", "DEL", "GC", or "" = nothing but time
}

func (r killRun) String() string {
	return fmt.Sprintf("killed at %s in %s, then %s", r.point, r.verb, cmp.Or(r.next, "nothing"))
}

// TestKillAtEveryStep has agent and plugin die at each point that their binaries name, in each verb that comes by there. What
// comes next must find nothing in its way, and nothing may be left in the end.
func TestKillAtEveryStep(t *testing.T) {
	bin := t.TempDir()
	agentPoints, shimPoints := faultBinary(t, bin, "tortie"), faultBinary(t, bin, "tortie-cni")
	if len(agentPoints) < 20 || len(shimPoints) < 7 {
		t.Fatalf("the binaries name only %v and %v", agentPoints, shimPoints)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l, err := lab.New(ctx, lab.Options{Binary: filepath.Join(bin, "tortie"), Nodes: killNodes, AgentConfig: "persistDelay: 1h\n"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	}()
	applyPools(t, l)
	var runs []killRun
	for _, p := range agentPoints {
		if !strings.HasPrefix(p, "del:") {
			runs = append(runs, killRun{p, "ADD", "ADD"}, killRun{p, "ADD", "DEL"}, killRun{p, "ADD", "GC"})
		}
		if !strings.HasPrefix(p, "add:") {
			runs = append(runs, killRun{p, "DEL", ""}, killRun{p, "DEL", "DEL"})
		}
	}
	for _, p := range shimPoints {
		switch {
		case strings.HasPrefix(p, "shim-add:"):
			runs = append(runs, killRun{p, "ADD", "ADD"}, killRun{p, "ADD", "DEL"}, killRun{p, "ADD", "GC"})
		case p == "shim-del:noted": // in the absence of an agent
			runs = append(runs, killRun{p, "DEL", ""}, killRun{p, "DEL", "DEL"})
		default:
			runs = append(runs, killRun{p, "DEL", "DEL"}, killRun{p, "DEL", "GC"})
		}
	}
	var ks []*killer
	for _, n := range l.Nodes {
		ks = append(ks, newKiller(t, l, n, bin))
	}
	queue := make(chan killRun)
	var wg sync.WaitGroup
	for _, k := range ks {
		k.remember() // only now are the routes to all other nodes there
		wg.Go(func() {
			for r := range queue {
				k.perform(r)
			}
		})
	}
	for _, r := range runs {
		queue <- r
	}
	close(queue)
	wg.Wait()
	t.Logf("%d scenarios", len(runs))
	auditAddresses(t, l)
}

// faultBinary builds a program with its fault points, and returns their names.
func faultBinary(t *testing.T, dir, name string) []string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := build.Programs(map[string]string{path: "./cmd/" + name}, "-tags", "faultpoints"); err != nil {
		t.Fatal(err)
	}
	list := exec.Command(path)
	list.Env = append(os.Environ(), faultpoint.Variable+"=list")
	out, err := list.Output()
	if err != nil {
		t.Fatalf("listing the fault points of %s: %v", name, err)
	}
	return strings.Fields(string(out))
}

// killer performs scenarios on one node.
type killer struct {
	t         *testing.T
	bed       sharedBed
	agentFile string // names the point where the agent dies
	shimFile  string // and the plugin
	addrs     []netip.Addr
	ipam      ipam // of the plugin that allocates where the agent does not
	before    hostState
}

func newKiller(t *testing.T, l *lab.Lab, n *lab.Node, bin string) *killer {
	t.Helper()
	k := &killer{t: t, bed: sharedBed{bin: bin, lab: l, node: n}, ipam: newIPAM(t)}
	k.agentFile, k.shimFile = filepath.Join(k.ipam.dir, "agent.fault"), filepath.Join(k.ipam.dir, "shim.fault")
	k.addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 66, byte(n.Index), 77}), netip.MustParseAddr(fmt.Sprintf("fd66::%d:77", n.Index))}
	n.AgentEnv = []string{faultpoint.Variable + "=" + k.agentFile}
	n.Agent.Kill()
	if err := k.startAgent(); err != nil {
		t.Fatal(err)
	}
	// What the first workload of a node brings about and what stays: a block and its routes.
	c, err := k.container()
	if err != nil {
		t.Fatal(err)
	}
	defer c.gone()
	if _, err = k.run(c, "ADD", true); err == nil {
		_, err = k.run(c, "DEL", true)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *killer) startAgent() error {
	if err := k.bed.node.StartAgent(); err != nil {
		return err
	}
	return k.bed.node.AwaitReady(k.t.Context())
}

// sandbox is a container that need not be there for the whole test.
type sandbox struct {
	id      string
	ns      *netns.Ns
	closers []func()
}

func (k *killer) container() (*sandbox, error) {
	ns, err := netns.Create(netns.UniqueName("tortiecni"))
	if err != nil {
		return nil, err
	}
	c := &sandbox{id: "c-" + ns.Name(), ns: ns}
	c.closers = append(c.closers, func() { _ = errors.Join(ns.Close(), netns.Delete(ns.Name())) })
	if out, err := exec.Command("ip", "-netns", ns.Name(), "link", "set", "lo", "up").CombinedOutput(); err != nil {
		c.gone()
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return c, nil
}

func (c *sandbox) gone() {
	for _, f := range c.closers {
		f()
	}
}

// listen answers TCP in the container with what it is sent, and fails if that was done before.
func (c *sandbox) listen() error {
	return c.ns.Do(func() error {
		l, err := net.Listen("tcp", "[::]:80")
		if err != nil {
			return err
		}
		c.closers = append([]func(){func() { l.Close() }}, c.closers...)
		go serveEcho(l)
		return nil
	})
}

// conf is a network configuration: with addresses of the agent's pools, or of another plugin.
func (k *killer) conf(verb string, pools bool) object {
	section := k.ipam.section()
	if pools {
		section = object{"type": "tortie"}
	}
	c := object{"cniVersion": "1.1.0", "name": "testnet", "type": "tortie-cni", "socket": k.bed.node.Socket(), "namespace": "shop",
		"notesDir": filepath.Join(k.bed.node.StateDir(), "notes"), "ipam": section}
	if pools && verb == "ADD" {
		c["runtimeConfig"] = object{"ips": []string{k.addrs[0].String(), k.addrs[1].String()}}
	}
	return c
}

// verb is a plugin that runs.
type verbRun struct {
	cmd         *exec.Cmd
	out, stderr bytes.Buffer
	done        chan struct{}
	err         error // valid after done
}

func (k *killer) start(c *sandbox, verb string, pools bool) (*verbRun, error) {
	v := &verbRun{done: make(chan struct{})}
	one := call{verb: verb, id: c.id, iface: "eth0", netns: c.ns.Path(), conf: k.conf(verb, pools)}
	if verb == "GC" {
		one.id, one.iface, one.netns = "", "", ""
	}
	v.cmd = one.command(&v.out, &v.stderr)
	v.cmd.Path = filepath.Join(k.bed.bin, "tortie-cni")
	v.cmd.Env = append(v.cmd.Env, faultpoint.Variable+"="+k.shimFile)
	if err := k.bed.start(v.cmd); err != nil {
		return nil, err
	}
	go func() {
		defer close(v.done)
		_, v.err = outcome(v.cmd.Wait(), &v.out, &v.stderr)
	}()
	return v, nil
}

func (v *verbRun) kill() {
	_ = v.cmd.Process.Kill()
	<-v.done
}

// run runs a plugin to its end.
func (k *killer) run(c *sandbox, verb string, pools bool) ([]byte, error) {
	v, err := k.start(c, verb, pools)
	if err != nil {
		return nil, err
	}
	select {
	case <-v.done:
	case <-time.After(30 * time.Second):
		v.kill()
		return nil, fmt.Errorf("%s does not end", verb)
	}
	if v.err != nil {
		return nil, fmt.Errorf("%s: %w", verb, v.err)
	}
	return v.out.Bytes(), nil
}

var errNotHit = errors.New("nobody came by")

// perform does a scenario with the agent's addresses, and if nobody comes by the point then, with those of another plugin.
func (k *killer) perform(r killRun) {
	err := k.scenario(r, true)
	if errors.Is(err, errNotHit) {
		err = k.scenario(r, false)
	}
	if err != nil {
		k.t.Errorf("%s: %v", r, err)
	}
}

func (k *killer) scenario(r killRun, pools bool) (err error) {
	c, err := k.container()
	if err != nil {
		return err
	}
	defer c.gone()
	defer func() {
		if err != nil && !errors.Is(err, errNotHit) { // the next one begins with nothing
			if !k.bed.node.Agent.Running() {
				err = errors.Join(err, k.startAgent())
			}
			err = errors.Join(err, ignore(k.run(c, "DEL", pools)))
		}
	}()
	switch {
	case r.verb == "DEL":
		err = k.plugIn(c, pools)
	case r.next == "ADD":
		err = k.oldFlows(pools)
	}
	if err != nil {
		return err
	}
	hit, err := k.die(c, r, pools)
	if err != nil {
		return err
	}
	if !hit {
		if err := errors.Join(ignore(k.run(c, "DEL", pools)), k.nothingLeft(c)); err != nil {
			return err
		}
		return errNotHit
	}
	switch r.next {
	case "ADD":
		if err := k.plugIn(c, pools); err != nil {
			return fmt.Errorf("once more: %w", err)
		}
		_, err = k.run(c, "DEL", pools)
	case "DEL", "GC":
		_, err = k.run(c, r.next, pools)
	}
	if err != nil {
		return err
	}
	return k.nothingLeft(c)
}

func ignore(_ []byte, err error) error { return err }

// die runs a verb until somebody dies at the point, and brings the agent back if it was that. hit = false: nobody did.
func (k *killer) die(c *sandbox, r killRun, pools bool) (hit bool, err error) {
	shim := strings.HasPrefix(r.point, "shim-")
	file := k.agentFile
	if shim {
		file = k.shimFile
	}
	if r.point == "shim-del:noted" {
		k.bed.node.Agent.Kill()
	}
	if err := os.WriteFile(file, []byte(r.point+"\n"), 0o600); err != nil {
		return false, err
	}
	v, err := k.start(c, r.verb, pools)
	if err != nil {
		return false, err
	}
	deadline := time.Now().Add(20 * time.Second)
	for ended := false; !ended && (shim || k.bed.node.Agent.Running()); {
		select {
		case <-v.done:
			ended = true
		case <-time.After(time.Millisecond):
			if time.Now().After(deadline) {
				v.kill()
				return false, fmt.Errorf("%s goes on and on", r.verb)
			}
		}
	}
	// Who hits a point takes the file away first.
	if err := os.Remove(file); err == nil {
		return false, nil
	} else if !os.IsNotExist(err) {
		return false, err
	}
	if r.verb == "DEL" && r.next == "" && !shim {
		<-v.done // its word that the workload is gone has to count
		if v.err != nil {
			return true, fmt.Errorf("DEL: %w", v.err)
		}
	}
	v.kill()
	if !shim {
		eventuallyDead(k.bed.node)
	}
	if !k.bed.node.Agent.Running() {
		return true, k.startAgent()
	}
	return true, nil
}

// eventuallyDead waits for the end of an agent that has hit its point.
func eventuallyDead(n *lab.Node) {
	for deadline := time.Now().Add(5 * time.Second); n.Agent.Running() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
}

// plugIn adds c, and sees that it works: it is reached, and no flow of an earlier owner of its addresses is there.
func (k *killer) plugIn(c *sandbox, pools bool) error {
	out, err := k.run(c, "ADD", pools)
	if err != nil {
		return err
	}
	res := &current.Result{}
	if err := unmarshalResult(out, res); err != nil {
		return err
	}
	if len(res.IPs) != 2 {
		return fmt.Errorf("ADD gave %v", res.IPs)
	}
	if err := c.listen(); err != nil {
		return err
	}
	node, err := netns.OpenNamed(k.bed.node.Netns())
	if err != nil {
		return err
	}
	defer node.Close()
	for i, ip := range res.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		if pools && a.Unmap() != k.addrs[i] {
			return fmt.Errorf("%s was given, not %s", a, k.addrs[i])
		}
		if err := talk(node, netip.Addr{}, a.Unmap(), 80); err != nil {
			return fmt.Errorf("reaching it: %w", err)
		}
	}
	flows, err := k.flows()
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(flows, func(f string) bool { return strings.Contains(f, stranger4) || strings.Contains(f, stranger6) }); i >= 0 {
		return fmt.Errorf("a flow of an earlier owner is there: %s", flows[i])
	}
	as, err := k.bed.node.Client().List(k.t.Context(), agentapi.ListRequest{})
	if err == nil && len(as.Attachments) != 1 {
		err = fmt.Errorf("attached are %v", as.Attachments)
	}
	return err
}
