package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds each step of a client: a connection that takes longer has failed.
const patience = 3 * time.Second

func newFile(fd int) *os.File { return os.NewFile(uintptr(fd), "socket") }

// Rated is what Rate has seen.
type Rated struct {
	N         int     // connections that went well
	Failed    int     // connections that did not
	FirstErr  string  // how the first of those failed
	PerSecond float64 // of those that went well
	P50, P99  float64 // microseconds for each
}

// Client is how Rate makes a connection. Each ends with a reset, so that no port is kept waiting.
type Client string

const (
	// Connect opens a connection, and closes it.
	Connect Client = "connect"
	// Request sends one byte over it before, and waits for one back.
	Request Client = "crr"
)

// Rate makes connections one after the other for d.
func Rate(to netip.AddrPort, d time.Duration, c Client) (Rated, error) {
	pin(clientCPU)
	defer unpin()
	at := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	once := func() error { return exchange(at, c == Request) }
	// The first connection finds neighbours and fills caches; it is no part of the figure.
	if err := once(); err != nil {
		return Rated{}, fmt.Errorf("connecting to %v: %w", to, err)
	}
	r := Rated{}
	took := make([]float64, 0, 1<<18)
	began := time.Now()
	for now := began; now.Sub(began) < d; {
		err := once()
		then := time.Now()
		if err == nil {
			took = append(took, float64(then.Sub(now).Nanoseconds())/1e3)
		} else if r.Failed++; r.Failed == 1 {
			r.FirstErr = err.Error()
		}
		now = then
	}
	if len(took) == 0 {
		return r, fmt.Errorf("connecting to %v: not one connection in %v: %s", to, d, r.FirstErr)
	}
	r.N, r.PerSecond = len(took), float64(len(took))/time.Since(began).Seconds()
	r.P50, r.P99 = quantiles(took)
	return r, nil
}

func exchange(at unix.Sockaddr, request bool) error {
	fd, err := dial(at)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if !request {
		return nil
	}
	b := [1]byte{'?'}
	if _, err := unix.Write(fd, b[:]); err != nil { // never interrupted: there is room for it
		return err
	}
	for {
		n, err := unix.Read(fd, b[:])
		switch {
		case err == unix.EINTR:
			continue
		case err == nil && n == 0:
			return errors.New("no answer")
		}
		return err
	}
}

// dial opens a connection whose every step is bounded by patience.
func dial(at unix.Sockaddr) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	tv := unix.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv))
	if err == nil {
		err = unix.Connect(fd, at)
	}
	if err == unix.EINTR { // the runtime's signals do that; the connection goes on being made
		err = connected(fd)
	}
	if err == unix.EINPROGRESS { // what SO_SNDTIMEO makes of a time-out
		err = errors.New("no answer")
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// connected waits for a connection that is being made.
func connected(fd int) error {
	deadline := time.Now().Add(patience)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return unix.EINPROGRESS
		}
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(left.Milliseconds())+1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = unix.Errno(code)
		}
		return err
	}
}

// Stream sends for d over one connection to a sink, and returns the bytes per second that arrived.
func Stream(to netip.AddrPort, d time.Duration) (float64, error) {
	pin(clientCPU)
	defer unpin()
	fd, err := dial(&unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	if err != nil {
		return 0, fmt.Errorf("connecting to %v: %w", to, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, 128<<10)
	began := time.Now()
	for time.Since(began) < d {
		if _, err := unix.Write(fd, buf); err != nil && err != unix.EINTR {
			return 0, fmt.Errorf("streaming to %v: %w", to, err)
		}
	}
	if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
		return 0, fmt.Errorf("streaming to %v: %w", to, err)
	}
	var total [8]byte
	for got := 0; got < len(total); {
		n, err := unix.Read(fd, total[got:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return 0, fmt.Errorf("streaming to %v: the sink does not say what it got: %w", to, err)
		}
		got += n
	}
	return float64(binary.BigEndian.Uint64(total[:])) / time.Since(began).Seconds(), nil
}
