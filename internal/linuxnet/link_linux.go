package linuxnet

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/internal/netns"
)

// MAC is an Ethernet address.
type MAC = [6]byte

// Link is a network interface as the kernel reports it.
type Link struct {
	Index int
	Name  string
	Type  string // "veth", "bridge"...; "device" of hardware
	MAC   MAC
	MTU   int
	Up    bool // administratively
	Alias string

	// Parent is the index of the interface that this one sits on or is the peer of; 0 = none. ParentNs is the id of
	// its namespace as NsID gives it; -1 = this one.
	Parent, ParentNs int
	Master           int // index of the bridge or bond that it is a port of
}

func linkOf(l netlink.Link) Link {
	a := l.Attrs()
	k := Link{
		Index: a.Index, Name: a.Name, Type: l.Type(), MTU: a.MTU, Up: a.Flags&net.FlagUp != 0, Alias: a.Alias,
		Parent: a.ParentIndex, ParentNs: a.NetNsID, Master: a.MasterIndex,
	}
	copy(k.MAC[:], a.HardwareAddr)
	return k
}

// Links lists the interfaces, in the order of their indexes.
func (c *Conn) Links() ([]Link, error) {
	ls, err := dump(c.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	out := make([]Link, len(ls))
	for i, l := range ls {
		out[i] = linkOf(l)
	}
	return out, nil
}

// Link finds an interface by name. A missing one is os.ErrNotExist.
func (c *Conn) Link(name string) (Link, error) {
	l, err := dump(func() (netlink.Link, error) { return c.h.LinkByName(name) })
	if errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, unix.ENODEV) {
		return Link{}, fmt.Errorf("interface %s: %w", name, os.ErrNotExist)
	}
	if err != nil {
		return Link{}, fmt.Errorf("finding interface %s: %w", name, err)
	}
	// A name that is longer than the kernel's is looked up by alternative names too.
	if k := linkOf(l); k.Name == name {
		return k, nil
	}
	return Link{}, fmt.Errorf("interface %s: %w", name, os.ErrNotExist)
}

// LinkByIndex finds an interface by its index. A missing one is os.ErrNotExist.
func (c *Conn) LinkByIndex(index int) (Link, error) {
	l, err := dump(func() (netlink.Link, error) { return c.h.LinkByIndex(index) })
	if errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, unix.ENODEV) {
		return Link{}, fmt.Errorf("interface %d: %w", index, os.ErrNotExist)
	}
	if err != nil {
		return Link{}, fmt.Errorf("finding interface %d: %w", index, err)
	}
	return linkOf(l), nil
}

// Veth is a pair of interfaces to make.
type Veth struct {
	Name     string
	MAC      MAC // zero = the kernel chooses
	Peer     string
	PeerMAC  MAC
	PeerNs   *netns.Ns // nil = the same namespace
	MTU      int       // of both; 0 = the kernel's default
	TxQueues int       // of both; 0 = the kernel's default
}

// AddVeth makes a pair, the far end in its namespace from the start: there is never half a pair. A name that is taken on
// either side is os.ErrExist, and nothing is made.
func (c *Conn) AddVeth(v Veth) error {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.NumTxQueues, a.NumRxQueues = v.Name, v.MTU, v.TxQueues, v.TxQueues
	if v.MAC != (MAC{}) {
		a.HardwareAddr = v.MAC[:]
	}
	l := netlink.NewVeth(a)
	l.PeerName, l.PeerMTU = v.Peer, uint32(v.MTU)
	if v.PeerMAC != (MAC{}) {
		l.PeerHardwareAddr = v.PeerMAC[:]
	}
	if v.PeerNs != nil {
		l.PeerNamespace = netlink.NsFd(v.PeerNs.FD())
	}
	if err := c.h.LinkAdd(l); err != nil {
		return fmt.Errorf("making veth pair %s - %s: %w", v.Name, v.Peer, err)
	}
	return nil
}

// DeleteLink deletes an interface, and its peer if it is one of a pair. A missing one is no error.
func (c *Conn) DeleteLink(name string) error {
	l, err := c.Link(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := ignore(c.h.LinkDel(byIndex(l.Index)), unix.ENODEV); err != nil {
		return fmt.Errorf("deleting interface %s: %w", name, err)
	}
	return nil
}

// SetUp sets an interface up.
func (c *Conn) SetUp(index int) error { return c.h.LinkSetUp(byIndex(index)) }

// SetDown sets an interface down.
func (c *Conn) SetDown(index int) error { return c.h.LinkSetDown(byIndex(index)) }

// SetMTU sets the MTU of an interface.
func (c *Conn) SetMTU(index, mtu int) error { return c.h.LinkSetMTU(byIndex(index), mtu) }

// SetMAC sets the Ethernet address of an interface.
func (c *Conn) SetMAC(index int, m MAC) error {
	return c.h.LinkSetHardwareAddr(byIndex(index), m[:])
}

// SetAlias sets the alias of an interface: free text, at most 255 bytes, that `ip link` shows.
func (c *Conn) SetAlias(index int, alias string) error {
	return c.h.LinkSetAlias(byIndex(index), alias)
}

// NsID is the id by which Link.ParentNs names another namespace; -1 if the kernel has given it none yet, as it is before
// the first interface has its peer there.
func (c *Conn) NsID(ns *netns.Ns) (int, error) {
	id, err := c.h.GetNetNsIdByFd(ns.FD())
	if err != nil {
		return 0, fmt.Errorf("reading the id of a network namespace: %w", err)
	}
	return id, nil
}

// byIndex is enough of a netlink.Link for requests about an interface.
func byIndex(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}
