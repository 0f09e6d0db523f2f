//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Traffic runs between two hosts of the lab until Stop: one connection that stays open and says something every
// few milliseconds, and a new connection as often.
type Traffic struct {
	Kept, New Tally
	stop      context.CancelFunc
	wg        sync.WaitGroup
	mu        sync.Mutex
	first     error // the first thing that went wrong
}

// Tally counts exchanges.
type Tally struct{ ok, failed atomic.Int64 }

// OK and Failed are the numbers of exchanges that came back and that did not.
func (t *Tally) OK() int64     { return t.ok.Load() }
func (t *Tally) Failed() int64 { return t.failed.Load() }

// every is the pause between two exchanges.
const every = 5 * time.Millisecond

// StartTraffic starts traffic that is expected to be allowed.
func StartTraffic(from *Host, to netip.Addr, port uint16) (*Traffic, error) {
	ctx, stop := context.WithCancel(context.Background())
	t := &Traffic{stop: stop}
	kept, err := from.Dial(ctx, "tcp", to, port)
	if err != nil {
		stop()
		return nil, fmt.Errorf("starting traffic from %s: %w", from.Name, err)
	}
	t.loop(ctx, &t.Kept, func() error { return kept.Say("still there?") })
	t.loop(ctx, &t.New, func() error { return from.Echo(ctx, "tcp", to, port) })
	context.AfterFunc(ctx, func() { kept.Close() })
	return t, nil
}

// StartDenied keeps trying connections that are expected to be denied: New.OK counts those that got through.
func StartDenied(from *Host, to netip.Addr, port uint16) *Traffic {
	ctx, stop := context.WithCancel(context.Background())
	t := &Traffic{stop: stop}
	for range 16 { // each attempt takes a time-out; several at once make it likelier to see a gap
		t.loop(ctx, &t.New, func() error { return from.Echo(ctx, "tcp", to, port) })
	}
	return t
}

func (t *Traffic) loop(ctx context.Context, tally *Tally, exchange func() error) {
	t.wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			err := exchange()
			switch {
			case err == nil:
				tally.ok.Add(1)
			case ctx.Err() != nil: // the end of the traffic, not of a connection
			default:
				tally.failed.Add(1)
				t.note(err)
			}
		}
	})
}

func (t *Traffic) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first == nil {
		t.first = err
	}
}

// Stop ends the traffic and waits for it.
func (t *Traffic) Stop() {
	t.stop()
	t.wg.Wait()
}

// Lost is an error that says what was lost; nil if nothing was.
func (t *Traffic) Lost() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.Kept.Failed() + t.New.Failed(); n > 0 {
		return fmt.Errorf("%d of %d exchanges were lost; the first: %w", n, n+t.Kept.OK()+t.New.OK(), t.first)
	}
	if t.Kept.OK()+t.New.OK() == 0 {
		return errors.New("there was no traffic at all")
	}
	return nil
}
