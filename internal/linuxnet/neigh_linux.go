package linuxnet

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Neigh is a permanent entry of the neighbour table: no resolution is needed, and none can change it.
type Neigh struct {
	Link int
	Addr netip.Addr
	MAC  MAC
}

// Neighs lists the permanent entries of an interface; 0 = of all.
func (c *Conn) Neighs(link int) ([]Neigh, error) {
	var out []Neigh
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		ns, err := dump(func() ([]netlink.Neigh, error) { return c.h.NeighList(link, fam) })
		if err != nil {
			return nil, fmt.Errorf("listing neighbours: %w", err)
		}
		for _, n := range ns {
			if n.State&unix.NUD_PERMANENT == 0 || n.Flags&unix.NTF_PROXY != 0 {
				continue
			}
			e := Neigh{Link: n.LinkIndex, Addr: addrOf(n.IP)}
			copy(e.MAC[:], n.HardwareAddr)
			out = append(out, e)
		}
	}
	return out, nil
}

// SetNeigh makes a permanent entry, in place of what is there for the address.
func (c *Conn) SetNeigh(n Neigh) error {
	if err := c.h.NeighSet(neigh(n)); err != nil {
		return fmt.Errorf("setting neighbour %s: %w", n.Addr, err)
	}
	return nil
}

// DeleteNeigh deletes an entry. A missing one is no error.
func (c *Conn) DeleteNeigh(n Neigh) error {
	if err := ignore(c.h.NeighDel(neigh(n)), unix.ENOENT, unix.ENODEV, unix.ENXIO); err != nil {
		return fmt.Errorf("deleting neighbour %s: %w", n.Addr, err)
	}
	return nil
}

func neigh(n Neigh) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: n.Link, Family: family(n.Addr), State: unix.NUD_PERMANENT, IP: n.Addr.AsSlice(), HardwareAddr: n.MAC[:],
	}
}
