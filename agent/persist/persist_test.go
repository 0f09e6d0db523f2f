package persist

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tortie/tortie/agent/durable"
	"github.com/tortie/tortie/drivers"
)

func state(members ...string) *drivers.State {
	s := drivers.NewState()
	s.Node = drivers.Node{Name: "node1", WorkloadPrefixes: []string{"tort"}}
	var ms []drivers.Member
	for _, m := range members {
		ms = append(ms, drivers.AddrMember(netip.MustParseAddr(m)))
	}
	s.Sets["s"] = drivers.NewSet(drivers.SetNet, ms...)
	e := &drivers.Endpoint{ID: drivers.EndpointID{Sandbox: "x", Interface: "eth0"}, Iface: "tort1", Name: "a/b"}
	s.Endpoints[e.ID] = e
	return s
}

func save(t *testing.T, path, boot string, s *drivers.State) {
	t.Helper()
	h := Header{Node: "node1", BootID: boot, Written: time.Unix(1e9, 0).UTC()}
	if n, err := Save(durable.Writer{}, path, h, s); err != nil || n == 0 {
		t.Fatal(n, err)
	}
}

func TestLoadGivesWhatWasSaved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	want := state("10.0.0.1", "2001:db8::1")
	save(t, path, "boot1", want)
	got, h, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != want.String() || h.BootID != "boot1" || h.Node != "node1" || !h.Written.Equal(time.Unix(1e9, 0)) {
		t.Errorf("%+v\n%s\nwant\n%s", h, got, want)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if _, _, err := Load(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestDamageIsFound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	save(t, path, "boot1", state("10.0.0.1"))
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, bad := range [][]byte{good[:i], append(append(append([]byte(nil), good[:i]...), good[i]^0x10), good[i+1:]...)} {
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := Load(path); !errors.Is(err, durable.ErrDamaged) {
				t.Fatalf("damaged at byte %d: %v", i, err)
			}
		}
	}
	if err := os.WriteFile(path, durable.Seal(kind, version+1, []byte("{}\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Load(path); !errors.Is(err, durable.ErrVersion) {
		t.Errorf("a later version: %v", err)
	}
}

func TestBegin(t *testing.T) {
	old := state("10.0.0.1")
	bare := drivers.NewState()
	bare.Node = old.Node
	for _, c := range []struct {
		name, file, marker, boot string
		damaged, bare            bool
		want                     *drivers.State
		problem                  string
	}{
		{name: "first start ever", boot: "b1", want: bare},
		{name: "restart of the agent", file: "b1", marker: "b1", boot: "b1"},
		{name: "restart, the run directory was emptied", file: "b1", boot: "b1"},
		{name: "reboot", file: "b1", boot: "b2", want: old},
		{name: "restart, the dataplane was cleared", file: "b1", marker: "b1", boot: "b1", bare: true, want: old},
		{name: "restart without a file, the dataplane was cleared", marker: "b1", boot: "b1", bare: true, want: bare},
		{name: "reboot, the run directory was kept", file: "b1", marker: "b1", boot: "b2", want: old},
		{name: "reboot with a damaged file", file: "b1", damaged: true, boot: "b2", want: bare, problem: "damaged"},
		{name: "restart with a damaged file", file: "b1", damaged: true, marker: "b1", boot: "b1", problem: "damaged"},
		{name: "restart without a file", marker: "b1", boot: "b1"},
		{name: "an unknown boot, marked", file: "", marker: "", boot: "", want: bare},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			o := BeginOptions{Path: filepath.Join(dir, "state"), Marker: filepath.Join(dir, "boot"), BootID: c.boot, Node: old.Node, Bare: c.bare}
			if c.file != "" {
				save(t, o.Path, c.file, old)
			}
			if c.damaged {
				if err := os.Truncate(o.Path, 60); err != nil {
					t.Fatal(err)
				}
			}
			if c.marker != "" {
				if err := MarkBoot(durable.Writer{}, o.Marker, c.marker); err != nil {
					t.Fatal(err)
				}
			}
			got := Begin(o)
			if (got.State == nil) != (c.want == nil) || got.State != nil && got.State.String() != c.want.String() {
				t.Errorf("State\n%v\nwant\n%v", got.State, c.want)
			}
			if (got.Problem != nil) != (c.problem != "") || got.Problem != nil && !strings.Contains(got.Problem.Error(), c.problem) {
				t.Errorf("problem %v, want %q", got.Problem, c.problem)
			}
			if known := c.file != "" && c.file == c.boot && !c.damaged; (len(got.Workloads) == 1 && got.Workloads[0].Iface == "tort1") != known {
				t.Errorf("workloads %v", got.Workloads)
			}
			if c.damaged {
				if left, err := filepath.Glob(o.Path + ".bad-*"); err != nil || len(left) != 1 {
					t.Errorf("set aside: %v, %v", left, err)
				}
			}
			if got.Why == "" {
				t.Error("nobody knows why")
			}
		})
	}
	t.Run("another node's file", func(t *testing.T) {
		dir := t.TempDir()
		save(t, filepath.Join(dir, "state"), "b1", old)
		node := old.Node
		node.Name = "node2"
		got := Begin(BeginOptions{Path: filepath.Join(dir, "state"), Marker: filepath.Join(dir, "boot"), BootID: "b2", Node: node})
		if got.Problem == nil || len(got.State.Endpoints) != 0 || got.State.Node.Name != "node2" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("a boot without an id is told by the marker", func(t *testing.T) {
		dir := t.TempDir()
		o := BeginOptions{Path: filepath.Join(dir, "state"), Marker: filepath.Join(dir, "boot"), Node: old.Node}
		save(t, o.Path, "", old)
		if got := Begin(o); got.State == nil || len(got.State.Endpoints) != 1 {
			t.Errorf("not marked: %+v", got)
		}
		if err := MarkBoot(durable.Writer{}, o.Marker, ""); err != nil {
			t.Fatal(err)
		}
		if got := Begin(o); got.State != nil {
			t.Errorf("marked: %+v", got)
		}
	})
}

func TestSaverCollects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		var writes atomic.Int32
		s := NewSaver(SaverOptions{Path: path, Header: Header{Node: "node1"}, Delay: 5 * time.Second, Log: slog.New(slog.DiscardHandler),
			Snapshot: func() *drivers.State { writes.Add(1); return state("10.0.0.1") }})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.Run(ctx)
		}()
		for range 600 { // ten changes a second, for a minute
			s.Touch()
			time.Sleep(100 * time.Millisecond)
		}
		if n := writes.Load(); n < 10 || n > 13 {
			t.Errorf("%d writes in a minute", n)
		}
		time.Sleep(time.Minute)
		n := writes.Load()
		time.Sleep(time.Hour)
		if writes.Load() != n {
			t.Error("it writes what has not changed")
		}
		s.Touch()
		time.Sleep(time.Second)
		cancel()
		<-ended
		if writes.Load() != n+1 {
			t.Error("what has changed is lost when the agent ends")
		}
		if st := s.Status(); st.Err != nil || st.Bytes == 0 || st.Last.IsZero() {
			t.Errorf("%+v", st)
		}
	})
}

func TestSaverTriesAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		var full atomic.Bool
		var tries atomic.Int32
		full.Store(true)
		errFull := errors.New("disk full")
		w := durable.Writer{Step: func(step string) error {
			if step == "create" {
				tries.Add(1)
			}
			if full.Load() {
				return errFull
			}
			return nil
		}}
		s := NewSaver(SaverOptions{Path: path, Delay: time.Second, Log: slog.New(slog.DiscardHandler), Writer: w,
			Snapshot: func() *drivers.State { return state() }})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.Run(ctx)
		}()
		s.Touch()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := tries.Load(); n < 10 || n > 25 || !errors.Is(s.Status().Err, errFull) {
			t.Errorf("%d tries, %+v", n, s.Status())
		}
		full.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if st := s.Status(); st.Err != nil || st.Last.IsZero() {
			t.Errorf("%+v", st)
		}
		cancel()
		<-ended
	})
	if _, _, err := Load(path); err != nil {
		t.Error(err)
	}
}
