package join

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sample() Token {
	t := Token{Addrs: []string{"192.0.2.1:2379", "[2001:db8::1]:2379", "store.example.org:2379"}, Role: RoleNode}
	for i := range t.CA {
		t.CA[i] = byte(i)
	}
	copy(t.ID[:], "abcde")
	copy(t.Secret[:], "a secret of 20 bytes")
	return t
}

func TestToken(t *testing.T) {
	for _, role := range []string{RoleNode, RoleAdmin} {
		want := sample()
		want.Role = role
		got, err := Parse(" " + want.String() + "\n")
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", role, err, d)
		}
	}
	good := sample().String()
	if len(good) > 200 {
		t.Errorf("%d letters", len(good))
	}
	for i := range good { // each letter counts
		b := []byte(good)
		b[i] = map[bool]byte{true: 'B', false: 'A'}[b[i] == 'A']
		if _, err := Parse(string(b)); !errors.Is(err, ErrToken) {
			t.Errorf("letter %d of %d changed: %v", i, len(good), err)
		}
		if _, err := Parse(good[:i]); !errors.Is(err, ErrToken) {
			t.Errorf("the first %d letters: %v", i, err)
		}
	}
	for _, bad := range []string{good + "A", good + good, "tortie1.", strings.Repeat("A", 1<<20), tokenBegin + strings.Repeat("A", 1<<20)} {
		if _, err := Parse(bad); !errors.Is(err, ErrToken) {
			t.Errorf("%.20q...: %v", bad, err)
		}
	}
	none := sample()
	none.Addrs = nil
	if _, err := Parse(none.String()); !errors.Is(err, ErrToken) {
		t.Errorf("without an address: %v", err)
	}
}

func FuzzToken(f *testing.F) {
	f.Add(sample().String())
	f.Add("tortie1.AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(tok.String())
		if err != nil || !slices.Equal(again.Addrs, tok.Addrs) || again.Secret != tok.Secret {
			t.Errorf("%q: %+v, %+v, %v", s, tok, again, err)
		}
	})
}

func TestFrame(t *testing.T) {
	var b bytes.Buffer
	want := Request{Join: &JoinRequest{ID: "x", Secret: []byte("y"), Name: "n1"}}
	if err := WriteFrame(&b, want); err != nil {
		t.Fatal(err)
	}
	whole := bytes.Clone(b.Bytes())
	var got Request
	if err := ReadFrame(&b, &got); err != nil || !cmp.Equal(want, got) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, in := range map[string][]byte{
		"too large":     binary.BigEndian.AppendUint32(nil, maxFrame+1),
		"a part":        whole[:len(whole)-1],
		"unknown field": append(binary.BigEndian.AppendUint32(nil, 7), `{"x":1}`...),
		"no JSON":       append(binary.BigEndian.AppendUint32(nil, 4), `nope`...),
		"nothing":       nil,
	} {
		if err := ReadFrame(bytes.NewReader(in), &Request{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := WriteFrame(&b, Request{Renew: &RenewRequest{CSR: make([]byte, maxFrame)}}); err == nil {
		t.Error("a frame that nobody would read")
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\x00\x00\x00\x0e{\"hello\":true}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Request
		_ = ReadFrame(bytes.NewReader(b), &r) // it must not panic, nor take much memory
	})
}

func TestSetBlock(t *testing.T) {
	const block = "store:\n  endpoints: [x]\n"
	for name, c := range map[string]struct{ in, want string }{
		"empty":     {"", block},
		"beside":    {"# mine\ndriver: linux\n", "# mine\ndriver: linux\n" + block},
		"no end":    {"driver: linux", "driver: linux\n" + block},
		"replaced":  {"store:\n  endpoints:\n  - y\n\n  caFile: z\n# after\ndriver: linux\n", block + "# after\ndriver: linux\n"},
		"list":      {"store:\n- y\ndriver: linux\n", block + "driver: linux\n"},
		"one line":  {"a: 1\nstore: {endpoints: [y]}\nb: 2\n", "a: 1\n" + block + "b: 2\n"},
		"alike":     {"storeX: 1\n", "storeX: 1\n" + block},
		"twice":     {"store: {}\na: 1\nstore: {}\n", block + "a: 1\n"},
		"unchanged": {"a: 1\n" + block, "a: 1\n" + block},
	} {
		if got := SetBlock(c.in, "store", block); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestKey(t *testing.T) {
	f := FilesIn(filepath.Join(t.TempDir(), "pki"), "node")
	key, err := f.MakeKey()
	if err != nil {
		t.Fatal(err)
	}
	if i, err := os.Stat(f.Key); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", i, err)
	}
	if i, err := os.Stat(filepath.Dir(f.Key)); err != nil || i.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", i, err)
	}
	again, err := f.MakeKey()
	if err != nil || !cmp.Equal(key.Public(), again.Public()) {
		t.Errorf("another key: %v", err)
	}
	if err := os.WriteFile(f.Key, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.MakeKey(); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a broken key: %v", err)
	}
	if err := f.Store(Grant{Cert: []byte("x"), CA: []byte("y")}); err == nil {
		t.Error("a grant that is none")
	}
	if _, err := os.Stat(f.CA); err == nil {
		t.Error("something was written of a bad grant")
	}
	if f.Ours() || f.due(time.Now()) <= 0 {
		t.Error("there is nothing to renew")
	}
}
