package ctl

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// uplinks says by which host interface each node of a flow reaches the end that is not on it, and which nodes it had to
// guess that for. Only on the node where the command runs is there a kernel to ask.
type uplinks struct {
	w       *world
	given   string // by the caller; "" = nothing
	guessed []string
}

// of returns the interface by which the node with State s (which may be nil) reaches far.
func (u *uplinks) of(s *drivers.State, far netip.Addr) string {
	switch {
	case u.given != "":
		return u.given
	case s == nil:
		return uplinkName
	case s.Node.Name == u.w.live:
		if name := kernelUplink(far); name != "" {
			return name
		}
	}
	u.guessed = append(u.guessed, s.Node.Name)
	return uplinkName
}

// doubts names the nodes whose host endpoints are all on other interfaces than the one that was guessed: the verdict
// leaves them out, though the packet may well meet one.
func (u *uplinks) doubts(hops []drivers.Hop) []string {
	var out []string
	for _, h := range hops {
		crosses := func(p drivers.Place) bool { return p.Kind == drivers.PlaceHostIface && p.Iface == uplinkName }
		if !slices.Contains(u.guessed, h.Node) || !crosses(h.Packet.From) && !crosses(h.Packet.To) {
			continue
		}
		on := strangeUplinks(u.w.states[h.Node])
		if len(on) == 0 {
			continue
		}
		out = append(out, fmt.Sprintf("node %s is taken to reach the others through %s, but its host endpoints are on %s: "+
			"if the packet goes there, say so with --uplink", h.Node, uplinkName, strings.Join(on, ", ")))
	}
	return out
}

// strangeUplinks returns the interfaces that have host endpoints on a node where the one that is guessed has none.
func strangeUplinks(s *drivers.State) []string {
	var on []string
	for _, e := range s.Endpoints {
		if e.ID.Kind == drivers.HostInterface && e.Iface != drivers.AllHostIfaces {
			on = append(on, e.Iface)
		}
	}
	if slices.Contains(on, uplinkName) {
		return nil
	}
	slices.Sort(on)
	return on
}

// kernelUplink returns the interface by which this host reaches an address, "" if there is no saying. It asks for the
// source address that the kernel would choose: connecting a UDP socket sends nothing.
func kernelUplink(to netip.Addr) string {
	const discard = 9
	c, err := net.Dial("udp", netip.AddrPortFrom(to, discard).String())
	if err != nil {
		return ""
	}
	defer c.Close()
	at, ok := c.LocalAddr().(*net.UDPAddr)
	if !ok {
		return ""
	}
	ifaces, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it may just have gone
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(at.IP) {
				return i.Name
			}
		}
	}
	return ""
}
