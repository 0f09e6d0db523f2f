package etcd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// sign writes <name>.crt and <name>.key.
func (a *authority) sign(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber = big.NewInt(time.Now().UnixNano())
	c.Subject = pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", keyDER)
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return out, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) server() {
	a.sign("server", &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

func (a *authority) client() {
	a.sign("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ours, theirs := newAuthority(t), newAuthority(t)
	ours.server()
	ours.client()
	theirs.client()
	srv := newServer(t)
	endpoint := "https://" + freePort(t)
	srv.cfg.Listen, srv.run = []string{endpoint}, secureEtcd(ours)
	srv.start()
	key := api.KeyOf(set("a"))

	good := Config{Endpoints: []string{endpoint}, CAFile: ours.path("ca.crt"), CertFile: ours.path("client.crt"), KeyFile: ours.path("client.key")}
	s := open(t, good)
	mustCreate(t, s, "a")
	watch(t, s, "GlobalNetworkSet").untilHas("a")

	for name, c := range map[string]struct {
		cfg  Config
		want error
	}{
		"no certificate":       {Config{CAFile: good.CAFile}, datastore.ErrForbidden},
		"another's client":     {Config{CAFile: good.CAFile, CertFile: theirs.path("client.crt"), KeyFile: theirs.path("client.key")}, datastore.ErrForbidden},
		"a server not trusted": {Config{CAFile: theirs.path("ca.crt"), CertFile: good.CertFile, KeyFile: good.KeyFile}, datastore.ErrUnavailable},
		"no such file":         {Config{CAFile: good.CAFile, CertFile: "/nowhere/c", KeyFile: "/nowhere/k"}, datastore.ErrUnavailable},
		"plain":                {Config{Endpoints: []string{"http" + endpoint[len("https"):]}}, datastore.ErrUnavailable},
	} {
		if c.cfg.Endpoints == nil {
			c.cfg.Endpoints = good.Endpoints
		}
		if _, err := open(t, c.cfg).Get(background(t), key); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestTLSRotation: a client takes up new files without a restart.
func TestTLSRotation(t *testing.T) {
	t.Parallel()
	old := newAuthority(t)
	old.server()
	old.client()
	srv := newServer(t)
	addr := freePort(t)
	srv.cfg.Listen, srv.run = []string{"https://" + addr}, secureEtcd(old)
	srv.start()
	cfg := Config{Endpoints: []string{"https://" + addr}, CAFile: old.path("ca.crt"), CertFile: old.path("client.crt"), KeyFile: old.path("client.key")}
	client := open(t, cfg)
	mustCreate(t, client, "a")

	// A new authority, in the old one's place, and certificates of it.
	fresh := &authority{t: t, dir: old.dir}
	fresh.cert, fresh.key = fresh.sign("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	fresh.server()
	fresh.client()
	// The connection goes on; the next one has the new files.
	mustCreate(t, client, "b")
	srv.stop()
	srv.start()
	mustCreate(t, client, "c")
	mustCreate(t, open(t, cfg), "d")
}
