package fake

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tortie/tortie/drivers"
)

// Driver enforces a State in a World.
type Driver struct {
	world    *World
	opts     drivers.Options
	features drivers.Features
	applied  bool
	closed   atomic.Bool
}

var _ interface {
	drivers.Driver
	drivers.Attacher
	drivers.Inventory
	drivers.Counters
	drivers.Cleaner
	drivers.FlowCutter
} = (*Driver)(nil)

// Open returns a driver over w; a nil w means a new World.
func Open(ctx context.Context, o drivers.Options, w *World) (*Driver, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("opening the fake driver: %w", err)
	}
	if w == nil {
		w = NewWorld()
	}
	d := &Driver{world: w, opts: o}
	w.mu.Lock()
	defer w.mu.Unlock()
	d.features = w.features
	if o.Kick != nil {
		w.kicks[d] = o.Kick
	}
	return d, nil
}

// World returns the World that the driver was opened over.
func (d *Driver) World() *World { return d.world }

// Features is what the World said when the driver was opened.
func (d *Driver) Features() drivers.Features { return d.features }

// Dump prints what the World holds.
func (d *Driver) Dump() string { return d.world.Dump() }

// Evaluate sends a packet through what the World holds.
func (d *Driver) Evaluate(p drivers.Packet) drivers.Trace { return d.world.Evaluate(p) }

// Apply does what ch says, and nothing else but another try for endpoints on deny stand-ins. The error of a write that
// FailWrite made fail, and that of a context, is no *ApplyError.
func (d *Driver) Apply(ctx context.Context, want *drivers.State, ch *drivers.Changes) error {
	if d.closed.Load() {
		return fmt.Errorf("applying: %w", errClosed)
	}
	if ch != nil && !d.applied {
		return errors.New("the first Apply must have nil Changes")
	}
	d.applied = true
	before := d.world.Writes()
	a := &apply{w: d.world, features: d.features, want: want, failed: map[drivers.ObjectRef]error{}}
	err := a.run(ctx, ch)
	if d.opts.Metrics != nil {
		d.opts.Metrics("writes", float64(d.world.Writes()-before))
	}
	if err != nil {
		return fmt.Errorf("applying: %w", err)
	}
	if len(a.failed) > 0 {
		return &drivers.ApplyError{Failed: a.failed}
	}
	return nil
}

var errClosed = errors.New("the driver is closed")

// Close leaves the World as it is.
func (d *Driver) Close() error {
	d.closed.Store(true)
	d.world.mu.Lock()
	defer d.world.mu.Unlock()
	delete(d.world.kicks, d)
	return nil
}
