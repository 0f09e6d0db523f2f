package ctl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/uplink"
)

// uplinks says by which host interface each node of a flow reaches the end that is not on it, and which nodes it had to
// guess that for. On the node where the command runs there is a kernel to ask; of others their agents have told the
// interfaces with their addresses, and those of the default routes.
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
		if name := uplink.To(far); name != "" {
			return name
		}
	}
	if name := u.w.uplink(s, far); name != "" {
		return name
	}
	u.guessed = append(u.guessed, s.Node.Name)
	return uplinkName
}

// uplink returns the interface by which a node reaches an address, as its agent has told; "" if it has not.
func (w *world) uplink(s *drivers.State, far netip.Addr) string {
	info, told := w.infos[s.Node.Name]
	if !told {
		return ""
	}
	if r := s.Route(far); r != nil && r.Kind == drivers.RouteRemote && r.NextHop.IsValid() {
		far = r.NextHop
	}
	return info.Uplink(far)
}

// between returns the interface by which a node reaches another one, or, with nil, the rest of the world; "" if its agent
// has not told. It is the same for all ends there, so that one of them can stand for all.
func (w *world) between(from, to *drivers.State, family int) string {
	info, told := w.infos[from.Node.Name]
	switch {
	case !told:
		return ""
	case to == nil:
		return info.Uplinks[family]
	}
	for _, a := range to.Node.Addresses {
		if a.Is4() == (family == 0) {
			return info.Uplink(a)
		}
	}
	return info.Uplinks[family]
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
