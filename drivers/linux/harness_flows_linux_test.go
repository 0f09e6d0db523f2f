package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
	"github.com/tortie/tortie/internal/netns"
)

// flowTable makes and forgets entries of a namespace's connection tracking, and of the foreign program's translation.
type flowTable struct {
	ct         *netlink.Conn
	nft        *nftables.Conn
	known      []tuple // flows that packets of the last call may have left
	translated bool    // the maps are not empty
}

func openFlowTable(ns *netns.Ns) (*flowTable, error) {
	ct, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.FD()})
	if err != nil {
		return nil, fmt.Errorf("opening connection tracking: %w", err)
	}
	nft, err := nftables.New(nftables.WithNetNSFd(ns.FD()), nftables.AsLasting())
	if err != nil {
		ct.Close()
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	return &flowTable{ct: ct, nft: nft}, nil
}

func (f *flowTable) close() { f.ct.Close(); f.nft.CloseLasting() }

// tuple is one direction of a flow.
type tuple struct {
	src, dst     netip.Addr
	proto        uint8
	sport, dport uint16
	icmp         [2]byte // type, code
	id           uint16
}

// tupleOf is the flow of a probe in the direction that the probe travels, as it is sent.
func tupleOf(g *tagged) tuple {
	d := g.wireDst()
	return tuple{
		src: g.Packet.Src, dst: d.Addr(), proto: g.Packet.Proto, sport: g.Packet.SrcPort, dport: d.Port(),
		icmp: [2]byte{g.Packet.ICMPType, g.Packet.ICMPCode}, id: g.id(),
	}
}

// icmpAnswers are the types that answer another.
var icmpAnswers = map[[2]uint8]uint8{
	{protoICMP, 8}: 0, {protoICMP, 0}: 8, {protoICMP, 13}: 14, {protoICMP, 15}: 16, {protoICMP, 17}: 18,
	{protoICMPv6, 128}: 129, {protoICMPv6, 129}: 128, {protoICMPv6, 139}: 140,
}

func (t tuple) reversed() tuple {
	t.src, t.dst, t.sport, t.dport = t.dst, t.src, t.dport, t.sport
	if a, ok := icmpAnswers[[2]uint8{t.proto, t.icmp[0]}]; ok {
		t.icmp[0] = a
	}
	return t
}

// Attributes of nfnetlink_conntrack.h.
const (
	ctTupleOrig, ctTupleReply, ctStatus, ctProtoInfo, ctTimeout = 1, 2, 3, 4, 7
	ctTupleIP, ctTupleProto                                     = 1, 2
	ctProtoNum, ctSrcPort, ctDstPort                            = 1, 2, 3
	ctICMPID, ctICMPType, ctICMPCode                            = 4, 5, 6
	ctICMPv6ID, ctICMPv6Type, ctICMPv6Code                      = 7, 8, 9
	ctInfoTCP, ctInfoSCTP                                       = 1, 3

	ctSeenReply, ctAssured, ctConfirmed = 2, 4, 8
	establishedTCP, establishedSCTP     = 3, 4
)

// hasPortTuple reports whether the flow table tells flows of a protocol by ports. GRE's are the keys of PPTP.
func hasPortTuple(proto uint8) bool {
	switch proto {
	case protoTCP, protoUDP, protoUDPLite, protoSCTP, unix.IPPROTO_GRE:
		return true
	}
	return false
}

func (t tuple) encode(ae *netlink.AttributeEncoder) error {
	first := uint16(1) // CTA_IP_V4_SRC
	if t.src.Is6() {
		first = 3
	}
	ae.Nested(ctTupleIP, func(ip *netlink.AttributeEncoder) error {
		ip.Bytes(first, t.src.AsSlice())
		ip.Bytes(first+1, t.dst.AsSlice())
		return nil
	})
	ae.Nested(ctTupleProto, func(p *netlink.AttributeEncoder) error {
		p.ByteOrder = binary.BigEndian
		p.Uint8(ctProtoNum, t.proto)
		switch {
		case t.proto == protoICMP:
			p.Uint16(ctICMPID, t.id)
			p.Uint8(ctICMPType, t.icmp[0])
			p.Uint8(ctICMPCode, t.icmp[1])
		case t.proto == protoICMPv6:
			p.Uint16(ctICMPv6ID, t.id)
			p.Uint8(ctICMPv6Type, t.icmp[0])
			p.Uint8(ctICMPv6Code, t.icmp[1])
		case hasPortTuple(t.proto):
			p.Uint16(ctSrcPort, t.sport)
			p.Uint16(ctDstPort, t.dport)
		}
		return nil
	})
	return nil
}

// request sends one message about flows and waits for the answer.
func (f *flowTable) request(typ uint16, flags netlink.HeaderFlags, v6 bool, fill func(*netlink.AttributeEncoder)) error {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	fill(ae)
	attrs, err := ae.Encode()
	if err != nil {
		return err
	}
	fam := byte(unix.AF_INET)
	if v6 {
		fam = unix.AF_INET6
	}
	_, err = f.ct.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | typ),
			Flags: netlink.Request | netlink.Acknowledge | flags,
		},
		Data: append([]byte{fam, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	return err
}

const ctNew, ctDelete = 0, 2

// establish makes an entry of a flow that has seen both directions.
func (f *flowTable) establish(t tuple) error {
	err := f.request(ctNew, netlink.Create|netlink.Excl, t.src.Is6(), func(ae *netlink.AttributeEncoder) {
		ae.Nested(ctTupleOrig, t.encode)
		ae.Nested(ctTupleReply, t.reversed().encode)
		ae.Uint32(ctStatus, ctSeenReply|ctAssured|ctConfirmed)
		ae.Uint32(ctTimeout, 600)
		switch t.proto {
		case protoTCP:
			ae.Nested(ctProtoInfo, func(i *netlink.AttributeEncoder) error {
				i.Nested(ctInfoTCP, func(tcp *netlink.AttributeEncoder) error {
					tcp.Uint8(1, establishedTCP)
					return nil
				})
				return nil
			})
		case protoSCTP:
			ae.Nested(ctProtoInfo, func(i *netlink.AttributeEncoder) error {
				i.Nested(ctInfoSCTP, func(sctp *netlink.AttributeEncoder) error {
					sctp.ByteOrder = binary.BigEndian
					sctp.Uint8(1, establishedSCTP)
					sctp.Uint32(2, sctpVTag)
					sctp.Uint32(3, sctpVTag)
					return nil
				})
				return nil
			})
		}
	})
	f.known = append(f.known, t)
	if err != nil {
		return fmt.Errorf("making flow %+v: %w", t, err)
	}
	return nil
}

// forget removes what the packets of earlier calls have left.
func (f *flowTable) forget() error {
	for _, t := range f.known {
		err := f.request(ctDelete, 0, t.src.Is6(), func(ae *netlink.AttributeEncoder) { ae.Nested(ctTupleOrig, t.encode) })
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("forgetting flow %+v: %w", t, err)
		}
	}
	f.known = f.known[:0]
	if !f.translated {
		return nil
	}
	for _, v6 := range []bool{false, true} {
		f.nft.FlushSet(dnatMap(v6))
	}
	f.translated = false
	if err := f.nft.Flush(); err != nil {
		return fmt.Errorf("emptying the translation of services: %w", err)
	}
	return nil
}

// prepare brings about the state that each probe asks for. Every flow that a probe may leave is noted.
func (f *flowTable) prepare(gs []*tagged) error {
	dnat := map[bool][]nftables.SetElement{}
	for _, g := range gs {
		p := g.Packet
		if p.ARP {
			continue
		}
		t := tupleOf(g)
		// An ICMP error has no flow of its own.
		if _, answered := icmpAnswers[[2]uint8{p.Proto, p.ICMPType}]; answered || p.Proto != protoICMP && p.Proto != protoICMPv6 {
			f.known = append(f.known, t)
		}
		var err error
		switch {
		case p.OrigDst.IsValid() && slices.ContainsFunc(drivertest.FloatingRange, func(r netip.Prefix) bool { return r.Contains(p.OrigDst.Addr()) }):
		case p.OrigDst.IsValid():
			dnat[p.Src.Is6()] = append(dnat[p.Src.Is6()], translation(g))
		case p.CT == drivers.CTEstablished && g.Reply:
			err = f.establish(t.reversed())
		case p.CT == drivers.CTEstablished:
			err = f.establish(t)
		case p.CT == drivers.CTRelated:
			sport, dport := g.relatedPorts()
			err = f.establish(tuple{src: p.Dst, dst: p.Src, proto: protoUDP, sport: sport, dport: dport})
		}
		if err != nil {
			return err
		}
	}
	for v6, elems := range dnat {
		f.translated = true
		if err := f.nft.SetAddElements(dnatMap(v6), elems); err != nil {
			return err
		}
	}
	if len(dnat) == 0 {
		return nil
	}
	if err := f.nft.Flush(); err != nil {
		return fmt.Errorf("filling the translation of services: %w", err)
	}
	return nil
}

func dnatMap(v6 bool) *nftables.Set {
	name := "dnat4"
	if v6 {
		name = "dnat6"
	}
	return &nftables.Set{
		Table: &nftables.Table{Name: foreignTable, Family: nftables.TableFamilyINet}, Name: name, IsMap: true, Concatenation: true,
	}
}

// translation is the element that sends one probe from OrigDst to where it is to go.
func translation(g *tagged) nftables.SetElement {
	p := g.Packet
	key := []byte{p.Proto, 0, 0, 0}
	key = append(append(key, p.Src.AsSlice()...), port(p.SrcPort)...)
	key = append(append(key, p.OrigDst.Addr().AsSlice()...), port(p.OrigDst.Port())...)
	return nftables.SetElement{Key: key, Val: append(p.Dst.AsSlice(), port(p.DstPort)...)}
}

// port is a port as the kernel keeps it in a concatenation.
func port(p uint16) []byte { return []byte{byte(p >> 8), byte(p), 0, 0} }
