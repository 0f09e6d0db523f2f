package drivertest_test

import (
	"context"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// remembering makes a driver whose mistake depends on what it was told before. bend is made anew for each driver.
func remembering(bend func() func(want *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes)) func(*fakeHarness) {
	return func(h *fakeHarness) {
		h.wrap = func(d drivers.Driver) drivers.Driver { return wrong{d, bend()} }
	}
}

// keepsAddresses lets an endpoint go on using what it once had, until a resync.
func keepsAddresses() func(*drivers.State, *drivers.Changes) (*drivers.State, *drivers.Changes) {
	had := map[drivers.EndpointID]*drivers.Endpoint{}
	return func(want *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes) {
		want = want.Clone()
		was := had
		had = map[drivers.EndpointID]*drivers.Endpoint{}
		for id, e := range want.Endpoints {
			had[id] = e
			if old := was[id]; old != nil && ch != nil {
				c := *e
				c.Addrs = slices.Clone(e.Addrs)
				for _, a := range old.Addrs {
					if !slices.Contains(c.Addrs, a) {
						c.Addrs = append(c.Addrs, a)
					}
				}
				want.Endpoints[id] = &c
			}
		}
		return want, ch
	}
}

// losesOverlapping does not add a prefix that overlaps one that is there, as a kernel's interval set would have it, and
// knows nothing of it any more when that one leaves.
func losesOverlapping() func(*drivers.State, *drivers.Changes) (*drivers.State, *drivers.Changes) {
	held := map[drivers.SetID]*drivers.Set{}
	return func(want *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes) {
		want = want.Clone()
		for id, set := range want.Sets {
			if old := held[id]; old != nil && ch != nil && old.Kind() == drivers.SetNet && set.Kind() == drivers.SetNet {
				var gone, come []drivers.Member
				for m := range old.All() {
					if !set.Has(m) {
						gone = append(gone, m)
					}
				}
				for m := range set.All() {
					if sc := ch.Sets[id]; sc != nil && !old.Has(m) && !overlaps(old, m) {
						come = append(come, m)
					}
				}
				want.Sets[id] = old.With(come, gone)
				ch.Sets[id] = &drivers.SetChange{Full: true}
			}
			held[id] = want.Sets[id]
		}
		return want, ch
	}
}

func overlaps(set *drivers.Set, m drivers.Member) bool {
	for x := range set.All() {
		if x.Prefix.Overlaps(m.Prefix) {
			return true
		}
	}
	return false
}

// sharesMembers counts no contributors: a member that leaves a set leaves with whatever it covered.
func sharesMembers() func(*drivers.State, *drivers.Changes) (*drivers.State, *drivers.Changes) {
	held := map[drivers.SetID]*drivers.Set{}
	return func(want *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes) {
		want = want.Clone()
		for id, set := range want.Sets {
			if old := held[id]; old != nil && ch != nil && set.Kind() == drivers.SetNet && old.Kind() == drivers.SetNet {
				var also []drivers.Member
				for m := range old.All() {
					if set.Has(m) {
						continue
					}
					for x := range set.All() {
						if m.Prefix.Overlaps(x.Prefix) {
							also = append(also, x)
						}
					}
				}
				want.Sets[id] = set.With(nil, also)
				ch.Sets[id] = &drivers.SetChange{Full: true}
			}
			held[id] = want.Sets[id]
		}
		return want, ch
	}
}

// ignoresFirst takes what it is told first for a rehearsal.
func ignoresFirst() func(*drivers.State, *drivers.Changes) (*drivers.State, *drivers.Changes) {
	first := true
	return func(want *drivers.State, ch *drivers.Changes) (*drivers.State, *drivers.Changes) {
		if first {
			first = false
			return drivers.NewState(), ch
		}
		return want, ch
	}
}

// forgetful is a harness whose dataplane does not outlive its driver.
type forgetful struct{ *fakeHarness }

func (h forgetful) Open(ctx context.Context, _ bool) (drivers.Driver, error) {
	return h.fakeHarness.Open(ctx, true)
}
