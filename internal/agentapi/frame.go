package agentapi

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	// MaxRequest bounds a request, in bytes.
	MaxRequest = 256 << 10
	// MaxResponse bounds a response, in bytes: a State with millions of members is the largest.
	MaxResponse = 1 << 30

	headerLen = 4
)

// ErrFrame says that what came is not a message of this protocol.
var ErrFrame = errors.New("not a message of the agent's protocol")

// WriteFrame writes v as one message.
func WriteFrame(w io.Writer, v any, max int) error {
	b, err := encodeFrame(v, max)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func encodeFrame(v any, max int) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding a message: %w", err)
	}
	if len(body) > max {
		return nil, fmt.Errorf("a message of %d bytes is over the limit of %d", len(body), max)
	}
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, headerLen+len(body)), uint32(len(body))), body...), nil
}

// ReadFrame reads one message into v. io.EOF means that the other side hung up between messages.
func ReadFrame(r io.Reader, v any, max int) error {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return err
	}
	return readBody(r, h, v, max)
}

// readBody reads what follows the header h. Memory grows with what has arrived, not with what the header claims.
func readBody(r io.Reader, h [headerLen]byte, v any, max int) error {
	n := int64(binary.BigEndian.Uint32(h[:]))
	if n == 0 || n > int64(max) {
		return fmt.Errorf("%w: a length of %d bytes, want 1 to %d", ErrFrame, n, max)
	}
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, n); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return Unmarshal(body.Bytes(), v)
}

// Unmarshal reads one JSON value strictly: unknown fields and anything after the value are errors.
func Unmarshal(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows the message", ErrFrame)
	}
	return nil
}
