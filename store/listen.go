package store

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// ErrInUse says that somebody listens on the socket already.
var ErrInUse = errors.New("somebody listens there already")

// maxPath is what clients can connect to: Linux has 108 bytes for a path and its end.
const maxPath = 107

// listener is an open listener: a Unix socket, for root on this host, or the network, for members.
type listener struct {
	net.Listener
	local bool
}

func listen(a address) (*listener, error) {
	if a.path != "" {
		l, err := listenUnix(a.path)
		if err != nil {
			return nil, fmt.Errorf("listening on %s: %w", a.path, err)
		}
		return &listener{Listener: l, local: true}, nil
	}
	l, err := net.Listen("tcp", a.host)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	return &listener{Listener: l}, nil
}

// free says whether path can be listened on: nothing there, or a socket that nobody serves any more.
func free(path string) error {
	fi, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode()&os.ModeSocket == 0 {
		return errors.New("a file that is not a socket is there")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return ErrInUse
	}
	return nil
}

// unixListener removes its socket file when it is closed, unless another one has taken the place.
type unixListener struct {
	*net.UnixListener
	path string
	file os.FileInfo
}

// listenUnix makes the socket in a private directory and moves it into place when its mode is right: there is no
// moment at which others can connect, and a stale file is replaced in one step.
func listenUnix(path string) (net.Listener, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("the path is longer than %d bytes, which is all that a socket's can have", maxPath)
	}
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return nil, err
		}
	}
	if err := free(path); err != nil {
		return nil, err
	}
	private, err := os.MkdirTemp(dir, ".s")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	tmp := filepath.Join(private, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	fi, err := place(tmp, path)
	if err != nil {
		l.Close()
		return nil, err
	}
	return &unixListener{UnixListener: l, path: path, file: fi}, nil
}

func place(tmp, path string) (os.FileInfo, error) {
	if err := os.Chmod(tmp, 0o600); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, path); err != nil {
		return nil, err
	}
	return os.Lstat(path)
}

func (l *unixListener) Close() error {
	if fi, err := os.Lstat(l.path); err == nil && os.SameFile(fi, l.file) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}
