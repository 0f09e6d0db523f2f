//go:build linux

package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// ErrDropped says that nothing answered in time: somebody dropped the packets.
var ErrDropped = errors.New("no answer")

// Echo opens a connection of a protocol ("tcp" or "udp") from h to a server, sends a line, and wants it back.
func (h *Host) Echo(ctx context.Context, proto string, to netip.Addr, port uint16) error {
	c, err := h.Dial(ctx, proto, to, port)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Say("ping")
}

// Conn is a connection to an echo server of the lab.
type Conn struct {
	net.Conn
}

// Dial opens a connection from inside h. A drop is ErrDropped after dialTimeout.
func (h *Host) Dial(ctx context.Context, proto string, to netip.Addr, port uint16) (*Conn, error) {
	var c net.Conn
	err := h.ns.Do(func() (err error) { // the socket is made on this thread, so inside the namespace
		c, err = (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, proto, net.JoinHostPort(to.String(), strconv.Itoa(int(port))))
		return err
	})
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		return nil, fmt.Errorf("%w from %s port %d (%s)", ErrDropped, to, port, proto)
	}
	if err != nil {
		return nil, err
	}
	return &Conn{c}, nil
}

// Say sends a line and wants it back within dialTimeout.
func (c *Conn) Say(line string) error {
	_ = c.SetDeadline(time.Now().Add(dialTimeout))
	if _, err := c.Write([]byte(line)); err != nil {
		return err
	}
	buf := make([]byte, len(line))
	for got := 0; got < len(buf); {
		n, err := c.Read(buf[got:])
		got += n
		var netErr net.Error
		if errors.As(err, &netErr) && netErr.Timeout() {
			return fmt.Errorf("%w from %s", ErrDropped, c.RemoteAddr())
		}
		if err != nil {
			return err
		}
	}
	if !bytes.Equal(buf, []byte(line)) {
		return fmt.Errorf("%s answered %q to %q", c.RemoteAddr(), buf, line)
	}
	return nil
}
