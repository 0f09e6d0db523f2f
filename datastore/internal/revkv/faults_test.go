package revkv_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/mem"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func set(name string, nets ...string) *api.GlobalNetworkSet {
	return &api.GlobalNetworkSet{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: api.NetworkSetSpec{Nets: nets}}
}

// TestLostAnswer: a write whose answer is lost is found to have been done, and is not done twice.
func TestLostAnswer(t *testing.T) {
	ctx := t.Context()
	s := mem.New()
	s.LoseAnswers(1)
	made, err := s.Create(ctx, set("a"))
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	got, err := s.Get(ctx, api.KeyOf(made))
	if err != nil || got.GetUID() != made.GetUID() || got.GetResourceVersion() != made.GetResourceVersion() {
		t.Errorf("stored %v, returned %v, %v", got, made, err)
	}
	s.LoseAnswers(1)
	made.(*api.GlobalNetworkSet).Spec.Nets = []string{"10.0.0.0/8"}
	changed, err := s.Update(ctx, made)
	if err != nil || changed.GetGeneration() != 2 {
		t.Fatalf("update: %v, %v", changed, err)
	}
	s.LoseAnswers(1)
	if err := s.Delete(ctx, api.KeyOf(made), changed.GetResourceVersion()); err != nil {
		t.Errorf("delete: %v", err)
	}
	s.LoseAnswers(1)
	err = s.Txn(ctx, datastore.Op{Verb: datastore.Create, Object: set("b")}, datastore.Op{Verb: datastore.Create, Object: set("c")})
	if err != nil {
		t.Errorf("txn: %v", err)
	}
}

// TestLostAnswerIsNotAnothersWrite: somebody else's resource of that name is not taken for ours.
func TestLostAnswerIsNotAnothersWrite(t *testing.T) {
	s := mem.New()
	if _, err := s.Create(t.Context(), set("a")); err != nil {
		t.Fatal(err)
	}
	s.FailNth(0, 1, datastore.ErrUnavailable)
	if _, err := s.Create(t.Context(), set("a")); !errors.Is(err, datastore.ErrExists) {
		t.Errorf("create: %v", err)
	}
}

func TestCallsAreRetriedAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		if _, err := s.Create(t.Context(), set("a")); err != nil {
			t.Fatal(err)
		}
		key := api.KeyOf(set("a"))
		s.FailNth(0, 2, datastore.ErrUnavailable)
		if _, err := s.Get(t.Context(), key); err != nil {
			t.Errorf("two failures: %v", err)
		}
		s.FailNth(0, 3, datastore.ErrUnavailable)
		if _, err := s.Get(t.Context(), key); !errors.Is(err, datastore.ErrUnavailable) {
			t.Errorf("three failures: %v", err)
		}
		s.FailNth(0, 1, datastore.ErrForbidden)
		if _, err := s.Get(t.Context(), key); !errors.Is(err, datastore.ErrForbidden) {
			t.Errorf("refused: %v", err)
		}
		release := s.Stall()
		defer release()
		start := time.Now()
		if _, err := s.Get(t.Context(), key); !errors.Is(err, datastore.ErrUnavailable) || time.Since(start) != 5*time.Second {
			t.Errorf("stalled: %v after %v", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Update(ctx, set("a")); !errors.Is(err, datastore.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stalled, with a deadline: %v", err)
		}
	})
}

// watchFor runs a watch in the bubble and gives its batches.
func watchFor(t *testing.T, s datastore.Store) (batches <-chan datastore.Batch) {
	out := make(chan datastore.Batch, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Watch(ctx, datastore.WatchOptions{Kinds: []string{"GlobalNetworkSet"}}, func(b datastore.Batch) error {
			out <- b
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return out
}

// TestWatchBacksOff: how often a store that is down is asked, and what the consumer hears of it.
func TestWatchBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		s.Fail(datastore.ErrUnavailable)
		batches := watchFor(t, s)
		time.Sleep(10 * time.Minute)
		if n := len(batches); n != 1 {
			t.Errorf("%d batches of bad news, want 1", n)
		}
		if b := <-batches; b.Status.Connected || !errors.Is(b.Status.Err, datastore.ErrUnavailable) {
			t.Errorf("status %+v", b.Status)
		}
		s.Fail(nil)
		start := time.Now()
		for b := range batches {
			if b.InSync && b.Status.Connected {
				break
			}
		}
		if waited := time.Since(start); waited > 5*time.Second {
			t.Errorf("back after %v", waited)
		}
		s.Fail(datastore.ErrForbidden)
		for b := range batches {
			if errors.Is(b.Status.Err, datastore.ErrForbidden) {
				break
			}
		}
	})
}

// TestWatchQuiet: a stream without changes says from time to time where it is, and one that falls silent is replaced.
func TestWatchQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		other := s.Client()
		batches := watchFor(t, s)
		first := <-batches
		if _, err := other.Create(t.Context(), &api.Tier{ObjectMeta: metav1.ObjectMeta{Name: "x"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if n := len(batches); n < 8 || n > 12 {
			t.Errorf("%d signs of life in 10 minutes, want about 9", n)
		}
		if next := <-batches; next.Resume == first.Resume || len(next.Events) != 0 {
			t.Errorf("resume %q, then %q with %d events", first.Resume, next.Resume, len(next.Events))
		}
		release := s.Stall()
		time.Sleep(time.Minute)
		var last datastore.Batch
		for len(batches) > 0 {
			last = <-batches
		}
		if last.Status.Connected || !errors.Is(last.Status.Err, datastore.ErrUnavailable) {
			t.Errorf("a minute of silence: status %+v", last.Status)
		}
		release()
		if _, err := other.Create(t.Context(), set("a")); err != nil {
			t.Fatal(err)
		}
		for b := range batches {
			if len(b.Events) == 1 {
				break
			}
		}
	})
}

// TestUnreadableUpdateNeedsNoRead: what can't be read can be replaced, and its identity stays where it can be told.
func TestUnreadableUpdateNeedsNoRead(t *testing.T) {
	s := mem.New()
	key := api.KeyOf(set("a"))
	s.SetRaw(key, []byte(`{"metadata":{"uid":"u7","creationTimestamp":"2026-01-02T03:04:05Z","generation":6},"spec":[]}`))
	o, err := s.Update(t.Context(), set("a", "10.0.0.0/8"))
	if err != nil || o.GetUID() != "u7" || o.GetGeneration() != 7 {
		t.Errorf("%+v, %v", o, err)
	}
}
