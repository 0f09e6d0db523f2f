package linux

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// monitor listens to what happens to nf_tables in a namespace, and says when somebody else has touched our tables.
type monitor struct {
	s    *socket
	wake int // an eventfd that ends it
	done chan struct{}
}

// startMonitor calls kick, which never blocks, for each foreign transaction with our tables in it, and when events were
// lost. Those of the two sockets of our own are not heard.
func startMonitor(netns int, own [2]*socket, kick func()) (*monitor, error) {
	s, err := dialIn(netns)
	if err != nil {
		return nil, err
	}
	m := &monitor{s: s, done: make(chan struct{})}
	if m.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		s.close()
		return nil, fmt.Errorf("listening to nf_tables: %w", err)
	}
	if err := m.listen(own); err != nil {
		s.close()
		unix.Close(m.wake)
		return nil, fmt.Errorf("listening to nf_tables: %w", err)
	}
	go func() {
		defer close(m.done)
		m.run(kick)
	}()
	return m, nil
}

func (m *monitor) listen(own [2]*socket) error {
	var ports [2]uint32
	for i, s := range own {
		sa, err := unix.Getsockname(s.fd)
		if err != nil {
			return err
		}
		nl, ok := sa.(*unix.SockaddrNetlink)
		if !ok {
			return errors.New("the socket is not one of netlink")
		}
		// The kernel's word order is its own, and a filter loads words in network order.
		ports[i] = order(nl.Pid)
	}
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 12}, // the sender in the first message's header
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: ports[0], Jt: 1, Jf: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: ports[1], Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err := unix.SetsockoptSockFprog(m.s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog)
	runtime.KeepAlive(filter)
	if err != nil {
		return err
	}
	return unix.SetsockoptInt(m.s.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES)
}

// order is n in network order, as a filter sees it.
func order(n uint32) uint32 { return be32(native.AppendUint32(nil, n)) }

func (m *monitor) run(kick func()) {
	fds := []unix.PollFd{{Fd: int32(m.s.fd), Events: unix.POLLIN}, {Fd: int32(m.wake), Events: unix.POLLIN}}
	// After an overrun the kernel drops what comes without a word until the queue has been empty.
	lost := false
	for {
		wait := -1
		if lost {
			wait = 0
		}
		if _, err := unix.Poll(fds, wait); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		n, _, err := unix.Recvfrom(m.s.fd, m.s.buf, unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost = true
			kick()
		case errors.Is(err, unix.EAGAIN) && lost:
			lost = false
			kick()
		case err == nil && ours(m.s.buf[:n]):
			kick()
		}
	}
}

// ours reports whether one of the events is about our tables.
func ours(b []byte) bool {
	found := false
	_ = eachMessage(b, func(typ uint16, _ uint32, data []byte) error {
		if typ>>8 != unix.NFNL_SUBSYS_NFTABLES || typ == nftType(unix.NFT_MSG_NEWGEN) || len(data) < nfHeader {
			return nil
		}
		if f := data[0]; f != families[Inet] && f != families[ARP] {
			return nil
		}
		return eachAttr(data[nfHeader:], func(typ uint16, v []byte) error {
			// Every kind of object has its table's name, or its own if it is a table, as its first attribute.
			found = found || typ == unix.NFTA_TABLE_NAME && text(v) == TableName
			return nil
		})
	})
	return found
}

// close ends the monitor and waits for it.
func (m *monitor) close() {
	_, _ = unix.Write(m.wake, native.AppendUint64(nil, 1))
	<-m.done
	_ = m.s.close()
	_ = unix.Close(m.wake)
}
