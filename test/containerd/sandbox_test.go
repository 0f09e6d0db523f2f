//go:build linux

package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/machine"
)

const (
	pool = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.77.0.0/16}
`
	mayTalk = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: may-talk, namespace: shop}
spec:
  selector: all()
  types: [Ingress, Egress]
  ingress: [{action: Allow, protocol: TCP, destination: {ports: [8080]}}]
  egress: [{action: Allow}]
`
	serverPort = 8080
)

// TestSandboxes takes pods through their lives as a kubelet would.
func TestSandboxes(t *testing.T) {
	b := newBed(t)
	t.Run("image", b.image)
	b.apply(t, pool)
	if err := b.kubelet.networkReady(t.Context()); err == nil {
		t.Error("the network is ready without a configuration")
	}
	if err := os.WriteFile(b.path("conf", "10-tortie.conflist"), b.conflist(), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "network", func() error { return b.kubelet.networkReady(t.Context()) })

	began := time.Now()
	web, client := b.up(t, "web"), b.up(t, "client")
	t.Logf("two sandboxes took %d ms", time.Since(began).Milliseconds())
	t.Run("policy", func(t *testing.T) { b.policy(t, client, web) })
	t.Run("check and status", func(t *testing.T) { b.checkAndStatus(t, web) })
	t.Run("restart", func(t *testing.T) { b.restart(t, client, web) })
	t.Run("stop without agent", func(t *testing.T) { b.stopWithoutAgent(t) })
	t.Run("removal", func(t *testing.T) { b.removal(t, client.sandbox, web.sandbox) })
}

// pod is a sandbox with its network.
type pod struct {
	*sandbox
	addr  netip.Addr
	netns string // of the machine's paths
}

// up brings a sandbox up, and sees that it has an address of the pool.
func (b *bed) up(t *testing.T, name string) pod {
	t.Helper()
	s := b.kubelet.run(t, name)
	ready, addr, err := s.status(t.Context())
	if err != nil || !ready || !netip.MustParsePrefix("10.77.0.0/16").Contains(addr) {
		t.Fatalf("sandbox of %s: ready %v, address %v, %v", name, ready, addr, err)
	}
	return pod{s, addr, s.netns(t)}
}

// netns is where the runtime has the sandbox's network namespace.
func (s *sandbox) netns(t *testing.T) string {
	t.Helper()
	r, err := s.kubelet.runtime.PodSandboxStatus(t.Context(), &cri.PodSandboxStatusRequest{PodSandboxId: s.id, Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	var info struct {
		RuntimeSpec struct {
			Linux struct{ Namespaces []struct{ Type, Path string } }
		}
	}
	if err := json.Unmarshal([]byte(r.Info["info"]), &info); err != nil {
		t.Fatal(err)
	}
	for _, n := range info.RuntimeSpec.Linux.Namespaces {
		if n.Type == "network" {
			return n.Path
		}
	}
	t.Fatalf("the sandbox of %s has no network namespace: %s", s.pod, r.Info["info"])
	return ""
}

// dial connects from inside a pod to another one's server. A drop is an error after half a second.
func (b *bed) dial(from, to pod) (c net.Conn, err error) {
	ns, err := netns.Open(b.machine.Path(from.netns))
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = ns.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", netip.AddrPortFrom(to.addr, serverPort).String(), 500*time.Millisecond)
		return err
	})
	return c, err
}

// talk says a line on a connection and wants it back.
func talk(c net.Conn) error {
	const line = "meow"
	buf := make([]byte, len(line))
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(c, line); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, buf); err != nil {
		return err
	}
	if string(buf) != line {
		return fmt.Errorf("the server answered %q", buf)
	}
	return nil
}

// reaches is a new connection, and a line over it.
func (b *bed) reaches(from, to pod) error {
	c, err := b.dial(from, to)
	if err != nil {
		return err
	}
	defer c.Close()
	return talk(c)
}

func (b *bed) policy(t *testing.T, client, web pod) {
	if err := b.reaches(client, web); err == nil {
		t.Error("pods without policy reach each other")
	}
	b.apply(t, mayTalk)
	eventually(t, "an allowed connection", func() error { return b.reaches(client, web) })
	if out, err := b.tortie(t, "explain", "shop/client", "shop/web", "tcp", "8080"); err != nil || !strings.Contains(out, "may-talk") {
		t.Errorf("explain: %v\n%s", err, out)
	}
	b.must(t, "delete", "networkpolicy", "may-talk", "-n", "shop")
	eventually(t, "a denied connection", func() error {
		if b.reaches(client, web) == nil {
			return errors.New("it gets through")
		}
		return nil
	})
	b.apply(t, mayTalk)
	eventually(t, "a connection allowed again", func() error { return b.reaches(client, web) })
}

// runtimeExec runs plugins where the runtime does.
type runtimeExec struct {
	invoke.Exec
	machine *machine.Machine
}

func (e runtimeExec) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, path)
	cmd.Dir, cmd.Env, cmd.Stdin = "/", env, bytes.NewReader(stdin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := e.machine.Run(cmd); err != nil {
		return nil, fmt.Errorf("%s: %w: %s%s", filepath.Base(path), err, &out, &stderr)
	}
	return out.Bytes(), nil
}

// cni is libcni as the runtime has it, with what it has kept of its ADDs.
func (b *bed) cni() *libcni.CNIConfig {
	e := runtimeExec{&invoke.DefaultExec{RawExec: &invoke.RawExec{}}, b.machine}
	return libcni.NewCNIConfigWithCacheDir([]string{b.path("bin")}, b.path("cni"), e)
}

// check is CHECK of a pod.
func (b *bed) check(t *testing.T, p pod) error {
	t.Helper()
	kept, err := filepath.Glob(b.path("cni", "results", "tortie-"+p.id+"-eth0"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("the runtime has kept %v, %v", kept, err)
	}
	list, err := libcni.ConfListFromBytes(b.conflist())
	if err != nil {
		t.Fatal(err)
	}
	return b.cni().CheckNetworkList(t.Context(), list, &libcni.RuntimeConf{ContainerID: p.id, NetNS: p.netns, IfName: "eth0",
		Args: [][2]string{{"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", p.pod}}})
}

func (b *bed) checkAndStatus(t *testing.T, web pod) {
	if err := b.check(t, web); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	b.inPod(t, web, "ip", "link", "set", "eth0", "mtu", "1400")
	if err := b.check(t, web); err == nil || !strings.Contains(err.Error(), "1400") {
		t.Errorf("CHECK of a pod with another MTU: %v", err)
	}
	b.inPod(t, web, "ip", "link", "set", "eth0", "mtu", "1500")
	if err := b.check(t, web); err != nil {
		t.Errorf("CHECK after a repair: %v", err)
	}

	// A runtime of CNI 1.1 asks for STATUS; Debian's portmap knows 1.0 only.
	list, err := libcni.ConfListFromBytes(encode(object{"cniVersion": "1.1.0", "name": "tortie", "plugins": []object{b.plugin()}}))
	if err != nil {
		t.Fatal(err)
	}
	status := func() error { return b.cni().GetStatusNetworkList(t.Context(), list) }
	if err := status(); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	b.node.Agent.Kill()
	if err := status(); err == nil {
		t.Error("STATUS without an agent is no error")
	}
	b.startAgent(t)
	if err := status(); err != nil {
		t.Errorf("STATUS with a new agent: %v", err)
	}
}

// restart kills containerd and the agent, and sees that pods don't notice.
func (b *bed) restart(t *testing.T, client, web pod) {
	c, err := b.dial(client, web)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b.killRuntime()
	b.node.Agent.Kill()
	if err := errors.Join(talk(c), b.reaches(client, web)); err != nil {
		t.Errorf("without runtime and agent: %v", err)
	}
	b.startAgent(t)
	b.startRuntime(t)
	for _, p := range []pod{client, web} {
		if ready, addr, err := p.status(t.Context()); err != nil || !ready || addr != p.addr {
			t.Errorf("%s after the restart: ready %v, address %v (it was %v), %v", p.pod, ready, addr, p.addr, err)
		}
		if err := b.check(t, p); err != nil {
			t.Errorf("CHECK of %s after the restart: %v", p.pod, err)
		}
	}
	if err := errors.Join(talk(c), b.reaches(client, web)); err != nil {
		t.Errorf("after the restart: %v", err)
	}
	eventually(t, "network", func() error { return b.kubelet.networkReady(t.Context()) })
}

// stopWithoutAgent ends a pod while no agent runs: the kubelet is not kept waiting, and the next agent tidies up.
func (b *bed) stopWithoutAgent(t *testing.T) {
	s := b.up(t, "short-lived")
	b.node.Agent.Kill()
	if err := s.remove(t.Context()); err != nil {
		t.Errorf("without an agent: %v", err)
	}
	b.startAgent(t)
	eventually(t, "tidying up", func() error {
		out, err := b.tortie(t, "get", "workloadendpoints", "-A", "-o", "name")
		if err == nil && strings.Contains(out, "short") {
			err = fmt.Errorf("the store has %s", out)
		}
		return err
	})
}

// removal ends all pods, and sees that nothing is left of them.
func (b *bed) removal(t *testing.T, pods ...*sandbox) {
	for _, s := range pods {
		if err := s.stop(t.Context()); err != nil {
			t.Error(err)
		}
		if ready, _, err := s.status(t.Context()); err != nil || ready {
			t.Errorf("%s was stopped: ready %v, %v", s.pod, ready, err)
		}
		for range 2 { // a kubelet that was restarted says it again
			if err := s.remove(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	l, err := b.node.Client().List(t.Context(), agentapi.ListRequest{})
	if err != nil || len(l.Attachments) > 0 {
		t.Errorf("the ledger has %v, %v", l, err)
	}
	links, err := exec.Command("ip", "-netns", b.node.Netns(), "-brief", "link", "show").CombinedOutput()
	if err != nil || strings.Contains(string(links), "\ntort") {
		t.Errorf("left are interfaces: %v\n%s", err, links)
	}
	b.must(t, "ipam", "check")
	if out := b.must(t, "get", "workloadendpoints", "-A", "-o", "name"); strings.TrimSpace(out) != "" {
		t.Errorf("the store has %s", out)
	}
	if out := b.must(t, "ipam", "show", "-o", "json"); !strings.Contains(out, `"used": 0`) || strings.Contains(out, `"used": 1`) {
		t.Errorf("addresses are in use:\n%s", out)
	}
	if kept, err := filepath.Glob(b.path("cni", "results", "*eth0")); err != nil || len(kept) > 0 {
		t.Errorf("the runtime has kept %v, %v", kept, err)
	}
}

func (b *bed) startAgent(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := errors.Join(b.node.StartAgent(), b.node.AwaitReady(ctx)); err != nil {
		t.Fatal(err)
	}
}

func (b *bed) inPod(t *testing.T, p pod, args ...string) {
	t.Helper()
	cmd := exec.Command("nsenter", append([]string{"--net=" + p.netns}, args...)...)
	cmd.Dir = "/"
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := b.machine.Run(cmd); err != nil {
		t.Fatalf("%v in %s: %v: %s", args, p.pod, err, &out)
	}
}

func (b *bed) tortie(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return b.lab.Tortie(t.Context(), b.node, args...)
}

func (b *bed) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.tortie(t, args...)
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return out
}

func (b *bed) apply(t *testing.T, yaml string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := b.tortie(t, "apply", "-f", path); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
