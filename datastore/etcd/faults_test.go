package etcd

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func set(name string) *api.GlobalNetworkSet {
	return &api.GlobalNetworkSet{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// world is what a watch has been told.
type world struct {
	t    *testing.T
	mu   sync.Mutex
	keys map[string]bool
	last datastore.Batch
	wake chan struct{}
	stop func()
}

func watch(t *testing.T, s datastore.Store, kinds ...string) *world {
	w := &world{t: t, keys: map[string]bool{}, wake: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, datastore.WatchOptions{Kinds: kinds}, func(b datastore.Batch) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, e := range b.Events {
				if e.Object == nil {
					delete(w.keys, e.Key.Name)
				} else {
					w.keys[e.Key.Name] = true
				}
			}
			w.last = b
			select {
			case w.wake <- struct{}{}:
			default:
			}
			return nil
		})
	}()
	w.stop = func() {
		cancel()
		<-done
	}
	t.Cleanup(w.stop)
	return w
}

// until waits for what ok, which is called with the lock held, looks for.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		found := ok()
		w.mu.Unlock()
		if found {
			return
		}
		select {
		case <-w.wake:
		case <-deadline:
			w.mu.Lock()
			defer w.mu.Unlock()
			w.t.Fatalf("%s did not come: keys %v, in sync %v, status %+v", what, w.keys, w.last.InSync, w.last.Status)
		}
	}
}

func (w *world) untilHas(name string) {
	w.t.Helper()
	w.until(name, func() bool { return w.last.InSync && w.keys[name] })
}

func mustCreate(t *testing.T, s datastore.Store, name string) {
	t.Helper()
	if _, err := s.Create(background(t), set(name)); err != nil {
		t.Fatal(err)
	}
}

func TestServerRestartedUnderWatch(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	srv.start()
	s := open(t, Config{Endpoints: []string{srv.endpoint()}})
	w := watch(t, s, "GlobalNetworkSet")
	for i := range 3 {
		mustCreate(t, s, fmt.Sprintf("a%d", i))
		srv.stop()
		w.until("bad news", func() bool { return !w.last.Status.Connected && w.last.Status.Err != nil })
		srv.start()
		mustCreate(t, s, fmt.Sprintf("b%d", i))
		w.untilHas(fmt.Sprintf("b%d", i))
		w.until("good news", func() bool { return w.last.Status.Connected })
	}
	if len(w.keys) != 6 {
		t.Errorf("keys %v", w.keys)
	}
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Endpoints: []string{"unix:///nowhere/at/all.sock"}})
	start := time.Now()
	if _, err := s.Get(t.Context(), api.KeyOf(set("a"))); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("get: %v", err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("it took %v to say so", took)
	}
}

func TestOneEndpointOfTwo(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	srv.start()
	s := open(t, Config{Endpoints: []string{"unix:///nowhere/at/all.sock", srv.endpoint()}})
	mustCreate(t, s, "a")
	watch(t, s, "GlobalNetworkSet").untilHas("a")
}

// TestStalledServer: a server that takes bytes and answers nothing.
func TestStalledServer(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	srv.start()
	wire := filepath.Join(srv.dir, "p")
	p := newProxy(t, wire, srv.socket())
	s := open(t, Config{Endpoints: []string{"unix://" + wire}})
	direct := open(t, Config{Endpoints: []string{srv.endpoint()}})
	w := watch(t, s, "GlobalNetworkSet")
	mustCreate(t, s, "a")
	w.untilHas("a")
	p.stall(true)
	start := time.Now()
	if _, err := s.Create(t.Context(), set("b")); !errors.Is(err, datastore.ErrUnavailable) {
		t.Errorf("create: %v", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v to say so", took)
	}
	mustCreate(t, direct, "c")
	w.until("bad news", func() bool { return !w.last.Status.Connected })
	p.stall(false)
	w.untilHas("c")
}

func TestLateAnswers(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	srv.start()
	wire := filepath.Join(srv.dir, "p")
	p := newProxy(t, wire, srv.socket())
	s := open(t, Config{Endpoints: []string{"unix://" + wire}})
	mustCreate(t, s, "first")
	// Cut at all moments of a write: each must come to pass exactly once, or say that it is not known.
	for i := range 40 {
		name := fmt.Sprintf("x%d", i)
		done := make(chan error, 1)
		go func() {
			_, err := s.Create(t.Context(), set(name))
			done <- err
		}()
		timer := time.NewTimer(time.Duration(i) * 100 * time.Microsecond)
		<-timer.C
		p.cut()
		err := <-done
		if err != nil && !errors.Is(err, datastore.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if _, err := s.Get(background(t), api.KeyOf(set(name))); err != nil {
				t.Errorf("%s was acknowledged: %v", name, err)
			}
		}
	}
}

func TestPrefix(t *testing.T) {
	t.Parallel()
	srv := newServer(t)
	srv.start()
	one := open(t, Config{Endpoints: []string{srv.endpoint()}, Prefix: "/one/"})
	two := open(t, Config{Endpoints: []string{srv.endpoint()}, Prefix: "/two/"})
	mustCreate(t, one, "a")
	mustCreate(t, two, "a")
	mustCreate(t, two, "b")
	os, err := one.List(background(t), "GlobalNetworkSet", "")
	if err != nil || len(os) != 1 {
		t.Errorf("%v, %v", os, err)
	}
}

func TestConfigValidate(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  Config
		ok   bool
	}{
		{"socket", Config{Endpoints: []string{"unix:///run/s"}}, true},
		{"https", Config{Endpoints: []string{"https://10.0.0.1:2379", "https://[2001:db8::1]:2379/"}, CertFile: "c", KeyFile: "k"}, true},
		{"user", Config{Endpoints: []string{"http://h:1"}, User: "u", PasswordFile: "p", Prefix: "/x/"}, true},
		{"none", Config{}, false},
		{"relative socket", Config{Endpoints: []string{"unix://run/s"}}, false},
		{"no port", Config{Endpoints: []string{"https://host"}}, false},
		{"no scheme", Config{Endpoints: []string{"host:2379"}}, false},
		{"mixed", Config{Endpoints: []string{"https://h:1", "http://h:1"}}, false},
		{"certificate without key", Config{Endpoints: []string{"https://h:1"}, CertFile: "c"}, false},
		{"certificate for http", Config{Endpoints: []string{"http://h:1"}, CAFile: "c"}, false},
		{"user without password", Config{Endpoints: []string{"https://h:1"}, User: "u"}, false},
		{"prefix", Config{Endpoints: []string{"https://h:1"}, Prefix: "x"}, false},
	} {
		if err := c.cfg.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if s, err := Open(c.cfg); (err == nil) != c.ok {
			t.Errorf("%s: open: %v", c.name, err)
		} else if s != nil {
			s.Close()
		}
	}
}
