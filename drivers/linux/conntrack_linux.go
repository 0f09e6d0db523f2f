package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctMsgNew, ctMsgGet, ctMsgDelete = 0, 1, 2

	ctaTupleOrig, ctaTupleReply, ctaProtoInfo, ctaID, ctaZone = 1, 2, 4, 12, 18
	ctaFilter, ctaFilterOrig, ctaFilterReply                  = 25, 1, 2
	ctaTupleIP, ctaTupleProto                                 = 1, 2
	ctaIPv4Src, ctaIPv4Dst                                    = 1, 2
	ctaIPv6Src, ctaIPv6Dst                                    = 3, 4
	ctaProtoNum, ctaSrcPort, ctaDstPort                       = 1, 2, 3
	ctaICMPType, ctaICMPCode                                  = 5, 6
	ctaICMPv6Type, ctaICMPv6Code                              = 8, 9
	ctaInfoTCP, ctaTCPState                                   = 1, 1

	// States of TCP connections between SYN and SYN, and after both ends have said that it is over.
	tcpSynSent, tcpTimeWait = 1, 7
)

// entry is one flow, and by what it is named when it is deleted.
type entry struct {
	flow
	family byte
	id     uint32
	tuple  []byte // the original direction's attribute
	state  uint8  // of TCP
}

// connected reports whether the flow is a TCP connection that has been opened and that is not over.
func (e *entry) connected() bool {
	return e.proto == unix.IPPROTO_TCP && e.state > tcpSynSent && e.state < tcpTimeWait
}

func ctType(t uint16) uint16 { return unix.NFNL_SUBSYS_CTNETLINK<<8 | t }

// eachFlow calls fn with every flow of both families. A table can hold a million: they are looked at one by one as they
// come, and what fn gets is its own until it returns.
func (s *socket) eachFlow(fn func(e *entry) error) error { return s.eachFlowOf(unix.AF_UNSPEC, fn) }

// eachFlowOf is eachFlow of one family.
func (s *socket) eachFlowOf(family byte, fn func(e *entry) error) error {
	var e entry
	err := s.dumpOf(ctType(ctMsgGet), family, nil, func(family byte, attrs []byte) error {
		e = entry{family: family}
		if err := e.read(attrs); err != nil {
			return fmt.Errorf("reading a flow: %w", err)
		}
		return fn(&e)
	})
	if err != nil {
		return fmt.Errorf("dumping the flow table: %w", err)
	}
	return nil
}

func (e *entry) read(attrs []byte) error {
	return eachAttr(attrs, func(typ uint16, v []byte) error {
		switch typ {
		case ctaTupleOrig:
			e.tuple = v
			return e.readTuple(v, &e.orig, true)
		case ctaTupleReply:
			return e.readTuple(v, &e.reply, false)
		case ctaProtoInfo:
			tcp := attrMap(attrMap(v)[ctaInfoTCP])
			if st := tcp[ctaTCPState]; len(st) == 1 {
				e.state = st[0]
			}
		case ctaID:
			e.id = be32(v)
		case ctaZone:
			e.zone = be16(v)
		}
		return nil
	})
}

func (e *entry) readTuple(b []byte, t *flowTuple, orig bool) error {
	return eachAttr(b, func(typ uint16, v []byte) error {
		switch typ {
		case ctaTupleIP:
			return eachAttr(v, func(typ uint16, v []byte) error {
				a, ok := netip.AddrFromSlice(v)
				switch {
				case !ok:
				case typ == ctaIPv4Src || typ == ctaIPv6Src:
					t.src = a
				case typ == ctaIPv4Dst || typ == ctaIPv6Dst:
					t.dst = a
				}
				return nil
			})
		case ctaTupleProto:
			return eachAttr(v, func(typ uint16, v []byte) error { return e.readProto(typ, v, t, orig) })
		}
		return nil
	})
}

func (e *entry) readProto(typ uint16, v []byte, t *flowTuple, orig bool) error {
	if len(v) == 0 {
		return errors.New("an empty attribute")
	}
	switch typ {
	case ctaProtoNum:
		e.proto = v[0]
	case ctaSrcPort:
		t.sport = be16(v)
	case ctaDstPort:
		t.dport = be16(v)
	case ctaICMPType, ctaICMPv6Type:
		if orig {
			e.icmpType = v[0]
		}
	case ctaICMPCode, ctaICMPv6Code:
		if orig {
			e.icmpCode = v[0]
		}
	}
	return nil
}

func be16(v []byte) uint16 {
	if len(v) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(v)
}

// deleteFlow deletes a flow, and reports whether it was there. One that has come with the same tuple meanwhile stays.
func (s *socket) deleteFlow(e *entry) (bool, error) {
	var b attrBuf
	b.data(ctaTupleOrig|nested, string(e.tuple))
	b.u32(ctaID, e.id)
	err := s.ask(ctType(ctMsgDelete), e.family, b)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("deleting a flow: %w", err)
	}
	return true, nil
}

// CutFlows deletes the flow-table entries that have one of addrs at either end.
func (d *Driver) CutFlows(ctx context.Context, addrs []netip.Addr) error {
	cut := map[netip.Addr]bool{}
	for _, a := range addrs {
		cut[a.Unmap()] = true
	}
	if err := d.cutFlows(ctx, cut); err != nil {
		return fmt.Errorf("cutting flows: %w", err)
	}
	return nil
}

func (d *Driver) cutFlows(ctx context.Context, addrs map[netip.Addr]bool) error {
	filters := d.flowFilters()
	var of [2][]netip.Addr // by family
	for a := range addrs {
		if a.Is6() {
			of[1] = append(of[1], a)
		} else {
			of[0] = append(of[0], a)
		}
	}
	var dumps []byte // families
	for i, family := range [2]byte{unix.AF_INET, unix.AF_INET6} {
		if len(of[i]) > filterMax || len(of[i]) > 0 && !filters[i] {
			dumps = append(dumps, family)
			continue
		}
		for _, a := range of[i] {
			if err := errors.Join(ctx.Err(), d.socket.deleteFlowsOf(a)); err != nil {
				return err
			}
		}
	}
	if len(dumps) == 2 {
		dumps = []byte{unix.AF_UNSPEC}
	}
	for _, family := range dumps {
		if err := errors.Join(ctx.Err(), d.socket.deleteFlowsIn(family, addrs)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// flowFilters says what is known of the kernel's filters, and finds out the first time.
func (d *Driver) flowFilters() filters {
	if d.filters == nil {
		f, err := probeFilters()
		if err != nil {
			d.log.Warn("the kernel's filters of flows can't be tried, doing without", "error", err)
		}
		d.filters = &f
	}
	return *d.filters
}
