package controllers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tortie/tortie/internal/backoff"
)

const (
	// calm is how long a part waits after a change for more of them.
	calm = time.Second
	// stepTimeout ends a step, and stuckAfter is when one that does not end is a reason to start the process again.
	stepTimeout = 10 * time.Minute
	stuckAfter  = stepTimeout + time.Minute
	retryMin    = 2 * time.Second
	retryMax    = 5 * time.Minute
)

// part makes one thing right.
type part struct {
	name string
	// kinds are those whose changes ask for a step.
	kinds []string
	// every is the time from one step to the next, if nothing changes.
	every func() time.Duration
	step  func(ctx context.Context) error
	// needs says why no step can be made now; it is no error. nil = nothing is needed.
	needs func() error
}

// runner runs one part.
type runner struct {
	part
	log     *slog.Logger
	metrics *stepMetrics
	wake    chan struct{}

	mu    sync.Mutex
	began time.Time // of the step under way; zero = none is
	err   error     // of the last step
}

func newRunner(p part, log *slog.Logger, m *stepMetrics) *runner {
	return &runner{part: p, log: log.With("part", p.name), metrics: m, wake: make(chan struct{}, 1)}
}

// kick asks for a step soon. It never blocks.
func (r *runner) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run makes steps until ctx ends: after a change, after an error (later each time), and after r.every, less a random part
// of up to a quarter.
func (r *runner) run(ctx context.Context) {
	retry := backoff.Backoff{Min: retryMin, Max: retryMax}
	next := time.Duration(0)
	for {
		if !r.wait(ctx, next) {
			return
		}
		every := r.every()
		next = every - rand.N(every/4+1)
		if r.needs != nil && r.needs() != nil {
			continue // a change of that is a change
		}
		if err := r.try(ctx); err != nil {
			next = min(next, retry.Next())
		} else {
			retry.Reset()
		}
	}
}

// wait waits for d or for a change and what comes with it; false = ctx has ended.
func (r *runner) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	case <-r.wake:
	}
	t.Reset(calm)
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
	}
	select { // what came meanwhile is part of this step
	case <-r.wake:
	default:
	}
	return true
}

func (r *runner) try(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	start := time.Now()
	r.note(start, nil, false)
	err := r.safely(ctx)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		err = nil // it is over
	}
	r.note(time.Time{}, err, true)
	r.metrics.note(r.name, time.Since(start), err)
	return err
}

// safely makes a step. A mistake in one must not take along the others, nor the store that may run in this process.
func (r *runner) safely(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return r.step(ctx)
}

// note keeps what came of a step, and logs it if it is news.
func (r *runner) note(began time.Time, err error, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began = began
	if !done {
		return
	}
	switch was := r.err; {
	case err != nil && (was == nil || was.Error() != err.Error()):
		r.log.Warn("a step ended early; it is tried again", "err", err)
	case err == nil && was != nil:
		r.log.Info("steps succeed again")
	}
	r.err = err
}

// stuck returns an error if a step has been under way for too long.
func (r *runner) stuck(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.began.IsZero() && now.Sub(r.began) > stuckAfter {
		return fmt.Errorf("a step of %s has been under way since %s", r.name, r.began.Format(time.RFC3339))
	}
	return nil
}

// last returns the error of the last step.
func (r *runner) last() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}
