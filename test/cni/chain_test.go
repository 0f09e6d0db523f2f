//go:build linux

package cni

import (
	"bytes"
	"encoding/json"
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

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tortie/tortie/internal/agentapi"
	"github.com/tortie/tortie/internal/netns"
)

// tool is the CNI project's own runtime, over a directory of networks. It keeps its results in a directory of its own.
type tool struct {
	t    testing.TB
	dir  string
	name string
}

// newTool writes the configuration of a network with the plugin first, then others.
func newTool(t testing.TB, version string, plugins ...object) tool {
	t.Helper()
	b := tool{t: t, dir: t.TempDir(), name: "testnet"}
	list, err := json.Marshal(object{"cniVersion": version, "name": b.name, "plugins": plugins})
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, "10-testnet.conflist"), list, 0o600)
	}
	for _, dir := range []string{"/var/lib/cni", filepath.Join(b.dir, "cache")} {
		if err == nil {
			err = os.MkdirAll(dir, 0o755)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// run runs a verb on the node for an interface of a container. cnitool keeps results in /var/lib/cni: a mount hides the
// machine's.
func (b tool) run(verb string, c *container, iface string, env ...string) (string, error) {
	script := `mount --bind "$CACHE" /var/lib/cni && exec "$0" "$@"`
	cmd := exec.Command("unshare", "-m", "sh", "-c", script, filepath.Join(shared.bin, "cnitool"), verb, b.name, c.path())
	cmd.Env = append(os.Environ(), "CACHE="+filepath.Join(b.dir, "cache"), "NETCONFPATH="+b.dir, "CNI_PATH="+shared.bin+":"+debianPlugins,
		"CNI_IFNAME="+iface)
	cmd.Env = append(cmd.Env, env...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := onNode(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return out.String(), fmt.Errorf("cnitool %s: %w: %s%s", verb, err, &out, &stderr)
	}
	return out.String(), nil
}

func (b tool) add(c *container, iface string, env ...string) *current.Result {
	b.t.Helper()
	out, err := b.run("add", c, iface, env...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { b.must("del", c, iface, env...) })
	return result(b.t, []byte(out))
}

func (b tool) must(verb string, c *container, iface string, env ...string) {
	b.t.Helper()
	if _, err := b.run(verb, c, iface, env...); err != nil {
		b.t.Error(err)
	}
}

// inList is the plugin's configuration as it stands in a list.
func inList(ipamSection, more object) object {
	c := pluginConf(ipamSection, more)
	delete(c, "name")
	delete(c, "cniVersion")
	return c
}

// echo answers TCP in a container, on all addresses.
func (c *container) echo(port string) {
	c.t.Helper()
	err := c.ns.Do(func() error {
		l, err := net.Listen("tcp", net.JoinHostPort("::", port))
		if err != nil {
			return err
		}
		c.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					_, _ = io.Copy(conn, conn)
				}()
			}
		}()
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// talk says something to an echo, from a namespace, with a source of its own if that is valid.
func talk(ns *netns.Ns, src, dst netip.Addr, port uint16) error {
	return ns.Do(func() error {
		d := net.Dialer{Timeout: 2 * time.Second}
		if src.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0))
		}
		conn, err := d.Dial("tcp", netip.AddrPortFrom(dst, port).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			return err
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != "hello" {
			return fmt.Errorf("%q came back: %w", b, err)
		}
		return nil
	})
}

func nodeNs(t testing.TB) *netns.Ns {
	t.Helper()
	ns, err := netns.OpenNamed(shared.node.Netns())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

func addrOf(t testing.TB, r *current.Result, n int) netip.Addr {
	t.Helper()
	a, ok := netip.AddrFromSlice(r.IPs[n].Address.IP)
	if !ok {
		t.Fatalf("%v", r.IPs)
	}
	return a.Unmap()
}

// output runs a command in a namespace and returns what it prints.
func output(t testing.TB, ns *netns.Ns, command ...string) string {
	t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", ns.Name()}, command...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", command, err, out)
	}
	return string(out)
}

// chainArgs are what the runtime says to the plugins of a chain.
const chainArgs = `CAP_ARGS={"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}],` +
	`"bandwidth":{"ingressRate":8000000,"ingressBurst":800000,"egressRate":8000000,"egressBurst":800000}}`

// TestChain is the life of a container behind host-local, with bandwidth, portmap and tuning behind it: what they do must
// work, and what they change must not disturb CHECK.
func TestChain(t *testing.T) {
	for name, subnets := range map[string][]string{"IPv4": {"10.65.2.0/24"}, "dual stack": {"10.65.2.0/24", "fd65::2:0/112"}} {
		t.Run(name, func(t *testing.T) {
			b := newTool(t, "1.0.0", inList(hostLocal(t, subnets...), nil),
				object{"type": "bandwidth", "capabilities": object{"bandwidth": true}},
				object{"type": "portmap", "capabilities": object{"portMappings": true}},
				object{"type": "tuning", "sysctl": object{"net.ipv4.tcp_keepalive_time": "77"}, "dataDir": t.TempDir()})
			c := newContainer(t)
			res := b.add(c, "eth0", chainArgs)
			if len(res.Interfaces) < 2 || res.Interfaces[1].Name != "eth0" || len(res.IPs) != len(subnets) {
				t.Fatalf("%v", res)
			}
			c.echo("80")
			checkChain(t, c, res)
			checkBehindPortmap(t, c, res)
			b.must("del", c, "eth0", chainArgs)
			nothingLeft(t)
			if err := talk(nodeNs(t), netip.Addr{}, shared.node.Addr(4), 8080); err == nil {
				t.Error("portmap is still there")
			}
			b.must("del", c, "eth0", chainArgs)
			// And once more, in the same namespace.
			checkChain(t, c, b.add(c, "eth0", chainArgs))
		})
	}
}

// checkBehindPortmap runs the plugin's own CHECK. Debian 12's portmap (1.1.1) looks for the rules of each address with both
// iptables and ip6tables, so that its CHECK always fails where there are both.
func checkBehindPortmap(t *testing.T, c *container, res *current.Result) {
	t.Helper()
	a := attachments(t)
	if len(a) != 1 {
		t.Fatalf("attachments: %v", a)
	}
	conf := pluginConf(object{}, object{"prevResult": res})
	out, err := call{verb: "CHECK", id: a[0].Sandbox, iface: "eth0", netns: c.path(), conf: conf}.run()
	if err != nil || len(out) > 0 {
		t.Errorf("CHECK: %s %v", out, err)
	}
}

// TestCheckOfChain: CHECK of every plugin in it.
func TestCheckOfChain(t *testing.T) {
	b := newTool(t, "1.0.0", inList(hostLocal(t), nil),
		object{"type": "bandwidth", "capabilities": object{"bandwidth": true}},
		object{"type": "tuning", "sysctl": object{"net.ipv4.tcp_keepalive_time": "77"}, "dataDir": t.TempDir()})
	c := newContainer(t)
	b.add(c, "eth0", chainArgs)
	b.must("check", c, "eth0", chainArgs)
}

// checkChain looks at what each plugin of the chain has to do.
func checkChain(t *testing.T, c *container, res *current.Result) {
	t.Helper()
	node := nodeNs(t)
	for n := range res.IPs {
		if err := talk(node, netip.Addr{}, addrOf(t, res, n), 80); err != nil {
			t.Errorf("to %v: %v", res.IPs[n], err)
		}
	}
	if err := talk(node, netip.Addr{}, shared.node.Addr(4), 8080); err != nil {
		t.Errorf("through portmap: %v", err)
	}
	if q := output(t, node, "tc", "qdisc", "show", "dev", res.Interfaces[0].Name); !strings.Contains(q, "tbf") || !strings.Contains(q, "ingress") {
		t.Errorf("bandwidth: %s", q)
	}
	if v := strings.TrimSpace(output(t, c.ns, "sysctl", "-n", "net.ipv4.tcp_keepalive_time")); v != "77" {
		t.Errorf("tuning: %s", v)
	}
}

// TestCheckAfterTampering: each damage is told of.
func TestCheckAfterTampering(t *testing.T) {
	pool := hostLocal(t)
	b := newTool(t, "1.0.0", inList(pool, nil))
	for _, tc := range []struct {
		name, says string
		damage     func(c *container, r *current.Result) error
	}{
		{"address", "/32 is missing", func(c *container, r *current.Result) error {
			return c.ip("addr", "del", r.IPs[0].Address.String(), "dev", "eth0")
		}},
		{"IPv6 address", "/128 is missing", func(c *container, r *current.Result) error {
			return c.ip("addr", "del", r.IPs[1].Address.String(), "dev", "eth0")
		}},
		{"link down", "eth0 being up", func(c *container, _ *current.Result) error { return c.ip("link", "set", "eth0", "down") }},
		{"link gone", "is missing", func(c *container, _ *current.Result) error { return c.ip("link", "del", "eth0") }},
		{"host's side down", "being up", func(_ *container, r *current.Result) error {
			return ipOnNode("link", "set", r.Interfaces[0].Name, "down")
		}},
		{"route", "route 0.0.0.0/0", func(c *container, _ *current.Result) error { return c.ip("route", "del", "default") }},
		{"IPv6 route", "route ::/0", func(c *container, _ *current.Result) error { return c.ip("-6", "route", "del", "default") }},
		{"MAC", "MAC of eth0", func(c *container, _ *current.Result) error {
			return c.ip("link", "set", "eth0", "address", "02:00:00:00:00:99")
		}},
		{"MTU", "MTU of eth0", func(c *container, _ *current.Result) error { return c.ip("link", "set", "eth0", "mtu", "1300") }},
		{"another address", "should not be there", func(c *container, _ *current.Result) error {
			return c.ip("addr", "add", "10.65.2.99/32", "dev", "eth0")
		}},
		{"neighbour", "neighbour 169.254.1.1", func(c *container, _ *current.Result) error {
			return c.ip("neigh", "del", "169.254.1.1", "dev", "eth0")
		}},
		{"gateway", "addresses of tort", func(_ *container, r *current.Result) error {
			return ipOnNode("addr", "flush", "dev", r.Interfaces[0].Name)
		}},
		{"forwarding", "sysctls", func(_ *container, r *current.Result) error {
			out, err := exec.Command("ip", "netns", "exec", shared.node.Netns(), "sysctl", "-qw", "net.ipv4.conf."+r.Interfaces[0].Name+".rp_filter=1").CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}},
		{"detached by somebody", "not plugged in", func(c *container, _ *current.Result) error {
			a := attachments(t)[0]
			return shared.node.Client().Detach(t.Context(), agentapi.DetachRequest{Sandbox: a.Sandbox, Interface: a.Interface})
		}},
		{"released by somebody", "host-local", func(*container, *current.Result) error {
			return os.RemoveAll(pool["dataDir"].(string))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := b
			b.t = t
			c := newContainer(t)
			r := b.add(c, "eth0")
			b.must("check", c, "eth0")
			if err := tc.damage(c, r); err != nil {
				t.Fatal(err)
			}
			if _, err := b.run("check", c, "eth0"); err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("CHECK says %v, want %q", err, tc.says)
			}
		})
	}
	nothingLeft(t)
}

func ipOnNode(args ...string) error {
	if out, err := exec.Command("ip", append([]string{"-netns", shared.node.Netns()}, args...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", args, err, out)
	}
	return nil
}

// TestToolOf11 runs the verbs that came with CNI 1.1.
func TestToolOf11(t *testing.T) {
	pool := newIPAM(t)
	b := newTool(t, "1.1.0", inList(pool.section(), nil))
	c, d := newContainer(t), newContainer(t)
	b.add(c, "eth0")
	b.add(d, "eth0")
	b.must("status", c, "eth0")
	b.must("check", c, "eth0")
	b.must("gc", c, "eth0") // which knows of no valid attachment
	nothingLeft(t)
	if pool.held() != 0 {
		t.Errorf("%d addresses are held", pool.held())
	}
}

// TestTwoInterfaces: each is an attachment of its own, reached and answering by itself.
func TestTwoInterfaces(t *testing.T) {
	b := newTool(t, "1.0.0", inList(hostLocal(t), nil))
	c := newContainer(t)
	first := b.add(c, "eth0")
	second := b.add(c, "net1")
	if got := attachments(t); len(got) != 2 || got[0].Sandbox != got[1].Sandbox || got[0].HostIface == got[1].HostIface {
		t.Errorf("%v", got)
	}
	c.echo("80")
	node := nodeNs(t)
	for n := range 2 {
		for _, r := range []*current.Result{first, second} {
			if err := talk(node, netip.Addr{}, addrOf(t, r, n), 80); err != nil {
				t.Errorf("to %v: %v", r.IPs[n], err)
			}
		}
	}
	b.must("check", c, "eth0")
	b.must("check", c, "net1")
	b.must("del", c, "eth0")
	if err := talk(node, netip.Addr{}, addrOf(t, second, 0), 80); err != nil {
		t.Errorf("the second after the first has gone: %v", err)
	}
	b.must("del", c, "net1")
	nothingLeft(t)
}
