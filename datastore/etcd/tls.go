package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

const (
	alert     = "remote error: tls:" // how crypto/tls begins the words of an alert
	alertWait = 200 * time.Millisecond
)

// fileCreds are TLS credentials whose files are read for each connection.
type fileCreds struct {
	ca, cert, key string
	// Only what does not depend on the files is asked of it.
	credentials.TransportCredentials
}

func newFileCreds(cfg Config) *fileCreds {
	return &fileCreds{
		ca: cfg.CAFile, cert: cfg.CertFile, key: cfg.KeyFile,
		TransportCredentials: credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}),
	}
}

func (c *fileCreds) load() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.ca != "" {
		pem, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, fmt.Errorf("reading the store's authority: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate in it", c.ca)
		}
	}
	if c.cert != "" {
		cert, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate for the store: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *fileCreds) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t, err := c.load()
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	secure, info, err := credentials.NewTLS(t).ClientHandshake(ctx, authority, conn)
	if err != nil {
		return nil, nil, err
	}
	return &alertConn{Conn: secure, broken: make(chan struct{})}, info, nil
}

// alertConn tells why the server has hung up. With TLS 1.3 a client learns that its certificate was refused only from
// the first read; a write meanwhile fails with "broken pipe", which says nothing.
type alertConn struct {
	net.Conn
	once   sync.Once
	broken chan struct{} // a read has failed
	why    error         // valid then
}

func (c *alertConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.once.Do(func() {
			c.why = err
			close(c.broken)
		})
	}
	return n, err
}

func (c *alertConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		return n, nil
	}
	select {
	case <-c.broken:
		if strings.Contains(c.why.Error(), alert) {
			err = c.why
		}
	case <-time.After(alertWait):
	}
	return n, err
}

// Clone implements credentials.TransportCredentials.
func (c *fileCreds) Clone() credentials.TransportCredentials {
	return &fileCreds{ca: c.ca, cert: c.cert, key: c.key, TransportCredentials: c.TransportCredentials.Clone()}
}
