package drivertest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// failuresPerStep bounds how many different writes of one Apply are made to fail.
const failuresPerStep = 60

// everyWrite makes the n-th write of an Apply fail, for every n, and lets the world move on before the next Apply. That one
// must succeed, with a hint, and leave what a driver that never failed leaves.
func (r *runner) everyWrite(ctx context.Context, seed uint64) error {
	scenes := walk(seed)
	known := map[*drivers.State]string{}
	for i := range scenes[2:] {
		for n, more := uint64(1), true; more && n <= failuresPerStep; n++ {
			from := scenes[i]
			from.Check = false
			pl, err := r.story(ctx, failures, []Scene{from, again(scenes[i+1], Event{Kind: Fail, N: n}), scenes[i+2]}, known)
			if err != nil {
				return seeded(seed, fmt.Sprintf("stop %d, write %d fails", i+1, n), err)
			}
			more = pl.failed
		}
	}
	return nil
}

// damages is how many times one stop is tampered with.
const damages = 12

// damage sees that a resync repairs what somebody damaged, and nothing else.
func (r *runner) damage(ctx context.Context, seed uint64) error {
	var scenes []Scene
	for _, sc := range walk(seed) {
		scenes = append(scenes, sc)
		for n := range uint64(damages) {
			scenes = append(scenes, again(sc, Event{Kind: Tamper, N: n*2654435761 + seed}))
		}
	}
	_, err := r.story(ctx, tampering, scenes, nil)
	return seeded(seed, "damaged", err)
}

// refusals lets the dataplane refuse one policy or set for good. The Apply must name it and nothing that is innocent, deny
// at the endpoints that need it, and do all else; when the object is acceptable again the next Apply mends everything.
func (r *runner) refusals(ctx context.Context) error {
	tries, refused := 0, 0
	for i := range r.o.Walks {
		seed := r.o.Seed + uint64(i)
		scenes := walk(seed)
		known := map[*drivers.State]string{}
		for i := range scenes[1:] {
			from, to := scenes[i], scenes[i+1]
			from.Check = false
			for _, poison := range r.poisonsOf(from.State, to.State) {
				pl, err := r.story(ctx, failures, []Scene{from, again(to, Event{Kind: Refuse, Object: poison})}, known)
				if err != nil {
					return seeded(seed, fmt.Sprintf("stop %d, %s is refused", i+1, poison), err)
				}
				if tries++; pl.refused {
					refused++
				}
			}
		}
	}
	if refused*4 < tries {
		return fmt.Errorf("of %d objects that the dataplane was to refuse the driver wrote %d: this proves little", tries, refused)
	}
	return nil
}

// poisonsOf are some policies and sets that an Apply from old to now writes.
func (r *runner) poisonsOf(old, now *drivers.State) []drivers.ObjectRef {
	var os []drivers.ObjectRef
	old, _ = drivers.Lower(old, r.f)
	now, _ = drivers.Lower(now, r.f)
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
