package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/tortie/tortie/store/join"
)

// checkTimeout bounds the look at the registry during a handshake.
const checkTimeout = 5 * time.Second

// memberCreds are the transport credentials of network listeners: mutual TLS, with certificates of our own authority that
// belong to members. A client that asks to join by ALPN gets a connection of its own, which etcd never sees.
type memberCreds struct {
	authority *authority
	registry  *registry
	conns     *conns
	join      func(*tls.Conn) // takes a connection over; never blocks
	complain  *complaints

	members, joiners *tls.Config
}

func newMemberCreds(n *network, take func(*tls.Conn)) *memberCreds {
	c := &memberCreds{authority: n.authority, registry: n.registry, conns: n.conns, join: take, complain: n.complain}
	pool := x509.NewCertPool()
	pool.AddCert(n.authority.cert)
	c.members = &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, SessionTicketsDisabled: true,
		GetCertificate: n.authority.server,
		ClientAuth:     tls.RequireAndVerifyClientCert, ClientCAs: pool, VerifyConnection: c.verify,
	}
	c.joiners = c.members.Clone()
	c.joiners.NextProtos = []string{join.Protocol}
	c.joiners.ClientAuth = tls.VerifyClientCertIfGiven
	return c
}

// verify says whether the certificate of a handshake is one that counts now.
func (c *memberCreds) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return nil // somebody who wants to join
	}
	who, serial, err := bearer(cs)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	if err := c.registry.accepts(ctx, who, serial); err != nil {
		c.complain.tell("a certificate is refused", who, err)
		return fmt.Errorf("%s: %w", who.label(), err)
	}
	return nil
}

// bearer is whose certificate a connection has shown.
func bearer(cs tls.ConnectionState) (who identity, serial string, err error) {
	if len(cs.PeerCertificates) == 0 {
		return identity{}, "", errors.New("no certificate was shown")
	}
	leaf := cs.PeerCertificates[0]
	who, ok := parseIdentity(leaf.Subject.CommonName)
	if !ok {
		return identity{}, "", fmt.Errorf("a certificate for %q is not one of a member", leaf.Subject.CommonName)
	}
	return who, leaf.SerialNumber.Text(16), nil
}

// ServerHandshake implements credentials.TransportCredentials.
func (c *memberCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn := tls.Server(raw, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(h.SupportedProtos, join.Protocol) {
			return c.joiners, nil
		}
		return c.members, nil
	}})
	if err := conn.Handshake(); err != nil {
		_ = raw.Close()
		return nil, nil, err
	}
	cs := conn.ConnectionState()
	if cs.NegotiatedProtocol == join.Protocol {
		c.join(conn)
		return nil, nil, credentials.ErrConnDispatched
	}
	who, _, err := bearer(cs)
	if err != nil {
		_ = raw.Close()
		return nil, nil, err
	}
	m := c.conns.add(who, conn, raw, cs.PeerCertificates[0].NotAfter)
	// Who was expelled between the look at the registry and here was not cut off.
	if err := c.verify(cs); err != nil {
		_ = m.Close()
		return nil, nil, err
	}
	info := credentials.TLSInfo{State: cs, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	return m, info, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (c *memberCreds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("the credentials of a listener are for servers")
}

// Info implements credentials.TransportCredentials.
func (c *memberCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

// Clone implements credentials.TransportCredentials.
func (c *memberCreds) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials.
func (c *memberCreds) OverrideServerName(string) error { return nil }
