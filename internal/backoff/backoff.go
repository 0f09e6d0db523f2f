// Package backoff says how long to wait before something that failed is tried again.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff doubles from Min to Max, each time less a random part of up to a quarter, so that many who failed together
// don't come back together. The zero value never waits. Not safe for concurrent use.
type Backoff struct {
	Min, Max time.Duration
	tries    int
}

// Next returns how long to wait now, and waits longer the next time.
func (b *Backoff) Next() time.Duration {
	d := b.Max
	if b.tries < 32 && b.Min < b.Max>>b.tries {
		d = b.Min << b.tries
	}
	b.tries++
	if d <= 0 {
		return 0
	}
	return d - rand.N(d/4+1)
}

// Tries is how often Next was called since the last Reset.
func (b *Backoff) Tries() int { return b.tries }

// Reset starts again with Min.
func (b *Backoff) Reset() { b.tries = 0 }

// Sleep waits for Next; it returns early with ctx's error.
func (b *Backoff) Sleep(ctx context.Context) error {
	t := time.NewTimer(b.Next())
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
