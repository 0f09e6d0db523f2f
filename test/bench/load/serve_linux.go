package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// backlog is how many connections may wait; the kernel cuts it to what it allows.
const backlog = 4096

// Serve listens as specs say ("crr:8000", "sink:8001", "echo:8002"), calls ready, and serves until a server fails.
func Serve(specs []string, ready func()) error {
	failed := make(chan error, len(specs))
	for _, spec := range specs {
		kind, portText, _ := strings.Cut(spec, ":")
		port, err := strconv.ParseUint(portText, 10, 16)
		if err != nil {
			return fmt.Errorf("server %q: want kind:port", spec)
		}
		serve, ok := map[string]func(fd int) error{"crr": serveCRR, "sink": serveSink, "echo": serveEcho}[kind]
		if !ok {
			return fmt.Errorf("server %q: want crr, sink or echo", spec)
		}
		fd, err := listen(uint16(port))
		if err != nil {
			return fmt.Errorf("server %q: %w", spec, err)
		}
		go func() {
			if kind != "echo" {
				pin(serverCPU)
			}
			failed <- fmt.Errorf("server %q: %w", spec, serve(fd))
		}()
	}
	ready()
	return <-failed
}

func listen(port uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)}), unix.Listen(fd, backlog))
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// accept waits for a connection. One that has ended before it was taken is no error of the server's.
func accept(fd int) (int, error) {
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != unix.EINTR && err != unix.ECONNABORTED {
			return c, err
		}
	}
}

// serveCRR answers what it is sent, connection after connection.
func serveCRR(fd int) error {
	buf := make([]byte, 1024)
	for {
		c, err := accept(fd)
		if err != nil {
			return err
		}
		for {
			n, err := unix.Read(c, buf)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n == 0 { // the client has hung up
				break
			}
			if _, err := unix.Write(c, buf[:n]); err != nil {
				break
			}
		}
		unix.Close(c)
	}
}

// serveSink reads a stream to its end, and answers how many bytes that was.
func serveSink(fd int) error {
	buf := make([]byte, 256<<10)
	for {
		c, err := accept(fd)
		if err != nil {
			return err
		}
		var total uint64
		for {
			n, err := unix.Read(c, buf)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n == 0 {
				break
			}
			total += uint64(n)
		}
		// A client that is gone does not want to know.
		_, _ = unix.Write(c, binary.BigEndian.AppendUint64(nil, total))
		unix.Close(c)
	}
}

// serveEcho serves any number of connections at once.
func serveEcho(fd int) error {
	for {
		c, err := accept(fd)
		if err != nil {
			return err
		}
		if err := unix.SetNonblock(c, true); err != nil {
			unix.Close(c)
			continue
		}
		go echo(c)
	}
}

func echo(fd int) {
	f := newFile(fd)
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.Copy(c, c)
}
