package drivertest_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// restless is a harness whose driver writes without need.
type restless struct {
	*fakeHarness
	n int
}

func (h *restless) Dump(ctx context.Context) (drivertest.Dump, error) {
	d, err := h.fakeHarness.Dump(ctx)
	h.n++
	d.Writes = h.n
	return d, err
}

// historic is a harness whose dataplane shows how often it was written.
type historic struct{ *fakeHarness }

func (h historic) Dump(ctx context.Context) (drivertest.Dump, error) {
	d, err := h.fakeHarness.Dump(ctx)
	d.Ours = fmt.Sprint(d.Ours, h.world.Writes())
	return d, err
}

// before is a driver that does something before each Apply.
type before struct {
	drivers.Driver
	do func(want *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes)
}

func (d before) Apply(ctx context.Context, want *drivers.State, ch *drivers.Changes) error {
	want, ch = d.do(want, ch)
	return d.Driver.Apply(ctx, want, ch)
}

// blamer is a driver that names the innocent.
type blamer struct{ drivers.Driver }

func (d blamer) Apply(ctx context.Context, want *drivers.State, ch *drivers.Changes) error {
	err := d.Driver.Apply(ctx, want, ch)
	if partly := (*drivers.ApplyError)(nil); errors.As(err, &partly) {
		partly.Failed[drivers.ObjectRef{Kind: drivers.ObjNode}] = errors.New("why not")
	}
	return err
}

// quitter is a driver that does nothing at all for one object that is refused.
type quitter struct{ drivers.Driver }

func (d quitter) Apply(ctx context.Context, want *drivers.State, ch *drivers.Changes) error {
	err := d.Driver.Apply(ctx, want, ch)
	if partly := (*drivers.ApplyError)(nil); errors.As(err, &partly) {
		return fmt.Errorf("the whole batch: %w", errors.New(err.Error()))
	}
	return err
}

// hasty is a driver that, after its first Apply, does not look at what it is not told of.
func hasty() func(*drivers.State, *drivers.Changes) (*drivers.State, *drivers.Changes) {
	applied := false
	return func(want *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes) {
		if ch == nil && applied {
			ch = drivers.NewChanges()
		}
		applied = true
		return want, ch
	}
}

// proud is a driver that, after an Apply that failed, does not compare the sets that it may have half written.
type proud struct {
	drivers.Driver
	failed bool
}

func (d *proud) Apply(ctx context.Context, want *drivers.State, ch *drivers.Changes) error {
	if d.failed && ch != nil {
		withoutFull(want, ch)
	}
	err := d.Driver.Apply(ctx, want, ch)
	d.failed = err != nil
	return err
}

// withoutFull forgets sets that are to be compared with the dataplane and are wanted.
func withoutFull(want *drivers.State, ch *drivers.Changes) {
	maps.DeleteFunc(ch.Sets, func(id drivers.SetID, sc *drivers.SetChange) bool { return sc.Full && want.Sets[id] != nil })
}

// ignoresFull takes note of sets that are Full only if they are new.
func ignoresFull() func(*drivers.State, *drivers.Changes) (*drivers.State, *drivers.Changes) {
	known := map[drivers.SetID]drivers.SetKind{}
	return func(want *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes) {
		if ch != nil {
			maps.DeleteFunc(ch.Sets, func(id drivers.SetID, sc *drivers.SetChange) bool {
				set := want.Sets[id]
				kind, ok := known[id]
				return sc.Full && set != nil && ok && kind == set.Kind()
			})
		}
		clear(known)
		for id, set := range want.Sets {
			known[id] = set.Kind()
		}
		return want, ch
	}
}

// partBugs are mistakes that no verdict shows by itself: each breaks a sentence of the contract that only one part of the
// suite is there for.
var partBugs = map[string]struct {
	property int
	harness  func() drivertest.Harness
}{
	"writes without need": {2, func() drivertest.Harness { return &restless{fakeHarness: newFakeHarness(drivers.AllFeatures("wrong"))} }},
	"ignores Full": {3, func() drivertest.Harness {
		return wrapped(func(_ *fakeHarness, d drivers.Driver) drivers.Driver { return before{d, ignoresFull()} })
	}},
	"leaves what depends on history": {3, func() drivertest.Harness { return historic{newFakeHarness(drivers.AllFeatures("wrong"))} }},
	"believes what it wrote last, after an error": {4, func() drivertest.Harness {
		return wrapped(func(_ *fakeHarness, d drivers.Driver) drivers.Driver { return &proud{Driver: d} })
	}},
	"names the innocent": {4, func() drivertest.Harness {
		return wrapped(func(_ *fakeHarness, d drivers.Driver) drivers.Driver { return blamer{d} })
	}},
	"lets one poison object stop all": {4, func() drivertest.Harness {
		return wrapped(func(_ *fakeHarness, d drivers.Driver) drivers.Driver { return quitter{d} })
	}},
	"forgets the sweep": {5, func() drivertest.Harness {
		return wrapped(func(h *fakeHarness, d drivers.Driver) drivers.Driver { return before{d, forgetsSweep(h)} })
	}},
	"sweeps what is foreign": {5, func() drivertest.Harness {
		return wrapped(func(h *fakeHarness, d drivers.Driver) drivers.Driver {
			return before{d, func(want *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes) {
				for o := range h.world.Foreign() {
					h.world.AddForeign(o, "swept")
				}
				return want, ch
			}}
		})
	}},
	"never resyncs": {6, func() drivertest.Harness {
		return wrapped(func(_ *fakeHarness, d drivers.Driver) drivers.Driver { return before{d, hasty()} })
	}},
	"opens before the first Apply": {7, func() drivertest.Harness {
		return wrapped(func(h *fakeHarness, d drivers.Driver) drivers.Driver {
			h.world.Edit(func(s *drivers.State) { s.Node.EndpointToHost = drivers.ToHostAccept })
			return d
		})
	}},
	"flushes when it is opened": {7, func() drivertest.Harness { return forgetful{newFakeHarness(drivers.AllFeatures("wrong"))} }},
	"lets unknown interfaces in while it is closed": {8, func() drivertest.Harness {
		h := newFakeHarness(drivers.AllFeatures("wrong"))
		h.meddle = func(held *drivers.State, open bool) {
			if !open {
				held.Node.WorkloadPrefixes = nil
			}
		}
		h.bend = func(p drivers.Packet) drivers.Packet {
			if h.open.Load() {
				return p
			}
			return unknownIsHost(p)
		}
		return h
	}},
	"loses established flows while it is closed": {9, func() drivertest.Harness {
		h := newFakeHarness(drivers.AllFeatures("wrong"))
		h.bend = func(p drivers.Packet) drivers.Packet {
			if h.open.Load() {
				return p
			}
			return ct(p, drivers.CTEstablished, drivers.CTNew)
		}
		return h
	}},
	"flushes before it fills": {9, func() drivertest.Harness {
		h := newFakeHarness(drivers.AllFeatures("wrong"))
		seen := make(chan struct{})
		h.meddle = func(*drivers.State, bool) {
			select {
			case seen <- struct{}{}:
			default:
			}
		}
		h.wrap = func(d drivers.Driver) drivers.Driver { return &flusher{Driver: d, h: h, seen: seen} }
		return h
	}},
	"writes all policies at each change": {10, func() drivertest.Harness {
		h := &counting{fakeHarness: newFakeHarness(drivers.AllFeatures("wrong"))}
		h.wrap = func(d drivers.Driver) drivers.Driver {
			return before{d, func(want *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes) {
				if ch != nil && !ch.Empty() {
					h.more.Add(int64(len(want.Policies)))
				}
				return want, ch
			}}
		}
		return h
	}},
}

// counting is a harness whose driver writes more than the World sees.
type counting struct {
	*fakeHarness
	more atomic.Int64
}

func (h *counting) Dump(ctx context.Context) (drivertest.Dump, error) {
	d, err := h.fakeHarness.Dump(ctx)
	d.Writes += int(h.more.Load())
	return d, err
}

// flusher is a driver that, restarted, empties the dataplane before it fills it anew, if a packet comes by to see it.
type flusher struct {
	drivers.Driver
	h       *fakeHarness
	seen    chan struct{}
	applied bool
}

func (d *flusher) Apply(ctx context.Context, want *drivers.State, ch *drivers.Changes) error {
	if d.h.restarted && !d.applied {
		was := d.h.world.State()
		d.h.world.Edit(func(s *drivers.State) { clear(s.Endpoints) })
		for range 2 { // the first may have looked before
			select {
			case <-d.seen:
			case <-time.After(20 * time.Millisecond): // no packet comes by
			}
		}
		d.h.world.Edit(func(s *drivers.State) { s.Endpoints = was.Endpoints })
	}
	d.applied = true
	return d.Driver.Apply(ctx, want, ch)
}

// forgetsSweep wants, at the first Apply, what is there besides what it is told.
func forgetsSweep(h *fakeHarness) func(*drivers.State, *drivers.Changes) (*drivers.State, *drivers.Changes) {
	first := true
	return func(want *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes) {
		if first {
			want = want.Clone()
			for id, set := range h.world.State().Sets {
				if want.Sets[id] == nil {
					want.Sets[id] = set
				}
			}
			for dst, r := range h.world.State().Routes {
				if want.Routes[dst] == nil {
					want.Routes[dst] = r
				}
			}
			for id, e := range h.world.State().Endpoints {
				if want.Endpoints[id] == nil {
					want.Endpoints[id] = e.StandIn("forgotten")
				}
			}
		}
		first = false
		return want, ch
	}
}

func wrapped(wrap func(*fakeHarness, drivers.Driver) drivers.Driver) drivertest.Harness {
	h := newFakeHarness(drivers.AllFeatures("wrong"))
	h.wrap = func(d drivers.Driver) drivers.Driver { return wrap(h, d) }
	return h
}
