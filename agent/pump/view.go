package pump

import (
	"context"
	"time"

	"github.com/tortie/tortie/drivers"
)

// View is what a pump holds. Readers must not change or keep any of its maps; the values in a State may be kept.
type View struct {
	// Wanted is the State as it was offered; Applied is the same as the driver gets it, after Lower.
	Wanted, Applied *drivers.State
	// Losses are what Lower had to rewrite.
	Losses []drivers.Loss
	// Unapplied are objects whose last value the dataplane does not have yet; AllUnapplied says that it may have none.
	Unapplied    map[drivers.ObjectRef]struct{}
	AllUnapplied bool
	// Failed are objects that the dataplane has refused.
	Failed map[drivers.ObjectRef]error
	// Merged is the number of the last Offer that is in Wanted.
	Merged uint64
	// InSync says that Wanted follows the graph; before, it is the Boot State or empty.
	InSync bool

	Started time.Time // of an Apply, or another call of the driver, that runs
	Last    Result    // of the last Apply that ended; zero before the first
	Success time.Time // end of the last Apply without any error
	Retry   time.Time // when what failed is tried again
	Stuck   bool      // it is long over its deadline
	version uint64
}

// Version is another one whenever the States in the View are, or how much of them is in the dataplane.
func (v *View) Version() uint64 { return v.version }

// Clean reports whether the dataplane has every object of the State as it must be.
func (v *View) Clean() bool { return !v.AllUnapplied && len(v.Unapplied) == 0 && len(v.Failed) == 0 }

func newView() View {
	return View{
		Wanted: drivers.NewState(), Applied: drivers.NewState(), AllUnapplied: true,
		Unapplied: map[drivers.ObjectRef]struct{}{}, Failed: map[drivers.ObjectRef]error{},
	}
}

// Read calls fn with the View, which holds still meanwhile: fn must be quick.
func (p *Pump) Read(fn func(*View)) {
	p.vmu.RLock()
	defer p.vmu.RUnlock()
	fn(&p.view)
}

// Wait calls fn with the View now and after each Apply, until it returns true.
func (p *Pump) Wait(ctx context.Context, fn func(*View) bool) error {
	for {
		p.vmu.RLock()
		ok, changed := fn(&p.view), p.changed
		p.vmu.RUnlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-p.done:
			return ErrStopped
		}
	}
}

// edit changes the View.
func (p *Pump) edit(fn func(*View)) {
	p.vmu.Lock()
	defer p.vmu.Unlock()
	fn(&p.view)
	p.view.version++
}

// mark changes what the View says of the call that runs.
func (p *Pump) mark(fn func(*View)) {
	p.vmu.Lock()
	defer p.vmu.Unlock()
	fn(&p.view)
}

// announce wakes up those who Wait.
func (p *Pump) announce() {
	p.vmu.Lock()
	defer p.vmu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

// touch notes that the objects in ch are not in the dataplane yet.
func (v *View) touch(ch *drivers.Changes) {
	note := func(r drivers.ObjectRef) { v.Unapplied[r] = struct{}{} }
	if ch.Node {
		note(drivers.ObjectRef{Kind: drivers.ObjNode})
	}
	if ch.Masquerade {
		note(drivers.ObjectRef{Kind: drivers.ObjMasquerade})
	}
	for id := range ch.Endpoints {
		note(drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id})
	}
	for id := range ch.Policies {
		note(drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id})
	}
	for id := range ch.Sets {
		note(drivers.ObjectRef{Kind: drivers.ObjSet, Set: id})
	}
	for dst := range ch.Routes {
		note(drivers.ObjectRef{Kind: drivers.ObjRoute, Route: dst})
	}
	for name := range ch.Peers {
		note(drivers.ObjectRef{Kind: drivers.ObjPeer, Peer: name})
	}
}
