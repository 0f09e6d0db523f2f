//go:build !unix

package agentapi

import (
	"errors"
	"net"
	"os"
	"time"
)

// WriteRequest sends a request. Descriptors can't be passed on this system.
func WriteRequest(c *net.UnixConn, r Request, file *os.File) error {
	if file != nil {
		return errors.New("this system can't pass descriptors")
	}
	return WriteFrame(c, r, MaxRequest)
}

// ReadRequest reads a request, and waits as long as it takes for it.
func ReadRequest(c *net.UnixConn, _ time.Duration) (Request, *os.File, error) {
	var r Request
	return r, nil, ReadFrame(c, &r, MaxRequest)
}
