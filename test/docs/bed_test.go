//go:build linux

package docs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/internal/netns/netnstest"
	"github.com/tortie/tortie/test/build"
	"github.com/tortie/tortie/test/machine"
)

// outsideAddrs are those of a host that is no machine of the page: a router, and what is behind it.
var outsideAddrs = []string{"192.0.2.1/24", "198.51.100.7/32", "203.0.113.7/32"}

// tools are programs that are played, and where they are looked for before others.
type tools struct {
	dir string // of this test run
}

func (tl tools) bin() string  { return filepath.Join(tl.dir, "bin") }
func (tl tools) path() string { return filepath.Join(tl.dir, "tools") }

// prepare builds the programs, once for all pages.
func prepare(dir string) (tools, error) {
	tl := tools{dir}
	for _, d := range []string{tl.bin(), tl.path()} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return tl, err
		}
	}
	err := build.Programs(map[string]string{
		filepath.Join(tl.bin(), "tortie"): "./cmd/tortie", filepath.Join(tl.bin(), "tortie-cni"): "./cmd/tortie-cni"})
	if err != nil {
		return tl, err
	}
	self, err := os.Executable()
	if err != nil {
		return tl, err
	}
	// Wherever python3 is: the first in PATH may be a script that looks for the real one in the user's home.
	python, err := exec.Command("python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		return tl, fmt.Errorf("looking for python3 (scripts/deps.sh test installs it): %w", err)
	}
	return tl, errors.Join(
		os.Symlink(strings.TrimSpace(string(python)), filepath.Join(tl.path(), "python3")),
		os.Symlink(self, filepath.Join(tl.path(), "systemctl")), os.Symlink(self, filepath.Join(tl.path(), "journalctl")),
		os.WriteFile(filepath.Join(tl.path(), "sudo"), []byte("#!/bin/sh\nexec \"$@\"\n"), 0o755))
}

// bed is what a page runs on.
type bed struct {
	t       *testing.T
	tools   tools
	hosts   []*host
	outside *netns.Ns
}

// host is a machine of the page, with a shell on it.
type host struct {
	name    string
	machine *machine.Machine
	ns      *netns.Ns
	home    string // where the reader is: a checkout that has been built
	shell   *shell
}

func newBed(t *testing.T, tl tools, names []string) *bed {
	t.Helper()
	if len(names) == 0 {
		names = []string{"one"}
	}
	b := &bed{t: t, tools: tl, outside: netnstest.NewNamed(t)}
	b.ip(b.outside, "link add br0 type bridge", "link set br0 up")
	for _, a := range outsideAddrs {
		b.ip(b.outside, "addr add "+a+" dev br0")
	}
	b.ip(b.outside, "route add 10.65.0.0/16 via 192.0.2.11") // as the first machine's workloads have
	for i, name := range names {
		b.hosts = append(b.hosts, b.newHost(name, i+1))
	}
	return b
}

// ip runs commands of `ip` in a namespace.
func (b *bed) ip(ns *netns.Ns, commands ...string) {
	b.t.Helper()
	cmd := exec.Command("ip", "-netns", ns.Name(), "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.t.Fatalf("ip: %v: %s", err, out)
	}
}

// newHost makes the n-th machine: 192.0.2.1n on the common network, by which it also reaches the world.
func (b *bed) newHost(name string, n int) *host {
	t := b.t
	t.Helper()
	h := &host{name: name, ns: netnstest.NewNamed(t), home: t.TempDir()}
	b.ip(b.outside, fmt.Sprintf("link add p%d type veth peer name eth0 netns %s", n, h.ns.Name()),
		fmt.Sprintf("link set p%d master br0 up", n))
	b.ip(h.ns, "link set eth0 up", fmt.Sprintf("addr add 192.0.2.1%d/24 dev eth0", n), "route add default via 192.0.2.1")
	var err error
	h.machine, err = machine.New(machine.Options{Name: name, Netns: h.ns, Empty: []string{"/run", "/var/lib"}, Own: []string{"/etc", "/usr/local", "/opt"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.machine.Close)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for name, what := range map[string]string{"bin": b.tools.bin(), "deploy": root + "/deploy", "examples": root + "/examples"} {
		if err := os.Symlink(what, filepath.Join(h.home, name)); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=" + b.tools.path() + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + h.home, "LC_ALL=C"}
	if h.shell, err = newShell(h.machine, h.home, t.TempDir(), env); err != nil {
		t.Fatal(err)
	}
	// Nothing of a Tortie that the real machine may have.
	h.must(t, "mkdir -p /run/netns; rm -rf /etc/tortie /etc/systemd/system/tortie* /usr/local/bin/tortie* /etc/cni /opt/cni\n")
	return h
}

// host finds a machine by name; "" is the first.
func (b *bed) host(name string) (*host, error) {
	for _, h := range b.hosts {
		if name == "" || h.name == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("the page has no machine %q", name)
}

// must runs commands on a machine, which succeed.
func (h *host) must(t *testing.T, script string) string {
	t.Helper()
	out, code, err := h.shell.run(script)
	if err != nil || code != 0 {
		t.Fatalf("on %s: %s: code %d, %v\n%s", h.name, strings.TrimSpace(script), code, err, out)
	}
	return out
}
