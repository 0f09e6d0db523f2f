package join

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// callTimeout bounds a call to one address.
const callTimeout = 15 * time.Second

// ErrAuthority says that who answers is not the store that the token is of.
var ErrAuthority = errors.New("this is not the store that the token is of")

// ErrRefused says that the store does not accept this host's certificate.
var ErrRefused = errors.New("the store does not accept the certificate of this host")

// Ask shows a token to the store. It returns the address at which the store was. The secret is sent to nobody but the
// store whose authority the token names.
func (t Token) Ask(ctx context.Context, name string, key crypto.Signer, replace bool) (Grant, string, error) {
	csr, err := newCSR(key)
	if err != nil {
		return Grant{}, "", err
	}
	req := Request{Join: &JoinRequest{ID: t.IDString(), Secret: t.Secret[:], Name: name, CSR: csr, Replace: replace}}
	var errs []error
	for _, addr := range t.Addrs {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return Grant{}, "", err
		}
		g, err := call(ctx, addr, t.tlsConfig(host), req)
		if err == nil {
			return g, addr, nil
		}
		if errors.As(err, new(*Refused)) || errors.Is(err, ErrAuthority) || ctx.Err() != nil {
			return Grant{}, addr, err
		}
		errs = append(errs, fmt.Errorf("%s: %w", addr, err))
	}
	return Grant{}, "", fmt.Errorf("no store answers at the token's addresses: is it running, and can this host reach its port? %w",
		errors.Join(errs...))
}

// tlsConfig trusts who has the authority that the token names.
func (t Token) tlsConfig(host string) *tls.Config {
	c := base(host)
	c.InsecureSkipVerify = true // VerifyConnection does it, with the authority that is found in the chain
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		var ca *x509.Certificate
		for _, x := range cs.PeerCertificates[1:] {
			if FingerprintOf(x) == t.CA {
				ca = x
			}
		}
		if ca == nil {
			last := cs.PeerCertificates[len(cs.PeerCertificates)-1]
			return fmt.Errorf("%w: its authority is %s, the token's is %s. Somebody is in between, or the store was set up "+
				"anew. Nothing was sent; make another token on the store's host", ErrAuthority, FingerprintOf(last), t.CA)
		}
		pool := x509.NewCertPool()
		pool.AddCert(ca)
		o := x509.VerifyOptions{Roots: pool, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
		_, err := cs.PeerCertificates[0].Verify(o)
		if bad := (x509.CertificateInvalidError{}); errors.As(err, &bad) && bad.Reason == x509.Expired {
			return fmt.Errorf("by this host's clock the store's certificate is not valid: is the clock right? %w", err)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrAuthority, err)
		}
		return nil
	}
	return c
}

func base(host string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{Protocol}, ServerName: host}
}

// newCSR proves that we have the key. What it is called the store decides.
func newCSR(key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("making a signing request: %w", err)
	}
	return der, nil
}

// Hello asks the store at addr whose certificate this is, and so whether it is accepted.
func (f Files) Hello(ctx context.Context, addr string) (Grant, error) {
	return f.call(ctx, addr, Request{Hello: true})
}

// Renew asks for another certificate, and puts it in the place of the one that is there.
func (f Files) Renew(ctx context.Context, addr string) (Grant, error) {
	key, err := f.key()
	if err != nil {
		return Grant{}, err
	}
	csr, err := newCSR(key)
	if err != nil {
		return Grant{}, err
	}
	g, err := f.call(ctx, addr, Request{Renew: &RenewRequest{CSR: csr}})
	if err != nil {
		return Grant{}, err
	}
	return g, f.Store(g)
}

func (f Files) call(ctx context.Context, addr string, req Request) (Grant, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return Grant{}, fmt.Errorf("address of the store: %w", err)
	}
	c := base(host)
	if c.RootCAs, err = f.pool(); err != nil {
		return Grant{}, err
	}
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return Grant{}, fmt.Errorf("reading this host's certificate: %w", err)
	}
	c.Certificates = []tls.Certificate{cert}
	g, err := call(ctx, addr, c, req)
	if err != nil && strings.Contains(err.Error(), "remote error: tls:") {
		return Grant{}, fmt.Errorf("%w (expelled, replaced or expired): join again with a new token", ErrRefused)
	}
	return g, err
}

// call asks one question.
func call(ctx context.Context, addr string, c *tls.Config, req Request) (Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return Grant{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// A server that refuses our certificate says so after the handshake: its answer is worth more than a broken write.
	werr := WriteFrame(conn, req)
	var r Reply
	if err := ReadFrame(conn, &r); err != nil {
		if werr != nil && !strings.Contains(err.Error(), "remote error") {
			err = werr
		}
		return Grant{}, fmt.Errorf("asking the store: %w", err)
	}
	if r.Grant == nil {
		return Grant{}, &Refused{Code: r.Code, Reason: r.Error}
	}
	return *r.Grant, nil
}
