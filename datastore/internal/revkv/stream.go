package revkv

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tortie/tortie/datastore"
)

const (
	// How often a quiet stream is asked for a sign of life, which also moves the position on; and how long it may be
	// silent. A stream that has yet to catch up is asked more often, to know when it has.
	pingEvery   = 15 * time.Second
	deadAfter   = 40 * time.Second
	pingCatchUp = 20 * time.Millisecond
	// How often the consumer hears of a new position when there are no changes.
	tellEvery = time.Minute
)

var errSilent = fmt.Errorf("%w: the stream fell silent", datastore.ErrUnavailable)

// follow streams changes from pos on until something breaks; from revision target on the consumer is in sync.
func (w *watcher) follow(ctx context.Context, target int64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := w.b.Follow(ctx, w.span, w.pos.Rev+1)
	if err != nil {
		return err
	}
	var caughtUp atomic.Bool
	if w.pos.Rev >= target {
		caughtUp.Store(true)
		w.q.push(nil, &progress{pos: w.pos, inSync: true})
	}
	silence := time.AfterFunc(deadAfter, func() { cancel(errSilent) })
	defer silence.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		ping(ctx, stream, &caughtUp)
	}()
	defer func() {
		cancel(nil)
		<-done
	}()
	var ops []op
	for {
		c, err := stream.Recv()
		if err != nil {
			if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
				return cause
			}
			return err
		}
		silence.Reset(deadAfter)
		ops = w.note(ops, c.Entries)
		if c.Part {
			continue
		}
		w.pos.Rev = max(w.pos.Rev, c.Rev)
		inSync := w.pos.Rev >= target
		caughtUp.Store(inSync)
		tell := len(ops) == 0 && time.Since(w.told) > tellEvery
		if len(ops) > 0 || tell {
			w.told = time.Now()
		}
		w.q.push(ops, &progress{pos: w.pos, inSync: inSync, tell: tell})
		ops = nil
	}
}

// note keeps account of what is sent, and adds what the consumer wants to ops.
func (w *watcher) note(ops []op, es []Entry) []op {
	for _, e := range es {
		if !w.wants(e.Key) {
			continue
		}
		if e.Value == nil {
			// Something that was created and deleted in between the consumer need not hear of.
			if w.sent.del(e.Key) || !w.whole {
				ops = append(ops, op{Entry: e, known: true})
			}
			continue
		}
		known := w.sent.set(e.Key, e.Mod)
		ops = append(ops, op{Entry: e, known: known || !w.whole})
	}
	return ops
}

// wants says whether a key of the span is of one of the kinds.
func (w *watcher) wants(key string) bool {
	for _, k := range w.kinds {
		if strings.HasPrefix(key, k.From) {
			return true
		}
	}
	return false
}

// ping asks for signs of life until ctx ends.
func ping(ctx context.Context, s Stream, caughtUp *atomic.Bool) {
	for wait := pingCatchUp; ; wait = min(2*wait, time.Second) {
		if caughtUp.Load() {
			wait = pingEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if s.Ping() != nil {
			return // Recv sees why
		}
	}
}
