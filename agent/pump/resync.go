package pump

import (
	"time"

	"github.com/tortie/tortie/drivers"
)

const (
	resyncTicks = 60 // of one round
	// membersPerObject is how many members of a set cost as much to compare as another object does.
	membersPerObject = 64
)

// resync goes round the objects of a State, a slice with each tick, so that comparing a large State with the kernel
// never takes long at a time.
type resync struct {
	full   time.Duration // of one round
	every  time.Duration // between ticks; 0 = never
	next   time.Time
	queue  []drivers.ObjectRef
	weight int // of a tick
}

func newResync(round time.Duration) resync {
	every := round / resyncTicks
	if round > 0 && every <= 0 {
		every = 1
	}
	return resync{full: round, every: every}
}

// set makes rounds take another time from now on. What is queued stays.
func (r *resync) set(now time.Time, round time.Duration) {
	if r.full == round {
		return
	}
	n := newResync(round)
	r.full, r.every = n.full, n.every
	if !r.next.IsZero() {
		r.start(now)
	}
}

// start begins to tick.
func (r *resync) start(now time.Time) { r.next = now.Add(r.every) }

// due reports whether a tick is due, and when the next one is (zero = never).
func (r *resync) due(now time.Time) (bool, time.Time) {
	if r.every == 0 || r.next.IsZero() {
		return false, time.Time{}
	}
	return !now.Before(r.next), r.next
}

// tick marks the next slice of s in ch.
func (r *resync) tick(now time.Time, s *drivers.State, ch *drivers.Changes) {
	r.next = now.Add(r.every)
	if len(r.queue) == 0 {
		r.round(s)
	}
	for left := r.weight; left > 0 && len(r.queue) > 0; {
		ref := r.queue[len(r.queue)-1]
		r.queue = r.queue[:len(r.queue)-1]
		left -= cost(s, ref)
		mark(s, ref, ch)
	}
}

// round queues every object of s.
func (r *resync) round(s *drivers.State) {
	r.queue = append(r.queue[:0], drivers.ObjectRef{Kind: drivers.ObjNode}, drivers.ObjectRef{Kind: drivers.ObjMasquerade})
	for id := range s.Endpoints {
		r.queue = append(r.queue, drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id})
	}
	for id := range s.Policies {
		r.queue = append(r.queue, drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id})
	}
	for id := range s.Sets {
		r.queue = append(r.queue, drivers.ObjectRef{Kind: drivers.ObjSet, Set: id})
	}
	for dst := range s.Routes {
		r.queue = append(r.queue, drivers.ObjectRef{Kind: drivers.ObjRoute, Route: dst})
	}
	for name := range s.Peers {
		r.queue = append(r.queue, drivers.ObjectRef{Kind: drivers.ObjPeer, Peer: name})
	}
	total := 0
	for _, ref := range r.queue {
		total += cost(s, ref)
	}
	r.weight = (total + resyncTicks - 1) / resyncTicks
}

func cost(s *drivers.State, ref drivers.ObjectRef) int {
	if set := s.Sets[ref.Set]; ref.Kind == drivers.ObjSet && set != nil {
		return 1 + set.Len()/membersPerObject
	}
	return 1
}

// mark puts an object into ch: compare it with the kernel. It may be gone since it was queued; it is in ch already then,
// or was applied.
func mark(s *drivers.State, ref drivers.ObjectRef, ch *drivers.Changes) {
	switch ref.Kind {
	case drivers.ObjNode:
		ch.Node = true
	case drivers.ObjMasquerade:
		ch.Masquerade = true
	case drivers.ObjEndpoint:
		markIf(s.Endpoints, ref.Endpoint, ch.Endpoints)
	case drivers.ObjPolicy:
		markIf(s.Policies, ref.Policy, ch.Policies)
	case drivers.ObjRoute:
		markIf(s.Routes, ref.Route, ch.Routes)
	case drivers.ObjPeer:
		markIf(s.Peers, ref.Peer, ch.Peers)
	case drivers.ObjSet:
		if s.Sets[ref.Set] != nil {
			ch.Sets[ref.Set] = &drivers.SetChange{Full: true}
		}
	}
}

func markIf[K comparable, V any](have map[K]*V, k K, ch map[K]struct{}) {
	if have[k] != nil {
		ch[k] = struct{}{}
	}
}
