package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Flowed is what Flows has seen.
type Flowed struct {
	New, Kept         int // exchanges on connections made for them, and on those that are kept
	NewLost, KeptLost int // of those: failed, or a packet had to be sent again
	FirstErr          string
}

// Flows makes rate connections per second to an echo server and keeps kept others, each of which says something every 20
// ms, until ctx ends. A connection that failed, or on which any packet had to be sent again, counts as lost. The whole
// process must be inside the client's namespace.
func Flows(ctx context.Context, to netip.AddrPort, rate, kept int) (Flowed, error) {
	f := &flows{to: to.String()}
	for range kept {
		c, err := f.dial()
		if err != nil {
			return Flowed{}, fmt.Errorf("opening a connection to keep: %w", err)
		}
		f.wg.Go(func() { f.keep(ctx, c) })
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	began, made := time.Now(), 0
	for ctx.Err() == nil {
		for due := int(time.Since(began).Seconds() * float64(rate)); made < due; made++ {
			f.wg.Go(f.once)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	f.wg.Wait()
	return f.seen, nil
}

type flows struct {
	to   string
	wg   sync.WaitGroup
	mu   sync.Mutex
	seen Flowed
}

func (f *flows) dial() (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp4", f.to, patience)
	if err != nil {
		return nil, err
	}
	t := c.(*net.TCPConn) // of "tcp4"
	if err := t.SetLinger(0); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return t, nil
}

func (f *flows) once() {
	err := func() error {
		c, err := f.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		return errors.Join(say(c), resent(c, 0))
	}()
	f.note(err, &f.seen.New, &f.seen.NewLost)
}

func (f *flows) keep(ctx context.Context, c *net.TCPConn) {
	defer c.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var before uint32
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := say(c)
		if err == nil {
			err = resent(c, before)
			before, _ = retransmits(c)
		}
		f.note(err, &f.seen.Kept, &f.seen.KeptLost)
		var again *net.OpError
		if errors.As(err, &again) { // this connection is of no more use
			return
		}
	}
}

func (f *flows) note(err error, all, lost *int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*all++
	if err == nil {
		return
	}
	*lost++
	if f.seen.FirstErr == "" {
		f.seen.FirstErr = err.Error()
	}
}

// say sends a line and wants it back.
func say(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	var b [16]byte
	if _, err := c.Write(b[:]); err != nil {
		return err
	}
	for got := 0; got < len(b); {
		n, err := c.Read(b[got:])
		if err != nil {
			return err
		}
		got += n
	}
	return nil
}

// resent is an error if the connection had to send more packets again than before.
func resent(c *net.TCPConn, before uint32) error {
	n, err := retransmits(c)
	if err == nil && n > before {
		err = fmt.Errorf("%d packets were sent again", n-before)
	}
	return err
}

func retransmits(c *net.TCPConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var info *unix.TCPInfo
	var sockErr error
	if err := raw.Control(func(fd uintptr) {
		info, sockErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); err != nil {
		return 0, err
	}
	if sockErr != nil {
		return 0, sockErr
	}
	return info.Total_retrans, nil
}
