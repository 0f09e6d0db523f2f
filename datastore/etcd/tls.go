package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc/credentials"
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
	return credentials.NewTLS(t).ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (c *fileCreds) Clone() credentials.TransportCredentials {
	return &fileCreds{ca: c.ca, cert: c.cert, key: c.key, TransportCredentials: c.TransportCredentials.Clone()}
}
