package ledger

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/agent/durable"
)

// FuzzEntry reads entries whose checksum is right, whatever is in them, as an attacker or another release would write them.
// What is taken can be written again.
func FuzzEntry(f *testing.F) {
	for i := range 3 {
		b, err := json.Marshal(entry(i))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"sandbox":"../../etc/passwd","interface":"eth0","phase":"nowhere"}`))
	f.Add([]byte(`{"sandbox":"a","addrs":["fe80::1%eth0",""],"mac":"x"}`))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, payload []byte) {
		var named struct{ Sandbox, Interface string }
		_ = json.Unmarshal(payload, &named) // what can't be read has some name, and is refused
		e := Entry{Sandbox: named.Sandbox, Interface: named.Interface}
		path := filepath.Join(dir, fileName(e.ID()))
		if err := os.WriteFile(path, durable.Seal(kind, version, payload), 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(path)
		got, err := readEntry(path)
		if err != nil {
			return
		}
		b, err := json.Marshal(got)
		if err != nil {
			t.Fatalf("%q can't be written: %v", payload, err)
		}
		var again Entry
		if err := json.Unmarshal(b, &again); err != nil {
			t.Fatalf("%s can't be read: %v", b, err)
		}
		if d := cmp.Diff(got, again, equateAddr); d != "" {
			t.Fatalf("%q comes back as something else: %s", payload, d)
		}
	})
}
