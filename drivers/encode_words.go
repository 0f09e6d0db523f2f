package drivers

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// The words of dump_words.go are those of encodings, too: a number would change its meaning when constants move.

func marshalWord[T ~uint8](words []string, v T) ([]byte, error) {
	if int(v) >= len(words) {
		return nil, fmt.Errorf("%T %d has no name", v, uint8(v))
	}
	return []byte(words[v]), nil
}

func unmarshalWord[T ~uint8](words []string, b []byte, v *T) error {
	i := slices.Index(words, string(b))
	if i < 0 {
		return fmt.Errorf("%q is none of %s", b, strings.Join(words, ", "))
	}
	*v = T(i)
	return nil
}

func (a Action) MarshalText() ([]byte, error)         { return marshalWord(actionWords, a) }
func (e Encap) MarshalText() ([]byte, error)          { return marshalWord(encapWords, e) }
func (k RouteKind) MarshalText() ([]byte, error)      { return marshalWord(routeWords, k) }
func (e EndpointToHost) MarshalText() ([]byte, error) { return marshalWord(toHostWords, e) }
func (n ServiceNAT) MarshalText() ([]byte, error)     { return marshalWord(natWords, n) }
func (k EndpointKind) MarshalText() ([]byte, error)   { return marshalWord(epKindWords, k) }
func (k PlaceKind) MarshalText() ([]byte, error)      { return marshalWord(placeWords, k) }
func (c CTState) MarshalText() ([]byte, error)        { return marshalWord(ctWords, c) }
func (v Verdict) MarshalText() ([]byte, error)        { return marshalWord(verdicts, v) }

func (a *Action) UnmarshalText(b []byte) error         { return unmarshalWord(actionWords, b, a) }
func (e *Encap) UnmarshalText(b []byte) error          { return unmarshalWord(encapWords, b, e) }
func (k *RouteKind) UnmarshalText(b []byte) error      { return unmarshalWord(routeWords, b, k) }
func (e *EndpointToHost) UnmarshalText(b []byte) error { return unmarshalWord(toHostWords, b, e) }
func (n *ServiceNAT) UnmarshalText(b []byte) error     { return unmarshalWord(natWords, b, n) }
func (k *EndpointKind) UnmarshalText(b []byte) error   { return unmarshalWord(epKindWords, b, k) }
func (k *PlaceKind) UnmarshalText(b []byte) error      { return unmarshalWord(placeWords, b, k) }
func (c *CTState) UnmarshalText(b []byte) error        { return unmarshalWord(ctWords, b, c) }
func (v *Verdict) UnmarshalText(b []byte) error        { return unmarshalWord(verdicts, b, v) }

// MarshalText gives what String gives.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what MarshalText gives.
func (m *MAC) UnmarshalText(b []byte) error {
	bad := fmt.Errorf("%q is no MAC address", b)
	if len(b) != 17 {
		return bad
	}
	for i := range m {
		if i > 0 && b[3*i-1] != ':' {
			return bad
		}
		if _, err := hex.Decode(m[i:i+1], b[3*i:3*i+2]); err != nil {
			return bad
		}
	}
	return nil
}
