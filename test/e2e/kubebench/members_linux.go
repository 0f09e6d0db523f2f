package kubebench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/internal/netns"
)

// setPrefix begins the names of the sets of pods' IPv4 addresses that policies match.
const setPrefix = "s4"

// members hears from a node's kernel when an address becomes an element of such a set.
type members struct {
	fd, wake int
	wg       sync.WaitGroup

	mu    sync.Mutex
	since map[netip.Addr][]int64 // by now, each time
	err   error
}

func watchMembers(ns *netns.Ns) (*members, error) {
	m := &members{since: map[netip.Addr][]int64{}}
	var err error
	if m.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return nil, err
	}
	err = ns.Do(func() (err error) {
		m.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, unix.Close(m.wake))
	}
	err = errors.Join(unix.SetsockoptInt(m.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.Bind(m.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}),
		unix.SetsockoptInt(m.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, unix.NFNLGRP_NFTABLES))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening to the kernel: %w", err), unix.Close(m.fd), unix.Close(m.wake))
	}
	m.wg.Go(m.run)
	return m, nil
}

func (m *members) close() error {
	_, err := unix.Write(m.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	m.wg.Wait()
	return errors.Join(err, unix.Close(m.fd), unix.Close(m.wake))
}

func (m *members) run() {
	buf := make([]byte, 1<<20)
	fds := []unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLIN}, {Fd: int32(m.wake), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			m.fail(err)
			return
		}
		if fds[1].Revents != 0 {
			return
		}
		n, _, err := unix.Recvfrom(m.fd, buf, unix.MSG_DONTWAIT)
		at := now()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		var added []netip.Addr
		if err == nil {
			added, err = elements(buf[:n])
		}
		if err != nil {
			m.fail(err)
			return
		}
		m.mu.Lock()
		for _, a := range added {
			m.since[a] = append(m.since[a], at)
		}
		m.mu.Unlock()
	}
}

func (m *members) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = fmt.Errorf("listening to the kernel: %w", err)
}

// after is when an address became a member, the first time not before a moment; 0 if it did not.
func (m *members) after(a netip.Addr, moment int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, at := range m.since[a] {
		if at >= moment {
			return at, m.err
		}
	}
	return 0, m.err
}

const (
	newElements = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM
	nfHeader    = 4
)

// elements are the IPv4 addresses that messages of the kernel say have come into sets of policies.
func elements(b []byte) (out []netip.Addr, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := int(binary.NativeEndian.Uint32(b[0:4]))
		if size < unix.SizeofNlMsghdr || size > len(b) {
			return nil, fmt.Errorf("a message of %d bytes in %d", size, len(b))
		}
		typ, body := binary.NativeEndian.Uint16(b[4:6]), b[unix.SizeofNlMsghdr:size]
		b = b[min(len(b), (size+3)&^3):]
		if typ != newElements || len(body) < nfHeader {
			continue
		}
		ad, err := netlink.NewAttributeDecoder(body[nfHeader:])
		if err != nil {
			return nil, err
		}
		set := ""
		for ad.Next() {
			switch ad.Type() {
			case unix.NFTA_SET_ELEM_LIST_SET:
				set = ad.String()
			case unix.NFTA_SET_ELEM_LIST_ELEMENTS:
				if strings.HasPrefix(set, setPrefix) { // the name comes first
					ad.Nested(func(list *netlink.AttributeDecoder) error {
						for list.Next() {
							list.Nested(func(e *netlink.AttributeDecoder) error { return element(e, &out) })
						}
						return nil
					})
				}
			}
		}
		if err := ad.Err(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// element appends the key of an element.
func element(e *netlink.AttributeDecoder, out *[]netip.Addr) error {
	for e.Next() {
		if e.Type() != unix.NFTA_SET_ELEM_KEY {
			continue
		}
		e.Nested(func(key *netlink.AttributeDecoder) error {
			for key.Next() {
				if a, ok := netip.AddrFromSlice(key.Bytes()); ok && key.Type() == unix.NFTA_DATA_VALUE && a.Is4() {
					*out = append(*out, a)
				}
			}
			return nil
		})
	}
	return nil
}
