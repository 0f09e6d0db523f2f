package api

import (
	"encoding/json"
	"reflect"
	"testing"
)

// roundTrip reads text as a T; what can be read can be written, and comes back the same.
func roundTrip[T any](t *testing.T, text []byte) {
	t.Helper()
	var v, again T
	if json.Unmarshal(text, &v) != nil {
		return
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%T from %q can't be written: %v", v, text, err)
	}
	if err := json.Unmarshal(b, &again); err != nil || !reflect.DeepEqual(v, again) {
		t.Fatalf("%T from %q: written as %s, which gives %v (%v), want %v", v, text, b, again, err, v)
	}
}

// FuzzValues reads the small values of which specs are made.
func FuzzValues(f *testing.F) {
	for _, s := range []string{
		`"TCP"`, `6`, `"256"`, `"0"`, `"udp"`, `-1`, `1e1`, `"1:2"`, `"2:1"`, `"http"`, `"80"`, `65536`, `"1:65535"`, `":"`, `"1.10"`,
		`1.10`, `4294967295`, `"65536.1"`, `"1h"`, `"-1s"`, `"AF11"`, `64`, `[1,null,-1]`, `[]`, `null`, `"10.1.2.3/8"`, `"::ffff:1.2.3.4/99"`, `"fe80::1%eth0"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		roundTrip[Protocol](t, b)
		roundTrip[Port](t, b)
		roundTrip[ASNumber](t, b)
		roundTrip[Duration](t, b)
		roundTrip[DSCP](t, b)
		roundTrip[Allocations](t, b)
		var s string
		if json.Unmarshal(b, &s) != nil {
			return
		}
		if p, err := ParsePrefix(s); err == nil {
			if again, err := ParsePrefix(p.String()); err != nil || again != p || p != p.Masked() {
				t.Fatalf("%q is %v, which is %v (%v)", s, p, again, err)
			}
		}
		if a, err := ParseAddr(s); err == nil {
			if again, err := ParseAddr(a.String()); err != nil || again != a {
				t.Fatalf("%q is %v, which is %v (%v)", s, a, again, err)
			}
		}
		if p, err := ParsePort(s); err == nil && p.Name == "" && p.First > p.Last {
			t.Fatalf("%q is the range %v", s, p)
		}
	})
}
