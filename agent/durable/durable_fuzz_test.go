package durable

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzOpen: what Open takes is what Seal made, and nothing else is without ErrDamaged.
func FuzzOpen(f *testing.F) {
	f.Add(Seal("kind", 1, []byte("payload")))
	f.Add(Seal("other", 1, []byte("payload")))
	f.Add([]byte("kind 1 0 x\n"))
	f.Add([]byte("kind -1 99999999999999999999 x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		payload, version, err := Open("kind", b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		// Blanks of the first line may differ, what is said may not.
		sealed := Seal("kind", version, payload)
		if !bytes.HasSuffix(b, payload) || bytes.Join(bytes.Fields(firstLine(b)), []byte(" ")) == nil ||
			!bytes.Equal(bytes.Join(bytes.Fields(firstLine(b)), []byte(" ")), firstLine(sealed)) {
			t.Fatalf("%q was taken for %q", b, sealed)
		}
	})
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return line
}
