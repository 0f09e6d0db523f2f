package linuxnet

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Sysctl is a value under /proc/sys/net: Path is "ipv4/ip_forward". (Slashes: names of interfaces may hold dots.)
type Sysctl struct{ Path, Value string }

// String gives "net.ipv4.ip_forward=1".
func (s Sysctl) String() string {
	return "net." + strings.ReplaceAll(s.Path, "/", ".") + "=" + s.Value
}

// Sysctl reads a value. A missing one is os.ErrNotExist.
func (c *Conn) Sysctl(path string) (string, error) {
	var v string
	err := c.ns.Do(func() (err error) {
		v, err = readSysctl(path)
		return err
	})
	return v, err
}

// DiffSysctls returns those of want that the kernel has other values of, with the values that it has.
func (c *Conn) DiffSysctls(want []Sysctl) ([]Sysctl, error) {
	var diff []Sysctl
	err := c.ns.Do(func() error {
		for _, s := range want {
			v, err := readSysctl(s.Path)
			if err != nil {
				return err
			}
			if v != s.Value {
				diff = append(diff, Sysctl{s.Path, v})
			}
		}
		return nil
	})
	return diff, err
}

// SetSysctls sets values; what is right is not written.
func (c *Conn) SetSysctls(want []Sysctl) error {
	return c.ns.Do(func() error {
		var errs []error
		for _, s := range want {
			v, err := readSysctl(s.Path)
			if err == nil && v == s.Value {
				continue
			}
			if err == nil {
				err = c.writeSysctl(s)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("setting sysctl %s: %w", s, err))
			}
		}
		return errors.Join(errs...)
	})
}

// writeSysctl writes to the first place that can be written.
func (c *Conn) writeSysctl(s Sysctl) error {
	err := os.WriteFile(filepath.Join(sysctlRoot, s.Path), []byte(s.Value), 0)
	if !errors.Is(err, unix.EROFS) {
		return err
	}
	other := os.WriteFile(filepath.Join(c.hostSysctls, s.Path), []byte(s.Value), 0)
	if errors.Is(other, fs.ErrNotExist) {
		return fmt.Errorf("%w; in a container the host's %s must be mounted at %s", err, sysctlRoot, c.hostSysctls)
	}
	return other
}

// HasIPv6 reports whether the kernel speaks IPv6 at all.
func (c *Conn) HasIPv6() bool {
	_, err := c.Sysctl("ipv6/conf/all/forwarding")
	return err == nil
}

const (
	// sysctlRoot shows the values of the network namespace of the thread that opens them.
	sysctlRoot = "/proc/sys/net"
	// hostSysctlRoot is where the host's sysctlRoot is mounted in a container that is not privileged: its own can't be written.
	// It, too, shows the values of who opens them.
	hostSysctlRoot = "/host/proc/sys/net"
)

func readSysctl(path string) (string, error) {
	b, err := os.ReadFile(filepath.Join(sysctlRoot, path))
	if err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(b)), nil
}
