package linux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The library's connection asks the kernel to echo and acknowledge every message, and lists rules chain by chain. With
// tens of thousands of rules that is most of the time, so this is a socket of our own: one send for a batch, errors
// only, and dumps of whole tables. What is in the messages is still the library's (expr.Marshal).

const (
	sendBuffer = 256 << 20 // a limit, not an allocation: a batch is sent in one piece
	recvBuffer = 16 << 20
	batchLimit = sendBuffer - 1<<20
)

var native = binary.NativeEndian

// socket is a netlink socket of the netfilter family. Not safe for concurrent use.
type socket struct {
	fd  int
	seq uint32
	buf []byte
}

// message is one netlink message to send: its type within nf_tables, its flags, and what follows the netlink header.
type message struct {
	typ, flags uint16
	family     byte
	attrs      []byte
}

// dialIn opens a socket in the network namespace that the descriptor names; -1 is the caller's own.
func dialIn(netns int) (*socket, error) {
	if netns < 0 {
		return dial()
	}
	type answer struct {
		s   *socket
		err error
	}
	ch := make(chan answer)
	go func() {
		// The thread stays locked, so that it ends with the goroutine and nothing else ever runs in the namespace.
		runtime.LockOSThread()
		if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
			ch <- answer{nil, fmt.Errorf("entering the network namespace: %w", err)}
			return
		}
		s, err := dial()
		ch <- answer{s, err}
	}()
	a := <-ch
	return a.s, a.err
}

func dial() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("opening a netfilter socket: %w", err)
	}
	s := &socket{fd: fd, buf: make([]byte, 256<<10)}
	if err := s.setup(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("setting up a netfilter socket: %w", err)
	}
	return s, nil
}

func (s *socket) setup() error {
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	// Without the privilege to go beyond the system's limits the plain option gives what it can.
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, recvBuffer) != nil {
		_ = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, recvBuffer)
	}
	// An error message then carries the refused message's header only, and the kernel's words.
	if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	tv := unix.NsecToTimeval((30 * time.Second).Nanoseconds())
	return unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
}

func (s *socket) close() error {
	if s.fd < 0 {
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

const (
	nlHeader = 16
	nfHeader = 4
)

func appendMessage(b []byte, typ, flags uint16, seq uint32, family byte, resID uint16, attrs []byte) []byte {
	b = native.AppendUint32(b, uint32(nlHeader+nfHeader+len(attrs)))
	b = native.AppendUint16(b, typ)
	b = native.AppendUint16(b, flags)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 0)
	b = append(b, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, resID)
	b = append(b, attrs...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func nftType(t uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | t }

// refusal is a batch that the kernel did not take: nothing of it is in effect. Messages names those that are to blame,
// by index; it is empty if the kernel blamed the batch as a whole.
type refusal struct {
	messages map[int]error
	err      error
}

func (r *refusal) Error() string {
	if r.err != nil {
		return "nf_tables refused a batch: " + r.err.Error()
	}
	for i, err := range r.messages {
		return fmt.Sprintf("nf_tables refused %d messages of a batch, such as the one at %d: %v", len(r.messages), i, err)
	}
	return "nf_tables refused a batch"
}

func (r *refusal) Unwrap() []error {
	var errs []error
	if r.err != nil {
		errs = append(errs, r.err)
	}
	for _, err := range r.messages {
		errs = append(errs, err)
	}
	return errs
}

// transact sends ms as one transaction. A *refusal says what the kernel did not like. A dry one has no end, upon which the
// kernel examines it all the same, loops and depths of chains included, and takes it back.
func (s *socket) transact(ms []message, dry bool) error {
	size := 2 * (nlHeader + nfHeader)
	for i := range ms {
		size += nlHeader + nfHeader + len(ms[i].attrs) + 3
	}
	if size > batchLimit {
		return fmt.Errorf("a batch of %d bytes is more than a socket takes: %w", size, unix.EMSGSIZE)
	}
	begin := s.seq + 1
	s.seq += uint32(len(ms)) + 2
	b := make([]byte, 0, size)
	b = appendMessage(b, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, begin, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	for i := range ms {
		m := &ms[i]
		flags := m.flags | unix.NLM_F_REQUEST
		if i == len(ms)-1 {
			flags |= unix.NLM_F_ACK // the kernel keeps it until the end of the batch
		}
		b = appendMessage(b, nftType(m.typ), flags, begin+1+uint32(i), m.family, 0, m.attrs)
	}
	if !dry {
		b = appendMessage(b, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, begin+1+uint32(len(ms)), unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	}
	if err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("sending a batch to nf_tables: %w", err)
	}
	return s.verdict(begin, len(ms))
}

// verdict reads what the kernel said of a batch. It has worked on it within sendto, so all of it is there already.
func (s *socket) verdict(begin uint32, n int) error {
	ref := &refusal{messages: map[int]error{}}
	acked := false
	for {
		k, _, err := unix.Recvfrom(s.fd, s.buf, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading nf_tables' answer to a batch: %w", err)
		}
		err = eachMessage(s.buf[:k], func(typ uint16, seq uint32, data []byte) error {
			if typ != unix.NLMSG_ERROR || seq-begin > uint32(n)+1 {
				return nil
			}
			e := errorOf(data)
			switch i := int(seq-begin) - 1; {
			case e == nil:
				acked = true
			case i < 0 || i >= n:
				ref.err = e
			default:
				ref.messages[i] = e
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if ref.err != nil || len(ref.messages) > 0 {
		return ref
	}
	if !acked {
		return errors.New("nf_tables did not acknowledge a batch")
	}
	return nil
}

// errorOf reads an NLMSG_ERROR's payload; nil is an acknowledgement.
func errorOf(data []byte) error {
	if len(data) < 4 {
		return errors.New("a netlink error of no length")
	}
	errno := -int32(native.Uint32(data))
	if errno == 0 {
		return nil
	}
	var e error = unix.Errno(errno)
	if len(data) > 4+nlHeader {
		_ = eachAttr(data[4+nlHeader:], func(typ uint16, v []byte) error {
			if typ == unix.NLMSGERR_ATTR_MSG {
				e = fmt.Errorf("%s: %w", strings.TrimRight(string(v), "\x00"), e)
			}
			return nil
		})
	}
	return e
}

// errInterrupted is a dump during which the table changed.
var errInterrupted = errors.New("the table changed during a dump")

// dump asks for all objects of a kind of nf_tables, and calls fn with each message's attributes. A dump that somebody
// else's change interrupted is errInterrupted, once it is at its end.
func (s *socket) dump(typ uint16, family byte, attrs []byte, fn func(family byte, attrs []byte) error) error {
	return s.dumpOf(nftType(typ), family, attrs, fn)
}

// ask sends one message and waits for the kernel's word.
func (s *socket) ask(typ uint16, family byte, attrs []byte) error {
	return s.request(typ, unix.NLM_F_REQUEST|unix.NLM_F_ACK, family, attrs, nil)
}

// dumpOf is dump for any part of netfilter.
func (s *socket) dumpOf(typ uint16, family byte, attrs []byte, fn func(family byte, attrs []byte) error) error {
	return s.request(typ, unix.NLM_F_REQUEST|unix.NLM_F_DUMP, family, attrs, fn)
}

func (s *socket) request(typ, flags uint16, family byte, attrs []byte, fn func(family byte, attrs []byte) error) error {
	s.seq++
	seq := s.seq
	b := appendMessage(nil, typ, flags, seq, family, 0, attrs)
	if err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("asking netfilter: %w", err)
	}
	var failed error
	interrupted := false
	for done := false; !done; {
		k, _, err := unix.Recvfrom(s.fd, s.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading what netfilter says: %w", err)
		}
		err = eachMessageFlags(s.buf[:k], func(typ, flags uint16, sq uint32, data []byte) error {
			if sq != seq {
				return nil
			}
			interrupted = interrupted || flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case typ == unix.NLMSG_DONE:
				done = true
			case typ == unix.NLMSG_ERROR:
				done = true
				if e := errorOf(data); e != nil {
					failed = e
				}
			case len(data) >= nfHeader && failed == nil:
				failed = fn(data[0], data[nfHeader:])
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if failed == nil && interrupted {
		return errInterrupted
	}
	return failed
}

func eachMessage(b []byte, fn func(typ uint16, seq uint32, data []byte) error) error {
	return eachMessageFlags(b, func(typ, _ uint16, seq uint32, data []byte) error { return fn(typ, seq, data) })
}

func eachMessageFlags(b []byte, fn func(typ, flags uint16, seq uint32, data []byte) error) error {
	for len(b) >= nlHeader {
		n := int(native.Uint32(b))
		if n < nlHeader || n > len(b) {
			return errors.New("a netlink message of a wrong length")
		}
		if err := fn(native.Uint16(b[4:]), native.Uint16(b[6:]), native.Uint32(b[8:]), b[nlHeader:n]); err != nil {
			return err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// eachAttr calls fn with the type (without its flags) and the value of each attribute in b.
func eachAttr(b []byte, fn func(typ uint16, v []byte) error) error {
	for len(b) >= 4 {
		n := int(native.Uint16(b))
		if n < 4 || n > len(b) {
			return errors.New("a netlink attribute of a wrong length")
		}
		if err := fn(native.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n]); err != nil {
			return err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}
