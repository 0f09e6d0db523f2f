//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/internal/netns"
)

// AddHost makes a namespace of the lab that is wired to nothing: a container for a CNI plugin, a node without an agent.
// Down removes it with all others.
func (l *Lab) AddHost(name string, addrs ...netip.Addr) (*Host, error) {
	return l.newHost(name, addrs...)
}

// Plug wires a host to the fabric, with an eth0 that has its addresses.
func (l *Lab) Plug(h *Host) error { return l.plug(h) }

// Remove removes the namespace of a host that AddHost made.
func (l *Lab) Remove(h *Host) error {
	l.hosts = slices.DeleteFunc(l.hosts, func(o *Host) bool { return o == h })
	return errors.Join(h.ns.Close(), netns.Delete(h.Netns()))
}

// IP runs commands of `ip` in the host's namespace, in one batch.
func (h *Host) IP(commands ...string) error { return h.ip(commands...) }

// Do runs fn on a thread inside the host's namespace; netns.Ns.Do says how.
func (h *Host) Do(fn func() error) error { return h.ns.Do(fn) }

// Namespace is the host's network namespace. It is the host's own: not to be closed.
func (h *Host) Namespace() *netns.Ns { return h.ns }

// SetAgentConfig replaces Options.AgentConfig for agents that are started from now on.
func (l *Lab) SetAgentConfig(yaml string) { l.opts.AgentConfig = yaml }

// Replace gives the node, whose agent must not be running, a namespace as empty as after a boot, a new wire to the
// fabric, and a new boot id. What was plugged in is gone; the agent's files stay.
func (n *Node) Replace() error {
	l, old := n.lab, n.Host
	if err := l.fabric.ip("link del " + old.port); err != nil { // the node's wire goes with the node
		return err
	}
	fresh, err := l.newHost(fmt.Sprintf("%s-%d", n.NodeName(), l.wires), old.Addrs...)
	if err != nil {
		return err
	}
	n.Host = fresh
	return errors.Join(l.Remove(old), l.plug(fresh), n.Reboot())
}
