package timing

import (
	"encoding/json"
	"net"

	"golang.org/x/sys/unix"
)

const (
	// Real ends the name of a plugin that another one stands in front of.
	Real = ".real"
	// Socket is the name of the socket, in the plugins' folder.
	Socket = "timed.sock"
)

// Call is one call of a plugin.
type Call struct {
	Plugin, Command, Sandbox, Interface, Netns, Args string

	Begin, End int64 // by Now
	Code       int
	Out        json.RawMessage `json:",omitempty"`
}

// Now is the machine's monotonic clock in nanoseconds, the same for all processes and in all namespaces.
func Now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // of a clock that every Linux has
	}
	return t.Nano()
}

// Tell sends the call to who listens.
func (c *Call) Tell(socket string) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write(b)
	return err
}
