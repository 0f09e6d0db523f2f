//go:build unix

package agentapi

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// maxFDs is how many descriptors there is room for in a request; more than one is refused, room for some more makes it
// possible to close them instead of losing them in a truncated message.
const maxFDs = 16

// WriteRequest sends a request, and file (which may be nil) with its first bytes.
func WriteRequest(c *net.UnixConn, r Request, file *os.File) error {
	b, err := encodeFrame(r, MaxRequest)
	if err != nil {
		return err
	}
	var oob []byte
	if file != nil {
		oob = syscall.UnixRights(int(file.Fd()))
	}
	n, _, err := c.WriteMsgUnix(b, oob, nil)
	if err == nil && n < len(b) {
		_, err = c.Write(b[n:])
	}
	return err
}

// ReadRequest reads a request and the descriptor that came with its first bytes, which the caller closes; nil if there
// is none. It waits as long as it takes for the first byte, and not longer than patience for the rest.
func ReadRequest(c *net.UnixConn, patience time.Duration) (Request, *os.File, error) {
	var (
		r Request
		h [headerLen]byte
	)
	oob := make([]byte, syscall.CmsgSpace(maxFDs*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(h[:], oob)
	if err != nil {
		return r, nil, err
	}
	if n == 0 {
		return r, nil, io.EOF
	}
	file, err := receivedFile(oob[:oobn], flags)
	if err != nil {
		return r, nil, err
	}
	if err := readRest(c, n, h, &r, patience); err != nil {
		if file != nil {
			err = errors.Join(err, file.Close())
		}
		return r, nil, err
	}
	return r, file, nil
}

func readRest(c *net.UnixConn, n int, h [headerLen]byte, r *Request, patience time.Duration) error {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	defer func() { _ = c.SetReadDeadline(time.Time{}) }() // fails only on a closed connection
	if _, err := io.ReadFull(c, h[n:]); err != nil {
		return err
	}
	return readBody(c, h, r, MaxRequest)
}

// receivedFile returns the one descriptor in oob. The standard library has set close-on-exec.
func receivedFile(oob []byte, flags int) (*os.File, error) {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: its control message: %w", ErrFrame, err)
	}
	var fds []int
	for i := range msgs {
		got, err := syscall.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // not descriptors
		}
		fds = append(fds, got...)
	}
	if len(fds) > 1 || flags&syscall.MSG_CTRUNC != 0 {
		for _, fd := range fds {
			_ = syscall.Close(fd) // not ours to use, and nothing to be done about an error
		}
		return nil, fmt.Errorf("%w: more than one descriptor", ErrFrame)
	}
	if len(fds) == 0 {
		return nil, nil
	}
	return os.NewFile(uintptr(fds[0]), "received"), nil
}
