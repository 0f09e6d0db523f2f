package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tortie/tortie/agent/durable"
)

var equateAddr = cmpopts.EquateComparable(netip.Addr{})

func entry(n int) Entry {
	return Entry{
		Sandbox: fmt.Sprintf("sandbox%d", n), Interface: "eth0", HostIface: HostIface("tort", fmt.Sprintf("sandbox%d", n), "eth0"),
		MAC:       MAC(fmt.Sprintf("sandbox%d", n), "eth0"),
		Addrs:     []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})},
		Namespace: "default", Name: fmt.Sprintf("w%d", n), BootID: "boot", Created: time.Unix(int64(n), 0).UTC(),
	}
}

func open(t *testing.T, dir string, w durable.Writer) *Ledger {
	t.Helper()
	l, err := Open(dir, w)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLedgerSurvives(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	l := open(t, dir, durable.Writer{})
	for i := range 5 {
		if err := l.Put(entry(i)); err != nil {
			t.Fatal(err)
		}
	}
	gone := entry(1)
	gone.Phase = Gone
	if err := l.Put(gone); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Remove(entry(2).ID()); err != nil {
			t.Fatal(err)
		}
	}
	want := []Entry{entry(0), gone, entry(3), entry(4)}
	for _, l := range []*Ledger{l, open(t, dir, durable.Writer{})} {
		if d := cmp.Diff(want, l.List(), equateAddr); d != "" {
			t.Error(d)
		}
		if len(l.Bad()) != 0 {
			t.Error(l.Bad())
		}
	}
}

func TestAddressesAreHeldOnce(t *testing.T) {
	l := open(t, t.TempDir(), durable.Writer{})
	if err := l.Put(entry(1)); err != nil {
		t.Fatal(err)
	}
	other := entry(2)
	other.Addrs = append(other.Addrs, entry(1).Addrs...)
	var used *InUse
	if err := l.Put(other); !errors.As(err, &used) || used.Holder.Sandbox != "sandbox1" {
		t.Errorf("got %v", err)
	}
	if _, ok := l.Get(other.ID()); ok {
		t.Error("the entry that was refused is there")
	}
	leaving := entry(1)
	leaving.Phase = Detaching
	if err := l.Put(leaving); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(other); !errors.As(err, &used) {
		t.Errorf("an address whose holder is still leaving: %v", err)
	}
	leaving.Phase = Gone
	if err := l.Put(leaving); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(other); err != nil {
		t.Errorf("an address whose holder is gone: %v", err)
	}

	// Of many who want one address at the same time, one gets it.
	var wg sync.WaitGroup
	won := make(chan int, 20)
	for i := range 20 {
		wg.Go(func() {
			e := entry(100 + i)
			e.Addrs = []netip.Addr{netip.MustParseAddr("2001:db8::1")}
			if l.Put(e) == nil {
				won <- i
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d have got the address", len(won))
	}
}

func TestDamagedEntryIsSetAside(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"empty":        func([]byte) []byte { return nil },
		"cut":          func(b []byte) []byte { return b[:len(b)-3] },
		"a bit":        func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"zeros":        func(b []byte) []byte { return make([]byte, len(b)) },
		"version 2":    func(b []byte) []byte { return durable.Seal(kind, 2, []byte("{}")) },
		"other's":      func(b []byte) []byte { return bytes.Clone(durable.Seal(kind, version, []byte(`{"sandbox":"x"}`))) },
		"not JSON":     func(b []byte) []byte { return durable.Seal(kind, version, []byte("hello")) },
		"another kind": func(b []byte) []byte { return durable.Seal("tortie-state", version, []byte("{}")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir, durable.Writer{})
			for i := range 3 {
				if err := l.Put(entry(i)); err != nil {
					t.Fatal(err)
				}
			}
			file := filepath.Join(dir, fileName(entry(1).ID()))
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			l = open(t, dir, durable.Writer{})
			if d := cmp.Diff([]Entry{entry(0), entry(2)}, l.List(), equateAddr); d != "" {
				t.Error(d)
			}
			if len(l.Bad()) != 1 || !strings.HasPrefix(l.Bad()[0].File, file) || l.Bad()[0].Err == nil {
				t.Fatalf("bad: %v", l.Bad())
			}
			if _, err := os.Stat(l.Bad()[0].File); err != nil {
				t.Error(err)
			}
			if l = open(t, dir, durable.Writer{}); len(l.Bad()) != 0 || len(l.List()) != 2 {
				t.Errorf("the next start: %v, %v", l.Bad(), l.List())
			}
		})
	}
}

// TestUnreadEntryStays: an entry that the system won't let be read is not damaged. It stays where it is for the next start,
// unless it is replaced or forgotten.
func TestUnreadEntryStays(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(l *Ledger) error
		want []Entry // of the next start, if reading works again
	}{
		"nothing":        {func(*Ledger) error { return nil }, []Entry{entry(1), entry(2)}},
		"forget another": {func(l *Ledger) error { return l.Forget(entry(2).ID()) }, []Entry{entry(1), entry(2)}},
		"forget":         {func(l *Ledger) error { return l.Forget(entry(1).ID()) }, []Entry{entry(2)}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := open(t, dir, durable.Writer{})
			for i := 1; i < 3; i++ {
				if err := l.Put(entry(i)); err != nil {
					t.Fatal(err)
				}
			}
			file := filepath.Join(dir, fileName(entry(1).ID()))
			good, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// A link to itself can't be opened, whoever tries.
			if err := errors.Join(os.Remove(file), os.Symlink(file, file)); err != nil {
				t.Fatal(err)
			}
			l = open(t, dir, durable.Writer{})
			if d := cmp.Diff([]Entry{entry(2)}, l.List(), equateAddr); d != "" {
				t.Error(d)
			}
			if bad := l.Bad(); len(bad) != 1 || bad[0].File != file || !bad[0].Unread {
				t.Fatalf("bad: %v", bad)
			}
			if err := c.do(l); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(file); err == nil {
				if err := errors.Join(os.Remove(file), os.WriteFile(file, good, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if d := cmp.Diff(c.want, open(t, dir, durable.Writer{}).List(), equateAddr); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestKilledAnywhere stops the ledger before each of its steps, and looks at what the next start finds.
func TestKilledAnywhere(t *testing.T) {
	errKilled := errors.New("killed")
	leaving := entry(1)
	leaving.Phase = Detaching
	for name, c := range map[string]struct {
		do            func(l *Ledger) error
		before, after []Entry
	}{
		"put":    {func(l *Ledger) error { return l.Put(entry(2)) }, []Entry{entry(1)}, []Entry{entry(1), entry(2)}},
		"change": {func(l *Ledger) error { return l.Put(leaving) }, []Entry{entry(1)}, []Entry{leaving}},
		"remove": {func(l *Ledger) error { return l.Remove(entry(1).ID()) }, []Entry{entry(1)}, []Entry{}},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; ; n++ {
				dir, steps, killed := t.TempDir(), 0, false
				if err := open(t, dir, durable.Writer{}).Put(entry(1)); err != nil {
					t.Fatal(err)
				}
				err := c.do(open(t, dir, durable.Writer{Step: func(string) error {
					if steps++; steps > n {
						killed = true
						return errKilled
					}
					return nil
				}}))
				l := open(t, dir, durable.Writer{})
				got, isBefore, isAfter := l.List(), cmp.Equal(l.List(), c.before, equateAddr), cmp.Equal(l.List(), c.after, equateAddr)
				if len(l.Bad()) != 0 || !isBefore && !isAfter {
					t.Errorf("killed before step %d: %v, bad %v", n, got, l.Bad())
				}
				if !killed {
					if err != nil || !isAfter {
						t.Errorf("not killed: %v, %v", got, err)
					}
					return
				}
				if !errors.Is(err, errKilled) {
					t.Errorf("killed before step %d, but told: %v", n, err)
				}
			}
		})
	}
}

func TestNames(t *testing.T) {
	// sha256("sandbox\x00iface"), as printf 'sandbox\0iface' | sha256sum gives it
	if got, want := HostIface("tort", "sandbox", "iface"), "tort8ae6f198dae"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	seen := map[string]bool{}
	for i := range 1000 {
		s := fmt.Sprint("sandbox", i)
		n, m := HostIface("tort", s, "eth0"), MAC(s, "eth0")
		if len(n) != maxIface || seen[n] || m[0]&3 != 2 {
			t.Fatalf("%s: %q %x", s, n, m)
		}
		seen[n] = true
	}
}
