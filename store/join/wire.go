package join

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Protocol is what a joining host asks for by ALPN, on the port of the store.
const Protocol = "tortie-join/1"

// maxFrame is more than any honest question or answer has.
const maxFrame = 64 << 10

// Roles that a token can give.
const (
	RoleNode  = "node"
	RoleAdmin = "admin"
)

// Request is a question: one of its fields is set.
type Request struct {
	Join *JoinRequest `json:"join,omitempty"`
	// Renew asks for another certificate of the one that the connection shows.
	Renew *RenewRequest `json:"renew,omitempty"`
	// Hello asks whose the certificate is that the connection shows.
	Hello bool `json:"hello,omitempty"`
}

// JoinRequest shows a token.
type JoinRequest struct {
	ID      string `json:"id"`
	Secret  []byte `json:"secret"`
	Name    string `json:"name"` // that the host wants to have
	CSR     []byte `json:"csr"`  // DER; only its key counts
	Replace bool   `json:"replace,omitempty"`
}

// RenewRequest has a signing request with the key of the certificate that the connection shows.
type RenewRequest struct {
	CSR []byte `json:"csr"`
}

// Reply is the answer.
type Reply struct {
	Code  string `json:"code,omitempty"` // why not; "" = granted
	Error string `json:"error,omitempty"`
	Grant *Grant `json:"grant,omitempty"`
}

// Codes of refusals.
const (
	CodeToken   = "token"   // not known, used up, expired, revoked
	CodeName    = "name"    // not valid, or not for this token
	CodeTaken   = "taken"   // another host has it
	CodeBusy    = "busy"    // come back later
	CodeRequest = "request" // not understood
	CodeStore   = "store"   // something is wrong there
)

// Grant is what a host has been given.
type Grant struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Cert    []byte    `json:"cert,omitempty"` // PEM
	CA      []byte    `json:"ca,omitempty"`   // PEM
	Expires time.Time `json:"expires"`
}

// Refused is an answer that is no grant.
type Refused struct{ Code, Reason string }

func (r *Refused) Error() string { return r.Reason }

// WriteFrame writes v behind its length.
func WriteFrame(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(b) > maxFrame {
		return fmt.Errorf("%d bytes, more than %d", len(b), maxFrame)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// ReadFrame reads what WriteFrame writes. Fields that are not known are an error.
func ReadFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return fmt.Errorf("%d bytes are announced, more than %d", n, maxFrame)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
