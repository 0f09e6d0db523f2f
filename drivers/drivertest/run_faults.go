package drivertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// failuresPerStep bounds how many different writes of one Apply are made to fail.
const failuresPerStep = 60

// failures makes the n-th write of an Apply fail, for every n, and lets the world move on before the next Apply. That one
// must succeed, with a hint, and leave what a driver that never failed leaves.
func (r *runner) failures(ctx context.Context) error {
	for i := range r.o.Walks {
		seed := r.o.Seed + uint64(i)
		stops, err := r.walk(ctx, seed)
		if err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
		for j := 0; j+2 < len(stops); j++ {
			for n, more := 1, true; more && n <= failuresPerStep; n++ {
				if more, err = r.failWrite(ctx, n, stops[j:j+3]); err != nil {
					return fmt.Errorf("seed %d, stop %d, write %d fails: %w", seed, j+1, n, err)
				}
			}
		}
	}
	return nil
}

// failWrite goes from the first of three stops to the second, with the n-th write failing, and on to the third. It reports
// whether there was an n-th write.
func (r *runner) failWrite(ctx context.Context, n int, stops []stop) (bool, error) {
	if err := r.open(ctx, true); err != nil {
		return false, err
	}
	if _, err := r.apply(ctx, stops[0].s, noHint); err != nil {
		return false, err
	}
	failer, _ := r.h.(Failer)
	failer.FailWrite(n)
	ch := Diff(stops[0].low, stops[1].low)
	err := r.applyLowered(ctx, stops[1].low, ch)
	failer.FailWrite(0)
	if err == nil {
		return false, r.at(ctx, stops[1])
	}
	ch = Diff(stops[0].low, stops[1].low)
	ch.AfterError()
	addChanges(ch, Diff(stops[1].low, stops[2].low))
	if err := r.applyLowered(ctx, stops[2].low, ch); err != nil {
		return true, fmt.Errorf("the next Apply: %w", err)
	}
	return true, r.at(ctx, stops[2])
}

// damages is how many times one stop is tampered with.
const damages = 25

// tampering sees that a resync repairs what somebody damaged, and nothing else.
func (r *runner) tampering(ctx context.Context) error {
	tamperer, _ := r.h.(Tamperer)
	for i := range r.o.Walks {
		seed := r.o.Seed + uint64(i)
		stops, err := r.walk(ctx, seed)
		if err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
		for _, st := range stops {
			if err := r.step(ctx, st); err != nil {
				return err
			}
			for n := range uint64(damages) {
				what, err := tamperer.Tamper(ctx, n*2654435761+seed)
				if err != nil {
					return fmt.Errorf("tampering: %w", err)
				}
				if what == "" {
					break
				}
				if _, err := r.apply(ctx, st.s, noHint); err != nil {
					return fmt.Errorf("seed %d, %s: %w", seed, what, err)
				}
				if err := r.at(ctx, st); err != nil {
					return fmt.Errorf("seed %d, %s: %w", seed, what, err)
				}
			}
		}
	}
	return nil
}

// refusals lets the kernel refuse one policy or set for good. The Apply must name it and nothing that is innocent, deny at
// the endpoints that need it, and do all else; when the object is acceptable again the next Apply mends everything.
func (r *runner) refusals(ctx context.Context) error {
	refuser, _ := r.h.(Refuser)
	defer refuser.Refuse(drivers.ObjectRef{})
	tries, refused := 0, 0
	for i := range r.o.Walks {
		seed := r.o.Seed + uint64(i)
		stops, err := r.walk(ctx, seed)
		if err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
		for i := range stops[1:] {
			for _, poison := range poisonsOf(stops[i].low, stops[i+1].low) {
				was, err := r.refuse(ctx, refuser, stops[i:i+2], poison)
				if err != nil {
					return fmt.Errorf("seed %d, %s is refused: %w", seed, poison, err)
				}
				if tries++; was {
					refused++
				}
			}
		}
	}
	if refused*4 < tries {
		return fmt.Errorf("of %d objects that the kernel was to refuse the driver wrote %d: this proves little", tries, refused)
	}
	return nil
}

// poisonsOf are some policies and sets that an Apply from old to now writes.
func poisonsOf(old, now *drivers.State) []drivers.ObjectRef {
	var os []drivers.ObjectRef
	ch := Diff(old, now)
	for id := range ch.Policies {
		if p := now.Policies[id]; p != nil && !p.Staged {
			os = append(os, drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id})
		}
	}
	for id := range ch.Sets {
		if o := (drivers.ObjectRef{Kind: drivers.ObjSet, Set: id}); now.Sets[id] != nil && !stagedNeeds(now, o) {
			os = append(os, o)
		}
	}
	slices.SortFunc(os, func(a, b drivers.ObjectRef) int { return strings.Compare(a.String(), b.String()) })
	return os[:min(len(os), 6)]
}

// stagedNeeds reports whether a staged policy names o: drivers are free to render what it names, or not.
func stagedNeeds(s *drivers.State, o drivers.ObjectRef) bool {
	for _, p := range s.Policies {
		if p.Staged && needs(p, o) {
			return true
		}
	}
	return false
}

// refuse goes from one stop to the next while poison is refused, and again when it is not. It reports whether the kernel
// had anything to refuse: a driver need not write an object that has nothing to say, and then all must be as if nothing
// were the matter.
func (r *runner) refuse(ctx context.Context, refuser Refuser, stops []stop, poison drivers.ObjectRef) (bool, error) {
	if err := r.open(ctx, true); err != nil {
		return false, err
	}
	if err := r.step(ctx, stops[0]); err != nil {
		return false, err
	}
	st := stops[1]
	refuser.Refuse(poison)
	err := r.applyLowered(ctx, st.low, Diff(stops[0].low, st.low))
	refuser.Refuse(drivers.ObjectRef{})
	if err == nil {
		return false, r.at(ctx, st)
	}
	var partly *drivers.ApplyError
	switch {
	case !errors.As(err, &partly):
		return true, fmt.Errorf("got %w, want an ApplyError", err)
	case partly.Failed[poison] == nil || len(partly.Failed) != 1:
		return true, fmt.Errorf("the error names %w", err)
	}
	if err := r.verify(ctx, standIns(st.low, poison), st.ps); err != nil {
		return true, err
	}
	ch := Diff(stops[0].low, st.low).AfterApplyError(partly, st.low)
	if err := r.applyLowered(ctx, st.low, ch); err != nil {
		return true, fmt.Errorf("acceptable again: %w", err)
	}
	return true, r.at(ctx, st)
}

// endpointsOn are the endpoints of s that need a policy, or a set by way of a policy.
func endpointsOn(s *drivers.State, o drivers.ObjectRef) []drivers.EndpointID {
	var ids []drivers.EndpointID
	for _, id := range sortedKeys(s.Endpoints) {
		for pid := range s.Endpoints[id].PolicyIDs {
			if needs(s.Policies[pid], o) {
				ids = append(ids, id)
				break
			}
		}
	}
	return ids
}

func needs(p *drivers.Policy, o drivers.ObjectRef) bool {
	if o.Kind == drivers.ObjPolicy {
		return p.ID == o.Policy
	}
	return slices.ContainsFunc(slices.Concat(p.In, p.Out), func(r drivers.Rule) bool {
		_, names := setRefs(&r)[o.Set]
		return names
	})
}

// standIns is s with deny stand-ins for the endpoints that need o.
func standIns(s *drivers.State, o drivers.ObjectRef) *drivers.State {
	c := s.Clone()
	for _, id := range endpointsOn(s, o) {
		c.Endpoints[id] = s.Endpoints[id].StandIn("refused")
	}
	return c
}
