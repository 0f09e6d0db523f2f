package store

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tortie/tortie/store/join"
)

const (
	// Keys of the store itself. Only root may read them; a snapshot has them, too, so that a store that was restored is
	// the one that hosts have joined.
	storePrefix  = "/tortie/store/"
	authorityKey = storePrefix + "authority"
	tokenPrefix  = storePrefix + "token/"
	memberPrefix = storePrefix + "member/"

	authorityLife = 20 * 365 * 24 * time.Hour
	serverLife    = 90 * 24 * time.Hour
	// Certificates are valid from a while ago: hosts' clocks differ.
	backdate = 5 * time.Minute
)

// authority issues the certificates of a store and of those who have joined it.
type authority struct {
	cert  *x509.Certificate
	key   crypto.Signer
	names []string // that the store's own certificate has beside the address of the connection

	mu     sync.Mutex
	served map[string]*tls.Certificate // by local address
}

// storedAuthority is how it is kept.
type storedAuthority struct {
	Cert []byte `json:"cert"` // DER
	Key  []byte `json:"key"`  // PKCS 8
}

// openAuthority reads the authority, and makes it if there is none.
func openAuthority(ctx context.Context, kv clientv3.KV, names []string) (*authority, error) {
	fresh, err := newAuthority()
	if err != nil {
		return nil, fmt.Errorf("making the store's authority: %w", err)
	}
	res, err := kv.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(authorityKey), "=", 0)).
		Then(clientv3.OpPut(authorityKey, string(fresh))).Else(clientv3.OpGet(authorityKey)).Commit()
	if err != nil {
		return nil, fmt.Errorf("reading the store's authority: %w", err)
	}
	if !res.Succeeded {
		fresh = res.Responses[0].GetResponseRange().Kvs[0].Value
	}
	var s storedAuthority
	if err := json.Unmarshal(fresh, &s); err != nil {
		return nil, fmt.Errorf("reading the store's authority: %w", err)
	}
	a := &authority{names: names, served: map[string]*tls.Certificate{}}
	if a.cert, err = x509.ParseCertificate(s.Cert); err != nil {
		return nil, fmt.Errorf("reading the store's authority: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(s.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the store's authority: %w", err)
	}
	var ok bool
	if a.key, ok = key.(crypto.Signer); !ok {
		return nil, errors.New("reading the store's authority: its key can't sign")
	}
	return a, nil
}

func newAuthority() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: join.AuthorityName},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(authorityLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	var s storedAuthority
	if s.Cert, err = x509.CreateCertificate(rand.Reader, t, t, key.Public(), key); err != nil {
		return nil, err
	}
	if s.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, err
	}
	return json.Marshal(s)
}

func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] = b[0]&0x7f | 0x40 // positive, and of one length
	return new(big.Int).SetBytes(b[:])
}

// pem is the authority's certificate.
func (a *authority) pem() []byte { return pemOf(a.cert.Raw) }

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// issued is a certificate that is about to be given out.
type issued struct {
	pem  []byte
	note CertNote
}

// issue signs a client certificate.
func (a *authority) issue(name string, key crypto.PublicKey, life time.Duration) (issued, error) {
	now := time.Now().Truncate(time.Second).UTC()
	t := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-min(backdate, life/10)), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key, a.key)
	if err != nil {
		return issued{}, fmt.Errorf("signing a certificate for %s: %w", name, err)
	}
	return issued{pemOf(der), CertNote{Serial: t.SerialNumber.Text(16), Issued: now, Expires: t.NotAfter}}, nil
}

// server is the store's own certificate, for the address at which a client has found it.
func (a *authority) server(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	local, _, err := net.SplitHostPort(hello.Conn.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.served[local]; c != nil && time.Until(c.Leaf.NotAfter) > serverLife/3 {
		return c, nil
	}
	c, err := a.newServer(append([]string{local}, a.names...))
	if err != nil {
		return nil, fmt.Errorf("making the store's certificate: %w", err)
	}
	a.served[local] = c
	return c, nil
}

func (a *authority) newServer(names []string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: "tortie store"},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(serverLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}
