//go:build linux

package cni

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/internal/netns"
)

func dialOnce(ns *netns.Ns, to netip.Addr, patience time.Duration) error {
	return ns.Do(func() error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, 80).String(), patience)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// ear hears packets of a protocol that come into a namespace, whether or not there is a socket for them.
type ear struct{ c *net.IPConn }

func newEar(t *testing.T, ns *netns.Ns, proto string) *ear {
	t.Helper()
	e := &ear{}
	err := ns.Do(func() (err error) {
		e.c, err = net.ListenIP("ip4:"+proto, &net.IPAddr{IP: net.IPv4zero})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.c.Close() })
	return e
}

// hears reports whether something with these ports comes from an address within a time.
func (e *ear) hears(from netip.Addr, sport, dport uint16, within time.Duration) bool {
	deadline := time.Now().Add(within)
	buf := make([]byte, 2048)
	for {
		if err := e.c.SetReadDeadline(deadline); err != nil {
			return false
		}
		n, who, err := e.c.ReadFromIP(buf)
		if err != nil {
			return false
		}
		a, _ := netip.AddrFromSlice(who.IP)
		if n >= 4 && a.Unmap() == from && binary.BigEndian.Uint16(buf) == sport && binary.BigEndian.Uint16(buf[2:]) == dport {
			return true
		}
	}
}

// say sends a packet as one in the middle of a flow: a segment of TCP with ACK and PSH, or a datagram.
func say(ns *netns.Ns, proto string, from, to netip.Addr, sport, dport uint16) error {
	var b []byte
	b = binary.BigEndian.AppendUint16(b, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	payload := []byte("more")
	number := unix.IPPROTO_UDP
	if proto == "tcp" {
		number = unix.IPPROTO_TCP
		b = append(b, 0, 0, 0, 1, 0, 0, 0, 1) // which bytes: connection tracking is told not to mind
		b = append(b, 5<<4, 0x18, 0xff, 0xff, 0, 0, 0, 0)
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
		b = append(b, 0, 0)
	}
	b = append(b, payload...)
	at := 6
	if proto == "tcp" {
		at = 16
	}
	binary.BigEndian.PutUint16(b[at:], checksum(from, to, byte(number), b))
	return ns.Do(func() error {
		c, err := net.DialIP("ip4:"+proto, &net.IPAddr{IP: from.AsSlice()}, &net.IPAddr{IP: to.AsSlice()})
		if err != nil {
			return err
		}
		_, err = c.Write(b)
		return errors.Join(err, c.Close())
	})
}

// checksum is that of TCP and UDP over IPv4.
func checksum(from, to netip.Addr, proto byte, b []byte) uint16 {
	p := append(append(from.AsSlice(), to.AsSlice()...), 0, proto)
	p = append(binary.BigEndian.AppendUint16(p, uint16(len(b))), b...)
	if len(p)%2 == 1 {
		p = append(p, 0)
	}
	sum := uint32(0)
	for i := 0; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// realFlow is an established flow of two pods.
type realFlow struct {
	proto        string
	a, b         *pod // a has opened it
	sport, dport uint16
}

func (f realFlow) String() string {
	return fmt.Sprintf("%s from %s:%d to %s:%d", f.proto, f.a.name, f.sport, f.b.name, f.dport)
}

// open has a send to b and b answer, over real sockets, which stay open: the kernel of a pod whose address has another
// owner goes on talking.
func (f *realFlow) open(t *testing.T) {
	t.Helper()
	at := netip.AddrPortFrom(f.b.addr, f.dport).String()
	echo, err := serveOn(t, f.b.ns, f.proto, at)
	if err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	err = f.a.ns.Do(func() error {
		d := net.Dialer{Timeout: 5 * time.Second}
		if f.proto == "tcp" {
			d.LocalAddr = &net.TCPAddr{IP: f.a.addr.AsSlice(), Port: int(f.sport)}
		} else {
			d.LocalAddr = &net.UDPAddr{IP: f.a.addr.AsSlice(), Port: int(f.sport)}
		}
		conn, err = d.Dial(f.proto, at)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", f, err)
	}
	t.Cleanup(func() { conn.Close(); echo() })
	for range 2 { // the second one is of a flow that has had an answer
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err := conn.Write([]byte("ping"))
		if err == nil {
			_, err = conn.Read(make([]byte, 4))
		}
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
	}
}

// serveOn answers on one address with what it is sent.
func serveOn(t *testing.T, ns *netns.Ns, proto, at string) (stop func(), err error) {
	t.Helper()
	err = ns.Do(func() error {
		if proto == "tcp" {
			l, err := net.Listen("tcp", at)
			if err == nil {
				go serveEcho(l)
				stop = func() { l.Close() }
			}
			return err
		}
		c, err := net.ListenPacket("udp", at)
		if err != nil {
			return err
		}
		stop = func() { c.Close() }
		go func() {
			b := make([]byte, 64)
			for {
				n, who, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = c.WriteTo(b[:n], who)
			}
		}()
		return nil
	})
	return stop, err
}

// TestReusedAddress: packets of flows that the last owner of an address had are judged anew, in both directions, whoever had
// opened them, whatever happened to the agent meanwhile.
func TestReusedAddress(t *testing.T) {
	bed := ownersLab(t)[0]
	node, err := netns.OpenNamed(bed.node.Netns())
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	// Made-up segments have made-up sequence numbers.
	output(t, node, "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_be_liberal=1")
	peer := newPod(t, bed, "peer", "p", "friend", netip.Addr{})
	defer peer.del()
	restart := func() {
		err := bed.node.StartAgent()
		if err == nil {
			err = bed.node.AwaitReady(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	address := netip.MustParseAddr("10.67.0.60")
	port := uint16(2000)
	for _, tc := range []struct {
		name    string
		app     string // of the next owner
		replace func(old *pod)
		allowed bool
	}{
		{"deleted", "stranger", func(old *pod) { old.del() }, false},
		{"the next owner is a friend, too", "friend", func(old *pod) { old.del() }, true},
		{"deleted while the agent is away", "stranger", func(old *pod) {
			bed.node.Agent.Kill()
			old.del() // leaves a note
			restart()
		}, false},
		{"the agent is killed afterwards", "stranger", func(old *pod) {
			old.del()
			bed.node.Agent.Kill()
			restart()
		}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			old := newPod(t, bed, "old", "o", "friend", address)
			var flows []realFlow
			for _, proto := range []string{"tcp", "udp"} {
				port += 2
				flows = append(flows, realFlow{proto, old, peer, port, port + 1}, realFlow{proto, peer, old, port, port + 1})
			}
			for i := range flows {
				flows[i].open(t)
			}
			check := func(now *pod, want bool) {
				t.Helper()
				for _, f := range flows {
					here, far := f.sport, f.dport // of whoever has the address, and of the peer
					if f.b == old {
						here, far = f.dport, f.sport
					}
					inward, outward := newEar(t, now.ns, f.proto), newEar(t, peer.ns, f.proto)
					patience := 5 * time.Second
					if !want {
						patience = 150 * time.Millisecond
					}
					if err := say(now.ns, f.proto, address, peer.addr, here, far); err != nil {
						t.Fatal(err)
					}
					if got := outward.hears(address, here, far, patience); got != want {
						t.Errorf("%s: a packet of it from %s to %s: arrives %v, want %v", f, now.name, peer.name, got, want)
					}
					if err := say(peer.ns, f.proto, peer.addr, address, far, here); err != nil {
						t.Fatal(err)
					}
					if got := inward.hears(peer.addr, far, here, patience); got != want {
						t.Errorf("%s: a packet of it from %s to %s: arrives %v, want %v", f, peer.name, now.name, got, want)
					}
				}
			}
			check(old, true)
			tc.replace(old)
			next := newPod(t, bed, "next", "n", tc.app, address)
			defer next.del()
			check(next, tc.allowed)
		})
	}
}

// flowsOf counts the flows of an address in a node's table.
func flowsOf(t *testing.T, bed *sharedBed, a netip.Addr) int {
	t.Helper()
	k := killer{t: t, bed: *bed}
	flows, err := k.flows()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range flows {
		if strings.Contains(f, "="+a.String()+" ") {
			n++
		}
	}
	return n
}

// TestReusedAddressOfAnotherNode: the node of the peer has flows of the last owner, too.
func TestReusedAddressOfAnotherNode(t *testing.T) {
	beds := ownersLab(t)
	here, there := beds[0], beds[1]
	for _, b := range beds {
		ns, err := netns.OpenNamed(b.node.Netns())
		if err != nil {
			t.Fatal(err)
		}
		output(t, ns, "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_be_liberal=1")
		ns.Close()
	}
	address := netip.MustParseAddr("10.67.0.60")
	peer := newPod(t, there, "peer", "p", "friend", netip.Addr{})
	defer peer.del()
	old := newPod(t, here, "old", "o", "friend", address)
	eventually(t, "the peer's node knows the friend", func() string {
		if !holds(t, there, address) {
			return "not yet"
		}
		return ""
	})
	var flows []realFlow
	for n, proto := range []string{"tcp", "udp"} {
		port := uint16(3000 + 2*n)
		flows = append(flows, realFlow{proto, old, peer, port, port + 1}, realFlow{proto, peer, old, port, port + 1})
	}
	for i := range flows {
		flows[i].open(t)
	}
	arrives := func(now *pod, want bool) {
		t.Helper()
		for _, f := range flows {
			from, to := f.sport, f.dport
			if f.b == old {
				from, to = f.dport, f.sport
			}
			e := newEar(t, peer.ns, f.proto)
			patience := 5 * time.Second
			if !want {
				patience = 150 * time.Millisecond
			}
			if err := say(now.ns, f.proto, address, peer.addr, from, to); err != nil {
				t.Fatal(err)
			}
			if got := e.hears(address, from, to, patience); got != want {
				t.Errorf("%s: a packet of it from %s to %s: arrives %v, want %v", f, now.name, peer.name, got, want)
			}
		}
	}
	arrives(old, true)
	if flowsOf(t, there, address) == 0 {
		t.Fatal("the peer's node has no flows")
	}
	old.del()
	// Its own policy lets the next owner send anything: it is the peer's that must not.
	next := newPod(t, here, "next", "n", "other", address)
	defer next.del()
	eventually(t, "the peer's node forgets the flows", func() string {
		if n := flowsOf(t, there, address); n > 0 {
			return fmt.Sprintf("it has %d", n)
		}
		return ""
	})
	arrives(next, false)
}
