package join

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
)

// Sizes of a token's parts, in bytes.
const (
	IDLen      = 5
	SecretLen  = 20
	hashLen    = sha256.Size
	sumLen     = 4
	maxAddrs   = 16
	tokenBegin = "tortie1."
	maxToken   = 8 << 10
)

// ErrToken says that a text is no join token, or not as it was given out.
var ErrToken = errors.New("this is not a join token as `tortie store token` prints it")

// Token lets a host join once, or a few times, for a short while.
type Token struct {
	Addrs  []string    // host:port, where the store is
	CA     Fingerprint // of the store's authority
	Role   string      // that the host will have: so it knows what to do; the store knows it, too
	ID     [IDLen]byte // names the token; no secret
	Secret [SecretLen]byte
}

// Fingerprint is the SHA-256 of an authority's public key (SubjectPublicKeyInfo).
type Fingerprint [hashLen]byte

// FingerprintOf is that of a certificate.
func FingerprintOf(c *x509.Certificate) Fingerprint { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

func (f Fingerprint) String() string { return "sha256:" + hex.EncodeToString(f[:]) }

// IDString is the token's id as people see it.
func (t Token) IDString() string { return hex.EncodeToString(t.ID[:]) }

// String is the token as it is handed over.
func (t Token) String() string {
	b := append([]byte{roleByte(t.Role)}, t.CA[:]...)
	b = append(append(b, t.ID[:]...), t.Secret[:]...)
	for _, a := range t.Addrs {
		b = append(append(b, byte(len(a))), a...)
	}
	sum := sha256.Sum256(b)
	return tokenBegin + base64.RawURLEncoding.EncodeToString(append(b, sum[:sumLen]...))
}

func roleByte(role string) byte {
	if role == RoleAdmin {
		return 'a'
	}
	return 'n'
}

// Parse reads what String writes.
func Parse(s string) (Token, error) {
	s = strings.TrimSpace(s)
	text, ok := strings.CutPrefix(s, tokenBegin)
	if !ok {
		return Token{}, fmt.Errorf("%w: it does not begin with %s", ErrToken, tokenBegin)
	}
	if len(s) > maxToken {
		return Token{}, fmt.Errorf("%w: it is too long", ErrToken)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < 1+hashLen+IDLen+SecretLen+sumLen {
		return Token{}, garbled()
	}
	body, sum := b[:len(b)-sumLen], b[len(b)-sumLen:]
	if want := sha256.Sum256(body); !bytes.Equal(want[:sumLen], sum) {
		return Token{}, garbled()
	}
	t := Token{Role: RoleNode}
	if body[0] == roleByte(RoleAdmin) {
		t.Role = RoleAdmin
	}
	body = body[1:]
	body = body[copy(t.CA[:], body):]
	body = body[copy(t.ID[:], body):]
	body = body[copy(t.Secret[:], body):]
	for len(body) > 0 {
		n := int(body[0])
		if n == 0 || len(body) < 1+n || len(t.Addrs) == maxAddrs {
			return Token{}, garbled()
		}
		addr := string(body[1 : 1+n])
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return Token{}, garbled()
		}
		t.Addrs, body = append(t.Addrs, addr), body[1+n:]
	}
	if len(t.Addrs) == 0 {
		return Token{}, garbled()
	}
	return t, nil
}

func garbled() error {
	return fmt.Errorf("%w: a letter is missing or wrong: copy the whole line again, or make another token", ErrToken)
}
