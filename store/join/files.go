package join

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Files are where a host keeps what it shows to the store.
type Files struct {
	Key, Cert, CA string
}

// FilesIn are those of a directory.
func FilesIn(dir, name string) Files {
	return Files{Key: filepath.Join(dir, name+".key"), Cert: filepath.Join(dir, name+".crt"), CA: filepath.Join(dir, "ca.crt")}
}

// MakeKey returns the host's key, and makes it if there is none. It is on the disk when this returns, so that who asks
// again after a crash asks with the same key.
func (f Files) MakeKey() (crypto.Signer, error) {
	key, err := f.key()
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	if err := os.MkdirAll(filepath.Dir(f.Key), 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of the key: %w", err)
	}
	fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(fresh)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return fresh, WriteFile(f.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func (f Files) key() (crypto.Signer, error) {
	b, err := os.ReadFile(f.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key: remove it, and join again", f.Key)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	signer, ok := k.(crypto.Signer)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s holds no key that can sign: remove it, and join again", f.Key)
	}
	return signer, nil
}

// Store writes what was granted. A grant that does not fit the key is refused.
func (f Files) Store(g Grant) error {
	key, err := os.ReadFile(f.Key)
	if err != nil {
		return fmt.Errorf("reading the key: %w", err)
	}
	if _, err := tls.X509KeyPair(g.Cert, key); err != nil {
		return fmt.Errorf("the store's answer: %w", err)
	}
	if err := WriteFile(f.CA, g.CA, 0o644); err != nil {
		return err
	}
	return WriteFile(f.Cert, g.Cert, 0o644)
}

func (f Files) pool() (*x509.CertPool, error) {
	b, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("reading the store's authority: %w", err)
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s: no certificate in it", f.CA)
	}
	return p, nil
}

// Validity is from when until when the certificate is good.
func (f Files) Validity() (from, until time.Time, err error) {
	c, err := f.leaf()
	if err != nil {
		return time.Time{}, time.Time{}, err
	}
	return c.NotBefore, c.NotAfter, nil
}

func (f Files) leaf() (*x509.Certificate, error) {
	b, err := os.ReadFile(f.Cert)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s: no certificate in it", f.Cert)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Cert, err)
	}
	return c, nil
}

// Trusts says whether the authority on this host is the one of a token.
func (f Files) Trusts(ca Fingerprint) bool {
	b, err := os.ReadFile(f.CA)
	if err != nil {
		return false
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return false
	}
	c, err := x509.ParseCertificate(block.Bytes)
	return err == nil && FingerprintOf(c) == ca
}

// WriteFile puts data into path: whole or not at all, and on the disk.
func WriteFile(path string, data []byte, mode os.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
