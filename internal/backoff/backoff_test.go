package backoff

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestNext(t *testing.T) {
	b := Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	for i, want := range []time.Duration{100, 200, 400, 800, 1000, 1000, 1000} {
		want *= time.Millisecond
		if d := b.Next(); d > want || d < want*3/4 {
			t.Errorf("wait %d is %v, want %v less up to a quarter", i, d, want)
		}
	}
	for range 200 { // far beyond what a shift can hold
		if d := b.Next(); d > time.Second || d < 750*time.Millisecond {
			t.Fatalf("after %d tries: %v", b.Tries(), d)
		}
	}
	b.Reset()
	if d := b.Next(); d > 100*time.Millisecond {
		t.Errorf("after Reset: %v", d)
	}
	if d := (&Backoff{}).Next(); d != 0 {
		t.Errorf("the zero Backoff waits %v", d)
	}
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := Backoff{Min: time.Hour, Max: time.Hour}
		start := time.Now()
		if err := b.Sleep(t.Context()); err != nil || time.Since(start) < 45*time.Minute {
			t.Errorf("slept %v, %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if err := b.Sleep(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("cancelled after %v, %v", time.Since(start), err)
		}
	})
}
