package linuxnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/internal/netns"
)

// Conn is the networking of one namespace. Its methods may be called from several goroutines.
type Conn struct {
	ns *netns.Ns
	h  *netlink.Handle
	// strict asks for dumps with NETLINK_GET_STRICT_CHK, by which the kernel filters routes by protocol itself.
	// Neighbour dumps of the library are refused with it.
	strict *netlink.Handle
	raw    map[int]*nl.SocketHandle // for requests that the library has no function for
	// hostSysctls is where sysctls are written if /proc/sys/net can't be.
	hostSysctls string
}

// answerTime is how long the kernel may take over a request: one that is never answered must not hold the caller for good.
const answerTime = 30 * time.Second

// Open opens the networking of ns, which must stay open for as long as the Conn is.
func Open(ns *netns.Ns) (*Conn, error) {
	c := &Conn{ns: ns, hostSysctls: hostSysctlRoot}
	err := ns.Do(func() (err error) {
		if c.h, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		if c.strict, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		if err := c.strict.SetStrictCheck(true); err != nil {
			return err
		}
		s, err := nl.GetNetlinkSocketAt(vns.None(), vns.None(), unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		c.raw = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
		return s.SetReceiveTimeout(&unix.Timeval{Sec: int64(answerTime.Seconds())})
	})
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	for _, h := range []*netlink.Handle{c.h, c.strict} {
		if err := h.SetSocketTimeout(answerTime); err != nil {
			c.Close()
			return nil, fmt.Errorf("opening netlink: %w", err)
		}
	}
	return c, nil
}

// Close closes the handles.
func (c *Conn) Close() {
	for _, h := range []*netlink.Handle{c.h, c.strict} {
		if h != nil {
			h.Close()
		}
	}
	for _, s := range c.raw {
		s.Close()
	}
}

func (c *Conn) request(typ, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(typ, flags)
	req.Sockets = c.raw
	return req
}

// Ns is the namespace that the Conn was opened at.
func (c *Conn) Ns() *netns.Ns { return c.ns }

// dumpTries is how often a dump is repeated that the world moved under.
const dumpTries = 20

// dump repeats f while the kernel says that what it returned may be inconsistent.
func dump[T any](f func() (T, error)) (T, error) {
	var v T
	var err error
	for range dumpTries {
		v, err = f()
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return v, err
		}
	}
	return v, fmt.Errorf("reading while it changes, %d times: %w", dumpTries, err)
}

// ignore drops err if it is one of errs.
func ignore(err error, errs ...error) error {
	for _, e := range errs {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if size == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// family is the netlink family of an address.
func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
