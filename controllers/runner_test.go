package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
	"github.com/tortie/tortie/ipam"
)

func testMetrics(t *testing.T) *metrics {
	t.Helper()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var all []time.Duration
		seen := func() []time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(all)
		}
		var fails, blind atomic.Bool
		start := time.Now()
		p := part{name: "p", every: func() time.Duration { return time.Hour }, needs: func() error {
			if blind.Load() {
				return errBlind
			}
			return nil
		}, step: func(context.Context) error {
			mu.Lock()
			all = append(all, time.Since(start).Round(time.Second))
			mu.Unlock()
			if fails.Load() {
				panic("a mistake")
			}
			return nil
		}}
		r := newRunner(p, slog.New(slog.DiscardHandler), testMetrics(t).steps)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.run(ctx) }()
		synctest.Wait()
		if steps := seen(); len(steps) != 1 || steps[0] != 0 {
			t.Fatalf("at the start: %v", steps)
		}
		for range 100 { // a burst of changes is one step
			r.kick()
		}
		time.Sleep(2 * calm)
		synctest.Wait()
		if steps := seen(); len(steps) != 2 {
			t.Errorf("after a burst: %v", steps)
		}
		time.Sleep(44 * time.Minute)
		synctest.Wait()
		if steps := seen(); len(steps) != 2 {
			t.Errorf("a step before its time: %v", steps)
		}
		time.Sleep(17 * time.Minute)
		synctest.Wait()
		if steps := seen(); len(steps) != 3 {
			t.Errorf("after an hour: %v", steps)
		}
		fails.Store(true) // steps are made again, later each time, and it is no end
		r.kick()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := len(seen()); n < 6 || n > 11 || !strings.Contains(fmt.Sprint(r.last()), "a mistake") {
			t.Errorf("%d steps within a minute of errors; %v", n-3, r.last())
		}
		fails.Store(false)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if r.last() != nil {
			t.Errorf("after a step without error: %v", r.last())
		}
		blind.Store(true)
		n := len(seen())
		r.kick()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if steps := seen(); len(steps) != n {
			t.Error("steps though nothing can be seen")
		}
		cancel()
		<-done
	})
}

// TestStuck ends a step that takes too long, and says so of one that does not even end then.
func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		r := newRunner(part{name: "p", every: func() time.Duration { return time.Hour }, step: func(context.Context) error { <-stop; return nil }},
			slog.New(slog.DiscardHandler), testMetrics(t).steps)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.run(ctx) }()
		time.Sleep(stepTimeout)
		if err := r.stuck(time.Now()); err != nil {
			t.Errorf("too early: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if r.stuck(time.Now()) == nil {
			t.Error("nobody notices")
		}
		close(stop)
		synctest.Wait()
		if err := r.stuck(time.Now()); err != nil {
			t.Errorf("it has ended: %v", err)
		}
		cancel()
		<-done
	})
}

// TestRun runs the whole without Kubernetes for some hours: a leak goes, what is used stays, and the configuration is
// followed. The store is away for some of it.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		for _, text := range []string{poolYAML("v4", "10.0.0.0/24", ""), nodeYAML("n1", "")} {
			objects, err := api.Decode([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			api.Default(objects[0])
			if _, err := s.Create(t.Context(), objects[0]); err != nil {
				t.Fatal(err)
			}
		}
		a := ipam.New(ipam.Config{Store: s, Node: "n1"})
		assign := func(handle string) ipam.Held {
			t.Helper()
			r, err := a.Assign(t.Context(), ipam.Request{Handle: handle, V4: true})
			if err != nil {
				t.Fatal(err)
			}
			return r.Addrs[0]
		}
		used := assign("used")
		e := &api.WorkloadEndpoint{}
		e.Namespace, e.Name = "prod", "n1-cni-used-eth0"
		e.Spec.IPNetworks = []string{used.Addr.String() + "/32"}
		if _, err := s.Create(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		assign("leaked")

		tries := 0
		client := s.Client()
		c, err := New(Config{Log: slog.New(slog.DiscardHandler), Registry: prometheus.NewRegistry(), OpenStore: func(context.Context) (datastore.Store, error) {
			if tries++; tries < 3 {
				return nil, errAway
			}
			return client, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		if missing, _ := c.Ready(); len(missing) != 0 {
			t.Errorf("a process that does not lead yet misses %v", missing)
		}
		left := func() int {
			t.Helper()
			u, err := a.Show(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return u.Pools[0].Used
		}
		time.Sleep(10 * time.Minute)
		if missing, problems := c.Ready(); len(missing)+len(problems) > 0 || left() != 2 || c.Live() != nil {
			t.Errorf("after 10 minutes: %v, %v, %d addresses", missing, problems, left())
		}
		client.Fail(errAway)
		time.Sleep(time.Hour)
		if missing, _ := c.Ready(); len(missing) == 0 {
			t.Error("ready, though the store is away")
		}
		client.Fail(nil)
		time.Sleep(20 * time.Minute)
		if left() != 1 {
			t.Errorf("%d addresses are left", left())
		}
		objects, err := api.Decode([]byte(automaticConfig("{autoCreate: Enabled}")))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Create(t.Context(), objects[0]); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if _, err := s.Get(t.Context(), api.Key{Kind: "HostEndpoint", Name: "n1-auto-hep"}); err != nil {
			t.Error(err)
		}
	})
}
