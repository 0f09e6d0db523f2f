package linuxnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Neigh is a permanent entry of the neighbour table: no resolution is needed, and none can change it.
type Neigh struct {
	Link     int
	Addr     netip.Addr
	MAC      MAC
	Protocol int // who made it, as of routes; 0 = not said
}

// Neighs lists the permanent entries of an interface; 0 = of all.
func (c *Conn) Neighs(link int) ([]Neigh, error) {
	ns, err := dump(func() ([]Neigh, error) { return c.neighs(link) })
	if err != nil {
		return nil, fmt.Errorf("listing neighbours: %w", err)
	}
	return ns, nil
}

func (c *Conn) neighs(link int) ([]Neigh, error) {
	req := c.request(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
	req.AddData(&netlink.Ndmsg{})
	if link != 0 {
		req.AddData(nl.NewRtAttr(netlink.NDA_IFINDEX, nl.Uint32Attr(uint32(link))))
	}
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	if err != nil {
		return nil, err
	}
	var out []Neigh
	for _, m := range msgs {
		if n, ok := parseNeigh(m); ok && (link == 0 || n.Link == link) {
			out = append(out, n)
		}
	}
	return out, nil
}

// parseNeigh reads one entry; false = it is not a permanent one of IPv4 or IPv6.
func parseNeigh(m []byte) (Neigh, bool) {
	// struct ndmsg: family, 3 bytes of padding, ifindex, state, flags, type.
	if len(m) < unix.SizeofNdMsg || m[0] != unix.AF_INET && m[0] != unix.AF_INET6 {
		return Neigh{}, false
	}
	n := Neigh{Link: int(binary.NativeEndian.Uint32(m[4:]))}
	state, flags := binary.NativeEndian.Uint16(m[8:]), m[10]
	if state&unix.NUD_PERMANENT == 0 || flags&unix.NTF_PROXY != 0 {
		return Neigh{}, false
	}
	attrs, err := nl.ParseRouteAttr(m[unix.SizeofNdMsg:])
	if err != nil {
		return Neigh{}, false
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case netlink.NDA_DST:
			n.Addr, _ = netip.AddrFromSlice(a.Value)
		case netlink.NDA_LLADDR:
			copy(n.MAC[:], a.Value)
		case netlink.NDA_PROTOCOL:
			n.Protocol = int(a.Value[0])
		}
	}
	return n, n.Addr.IsValid()
}

// SetNeigh makes a permanent entry, in place of what is there for the address.
func (c *Conn) SetNeigh(n Neigh) error {
	if err := c.neigh(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, n); err != nil {
		return fmt.Errorf("setting neighbour %s: %w", n.Addr, err)
	}
	return nil
}

// AddNeigh makes a permanent entry. One for the address that is there, of any kind, is os.ErrExist.
func (c *Conn) AddNeigh(n Neigh) error {
	if err := c.neigh(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_EXCL, n); err != nil {
		return fmt.Errorf("adding neighbour %s: %w", n.Addr, err)
	}
	return nil
}

// DeleteNeigh deletes an entry. A missing one is no error.
func (c *Conn) DeleteNeigh(n Neigh) error {
	err := c.neigh(unix.RTM_DELNEIGH, 0, n)
	if err := ignore(err, unix.ENOENT, unix.ENODEV, unix.ENXIO); err != nil {
		return fmt.Errorf("deleting neighbour %s: %w", n.Addr, err)
	}
	return nil
}

// neigh asks for a change of an entry. The library's own functions know nothing of the protocol.
func (c *Conn) neigh(typ, flags int, n Neigh) error {
	req := c.request(typ, flags|unix.NLM_F_ACK)
	req.AddData(&netlink.Ndmsg{Family: uint8(family(n.Addr)), Index: uint32(n.Link), State: unix.NUD_PERMANENT})
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, n.Addr.AsSlice()))
	req.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, n.MAC[:]))
	if n.Protocol != 0 {
		req.AddData(nl.NewRtAttr(netlink.NDA_PROTOCOL, []byte{byte(n.Protocol)}))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// UseNeigh makes the kernel resolve an address as if it had a packet for it: what is there that is no permanent entry is
// tried, and otherwise the question goes out before UseNeigh returns.
func (c *Conn) UseNeigh(n Neigh) error {
	req := c.request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_ACK)
	req.AddData(&netlink.Ndmsg{Family: uint8(family(n.Addr)), Index: uint32(n.Link), State: unix.NUD_NONE, Flags: unix.NTF_USE})
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, n.Addr.AsSlice()))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("resolving neighbour %s: %w", n.Addr, err)
	}
	return nil
}
