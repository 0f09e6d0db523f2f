package etcd

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tortie/tortie/datastore"
)

func benchServer(b *testing.B) (*server, *Store) {
	b.Helper()
	srv := newServer(b)
	srv.start()
	return srv, open(b, Config{Endpoints: []string{srv.endpoint()}})
}

// BenchmarkCreate is one client's writes, one after the other: each waits for the disk.
func BenchmarkCreate(b *testing.B) {
	_, s := benchServer(b)
	i := 0
	for b.Loop() {
		i++
		if _, err := s.Create(b.Context(), set(fmt.Sprintf("s%d", i))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCreateParallel is writes of 32 at once, which share the disk's waits.
func BenchmarkCreateParallel(b *testing.B) {
	_, s := benchServer(b)
	var n atomic.Int64
	b.SetParallelism(16)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := s.Create(b.Context(), set(fmt.Sprintf("s%d", n.Add(1)))); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkWatchLatency is the time from a write's return (the commit) to the consumer's callback; negative times, where
// the watch was faster than the answer, count as zero.
func BenchmarkWatchLatency(b *testing.B) {
	srv, s := benchServer(b)
	watcher := open(b, Config{Endpoints: []string{srv.endpoint()}})
	ctx, cancel := context.WithCancel(b.Context())
	seen, synced, done := make(chan time.Time, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		watcher.Watch(ctx, datastore.WatchOptions{Kinds: []string{"GlobalNetworkSet"}}, func(bt datastore.Batch) error {
			if len(bt.Events) > 0 {
				seen <- time.Now()
			} else if bt.InSync {
				close(synced)
			}
			return nil
		})
	}()
	<-synced
	var took []time.Duration
	i := 0
	for b.Loop() {
		i++
		if _, err := s.Create(ctx, set(fmt.Sprintf("s%d", i))); err != nil {
			b.Fatal(err)
		}
		committed := time.Now()
		took = append(took, max((<-seen).Sub(committed), 0))
	}
	cancel()
	<-done
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// BenchmarkSnapshot is the first snapshot of a watch, 20,000 resources.
func BenchmarkSnapshot(b *testing.B) {
	_, s := benchServer(b)
	for i := 0; i < 20_000; i += 100 {
		var ops []datastore.Op
		for j := range 100 {
			ops = append(ops, datastore.Op{Verb: datastore.Create, Object: set(fmt.Sprintf("s%d", i+j))})
		}
		if err := s.Txn(b.Context(), ops...); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		ctx, cancel := context.WithCancel(b.Context())
		s.Watch(ctx, datastore.WatchOptions{Kinds: []string{"GlobalNetworkSet"}}, func(bt datastore.Batch) error {
			if bt.InSync {
				cancel()
			}
			return nil
		})
		cancel()
	}
}
