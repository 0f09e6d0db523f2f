package kubebench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tortie/tortie/internal/netns"
)

const (
	tryEvery = 2 * time.Millisecond
	tryMost  = 100 // at once: one that is not answered is given up after 200 ms
)

// answers is when a pod has answered, by now.
type answers struct {
	packet     int64 // anything at all: that nobody listens yet is an answer, too
	connection int64
}

// probe connects every other millisecond until there is a connection.
func probe(ctx context.Context, from *netns.Ns, to netip.Addr, within time.Duration) (answers, error) {
	var a answers
	var open []unix.PollFd
	defer func() {
		for _, f := range open {
			unix.Close(int(f.Fd))
		}
	}()
	target := &unix.SockaddrInet4{Port: port, Addr: to.As4()}
	var strange error
	next, end := now(), now()+within.Nanoseconds()
	for now() < end && ctx.Err() == nil {
		if t := now(); t >= next {
			fd, err := try(from, target)
			if err != nil {
				return a, err
			}
			open = append(open, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
			next = t + tryEvery.Nanoseconds()
			if len(open) > tryMost {
				unix.Close(int(open[0].Fd))
				open = open[1:]
			}
		}
		if _, err := unix.Poll(open, 1); err != nil && !errors.Is(err, unix.EINTR) {
			return a, err
		}
		at := now()
		left := open[:0]
		for _, f := range open {
			if f.Revents == 0 {
				left = append(left, f)
				continue
			}
			code, err := unix.GetsockoptInt(int(f.Fd), unix.SOL_SOCKET, unix.SO_ERROR)
			unix.Close(int(f.Fd))
			switch {
			case err != nil:
				return a, err
			case code == 0:
				a.connection = at
			case unix.Errno(code) != unix.ECONNREFUSED:
				strange = unix.Errno(code)
				continue
			}
			if a.packet == 0 {
				a.packet = at
			}
		}
		open = left
		if a.connection != 0 {
			return a, nil
		}
	}
	return a, errors.Join(fmt.Errorf("%s has not taken a connection within %v", to, within), strange, ctx.Err())
}

// try begins to connect.
func try(from *netns.Ns, to unix.Sockaddr) (fd int, err error) {
	err = from.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	// a reset at the end: nothing waits in the tables of either side
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.ECONNREFUSED) {
		return -1, errors.Join(fmt.Errorf("connecting: %w", err), unix.Close(fd))
	}
	return fd, nil
}
