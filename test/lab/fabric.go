//go:build linux

package lab

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/tortie/tortie/internal/netns"
)

// Host is a namespace of the lab: a node, a workload, or a host outside.
type Host struct {
	Name  string
	Addrs []netip.Addr // IPv4, then IPv6
	ns    *netns.Ns
	port  string // the fabric's end of its wire, if it has one
}

// Netns is the name of the host's network namespace, for `ip netns exec`.
func (h *Host) Netns() string { return h.ns.Name() }

// Addr is the host's address of a family (4 or 6).
func (h *Host) Addr(family int) netip.Addr {
	for _, a := range h.Addrs {
		if a.Is4() == (family == 4) {
			return a
		}
	}
	return netip.Addr{}
}

// newHost makes a namespace with a loopback that is up.
func (l *Lab) newHost(name string, addrs ...netip.Addr) (*Host, error) {
	ns, err := netns.Create(l.ID + "." + name)
	if err != nil {
		return nil, err
	}
	h := &Host{Name: name, Addrs: addrs, ns: ns}
	l.hosts = append(l.hosts, h)
	return h, h.ip("link set lo up")
}

// ip runs commands of `ip` in the host's namespace, in one batch.
func (h *Host) ip(commands ...string) error {
	cmd := exec.Command("ip", "-netns", h.Netns(), "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("setting up %s: ip: %w: %s", h.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// buildFabric makes the bridge that joins nodes and outside hosts, if it is not there.
func (l *Lab) buildFabric() error {
	if l.fabric != nil {
		return nil
	}
	f, err := l.newHost("fabric")
	if err != nil {
		return err
	}
	l.fabric = f
	return f.ip("link add br0 type bridge", "link set br0 up")
}

// plug wires h to the fabric, with an eth0 that has its addresses.
func (l *Lab) plug(h *Host) error {
	l.wires++
	h.port = fmt.Sprintf("p%d", l.wires)
	if err := l.fabric.ip(
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", h.port, h.Netns()),
		fmt.Sprintf("link set %s master br0", h.port),
		fmt.Sprintf("link set %s up", h.port),
	); err != nil {
		return err
	}
	commands := []string{"link set eth0 up"}
	for _, a := range h.Addrs {
		commands = append(commands, addAddr(a))
	}
	return h.ip(commands...)
}

// fabricPrefix is an address with the length of the fabric's network.
func fabricPrefix(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(a, 16)
	}
	return netip.PrefixFrom(a, 64)
}

func addAddr(a netip.Addr) string {
	s := fmt.Sprintf("addr add %s dev eth0", fabricPrefix(a))
	if a.Is6() {
		s += " nodad"
	}
	return s
}
