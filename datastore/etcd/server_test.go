package etcd

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore/internal/revkv"
	"github.com/tortie/tortie/store"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

const patience = 30 * time.Second

// server is a `tortie store` in this process, or whatever else run runs.
type server struct {
	t      testing.TB
	dir    string // short: the path of a Unix socket has room for 107 bytes
	cfg    store.Config
	run    func(context.Context, store.Config) error
	cancel context.CancelFunc
	done   chan error
}

func newServer(t testing.TB) *server {
	dir, err := os.MkdirTemp("", "tst")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, dir: dir, run: store.Run}
	s.cfg = store.Config{
		Dir:    s.data(),
		Listen: []string{s.endpoint()},
		Log:    slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
	}
	t.Cleanup(func() {
		s.stop()
		os.RemoveAll(dir)
	})
	return s
}

// plainEtcd runs etcd as others do, with cheap password hashes: at their usual cost, on a busy machine and with the race
// detector, a token takes seconds.
func plainEtcd(ctx context.Context, cfg store.Config) error { return runEtcd(ctx, cfg, nil) }

// secureEtcd is one that asks its clients for certificates of a.
func secureEtcd(a *authority) func(context.Context, store.Config) error {
	return func(ctx context.Context, cfg store.Config) error { return runEtcd(ctx, cfg, a) }
}

func runEtcd(ctx context.Context, cfg store.Config, a *authority) error {
	c := embed.NewConfig()
	if a != nil {
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = a.path("server.crt"), a.path("server.key")
		c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = a.path("ca.crt"), true
	}
	c.Dir = cfg.Dir
	c.BcryptCost = 4
	c.TickMs, c.ElectionMs = 25, 250
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	u, err := url.Parse(cfg.Listen[0])
	if err != nil {
		return err
	}
	c.ListenClientUrls, c.AdvertiseClientUrls, c.ListenPeerUrls = []url.URL{*u}, []url.URL{*u}, nil
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	defer e.Close()
	<-e.Server.ReadyNotify()
	cfg.Ready()
	<-ctx.Done()
	return nil
}

func (s *server) data() string     { return filepath.Join(s.dir, "data") }
func (s *server) socket() string   { return filepath.Join(s.dir, "s") }
func (s *server) endpoint() string { return "unix://" + s.socket() }

func (s *server) start() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	cfg := s.cfg
	cfg.Ready = func() { close(ready) }
	s.cancel, s.done = cancel, make(chan error, 1)
	go func() { s.done <- s.run(ctx, cfg) }()
	select {
	case <-ready:
	case err := <-s.done:
		s.cancel = nil
		s.t.Fatalf("the store ended: %v", err)
	case <-time.After(patience):
		s.t.Fatal("the store does not start")
	}
}

func (s *server) stop() {
	s.t.Helper()
	if s.cancel == nil {
		return
	}
	s.cancel()
	s.cancel = nil
	select {
	case err := <-s.done:
		if err != nil {
			s.t.Errorf("the store ended with %v", err)
		}
	case <-time.After(patience):
		s.t.Fatal("the store does not stop")
	}
}

// raw is a client of etcd itself.
func (s *server) raw() *clientv3.Client {
	s.t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

func (s *server) compact() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	c := s.raw()
	res, err := c.Get(ctx, "x")
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = c.Compact(ctx, res.Header.Revision, clientv3.WithCompactPhysical())
	if err != nil {
		s.t.Logf("compacting: %v", err) // nothing has been written since the last time
	}
}

func (s *server) setRaw(key api.Key, value []byte) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	k := revkv.DefaultPrefix + key.Kind + "/" + key.Namespace + "/" + key.Name
	if _, err := s.raw().Put(ctx, k, string(value)); err != nil {
		s.t.Fatal(err)
	}
}

// backup copies the data directory of the stopped server.
func (s *server) backup() (restore func()) {
	s.t.Helper()
	copied := filepath.Join(s.dir, "backup")
	s.stop()
	if err := os.CopyFS(copied, os.DirFS(s.data())); err != nil {
		s.t.Fatal(err)
	}
	s.start()
	return func() {
		s.t.Helper()
		s.stop()
		if err := os.RemoveAll(s.data()); err != nil {
			s.t.Fatal(err)
		}
		if err := os.CopyFS(s.data(), os.DirFS(copied)); err != nil {
			s.t.Fatal(err)
		}
		s.start()
	}
}

// open opens a store at endpoint.
func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// background is a context for what must end by itself, on a machine that may be busy.
func background(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
