package linux

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// What travels on the wire for a probe, and how it is known again.
//
//	IP header | transport header | nonce: magic, index, part 0 | zeros up to 64 bytes | nonce: part 1
//
// The second nonce is there in fragmented probes only, whose first fragment ends after 64 bytes of IP payload.

const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	protoICMP, protoTCP, protoUDP, protoFragment = 1, 6, 17, 44
	protoICMPv6, protoSCTP, protoUDPLite         = 58, 132, 136
	protoDestOptions                             = 60

	nonceLen     = 16
	fragmentLen  = 64
	dscpNoTrack  = 0x2d // the harness's table takes packets with this mark out of tracking
	sctpVTag     = 0x54545454
	defaultHops  = 64
	tcpSeq       = 1000000
	establishedN = 2000000 // tcpSeq of the other direction
)

// tagged is one probe as the harness sends it.
type tagged struct {
	drivertest.Probe
	index uint32
	magic [8]byte // of one run of the harness: nothing from an earlier one is taken for it
}

func (g *tagged) nonce(part byte) []byte {
	b := append([]byte(nil), g.magic[:]...)
	b = binary.BigEndian.AppendUint32(b, g.index)
	return append(b, part, 0, 0, 0)
}

// id is a number for what has 16 bits for one.
func (g *tagged) id() uint16 { return uint16(g.index%0xfffe) + 1 }

// wireDst is where the packet is sent to.
func (g *tagged) wireDst() netip.AddrPort {
	if g.Packet.OrigDst.IsValid() {
		return g.Packet.OrigDst
	}
	return netip.AddrPortFrom(g.Packet.Dst, g.Packet.DstPort)
}

// relatedPorts are the ports of the UDP flow that an ICMP error is about, from Packet.Dst's end.
func (g *tagged) relatedPorts() (src, dst uint16) { return g.id(), 7 }

// packets gives the IP packets of a probe: one, or two fragments.
func (g *tagged) packets() ([][]byte, error) {
	dst := g.wireDst()
	head, err := g.transport(dst.Port())
	if err != nil {
		return nil, err
	}
	body := append(head, g.nonce(0)...)
	if g.Fragmented {
		if len(body) > fragmentLen {
			return nil, fmt.Errorf("%d bytes do not fit into the first fragment", len(body))
		}
		body = append(body, make([]byte, fragmentLen-len(body))...)
		body = append(body, g.nonce(1)...)
	}
	g.finish(body, dst.Addr())
	if !g.Fragmented {
		return [][]byte{g.ip(body, dst.Addr(), g.Packet.Proto, nil)}, nil
	}
	var out [][]byte
	for off := 0; off < len(body); off += fragmentLen {
		end := min(off+fragmentLen, len(body))
		out = append(out, g.ip(body[off:end], dst.Addr(), g.Packet.Proto, &fragment{off: off, more: end < len(body)}))
	}
	return out, nil
}

// transport is what stands before the nonce, without checksums.
func (g *tagged) transport(dport uint16) ([]byte, error) {
	p := g.Packet
	switch p.Proto {
	case protoTCP:
		return g.tcp(dport), nil
	case protoUDP, protoUDPLite:
		b := binary.BigEndian.AppendUint16(nil, p.SrcPort)
		b = binary.BigEndian.AppendUint16(b, dport)
		return append(b, 0, 0, 0, 0), nil
	case protoSCTP:
		return g.sctp(dport), nil
	case protoICMP:
		return g.icmp()
	case protoICMPv6:
		return g.icmpv6()
	}
	// Of other protocols only the number counts. The zeros are a GRE header without a key.
	return make([]byte, 8), nil
}

func (g *tagged) tcp(dport uint16) []byte {
	const fin, syn, ack = 0x01, 0x02, 0x10
	flags, seq, ackNo := byte(syn), uint32(tcpSeq), uint32(0)
	switch {
	case g.Packet.CT == drivers.CTInvalid:
		flags = syn | fin
	case g.MidStream:
		flags, ackNo = ack, establishedN
	case g.Packet.CT == drivers.CTEstablished:
		flags, ackNo = ack, establishedN
	}
	b := binary.BigEndian.AppendUint16(nil, g.Packet.SrcPort)
	b = binary.BigEndian.AppendUint16(b, dport)
	b = binary.BigEndian.AppendUint32(b, seq)
	b = binary.BigEndian.AppendUint32(b, ackNo)
	return append(b, 5<<4, flags, 0x20, 0, 0, 0, 0, 0)
}

// sctp is a chunk that ends with the nonce: an INIT with a parameter that nobody knows, or DATA of an established
// association.
func (g *tagged) sctp(dport uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, g.Packet.SrcPort)
	b = binary.BigEndian.AppendUint16(b, dport)
	if g.Packet.CT == drivers.CTEstablished {
		b = binary.BigEndian.AppendUint32(b, sctpVTag)
		b = append(b, 0, 0, 0, 0) // checksum
		b = append(b, 0, 3)       // DATA, the whole of a message
		b = binary.BigEndian.AppendUint16(b, uint16(16+g.sctpRest(12+16)))
		b = binary.BigEndian.AppendUint32(b, 1) // TSN
		return append(b, make([]byte, 8)...)    // stream, sequence, protocol
	}
	b = append(b, make([]byte, 8)...) // tag, checksum
	b = append(b, 1, 0)               // INIT
	b = binary.BigEndian.AppendUint16(b, uint16(24+g.sctpRest(12+24)))
	b = binary.BigEndian.AppendUint32(b, sctpVTag)
	b = binary.BigEndian.AppendUint32(b, 65536)
	b = append(b, 0, 1, 0, 1, 0, 0, 0, 1)                      // streams, TSN
	return append(b, 0xc0, 0x99, 0, byte(4+g.sctpRest(12+24))) // parameter: skip if unknown
}

// sctpRest is the length of what follows a header of n bytes.
func (g *tagged) sctpRest(n int) int {
	if g.Fragmented {
		return fragmentLen - n + nonceLen
	}
	return nonceLen
}

func (g *tagged) icmp() ([]byte, error) {
	p := g.Packet
	b := []byte{p.ICMPType, p.ICMPCode, 0, 0}
	switch p.ICMPType {
	case 3, 11, 12:
		b = append(b, 0, 0, 0x05, 0xdc) // 3/4 reads an MTU of 1500 here
		return append(b, g.quoted()...), nil
	}
	b = binary.BigEndian.AppendUint16(b, g.id())
	return append(b, 0, 1), nil
}

func (g *tagged) icmpv6() ([]byte, error) {
	p := g.Packet
	b := []byte{p.ICMPType, p.ICMPCode, 0, 0}
	target := p.Dst.As16()
	if p.Dst.IsMulticast() {
		target = drivertest.HostLinkLocal.As16()
	}
	const option = 253 // for experiments; the nonce and the option's head are three times eight bytes
	head := []byte{option, (8 + nonceLen) / 8, 0, 0, 0, 0, 0, 0}
	switch t := p.ICMPType; {
	case t >= 1 && t <= 4:
		b = append(b, 0, 0, 0x05, 0xdc) // "packet too big" reads an MTU of 1500 here
		return append(b, g.quoted()...), nil
	case t == 133: // router solicitation
		return append(append(b, 0, 0, 0, 0), head...), nil
	case t == 134: // router advertisement, of a router that is none
		return append(append(b, make([]byte, 12)...), head...), nil
	case t == 135 || t == 136: // neighbour solicitation and advertisement
		return append(append(append(b, 0, 0, 0, 0), target[:]...), head...), nil
	case t >= 130 && t <= 132: // multicast listeners
		b = append(b, make([]byte, 20)...)
		return b, nil
	case t == 143:
		return append(b, 0, 0, 0, 0), nil
	}
	b = binary.BigEndian.AppendUint16(b, g.id())
	return append(b, 0, 1), nil
}

// quoted is the beginning of the packet that an ICMP error is about: UDP from the error's receiver to its sender.
func (g *tagged) quoted() []byte {
	src, dst := g.relatedPorts()
	udp := binary.BigEndian.AppendUint16(nil, src)
	udp = binary.BigEndian.AppendUint16(udp, dst)
	udp = append(udp, 0, 8+8, 0, 0)
	udp = append(udp, make([]byte, 8)...)
	in := tagged{index: g.index}
	in.Packet.Src = g.Packet.Dst
	return in.ip(udp, g.Packet.Src, protoUDP, nil)[:ipLen(g.Packet.Src)+8]
}

func ipLen(a netip.Addr) int {
	if a.Is4() {
		return 20
	}
	return 40
}

// finish fills in lengths and checksums.
func (g *tagged) finish(b []byte, dst netip.Addr) {
	put := func(at int, v uint16) { binary.BigEndian.PutUint16(b[at:], v) }
	switch g.Packet.Proto {
	case protoTCP:
		put(16, g.checksum(b, dst))
	case protoUDP:
		put(4, uint16(len(b)))
		if g.Packet.CT == drivers.CTInvalid {
			put(4, uint16(len(b)+100))
		}
		put(6, g.checksum(b, dst))
	case protoUDPLite:
		put(4, uint16(len(b))) // how much the checksum covers
		if g.Packet.CT == drivers.CTInvalid {
			put(4, uint16(len(b)+100))
		}
		put(6, g.checksum(b, dst))
	case protoICMP:
		put(2, ^fold(sum(b, 0)))
	case protoICMPv6:
		put(2, g.checksum(b, dst))
	case protoSCTP:
		binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	}
}

// checksum is that of the transport with the pseudo header.
func (g *tagged) checksum(b []byte, dst netip.Addr) uint16 {
	s := sum(g.Packet.Src.AsSlice(), 0)
	s = sum(dst.AsSlice(), s)
	s += uint32(g.Packet.Proto) + uint32(len(b))
	if c := ^fold(sum(b, s)); c != 0 {
		return c
	}
	return 0xffff
}

func sum(b []byte, s uint32) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

type fragment struct {
	off  int
	more bool
}

// ip puts the IP header before a payload.
func (g *tagged) ip(payload []byte, dst netip.Addr, proto uint8, f *fragment) []byte {
	hops := g.Packet.HopLimit
	if hops == 0 {
		hops = defaultHops
	}
	tos := byte(0)
	if g.Packet.CT == drivers.CTUntracked && !drivertestLink(g.Packet) {
		tos = dscpNoTrack << 2
	}
	if dst.Is4() {
		b := []byte{0x45, tos}
		b = binary.BigEndian.AppendUint16(b, uint16(20+len(payload)))
		b = binary.BigEndian.AppendUint16(b, g.id())
		frag := uint16(0)
		if f != nil {
			frag = uint16(f.off / 8)
			if f.more {
				frag |= 0x2000
			}
		}
		b = binary.BigEndian.AppendUint16(b, frag)
		b = append(b, hops, proto, 0, 0)
		b = append(append(b, g.Packet.Src.AsSlice()...), dst.AsSlice()...)
		binary.BigEndian.PutUint16(b[10:], ^fold(sum(b, 0)))
		return append(b, payload...)
	}
	if f != nil {
		h := []byte{proto, 0}
		off := uint16(f.off)
		if f.more {
			off |= 1
		}
		h = binary.BigEndian.AppendUint16(h, off)
		payload = append(binary.BigEndian.AppendUint32(h, g.index+1), payload...)
		proto = protoFragment
	}
	if g.Extended {
		const padN = 1
		payload = append([]byte{proto, 0, padN, 4, 0, 0, 0, 0}, payload...)
		proto = protoDestOptions
	}
	b := []byte{0x60 | tos>>4, tos << 4, 0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, proto, hops)
	b = append(append(b, g.Packet.Src.AsSlice()...), dst.AsSlice()...)
	return append(b, payload...)
}

// drivertestLink reports whether the kernel keeps the packet out of its flow table by itself.
func drivertestLink(p drivers.Packet) bool {
	return p.Proto == protoICMPv6 && (p.ICMPType >= 130 && p.ICMPType <= 136 || p.ICMPType == 143)
}

// ether puts the Ethernet header before a packet.
func ether(dst, src drivers.MAC, typ uint16, packet []byte) []byte {
	b := append(append(make([]byte, 0, 14+len(packet)), dst[:]...), src[:]...)
	return append(binary.BigEndian.AppendUint16(b, typ), packet...)
}

func arpRequest(sender drivers.MAC, src, target netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	b = append(append(b, sender[:]...), src.AsSlice()...)
	return append(append(b, make([]byte, 6)...), target.AsSlice()...)
}

// arpPacket is an ARP packet as it was seen.
type arpPacket struct {
	reply          bool
	senderMAC      drivers.MAC
	sender, target netip.Addr
	targetMAC      drivers.MAC
}

func parseARP(b []byte) (arpPacket, bool) {
	if len(b) < 28 || !bytes.Equal(b[:6], []byte{0, 1, 8, 0, 6, 4}) {
		return arpPacket{}, false
	}
	a := arpPacket{reply: b[7] == 2, senderMAC: drivers.MAC(b[8:14]), targetMAC: drivers.MAC(b[18:24])}
	a.sender, _ = netip.AddrFromSlice(b[14:18])
	a.target, _ = netip.AddrFromSlice(b[24:28])
	return a, true
}

// sighting is a nonce in an IP packet that was seen.
type sighting struct {
	index    uint32
	part     byte
	proto    uint8
	icmpType int // -1 in a later fragment, and of what is no ICMP
	src, dst netip.Addr
}

// findNonces looks into an IP packet.
func findNonces(b []byte, magic [8]byte) []sighting {
	var s sighting
	var payload []byte
	first := true
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		n := int(b[0]&15) * 4
		if len(b) < n {
			return nil
		}
		s.proto, payload = b[9], b[n:]
		first = (uint16(b[6])<<8|uint16(b[7]))&0x1fff == 0
		s.src, _ = netip.AddrFromSlice(b[12:16])
		s.dst, _ = netip.AddrFromSlice(b[16:20])
	case len(b) >= 40 && b[0]>>4 == 6:
		s.proto, payload = b[6], b[40:]
		s.src, _ = netip.AddrFromSlice(b[8:24])
		s.dst, _ = netip.AddrFromSlice(b[24:40])
		if s.proto == protoFragment && len(payload) >= 8 {
			first = (uint16(payload[2])<<8|uint16(payload[3]))&^7 == 0
			s.proto, payload = payload[0], payload[8:]
		}
		if s.proto == protoDestOptions && len(payload) >= 8 {
			s.proto, payload = payload[0], payload[8:]
		}
	default:
		return nil
	}
	s.icmpType = -1
	if first && len(payload) > 0 && (s.proto == protoICMP || s.proto == protoICMPv6) {
		s.icmpType = int(payload[0])
	}
	return noncesIn(payload, magic, s)
}

// noncesIn looks for nonces in a payload; s says what is known of it.
func noncesIn(payload []byte, magic [8]byte, s sighting) []sighting {
	var out []sighting
	for {
		i := bytes.Index(payload, magic[:])
		if i < 0 || len(payload)-i < nonceLen {
			return out
		}
		s.index, s.part = binary.BigEndian.Uint32(payload[i+8:]), payload[i+12]
		out = append(out, s)
		payload = payload[i+nonceLen:]
	}
}
