package linux

import (
	"context"
	"fmt"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/linuxnet"
	"github.com/tortie/tortie/internal/netns"
)

// Find looks for the host's side of an interface that another plugin has made.
func (t *attacher) Find(ctx context.Context, a drivers.Attachment) (drivers.Attached, error) {
	if err := ctx.Err(); err != nil {
		return drivers.Attached{}, err
	}
	made, err := t.find(a)
	if err != nil {
		err = fmt.Errorf("finding what another plugin has made of interface %s of sandbox %s: %w", a.ID.Interface, a.ID.Sandbox, err)
	}
	return made, err
}

func (t *attacher) find(a drivers.Attachment) (drivers.Attached, error) {
	var none drivers.Attached
	ns, err := netns.Open(a.Netns)
	if err != nil {
		return none, err
	}
	defer ns.Close()
	in, err := linuxnet.Open(ns)
	if err != nil {
		return none, err
	}
	defer in.Close()
	w, err := in.Link(a.ID.Interface)
	if err != nil {
		return none, err
	}
	// Who looks out of a namespace sees the other by an id, which each gives as it likes.
	there, err := in.NsID(t.host.Ns())
	if err != nil {
		return none, err
	}
	if w.Type != "veth" || w.Parent == 0 || w.ParentNs != there {
		return none, fmt.Errorf("it is no half of a veth pair whose other half is on the node (%s): policy is at that half", w.Type)
	}
	h, err := t.host.LinkByIndex(w.Parent)
	if err != nil {
		return none, err
	}
	if h.Master != 0 {
		bridge := fmt.Sprint("interface ", h.Master)
		if m, err := t.host.LinkByIndex(h.Master); err == nil {
			bridge = m.Type + " " + m.Name
		}
		return none, fmt.Errorf("its other half %s is a port of %s: what that switches is not seen by policy; it takes a plugin that routes, such as ptp", h.Name, bridge)
	}
	return drivers.Attached{HostIface: h.Name, HostMAC: h.MAC, MAC: w.MAC, MTU: w.MTU}, nil
}
