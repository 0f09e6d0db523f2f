package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const patience = 30 * time.Second

// output collects a log.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func logTo(o *output) *slog.Logger { return slog.New(slog.NewTextHandler(o, nil)) }

// shortDir is a directory whose sockets have names that are not too long.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tst")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func config(dir string, o *output) Config {
	return Config{Dir: filepath.Join(dir, "data"), Listen: []string{"unix://" + filepath.Join(dir, "run", "s")}, Log: logTo(o)}
}

// start runs a store until stop is called, or the test ends.
func start(t *testing.T, cfg Config) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan error, 1)
	cfg.Ready = func() { close(ready) }
	go func() { done <- Run(ctx, cfg) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(patience):
			t.Error("the store does not stop")
		}
	})
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-done:
		done <- nil
		t.Fatalf("run: %v", err)
	case <-time.After(patience):
		t.Fatal("the store does not start")
	}
	return stop
}

func client(t *testing.T, cfg Config) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: cfg.Listen[:1], Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func socketOf(cfg Config) string { return strings.TrimPrefix(cfg.Listen[0], "unix://") }

func mode(t *testing.T, path string) os.FileMode {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode().Perm()
}

func TestRun(t *testing.T) {
	t.Parallel()
	var log output
	cfg := config(shortDir(t), &log)
	stop := start(t, cfg)
	if m := mode(t, cfg.Dir); m != 0o700 {
		t.Errorf("data directory %o", m)
	}
	if m := mode(t, socketOf(cfg)); m != 0o600 {
		t.Errorf("socket %o", m)
	}
	if m := mode(t, filepath.Dir(socketOf(cfg))); m != 0o750 {
		t.Errorf("directory of the socket %o", m)
	}
	if es, err := os.ReadDir(filepath.Dir(socketOf(cfg))); err != nil || len(es) != 1 {
		t.Errorf("beside the socket: %v, %v", es, err)
	}
	ctx := t.Context()
	c := client(t, cfg)
	if _, err := c.Put(ctx, "a", "1"); err != nil {
		t.Fatal(err)
	}
	info, err := Status(ctx, socketOf(cfg))
	if err != nil || info.Revision != 3 || info.Quota != 2<<30 || info.Size == 0 || info.InUse == 0 || info.Full || info.Version == "" {
		t.Errorf("status %+v, %v", info, err)
	}
	members, err := c.MemberList(ctx)
	if err != nil || len(members.Members) != 1 {
		t.Errorf("members %v, %v", members, err)
	}
	// A watch would last for ever; it must not hold up the end.
	watch := c.Watch(ctx, "a", clientv3.WithCreatedNotify())
	<-watch
	began := time.Now()
	stop()
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %v to stop", took)
	}
	if _, err := os.Stat(socketOf(cfg)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	start(t, cfg)
	res, err := client(t, cfg).Get(ctx, "a")
	if err != nil || len(res.Kvs) != 1 || string(res.Kvs[0].Value) != "1" {
		t.Errorf("after a restart: %v, %v", res, err)
	}
	if strings.Contains(log.String(), "level=WARN") || strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("a quiet life has a quiet log:\n%s", log.String())
	}
}

func TestSecondStore(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	cfg := config(dir, &output{})
	start(t, cfg)
	same := cfg
	same.Listen = []string{"unix://" + filepath.Join(dir, "run", "other")}
	err := Run(t.Context(), same)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), cfg.Dir) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("on the same directory: %v", err)
	}
	other := cfg
	other.Dir = filepath.Join(dir, "data2")
	if err := Run(t.Context(), other); !errors.Is(err, ErrInUse) {
		t.Errorf("on the same socket: %v", err)
	}
	if _, err := client(t, cfg).Put(t.Context(), "a", "1"); err != nil {
		t.Errorf("the first one: %v", err)
	}
}

func TestSocketPath(t *testing.T) {
	dir := shortDir(t)
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	first, err := listenUnix(stale)
	if err != nil {
		t.Fatalf("where a dead one has left its file: %v", err)
	}
	// Another one takes the place; the first one's end must not take its file.
	os.Remove(stale)
	second, err := listenUnix(stale)
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if c, err := net.Dial("unix", stale); err != nil {
		t.Errorf("the second one lost its file: %v", err)
	} else {
		c.Close()
	}
	second.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(file); err == nil {
		t.Error("it replaced a file that is no socket")
	}
	if _, err := listenUnix(filepath.Join(dir, strings.Repeat("long", 30))); err == nil {
		t.Error("a path that is too long")
	}
	if es, _ := os.ReadDir(dir); len(es) != 1 {
		t.Errorf("left behind: %v", es)
	}
}

func TestConfigValidate(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		want string // "" = valid
	}{
		{"default", Default(), ""},
		{"empty", Config{}, ""},
		{"network", Config{Listen: []string{"https://192.0.2.1:2379", "unix:///run/s"}}, ""},
		{"network, IPv6", Config{Listen: []string{"https://[2001:db8::1]:2379"}}, ""},
		{"network, advertised", Config{Listen: []string{"https://0.0.0.0:2379"}, Advertise: []string{"store.example.org", "192.0.2.1:1"}}, ""},
		{"advertised without network", Config{Advertise: []string{"192.0.2.1"}}, "does not listen on the network"},
		{"life of certificates", Config{CertLife: time.Second}, "at least"},
		{"network in clear", Config{Listen: []string{"http://127.0.0.1:2379"}}, "mutual TLS"},
		{"a name", Config{Listen: []string{"https://host:2379"}}, "not an address"},
		{"no port", Config{Listen: []string{"https://192.0.2.1"}}, "address:port"},
		{"relative socket", Config{Listen: []string{"unix://run/s"}}, "absolute path"},
		{"something else", Config{Listen: []string{"tcp://1.2.3.4:5"}}, "want unix:///"},
		{"quota", Config{QuotaBytes: 1000}, "quota"},
		{"compaction", Config{Compaction: time.Millisecond}, "compaction"},
	} {
		err := c.cfg.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := Run(t.Context(), Config{Dir: "/nowhere/at/all", Listen: []string{"http://0.0.0.0:1"}}); err == nil {
		t.Error("it runs all the same")
	}
}

// TestBrokenData: what etcd has to say by panicking comes as an error.
func TestBrokenData(t *testing.T) {
	t.Parallel()
	for _, part := range []string{"member/snap/db", "member/wal/*.wal"} {
		cfg := config(shortDir(t), &output{})
		start(t, cfg)()
		files, err := filepath.Glob(filepath.Join(cfg.Dir, part))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: %v, %v", part, files, err)
		}
		if err := os.WriteFile(files[0], bytes.Repeat([]byte("x"), 1<<16), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), cfg.Dir) {
			t.Errorf("%s: %v", part, err)
		}
	}
}

func TestStatusWithoutStore(t *testing.T) {
	began := time.Now()
	if info, err := Status(t.Context(), "/nowhere/at/all.sock"); err == nil {
		t.Errorf("%+v", info)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %v to say so", took)
	}
}

// TestNewDataNewCluster: clients tell stores apart by the cluster id.
func TestNewDataNewCluster(t *testing.T) {
	t.Parallel()
	cfg := config(shortDir(t), &output{})
	id := func() uint64 {
		stop := start(t, cfg)
		defer stop()
		res, err := client(t, cfg).Get(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		return res.Header.ClusterId
	}
	first, again := id(), id()
	if err := os.RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if afresh := id(); first != again || afresh == first {
		t.Errorf("ids %x, %x after a restart, %x with new data", first, again, afresh)
	}
}

func TestBridge(t *testing.T) {
	var o output
	z := newZap(logTo(&o))
	z.Info("not told")
	z.With(zap.String("a", "1")).Warn("told", zap.Int("b", 2), zap.Error(errors.New("bad")))
	z.Warn("simple token is not cryptographically signed")
	got := o.String()
	if !strings.Contains(got, `level=WARN msg=told a=1 b=2 error=bad`) || strings.Contains(got, "not told") || strings.Contains(got, "token") {
		t.Errorf("log %q", got)
	}
	if z.Core().Enabled(zapcore.InfoLevel) {
		t.Error("info is enabled, and costs time")
	}
	defer func() {
		if recover() == nil {
			t.Error("a fatal entry does not panic")
		}
	}()
	z.Fatal("the end")
}
