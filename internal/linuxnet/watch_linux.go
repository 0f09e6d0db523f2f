package linuxnet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// EventKind says what an Event is about.
type EventKind uint8

const (
	LinkEvent EventKind = iota
	AddrEvent
	RouteEvent
	// LostEvent says that the kernel dropped notifications: read everything again.
	LostEvent
)

// Event is one notification of the kernel.
type Event struct {
	Kind EventKind
	Gone bool
	Link Link // LinkEvent

	// RouteEvent: of the main table only.
	Dst      netip.Prefix
	Protocol int
	Metric   int
	Own      bool // a route that this Conn changed
}

// Watch calls fn with each change of links, addresses and routes of the main table from the time of its return on, in
// order, from one goroutine, until ctx ends. The channel that it returns is closed after the last call; if the watch
// broke before ctx ended, it yields the error first.
func (c *Conn) Watch(ctx context.Context, fn func(Event)) (<-chan error, error) {
	var s *nl.NetlinkSocket
	err := c.ns.Do(func() (err error) {
		s, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
			unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("subscribing to changes of the network: %w", err)
	}
	own, err := c.raw[unix.NETLINK_ROUTE].Socket.GetPid()
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("subscribing to changes of the network: %w", err)
	}
	// Best effort: what the buffer can't hold is a LostEvent.
	_ = s.SetReceiveBufferSize(4<<20, true)
	done := make(chan error, 1)
	var once sync.Once
	stop := context.AfterFunc(ctx, func() { once.Do(s.Close) })
	go func() {
		defer close(done)
		defer stop()
		defer once.Do(s.Close)
		if err := receive(ctx, s, own, fn); err != nil && ctx.Err() == nil {
			done <- fmt.Errorf("watching the network: %w", err)
		}
	}()
	return done, nil
}

func receive(ctx context.Context, s *nl.NetlinkSocket, own uint32, fn func(Event)) error {
	for {
		msgs, from, err := s.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			fn(Event{Kind: LostEvent})
			continue
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return err
		case from.Pid != nl.PidKernel:
			continue
		}
		for _, m := range msgs {
			h := unix.NlMsghdr(m.Header)
			if e, ok := event(&h, m.Data); ok {
				// Notifications bear the netlink address of who asked for the change.
				e.Own = e.Kind == RouteEvent && m.Header.Pid == own
				fn(e)
			}
		}
	}
}

func event(h *unix.NlMsghdr, data []byte) (Event, bool) {
	switch h.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		// Messages of AF_BRIDGE are about ports of bridges: a DELLINK of those is no end of an interface.
		if len(data) < unix.SizeofIfInfomsg || data[0] != unix.AF_UNSPEC {
			return Event{}, false
		}
		l, err := netlink.LinkDeserialize(h, data)
		if err != nil {
			return Event{}, false
		}
		return Event{Kind: LinkEvent, Gone: h.Type == unix.RTM_DELLINK, Link: linkOf(l)}, true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return Event{Kind: AddrEvent, Gone: h.Type == unix.RTM_DELADDR}, true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return routeEvent(h, data)
	}
	return Event{}, false
}

func routeEvent(h *unix.NlMsghdr, data []byte) (Event, bool) {
	if len(data) < unix.SizeofRtMsg {
		return Event{}, false
	}
	m := nl.DeserializeRtMsg(data)
	if m.Table != unix.RT_TABLE_MAIN || m.Flags&unix.RTM_F_CLONED != 0 {
		return Event{}, false
	}
	addr := netip.IPv4Unspecified()
	if m.Family == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	e := Event{Kind: RouteEvent, Gone: h.Type == unix.RTM_DELROUTE, Protocol: int(m.Protocol)}
	whole := eachAttr(data[unix.SizeofRtMsg:], func(typ uint16, v []byte) {
		switch {
		case typ == unix.RTA_DST:
			addr, _ = netip.AddrFromSlice(v)
		case typ == unix.RTA_PRIORITY && len(v) == 4:
			e.Metric = int(binary.NativeEndian.Uint32(v))
		}
	})
	e.Dst = netip.PrefixFrom(addr, int(m.Dst_len))
	return e, whole
}

// eachAttr calls fn with the type and the value of each attribute in b, and reports whether b is whole. (The library's
// function for this trusts lengths.)
func eachAttr(b []byte, fn func(typ uint16, v []byte)) (whole bool) {
	for len(b) >= unix.SizeofRtAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtAttr || n > len(b) {
			return false
		}
		fn(binary.NativeEndian.Uint16(b[2:])&nl.NLA_TYPE_MASK, b[unix.SizeofRtAttr:n])
		b = b[min((n+3)&^3, len(b)):]
	}
	return true
}
