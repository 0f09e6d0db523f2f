package linux

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/internal/netns"
)

// The kernel can look for the flows of an address by itself, and delete them. That takes 1 ms of the usual table's 262,144
// buckets; a dump takes each bucket's lock, and so 10 ms, for an empty table as well. But:
//
//   - before Linux 6.10 a delete knows no filters. It takes what is there for a whole tuple, and answers EINVAL.
//   - up to 6.18 at least the comparison of IPv6 addresses is the wrong way round: all flows but those of the address are
//     deleted (ctnetlink_filter_match_tuple has !ipv6_addr_cmp).
//
// So it is tried before it is used, where it can do no harm.

// filters says for which families the kernel's filters do what they should: IPv4 and IPv6.
type filters [2]bool

// filterMax is how many addresses of a family are worth four looks through the table each; a dump does for any number.
const filterMax = 3

// probeFilters finds out what filters do, in a network namespace that nobody else sees.
func probeFilters() (f filters, err error) {
	ns, err := netns.Anonymous()
	if err != nil {
		return f, err
	}
	defer ns.Close()
	s, err := dialIn(ns.FD())
	if err != nil {
		return f, err
	}
	defer s.close()
	for i, addrs := range [2][4]string{{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"}, {"2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4"}} {
		var as [4]netip.Addr
		for n, a := range addrs {
			as[n] = netip.MustParseAddr(a)
		}
		if f[i], err = s.tryFilter(as); err != nil {
			return filters{}, err
		}
	}
	return f, nil
}

// tryFilter makes a flow of each way in which an address is in one, and one without it, and wants only that one to stay.
func (s *socket) tryFilter(as [4]netip.Addr) (bool, error) {
	mine, peer, front, other := as[0], as[1], as[2], as[3]
	stays := flow{orig: flowTuple{src: peer, dst: other}, reply: flowTuple{src: other, dst: peer}}
	for n, f := range []flow{
		stays,
		{orig: flowTuple{src: mine, dst: peer}, reply: flowTuple{src: peer, dst: front}},   // source NAT of what it sends
		{orig: flowTuple{src: peer, dst: mine}, reply: flowTuple{src: front, dst: peer}},   // destination NAT of what is sent to it
		{orig: flowTuple{src: peer, dst: front}, reply: flowTuple{src: mine, dst: peer}},   // destination NAT to it
		{orig: flowTuple{src: other, dst: front}, reply: flowTuple{src: front, dst: mine}}, // source NAT to it
	} {
		// None may have a tuple of another's.
		f.orig.sport, f.reply.sport = uint16(n+1), uint16(n+1)
		f.orig.dport, f.reply.dport = uint16(n+1), uint16(n+1)
		if err := s.addFlow(&f); err != nil {
			return false, err
		}
	}
	if err := s.deleteFlowsOf(mine); err != nil {
		return false, nil // a kernel without filters
	}
	left, right := 0, true
	err := s.eachFlowOf(familyOf(mine), func(e *entry) error {
		left++
		right = right && e.orig.src == stays.orig.src && e.orig.dst == stays.orig.dst
		return nil
	})
	return left == 1 && right, err
}

// addFlow adds a flow of UDP to the table, for a while.
func (s *socket) addFlow(f *flow) error {
	const seconds, ctaTimeout = 60, 7
	var b attrBuf
	for typ, t := range map[uint16]flowTuple{ctaTupleOrig: f.orig, ctaTupleReply: f.reply} {
		src, dst := addrAttrs(t.src)
		tuple := b.nest(typ)
		ip := b.nest(ctaTupleIP)
		b.bytes(src, t.src.AsSlice())
		b.bytes(dst, t.dst.AsSlice())
		b.end(ip)
		proto := b.nest(ctaTupleProto)
		b.bytes(ctaProtoNum, []byte{unix.IPPROTO_UDP})
		b.bytes(ctaSrcPort, binary.BigEndian.AppendUint16(nil, t.sport))
		b.bytes(ctaDstPort, binary.BigEndian.AppendUint16(nil, t.dport))
		b.end(proto)
		b.end(tuple)
	}
	b.u32(ctaTimeout, seconds)
	flags := uint16(unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL)
	if err := s.request(ctType(ctMsgNew), flags, familyOf(f.orig.src), b, nil); err != nil {
		return fmt.Errorf("adding a flow to try filters with: %w", err)
	}
	return nil
}

// deleteFlowsOf deletes the flows that have a at either end, before or after translation.
func (s *socket) deleteFlowsOf(a netip.Addr) error {
	const filterSrc, filterDst = 1 << 0, 1 << 1 // of net/netfilter/nf_internals.h
	src, dst := addrAttrs(a)
	for _, c := range []struct {
		tuple, flags, addr uint16
		compare            uint32
	}{
		{ctaTupleOrig, ctaFilterOrig, src, filterSrc}, {ctaTupleOrig, ctaFilterOrig, dst, filterDst},
		{ctaTupleReply, ctaFilterReply, src, filterSrc}, {ctaTupleReply, ctaFilterReply, dst, filterDst},
	} {
		var b attrBuf
		tuple := b.nest(c.tuple)
		ip := b.nest(ctaTupleIP)
		b.bytes(c.addr, a.AsSlice())
		b.end(ip)
		b.end(tuple)
		filter := b.nest(ctaFilter)
		b.bytes(c.flags, native.AppendUint32(nil, c.compare))
		b.end(filter)
		if err := s.ask(ctType(ctMsgDelete), familyOf(a), b); err != nil {
			return fmt.Errorf("deleting the flows of %s: %w", a, err)
		}
	}
	return nil
}

// deleteFlowsIn deletes the flows of a family (AF_UNSPEC: of both) that have one of addrs at either end, by a dump.
func (s *socket) deleteFlowsIn(family byte, addrs map[netip.Addr]bool) error {
	var found []entry
	err := s.eachFlowOf(family, func(e *entry) error {
		if addrs[e.orig.src] || addrs[e.orig.dst] || addrs[e.reply.src] || addrs[e.reply.dst] {
			found = append(found, e.clone())
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i := range found {
		if _, err := s.deleteFlow(&found[i]); err != nil {
			return err
		}
	}
	return nil
}

func addrAttrs(a netip.Addr) (src, dst uint16) {
	if a.Is6() {
		return ctaIPv6Src, ctaIPv6Dst
	}
	return ctaIPv4Src, ctaIPv4Dst
}

func familyOf(a netip.Addr) byte {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}
