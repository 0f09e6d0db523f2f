package linuxnet

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Scope says how far an address or a route is of use.
type Scope uint8

const (
	ScopeGlobal Scope = unix.RT_SCOPE_UNIVERSE
	ScopeLink   Scope = unix.RT_SCOPE_LINK
	ScopeHost   Scope = unix.RT_SCOPE_HOST
)

// Addr is an address of an interface.
type Addr struct {
	Link   int
	Prefix netip.Prefix // the address with the length of its network
	Scope  Scope        // of IPv4 addresses; the kernel works out IPv6's
}

// ErrNoIPv6 says that an IPv6 address is of no use in a namespace.
var ErrNoIPv6 = errors.New("IPv6 is off (net.ipv6.conf.*.disable_ipv6, or the kernel was started with ipv6.disable)")

// Addrs lists the addresses of an interface; 0 = of all.
func (c *Conn) Addrs(link int) ([]Addr, error) {
	as, err := dump(func() ([]netlink.Addr, error) { return c.h.AddrList(nil, unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	var out []Addr
	for _, a := range as {
		if link != 0 && a.LinkIndex != link {
			continue
		}
		out = append(out, Addr{Link: a.LinkIndex, Prefix: prefixOf(a.IPNet), Scope: Scope(a.Scope)})
	}
	return out, nil
}

// SetAddr gives an address to an interface. IPv6 addresses are usable at once: duplicate address detection is left out.
// One that is there is left.
func (c *Conn) SetAddr(a Addr) error {
	na := &netlink.Addr{IPNet: ipNet(a.Prefix), Scope: int(a.Scope), LinkIndex: a.Link}
	if a.Prefix.Addr().Is6() {
		na.Flags = unix.IFA_F_NODAD
		na.Scope = unix.RT_SCOPE_UNIVERSE
	}
	err := ignore(c.h.AddrAdd(nil, na), unix.EEXIST)
	if a.Prefix.Addr().Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)) {
		return fmt.Errorf("adding address %s: %w", a.Prefix, ErrNoIPv6)
	}
	if err != nil {
		return fmt.Errorf("adding address %s: %w", a.Prefix, err)
	}
	return nil
}

// DeleteAddr takes an address from an interface. A missing one is no error.
func (c *Conn) DeleteAddr(a Addr) error {
	err := c.h.AddrDel(nil, &netlink.Addr{IPNet: ipNet(a.Prefix), LinkIndex: a.Link})
	if err := ignore(err, unix.EADDRNOTAVAIL, unix.ENODEV); err != nil {
		return fmt.Errorf("deleting address %s: %w", a.Prefix, err)
	}
	return nil
}
