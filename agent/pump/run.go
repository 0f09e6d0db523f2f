package pump

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"time"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/internal/backoff"
)

const (
	minRetry = 100 * time.Millisecond
	maxRetry = 30 * time.Second
	// kickGap is the least time between two Applies that look at everything because of a Kick.
	kickGap = time.Second
	// lostAfter is how many Applies in a row must fail for the hints not to be trusted any more.
	lostAfter = 3
	// stuckAfter is how long after its deadline an Apply counts as stuck.
	stuckAfter = 10 * time.Second
	// farewell is how long an Apply may go on once the agent is asked to stop.
	farewell = 5 * time.Second
	never    = time.Duration(1<<63 - 1)
)

// loop is what only the goroutine of Run touches.
type loop struct {
	low     *drivers.Lowerer
	ch      *drivers.Changes // what the dataplane may not have as it must be; nil = unknown
	boot    *drivers.State   // to be applied first
	follows bool             // the View follows the graph
	applied bool             // an Apply has come through, at least for the most part
	fails   int              // Applies in a row that have failed as a whole
	resync  resync
	backoff backoff.Backoff
	holdOff time.Time // nothing is applied before
	retryAt time.Time // what failed is tried again; zero = nothing has failed
	kickAt  time.Time // no Kick is answered before
	told    string    // the error that was logged last
}

func newLoop(o Options) loop {
	return loop{
		low: drivers.NewLowerer(o.Driver.Features()), boot: o.Boot, resync: newResync(o.Resync),
		backoff: backoff.Backoff{Min: minRetry, Max: maxRetry},
	}
}

// Run applies until ctx ends. The dataplane stays as it is.
func (p *Pump) Run(ctx context.Context) {
	defer close(p.done)
	timer := time.NewTimer(never)
	defer timer.Stop()
	for ctx.Err() == nil {
		p.serve(ctx)
		apply, wait := p.due(time.Now())
		if apply {
			p.step(ctx)
			continue
		}
		timer.Reset(wait)
		select {
		case <-p.wake:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// due reports whether to Apply now, and if not, when to look again at the latest.
func (p *Pump) due(now time.Time) (bool, time.Duration) {
	l := &p.l
	p.mu.Lock()
	inSync, kicked, offered := p.inSync, p.kicked, !p.nextCh.Empty()
	l.resync.set(now, p.every)
	p.mu.Unlock()
	if !inSync && l.boot == nil && !l.applied {
		return false, never // a running kernel is not touched
	}
	if now.Before(l.holdOff) {
		return false, l.holdOff.Sub(now)
	}
	if l.boot != nil || inSync && (offered || !l.follows) {
		return true, 0
	}
	if kicked && !now.Before(l.kickAt) {
		return true, 0
	}
	wait := never
	at := func(t time.Time) bool {
		if t.IsZero() {
			return false
		}
		wait = min(wait, max(0, t.Sub(now)))
		return !now.Before(t)
	}
	if kicked {
		at(l.kickAt)
	}
	tick, next := l.resync.due(now)
	if tick || at(l.retryAt) || at(next) {
		return true, 0
	}
	return false, wait
}

// step brings the View up to date and applies it.
func (p *Pump) step(ctx context.Context) {
	l, now := &p.l, time.Now()
	p.mu.Lock()
	inSync := p.inSync
	kicked := p.kicked && !now.Before(l.kickAt) // one that comes too soon waits, though others are applied meanwhile
	if kicked {
		p.kicked = false
	}
	p.mu.Unlock()
	if kicked {
		l.ch, l.kickAt = nil, now.Add(kickGap)
	}
	switch {
	case inSync && !l.follows:
		p.follow()
	case inSync:
		p.merge()
	case l.boot != nil:
		p.load(l.boot)
	}
	if tick, _ := l.resync.due(now); tick {
		ch := l.ch
		if ch == nil { // everything is looked at anyway
			ch = drivers.NewChanges()
		}
		l.resync.tick(now, p.view.Applied, ch)
	}
	p.settle(p.apply(ctx))
}

// follow starts to follow the graph: the State is what it has offered, and nothing of the Boot State.
func (p *Pump) follow() {
	u, seq := p.takeUpdate()
	p.edit(func(v *View) {
		v.Wanted = drivers.NewState()
		if u != nil {
			v.Wanted.Merge(u, nil)
		}
		v.Applied, v.Losses = p.l.low.Lower(v.Wanted, nil)
		v.AllUnapplied, v.Merged, v.InSync = true, seq, true
	})
	p.l.boot, p.l.follows, p.l.ch = nil, true, nil
	p.l.resync.start(time.Now())
}

// load makes the State s, which was not offered.
func (p *Pump) load(s *drivers.State) {
	p.edit(func(v *View) {
		v.Wanted = s
		v.Applied, v.Losses = p.l.low.Lower(s, nil)
		v.AllUnapplied = true
	})
	p.l.ch = nil
}

// merge takes in what was offered.
func (p *Pump) merge() {
	u, seq := p.takeUpdate()
	if u == nil {
		return
	}
	p.edit(func(v *View) {
		ch := drivers.NewChanges()
		v.Wanted.Merge(u, ch)
		v.Applied, v.Losses = p.l.low.Lower(v.Wanted, ch)
		if p.l.ch != nil {
			v.Wanted.Merge(u, p.l.ch)               // once more, for what it says of the changes that wait already
			maps.Copy(p.l.ch.Policies, ch.Policies) // Lower has added those that come out different now
		}
		v.touch(ch)
		v.Merged = seq
	})
}

// apply calls the driver. Only this goroutine changes the View, so it may be read without a lock meanwhile.
func (p *Pump) apply(ctx context.Context) Result {
	start := time.Now()
	err := p.guard(ctx, func(ctx context.Context) error { return p.o.Driver.Apply(ctx, p.view.Applied, p.l.ch) })
	return Result{InSync: p.l.follows, At: time.Now(), Duration: time.Since(start), Err: err}
}

// guard runs what talks to the dataplane with a deadline, and a watchdog for what does not keep it. Once the agent is
// asked to stop it may go on for a moment.
func (p *Pump) guard(ctx context.Context, fn func(context.Context) error) error {
	start := time.Now()
	p.mark(func(v *View) { v.Started = start })
	gctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.o.ApplyTimeout)
	defer cancel()
	stopping := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(farewell, cancel)
		context.AfterFunc(gctx, func() { t.Stop() })
	})
	defer stopping()
	watchdog := time.AfterFunc(p.o.ApplyTimeout+stuckAfter, func() {
		p.o.Log.Error("the dataplane does not answer", "since", start)
		p.mark(func(v *View) { v.Stuck = true })
	})
	err := fn(gctx)
	watchdog.Stop()
	p.mark(func(v *View) { v.Started, v.Stuck = time.Time{}, false })
	return err
}

// settle draws the conclusions from how an Apply ended.
func (p *Pump) settle(r Result) {
	l := &p.l
	var partly *drivers.ApplyError
	errors.As(r.Err, &partly)
	switch {
	case r.Err == nil:
		l.ch, l.fails, l.applied = drivers.NewChanges(), 0, true
		l.backoff.Reset()
		l.holdOff, l.retryAt = time.Time{}, time.Time{}
	case partly != nil:
		// All but the failed objects are there, so others need not wait. Those are tried again when it is time.
		l.ch = l.ch.AfterApplyError(partly, p.view.Applied)
		l.fails, l.applied, l.holdOff = 0, true, time.Time{}
		if !r.At.Before(l.retryAt) {
			l.retryAt = r.At.Add(l.backoff.Next())
		}
	default:
		if l.fails++; l.fails >= lostAfter || l.ch == nil {
			l.ch = nil
		} else {
			l.ch.AfterError()
		}
		l.retryAt = r.At.Add(l.backoff.Next())
		l.holdOff = l.retryAt
	}
	if l.applied && !l.follows {
		l.boot = nil // what it lacks is tried again when it is time
	}
	p.publish(r, partly)
	p.announce()
	p.tell(r)
	p.o.Metrics.applied(r, partly, &p.view)
	if p.o.Applied != nil {
		p.o.Applied(r)
	}
}

func (p *Pump) publish(r Result, partly *drivers.ApplyError) {
	p.edit(func(v *View) {
		v.Last, v.Retry = r, p.l.retryAt
		if r.Err == nil {
			v.Success = r.At
		}
		if r.Err != nil && partly == nil {
			return
		}
		v.AllUnapplied = false
		clear(v.Unapplied)
		v.Failed = map[drivers.ObjectRef]error{}
		if partly != nil {
			v.Failed = partly.Failed
		}
	})
}

// tell logs an error once, and that it is over.
func (p *Pump) tell(r Result) {
	l := &p.l
	switch {
	case r.Err == nil && l.told != "":
		l.told = ""
		p.o.Log.Info("the dataplane is as it should be again", "duration", r.Duration)
	case r.Err != nil && r.Err.Error() != l.told:
		l.told = r.Err.Error()
		p.o.Log.Error("applying to the dataplane", "err", r.Err, "duration", r.Duration, "retry", l.retryAt)
	case r.Err != nil:
		p.o.Log.Log(context.Background(), slog.LevelDebug, "applying to the dataplane failed again", "err", r.Err)
	}
}

// serve does what was asked for between two Applies.
func (p *Pump) serve(ctx context.Context) {
	p.mu.Lock()
	cuts, calls := p.cuts, p.calls
	p.cuts, p.calls = nil, nil
	p.mu.Unlock()
	if len(cuts) > 0 {
		var addrs []netip.Addr
		for _, c := range cuts {
			addrs = append(addrs, c.addrs...)
		}
		err := p.guard(ctx, func(ctx context.Context) error { return p.o.Driver.(drivers.FlowCutter).CutFlows(ctx, addrs) })
		for _, c := range cuts {
			c.done <- err
		}
	}
	for _, c := range calls {
		_ = p.guard(ctx, func(ctx context.Context) error { // fn keeps what comes of it
			c.fn(ctx)
			return nil
		})
		close(c.done)
	}
}
