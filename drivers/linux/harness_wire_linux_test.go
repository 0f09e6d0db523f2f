package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// wire sends probes into a world and sees what comes out of it.
type wire struct {
	*world
	frames    int              // AF_PACKET in the namespace of the sites
	raw4      int              // sends IPv4 packets with their headers from the node
	raw6      int              // the same for IPv6
	processes map[int]listener // raw sockets of the node: what policy lets through to a process
	magic     [8]byte
	sent      uint32 // probes so far: indexes are never used twice
	fences    uint64
	buf       []byte
}

type listener struct {
	proto uint8
	v6    bool
}

// receiveBuffer holds what one burst brings.
const receiveBuffer = 32 << 20

// burst is how many packets are sent before a fence. The kernel's queue for a CPU holds 1000, and is worked off as they
// are sent unless the machine is busy.
const burst = 200

const fenceWait = 10 * time.Second

func openWire(w *world) (*wire, error) {
	x := &wire{world: w, processes: map[int]listener{}, frames: -1, raw4: -1, raw6: -1, buf: make([]byte, 65536)}
	binary.BigEndian.PutUint64(x.magic[:], uint64(time.Now().UnixNano())|1<<63)
	if err := x.open(); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

func (x *wire) open() error {
	var err error
	const all = 0x0300 // ETH_P_ALL, in network order
	if x.frames, err = openSocket(x.sites.Ns(), unix.AF_PACKET, unix.SOCK_RAW, all); err != nil {
		return fmt.Errorf("opening a packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(x.frames, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fmt.Errorf("ignoring outgoing frames: %w", err)
	}
	if err := unix.SetsockoptInt(x.frames, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return err
	}
	if x.raw4, err = openSocket(x.node.Ns(), unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW); err != nil {
		return err
	}
	if x.raw6, err = openSocket(x.node.Ns(), unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW); err != nil {
		return err
	}
	const ipv6HdrIncl = 36
	if err := unix.SetsockoptInt(x.raw6, unix.IPPROTO_IPV6, ipv6HdrIncl, 1); err != nil {
		return fmt.Errorf("IPV6_HDRINCL: %w", err)
	}
	for _, proto := range []uint8{protoICMP, 4, protoTCP, protoUDP, 41, 47, protoICMPv6, 89, 112, protoSCTP, protoUDPLite, 253} {
		for _, v6 := range []bool{false, true} {
			if err := x.listen(proto, v6); err != nil {
				return fmt.Errorf("listening for protocol %d: %w", proto, err)
			}
		}
	}
	return nil
}

func (x *wire) listen(proto uint8, v6 bool) error {
	domain := unix.AF_INET
	if v6 {
		domain = unix.AF_INET6
	}
	fd, err := openSocket(x.node.Ns(), domain, unix.SOCK_RAW, int(proto))
	if err != nil {
		return err
	}
	x.processes[fd] = listener{proto, v6}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
}

func (x *wire) close() {
	for _, fd := range []int{x.frames, x.raw4, x.raw6} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	for fd := range x.processes {
		unix.Close(fd)
	}
}

// tag gives each probe an index.
func (x *wire) tag(ps []drivertest.Probe) []*tagged {
	gs := make([]*tagged, len(ps))
	for i, p := range ps {
		gs[i] = &tagged{Probe: p, index: x.sent, magic: x.magic}
		x.sent++
	}
	return gs
}

// outcome is what was seen of a probe.
type outcome struct {
	parts [2]bool
	src   netip.Addr
}

// run sends tagged probes in order and says what became of them.
func (x *wire) run(gs []*tagged) ([]drivertest.Result, error) {
	unpin, err := pin()
	if err != nil {
		return nil, err
	}
	defer unpin()
	w := &watcher{wire: x, gs: gs, seen: make([]outcome, len(gs))}
	for first := 0; first < len(gs); first += burst {
		for _, g := range gs[first:min(first+burst, len(gs))] {
			if err := x.send(g); err != nil {
				return nil, fmt.Errorf("sending a probe from %s to %s: %w", g.Packet.Src, g.Packet.Dst, err)
			}
		}
		if err := w.collect(); err != nil {
			return nil, err
		}
	}
	rs := make([]drivertest.Result, len(gs))
	for i, g := range gs {
		o := w.seen[i]
		if rs[i].Delivered = o.parts[0] && (o.parts[1] || !g.Fragmented); rs[i].Delivered {
			rs[i].Src = o.src
		}
	}
	return rs, nil
}

// pin keeps the calling goroutine on one thread and the thread on one CPU.
func pin() (unpin func(), err error) {
	runtime.LockOSThread()
	var was, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	for cpu := range 1024 {
		if was.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	return func() {
		if unix.SchedSetaffinity(0, &was) == nil {
			runtime.UnlockOSThread()
		}
	}, nil
}

func (x *wire) send(g *tagged) error {
	p := g.Packet
	if p.ARP && p.From.Kind == drivers.PlaceProcess {
		return x.askByARP(p.To.Iface, p.Dst)
	}
	if p.ARP {
		l := x.links[p.From.Iface]
		broadcast := drivers.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		return x.sendFrame(l.index, ether(broadcast, g.srcMAC(l), etherARP, arpRequest(g.srcMAC(l), p.Src, p.Dst)))
	}
	packets, err := g.packets()
	if err != nil {
		return err
	}
	for _, b := range packets {
		if p.From.Kind == drivers.PlaceProcess {
			err = x.sendRaw(g, b)
		} else {
			err = x.sendIP(g, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *tagged) srcMAC(l siteLink) drivers.MAC {
	if g.Packet.SrcMAC != (drivers.MAC{}) {
		return g.Packet.SrcMAC
	}
	return l.MAC
}

func (x *wire) sendIP(g *tagged, b []byte) error {
	l := x.links[g.Packet.From.Iface]
	dst, typ := l.HostMAC, uint16(etherIPv4)
	if d := g.wireDst().Addr(); d.Is6() {
		typ = etherIPv6
		if d.IsMulticast() {
			a := d.As16()
			dst = drivers.MAC{0x33, 0x33, a[12], a[13], a[14], a[15]}
		}
	}
	return x.sendFrame(l.index, ether(dst, g.srcMAC(l), typ, b))
}

func (x *wire) sendFrame(index int, frame []byte) error {
	return unix.Sendto(x.frames, frame, 0, &unix.SockaddrLinklayer{Ifindex: index})
}

// sendRaw sends a packet from the node. The kernel says at once if a rule drops it, or if there is no route.
func (x *wire) sendRaw(g *tagged, b []byte) error {
	dst := g.wireDst().Addr()
	var err error
	if dst.Is4() {
		err = unix.Sendto(x.raw4, b, 0, &unix.SockaddrInet4{Addr: dst.As4()})
	} else {
		sa := &unix.SockaddrInet6{Addr: dst.As16()}
		if dst.IsLinkLocalUnicast() || dst.IsMulticast() {
			sa.ZoneId = uint32(x.links[g.Packet.To.Iface].node)
		}
		err = unix.Sendto(x.raw6, b, 0, sa)
	}
	for _, denied := range []error{unix.EPERM, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL} {
		if errors.Is(err, denied) {
			return nil
		}
	}
	return err
}

// watcher sees what comes out of the world while one run lasts.
type watcher struct {
	*wire
	gs   []*tagged
	seen []outcome
}

// collect sends a fence and notes what has come out by the time that it has arrived.
func (w *watcher) collect() error {
	w.fences++
	fence := binary.BigEndian.AppendUint64(nil, w.fences)
	frame := ether(drivers.MAC{2, 0xfe, 0, 0, 1, 1}, drivers.MAC{2, 0xfe, 0, 0, 1, 0}, fenceType, append(fence, make([]byte, 46)...))
	if err := w.sendFrame(w.fence[0], frame); err != nil {
		return fmt.Errorf("sending a fence: %w", err)
	}
	for deadline := time.Now().Add(fenceWait); ; {
		n, from, err := unix.Recvfrom(w.frames, w.buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			left := time.Until(deadline)
			if left <= 0 {
				return fmt.Errorf("the fence did not arrive within %v", fenceWait)
			}
			fds := []unix.PollFd{{Fd: int32(w.frames), Events: unix.POLLIN}}
			if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
			continue
		case err != nil:
			return fmt.Errorf("reading frames: %w", err)
		}
		sa, ok := from.(*unix.SockaddrLinklayer)
		if !ok || n < 14 {
			continue
		}
		typ := binary.BigEndian.Uint16(w.buf[12:])
		if typ == fenceType && sa.Ifindex == w.fence[1] && binary.BigEndian.Uint64(w.buf[14:]) == w.fences {
			break
		}
		w.frame(w.byIndex[sa.Ifindex], typ, w.buf[:n])
	}
	if err := w.overflow(); err != nil {
		return err
	}
	return w.readProcesses()
}

// overflow reports frames that the kernel could not give us: then nothing can be said.
func (w *watcher) overflow() error {
	st, err := unix.GetsockoptTpacketStats(w.frames, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return err
	}
	if st.Drops > 0 {
		return fmt.Errorf("%d frames were dropped for want of buffer", st.Drops)
	}
	return nil
}

func (w *watcher) frame(iface string, typ uint16, b []byte) {
	switch typ {
	case etherARP:
		if a, ok := parseARP(b[14:]); ok {
			w.arp(iface, a)
		}
	case etherIPv4, etherIPv6:
		for _, s := range findNonces(b[14:], w.magic) {
			w.sighted(iface, s)
		}
	}
}

// arp notes an ARP packet that came out at a workload: the kernel's answer to a probe's question, or the question that a
// probe made it ask. Probes that are the same to ARP share what is seen.
func (w *watcher) arp(iface string, a arpPacket) {
	for i, g := range w.gs {
		p := g.Packet
		if !p.ARP {
			continue
		}
		answered := a.reply && p.From.Iface == iface && a.sender == p.Dst && a.target == p.Src && a.targetMAC == g.srcMAC(w.links[iface])
		asked := !a.reply && p.To.Iface == iface && a.sender == p.Src && a.target == p.Dst
		if answered || asked {
			w.seen[i] = outcome{parts: [2]bool{true, true}}
		}
	}
}

// sighted notes a nonce that came out behind an interface; "" = at a process of the node.
func (w *watcher) sighted(iface string, s sighting) {
	i := int(s.index) - int(w.gs[0].index)
	if i < 0 || i >= len(w.gs) || s.part > 1 {
		return
	}
	p := w.gs[i].Packet
	// An answer, or an error about the probe, quotes it.
	isICMP := p.Proto == protoICMP || p.Proto == protoICMPv6
	if iface != p.To.Iface || s.proto != p.Proto || isICMP && s.icmpType >= 0 && s.icmpType != int(p.ICMPType) ||
		s.dst.IsValid() && s.dst != p.Dst {
		return
	}
	w.seen[i].parts[s.part] = true
	w.seen[i].src = s.src
}

// readProcesses notes what has arrived at processes of the node.
func (w *watcher) readProcesses() error {
	for fd, sock := range w.processes {
		for {
			n, from, err := unix.Recvfrom(fd, w.buf, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				return fmt.Errorf("reading what processes got: %w", err)
			}
			w.process(sock, from, w.buf[:n])
		}
	}
	return nil
}

func (w *watcher) process(sock listener, from unix.Sockaddr, b []byte) {
	if !sock.v6 {
		for _, s := range findNonces(b, w.magic) {
			w.sighted("", s)
		}
		return
	}
	// Sockets of IPv6 give no header.
	s := sighting{proto: sock.proto, icmpType: -1}
	if sa, ok := from.(*unix.SockaddrInet6); ok {
		s.src = netip.AddrFrom16(sa.Addr)
	}
	if sock.proto == protoICMPv6 && len(b) > 0 {
		s.icmpType = int(b[0])
	}
	for _, s := range noncesIn(b, w.magic, s) {
		w.sighted("", s)
	}
}
