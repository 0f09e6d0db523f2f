package store

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"time"
)

const (
	// DefaultDir is where the store keeps its data.
	DefaultDir = "/var/lib/tortie/store"
	// DefaultListen is where it listens.
	DefaultListen = "unix:///run/tortie/store.sock"

	minQuota = 4 << 20
)

// Config says how to run a store.
type Config struct {
	Dir string // the data; made with mode 0700
	// Listen holds unix:///path/to.sock or https://address:port. A network listener needs TLS in full.
	Listen []string
	TLS    TLS
	// QuotaBytes is the size that the data may have. A full store takes deletes only, until it has been healed.
	QuotaBytes int64
	// Compaction is how long old revisions are kept for watches that resume.
	Compaction time.Duration
	Log        *slog.Logger
	Ready      func() // called once, when clients are served; may be nil
}

// TLS names the files of network listeners. They are read again for each connection, so that they can be replaced.
type TLS struct {
	CertFile, KeyFile string
	ClientCAFile      string // clients must show a certificate of this authority
}

// Default returns the configuration of a store on one machine.
func Default() Config {
	return Config{
		Dir:        DefaultDir,
		Listen:     []string{DefaultListen},
		QuotaBytes: 2 << 30,
		Compaction: 5 * time.Minute,
		Log:        slog.Default(),
	}
}

// withDefaults fills in what is not set.
func (c Config) withDefaults() Config {
	d := Default()
	if c.Dir == "" {
		c.Dir = d.Dir
	}
	if len(c.Listen) == 0 {
		c.Listen = d.Listen
	}
	if c.QuotaBytes == 0 {
		c.QuotaBytes = d.QuotaBytes
	}
	if c.Compaction == 0 {
		c.Compaction = d.Compaction
	}
	if c.Log == nil {
		c.Log = d.Log
	}
	if c.Ready == nil {
		c.Ready = func() {}
	}
	return c
}

// Validate returns all that is wrong with c.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	for _, l := range c.Listen {
		if _, err := parseListen(l, c.TLS); err != nil {
			errs = append(errs, err)
		}
	}
	if c.QuotaBytes < minQuota {
		errs = append(errs, fmt.Errorf("quota %d: at least %d bytes", c.QuotaBytes, minQuota))
	}
	if c.Compaction < time.Second {
		errs = append(errs, fmt.Errorf("compaction %v: at least 1s", c.Compaction))
	}
	return errors.Join(errs...)
}

// address is where to listen.
type address struct {
	path string // of a Unix socket
	host string // address:port, always with mutual TLS
}

func parseListen(s string, t TLS) (address, error) {
	u, err := url.Parse(s)
	if err != nil {
		return address{}, fmt.Errorf("listen %q: %w", s, err)
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || u.Path == "" {
			return address{}, fmt.Errorf("listen %q: want unix:///path/to.sock, with an absolute path", s)
		}
		return address{path: u.Path}, nil
	case "https":
		if t.CertFile == "" || t.KeyFile == "" || t.ClientCAFile == "" {
			return address{}, fmt.Errorf("listen %q: the store speaks only mutual TLS on the network: "+
				"certificate, key and the authority of the clients are needed", s)
		}
		host, _, err := net.SplitHostPort(u.Host)
		if err != nil {
			return address{}, fmt.Errorf("listen %q: want https://address:port: %w", s, err)
		}
		if _, err := netip.ParseAddr(host); err != nil {
			return address{}, fmt.Errorf("listen %q: %q is not an address", s, host)
		}
		return address{host: u.Host}, nil
	case "http":
		return address{}, fmt.Errorf("listen %q: the store does not listen on the network without mutual TLS: use https://", s)
	}
	return address{}, fmt.Errorf("listen %q: want unix:///path/to.sock or https://address:port", s)
}
