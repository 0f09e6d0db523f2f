package store

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// DefaultDir is where the store keeps its data.
	DefaultDir = "/var/lib/tortie/store"
	// DefaultListen is where it listens.
	DefaultListen = "unix:///run/tortie/store.sock"

	minQuota = 4 << 20

	minCertLife = 2 * time.Second
)

// Config says how to run a store.
type Config struct {
	Dir string // the data; made with mode 0700
	// Listen holds unix:///path/to.sock or https://address:port. A store is always on a Unix socket, too: DefaultListen if
	// none is named.
	Listen []string
	// Advertise is where other hosts find the store, as name, address or either with a port; none = where it listens.
	Advertise []string
	// CertLife is how long the certificates of those who join are valid.
	CertLife time.Duration
	// QuotaBytes is the size that the data may have. A full store takes deletes only, until it has been healed.
	QuotaBytes int64
	// Compaction is how long old revisions are kept for watches that resume.
	Compaction time.Duration
	Log        *slog.Logger
	Ready      func() // called once, when clients are served; may be nil
}

// Default returns the configuration of a store on one machine.
func Default() Config {
	return Config{
		Dir:        DefaultDir,
		Listen:     []string{DefaultListen},
		QuotaBytes: 2 << 30,
		Compaction: 5 * time.Minute,
		CertLife:   90 * 24 * time.Hour,
		Log:        slog.Default(),
	}
}

// withDefaults fills in what is not set.
func (c Config) withDefaults() Config {
	d := Default()
	if c.Dir == "" {
		c.Dir = d.Dir
	}
	if !slices.ContainsFunc(c.Listen, func(l string) bool { return strings.HasPrefix(l, "unix:") }) {
		c.Listen = append(slices.Clone(d.Listen), c.Listen...)
	}
	if c.QuotaBytes == 0 {
		c.QuotaBytes = d.QuotaBytes
	}
	if c.Compaction == 0 {
		c.Compaction = d.Compaction
	}
	if c.CertLife == 0 {
		c.CertLife = d.CertLife
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
		if _, err := parseListen(l); err != nil {
			errs = append(errs, err)
		}
	}
	for _, a := range c.Advertise {
		if _, err := parseAdvertise(a, c.Listen); err != nil {
			errs = append(errs, err)
		}
	}
	if c.CertLife < minCertLife {
		errs = append(errs, fmt.Errorf("life of certificates %v: at least %v", c.CertLife, minCertLife))
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

func parseListen(s string) (address, error) {
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
