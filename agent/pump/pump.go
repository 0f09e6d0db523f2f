package pump

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/tortie/tortie/drivers"
)

// ErrStopped says that the pump has ended.
var ErrStopped = errors.New("the agent is stopping")

// Options is what New takes.
type Options struct {
	Driver drivers.Driver
	Log    *slog.Logger
	// ApplyTimeout bounds one Apply.
	ApplyTimeout time.Duration
	// Resync is how long a round of the rolling resync takes; 0 = never. SetResync changes it.
	Resync time.Duration
	// Boot is applied before anything else, if it isn't nil: what holds until the first in-sync State.
	Boot *drivers.State
	// Applied is told of each Apply that ended, by the pump's goroutine. It must not wait. May be nil.
	Applied func(Result)
	Metrics *Metrics
}

// Result is how an Apply ended.
type Result struct {
	InSync   bool // false: it was the Boot State
	At       time.Time
	Duration time.Duration
	Err      error // an *drivers.ApplyError: all but some objects were applied
}

// Pump keeps the dataplane at the State. Its methods are safe for concurrent use.
type Pump struct {
	o Options

	mu     sync.Mutex
	seq    uint64         // of the last Offer
	next   *drivers.State // values that were offered and are not merged yet ...
	nextCh *drivers.Changes
	inSync bool
	kicked bool
	every  time.Duration // a round of the rolling resync takes
	cuts   []cut
	calls  []call

	wake chan struct{}
	done chan struct{}
	l    loop

	vmu     sync.RWMutex
	view    View
	changed chan struct{} // closed when an Apply has ended
}

// cut is a request to forget the flows of addresses; done takes one value without waiting.
type cut struct {
	addrs []netip.Addr
	done  chan error
}

type call struct {
	fn   func(context.Context)
	done chan struct{}
}

// New returns a Pump that does nothing before Run.
func New(o Options) *Pump {
	p := &Pump{
		o: o, next: drivers.NewState(), nextCh: drivers.NewChanges(), every: o.Resync,
		wake: make(chan struct{}, 1), done: make(chan struct{}), changed: make(chan struct{}),
	}
	p.l = newLoop(o)
	p.view = newView()
	return p
}

// Offer hands over what the graph has flushed. It returns the number of the last Offer that said anything, which
// View.Merged compares with, and never waits for the dataplane. Values in u belong to the pump from then on.
func (p *Pump) Offer(u *drivers.Update) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !u.Empty() {
		p.seq++
		p.next.Merge(u, p.nextCh)
		p.nudge()
	}
	return p.seq
}

// InSync says that what was offered so far is complete. Before it, nothing but the Boot State touches the dataplane.
func (p *Pump) InSync() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inSync = true
	p.nudge()
}

// Kick asks for an Apply that looks at everything. Never blocks.
func (p *Pump) Kick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kicked = true
	p.nudge()
}

// SetResync says how long a round of the rolling resync takes from now on; 0 = never.
func (p *Pump) SetResync(round time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.every = round
	p.nudge()
}

// CutFlows forgets the flows of addrs, if the driver can. Requests that wait at the same time are done in one go.
func (p *Pump) CutFlows(ctx context.Context, addrs []netip.Addr) error {
	if _, ok := p.o.Driver.(drivers.FlowCutter); !ok || !p.o.Driver.Features().CutFlows {
		return nil
	}
	c := cut{addrs: addrs, done: make(chan error, 1)}
	p.mu.Lock()
	p.cuts = append(p.cuts, c)
	p.nudge()
	p.mu.Unlock()
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-p.done:
		return ErrStopped
	}
}

// Do calls fn between two Applies. Methods of a driver that may not run beside Apply are called so.
func (p *Pump) Do(ctx context.Context, fn func(context.Context)) error {
	c := call{fn: fn, done: make(chan struct{})}
	p.mu.Lock()
	p.calls = append(p.calls, c)
	p.nudge()
	p.mu.Unlock()
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.done:
		return ErrStopped
	}
}

// nudge wakes up the goroutine of Run.
func (p *Pump) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// takeUpdate returns what was offered and not taken yet (nil if nothing was), and the number of the last Offer.
func (p *Pump) takeUpdate() (u *drivers.Update, seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.nextCh.Empty() {
		return nil, p.seq
	}
	u = asUpdate(p.next, p.nextCh)
	p.next, p.nextCh = drivers.NewState(), drivers.NewChanges()
	return u, p.seq
}

// asUpdate returns the Update that makes ch and the values in s out of nothing.
func asUpdate(s *drivers.State, ch *drivers.Changes) *drivers.Update {
	u := drivers.NewUpdate()
	if ch.Node {
		n := s.Node
		u.Node = &n
	}
	if ch.Masquerade {
		m := s.Masquerade
		u.Masquerade = &m
	}
	pick(u.Endpoints, s.Endpoints, ch.Endpoints)
	pick(u.Policies, s.Policies, ch.Policies)
	pick(u.Routes, s.Routes, ch.Routes)
	pick(u.Peers, s.Peers, ch.Peers)
	for id, sc := range ch.Sets {
		su := drivers.SetUpdate{Set: s.Sets[id], Full: sc.Full}
		for m := range sc.Added {
			su.Added = append(su.Added, m)
		}
		for m := range sc.Removed {
			su.Removed = append(su.Removed, m)
		}
		u.Sets[id] = su
	}
	return u
}

func pick[K comparable, V any](dst, src map[K]*V, keys map[K]struct{}) {
	for k := range keys {
		dst[k] = src[k] // nil if it is gone
	}
}
