//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tortie/tortie/internal/agentapi"
)

// Server is a port on which a host answers TCP connections and UDP datagrams with what it was sent.
type Server struct {
	Name string // "" = not named in the workload's endpoint
	Port uint16
}

// Workload is a workload of the lab.
type Workload struct {
	*Host
	Node      *Node
	Namespace string
	Servers   []Server
	HostIface string
	closers   []io.Closer
	request   agentapi.AttachRequest
}

// WorkloadSpec says what to plug in.
type WorkloadSpec struct {
	Name, Namespace string
	Node            int // index of the node, from 1
	Host            int // of the address within the node's block, from 1; 0 = the agent allocates addresses of pools
	Labels          map[string]string
	Profiles        []string
	Servers         []Server
}

// AddWorkload makes a namespace, plugs it in through the agent's socket, and starts its servers.
func (l *Lab) AddWorkload(ctx context.Context, s WorkloadSpec) (*Workload, error) {
	w, err := l.NewWorkload(s)
	if err != nil {
		return nil, err
	}
	if err := w.Attach(ctx); err != nil {
		return nil, err
	}
	w.closers, err = w.serve(s.Servers)
	return w, err
}

// NewWorkload makes a namespace.
func (l *Lab) NewWorkload(s WorkloadSpec) (*Workload, error) {
	n := l.Nodes[s.Node-1]
	var addrs []netip.Addr
	for _, family := range []int{4, 6} {
		if s.Host == 0 {
			break
		}
		a := n.Block(family).Addr()
		for range s.Host {
			a = a.Next()
		}
		addrs = append(addrs, a)
	}
	h, err := l.newHost(s.Name, addrs...)
	if err != nil {
		return nil, err
	}
	w := &Workload{Host: h, Node: n, Namespace: s.Namespace, Servers: s.Servers}
	l.workloads = append(l.workloads, w)
	w.request = agentapi.AttachRequest{
		Sandbox: l.ID + "." + s.Name, Interface: "eth0", Addresses: addrs,
		Workload: agentapi.Workload{Orchestrator: "lab", Namespace: s.Namespace, Name: s.Name, Labels: s.Labels, Profiles: s.Profiles},
	}
	for _, srv := range s.Servers {
		if srv.Name != "" {
			w.request.Workload.Ports = append(w.request.Workload.Ports, agentapi.Port{Name: srv.Name, Protocol: "TCP", Port: srv.Port})
		}
	}
	return w, nil
}

// Attach plugs the workload in. Doing that again changes nothing.
func (w *Workload) Attach(ctx context.Context) error {
	ns, err := os.Open(w.ns.Path())
	if err != nil {
		return err
	}
	defer ns.Close()
	got, err := w.Node.Client().Attach(ctx, w.request, ns)
	if err != nil {
		return fmt.Errorf("attaching %s: %w", w.Name, err)
	}
	w.HostIface, w.Addrs = got.HostIface, got.Addresses
	return nil
}

// Detach unplugs the workload. Its namespace stays.
func (w *Workload) Detach(ctx context.Context) error {
	sandbox := w.Node.lab.ID + "." + w.Name
	return w.Node.Client().Detach(ctx, agentapi.DetachRequest{Sandbox: sandbox, Interface: "eth0"})
}

func (w *Workload) close() {
	for _, c := range w.closers {
		c.Close()
	}
}

// Outside is a host on the fabric that is no node.
type Outside struct {
	*Host
	closers []io.Closer
}

// AddOutside makes a host on the fabric with the addresses 172.31.99.host and fd31::99:host (in decimal digits).
func (l *Lab) AddOutside(name string, host uint8, servers ...Server) (*Outside, error) {
	h, err := l.newHost(name, netip.AddrFrom4([4]byte{172, 31, 99, host}), netip.MustParseAddr(fmt.Sprintf("fd31::99:%d", host)))
	if err != nil {
		return nil, err
	}
	o := &Outside{Host: h}
	l.outside = append(l.outside, o)
	if err := errors.Join(l.plug(h), l.routeBlocks(h)); err != nil {
		return nil, err
	}
	o.closers, err = h.serve(servers)
	return o, err
}

func (o *Outside) close() {
	for _, c := range o.closers {
		c.Close()
	}
}

// routeBlocks gives hosts outside the routes to the nodes' blocks that a router of the network would have.
func (l *Lab) routeBlocks(hosts ...*Host) error {
	for _, h := range hosts {
		if h == l.fabric || l.isNode(h) {
			continue
		}
		var commands []string
		for _, n := range l.Nodes {
			for _, family := range []int{4, 6} {
				commands = append(commands, fmt.Sprintf("route add %s via %s", n.Block(family), n.Addr(family)))
			}
		}
		if err := h.ip(commands...); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) isNode(h *Host) bool {
	for _, n := range l.Nodes {
		if n.Host == h {
			return true
		}
	}
	return false
}

// serve starts echo servers inside the host's namespace, on all its addresses.
func (h *Host) serve(servers []Server) ([]io.Closer, error) {
	var closers []io.Closer
	err := h.ns.Do(func() error {
		for _, s := range servers {
			at := net.JoinHostPort("::", strconv.Itoa(int(s.Port)))
			tcp, err := net.Listen("tcp", at)
			if err != nil {
				return err
			}
			closers = append(closers, tcp)
			go echoTCP(tcp)
			udp, err := net.ListenPacket("udp", at)
			if err != nil {
				return err
			}
			closers = append(closers, udp)
			go echoUDP(udp)
		}
		return nil
	})
	return closers, err
}

func echoTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c)
		}()
	}
}

func echoUDP(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(buf[:n], from)
	}
}

// config is the agent's configuration file.
func (n *Node) config() string {
	return fmt.Sprintf(`nodeName: %s
nodeAddresses: [%s, "%s"]
store:
  endpoints: [%s]
stateDir: %s
runDir: %s
socket: %s
bootIDFile: %s
listen: 127.0.0.1:9091
%s`, n.NodeName(), fabricPrefix(n.Addr(4)), fabricPrefix(n.Addr(6)), strings.Join(n.lab.agentStore(), ", "), n.StateDir(), n.dir(), n.Socket(), n.BootID(),
		n.lab.opts.AgentConfig)
}

// dialTimeout is how long a connection may take before it counts as dropped.
const dialTimeout = time.Second
