package drivertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// stop is a State on a walk, how to look at it, and what a driver that went straight there left.
type stop struct {
	s      *drivers.State // as written
	low    *drivers.State
	ps     []Probe
	direct string // dump
}

const stopsPerWalk = 5

// walk makes the stops of a walk. The State that they are reached from is an empty one with the driver just opened.
func (r *runner) walk(ctx context.Context, seed uint64) ([]stop, error) {
	g := newGen(seed)
	s := g.state()
	var stops []stop
	for i := range stopsPerWalk {
		if i == stopsPerWalk/2 {
			s = g.state() // one big step
		} else if i > 0 {
			s = g.mutate(s)
		}
		st, err := r.stop(ctx, s, g.probes(s, 12))
		if err != nil {
			return nil, err
		}
		stops = append(stops, st)
	}
	return stops, nil
}

// stop goes straight to s.
func (r *runner) stop(ctx context.Context, s *drivers.State, ps []Probe) (stop, error) {
	if err := r.open(ctx, true); err != nil {
		return stop{}, err
	}
	low, err := r.apply(ctx, s, noHint)
	if err != nil {
		return stop{}, err
	}
	direct, _, err := r.dump(ctx)
	return stop{s, low, ps, direct}, err
}

// at sees that the driver stands at a stop: by its dump, and by what becomes of packets.
func (r *runner) at(ctx context.Context, st stop) error {
	got, dumps, err := r.dump(ctx)
	if err != nil {
		return err
	}
	if dumps && got != st.direct {
		return fmt.Errorf("the dataplane is not what the direct path makes ('-' direct, '+' this way):\n%s", firstDifference(st.direct, got))
	}
	return r.verify(ctx, st.low, st.ps)
}

// paths sees that a State is the same however the driver got there.
func (r *runner) paths(ctx context.Context) error {
	for i := range r.o.Walks {
		seed := r.o.Seed + uint64(i)
		stops, err := r.walk(ctx, seed)
		if err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
		for _, way := range []struct {
			name string
			walk func(context.Context, []stop) error
		}{
			{"forward", r.forward}, {"backward", r.backward}, {"with empty States between", r.empties}, {"squashed", r.squashed},
			{"split", r.split}, {"back and forth", r.backAndForth},
		} {
			if err := r.open(ctx, true); err != nil {
				return err
			}
			if err := way.walk(ctx, stops); err != nil {
				return fmt.Errorf("seed %d, %s: %w", seed, way.name, err)
			}
		}
	}
	return nil
}

// step goes to one stop with a hint, and looks around.
func (r *runner) step(ctx context.Context, st stop) error {
	if _, err := r.apply(ctx, st.s, exact); err != nil {
		return err
	}
	return r.at(ctx, st)
}

func (r *runner) forward(ctx context.Context, stops []stop) error {
	for _, st := range stops {
		if err := r.step(ctx, st); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) backward(ctx context.Context, stops []stop) error {
	for _, st := range slices.Backward(stops) {
		if err := r.step(ctx, st); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) backAndForth(ctx context.Context, stops []stop) error {
	for i := range 3 * len(stops) {
		if err := r.step(ctx, stops[i*3%len(stops)]); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) empties(ctx context.Context, stops []stop) error {
	for _, st := range stops {
		if err := r.step(ctx, st); err != nil {
			return err
		}
		none := drivers.NewState()
		none.Node = st.s.Node
		if _, err := r.apply(ctx, none, exact); err != nil {
			return err
		}
	}
	return nil
}

// squashed goes from the first stop to the last in one step whose hint is the sum of all steps: keys that are touched
// without need, sets that are Full.
func (r *runner) squashed(ctx context.Context, stops []stop) error {
	if err := r.step(ctx, stops[0]); err != nil {
		return err
	}
	ch := drivers.NewChanges()
	for i := range stops[1:] {
		addChanges(ch, Diff(stops[i].low, stops[i+1].low))
	}
	last := stops[len(stops)-1]
	if err := r.applyLowered(ctx, last.low, ch); err != nil {
		return err
	}
	return r.at(ctx, last)
}

// addChanges adds what more says to ch; sets become Full, as after an error.
func addChanges(ch, more *drivers.Changes) {
	ch.Node, ch.Masquerade = ch.Node || more.Node, ch.Masquerade || more.Masquerade
	maps.Copy(ch.Endpoints, more.Endpoints)
	maps.Copy(ch.Policies, more.Policies)
	maps.Copy(ch.Routes, more.Routes)
	maps.Copy(ch.Peers, more.Peers)
	for id := range more.Sets {
		ch.Sets[id] = &drivers.SetChange{Full: true}
	}
}

// split goes from stop to stop in small steps, in each of which every reference resolves: first what is new beside what
// is there, then each endpoint by itself, then what is not needed any more goes.
func (r *runner) split(ctx context.Context, stops []stop) error {
	if err := r.step(ctx, stops[0]); err != nil {
		return err
	}
	for i := range stops[1:] {
		old, now := stops[i].s, stops[i+1].s
		mid := old.Clone()
		maps.Copy(mid.Sets, now.Sets)
		if err := r.pass(ctx, mid); err != nil {
			return err
		}
		maps.Copy(mid.Policies, now.Policies)
		maps.Copy(mid.Peers, now.Peers)
		if err := r.pass(ctx, mid); err != nil {
			return err
		}
		for _, id := range sortedKeys(old.Endpoints) {
			if mid = mid.Clone(); now.Endpoints[id] == nil {
				delete(mid.Endpoints, id)
			} else {
				mid.Endpoints[id] = now.Endpoints[id]
			}
			if err := r.pass(ctx, mid); err != nil {
				return err
			}
		}
		if err := r.step(ctx, stops[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) pass(ctx context.Context, s *drivers.State) error {
	_, err := r.apply(ctx, s.Clone(), exact)
	return err
}

// restart sees that the dataplane goes on when the driver has gone, that a new driver touches nothing before its first
// Apply and nothing that is right already in it, and that it sweeps what an older one left.
func (r *runner) restart(ctx context.Context) error {
	for i := range r.o.Walks {
		seed := r.o.Seed + uint64(i)
		stops, err := r.walk(ctx, seed)
		if err == nil {
			err = r.restartAt(ctx, stops)
		}
		if err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
	}
	return nil
}

func (r *runner) restartAt(ctx context.Context, stops []stop) error {
	first, last := stops[0], stops[len(stops)-1]
	if err := r.open(ctx, true); err != nil {
		return err
	}
	if err := r.step(ctx, first); err != nil {
		return err
	}
	if err := r.close(); err != nil {
		return err
	}
	if err := r.at(ctx, first); err != nil {
		return fmt.Errorf("after Close: %w", err)
	}
	if err := r.open(ctx, false); err != nil {
		return err
	}
	if err := r.at(ctx, first); err != nil {
		return fmt.Errorf("opened again, before the first Apply: %w", err)
	}
	was, counts := r.writes()
	if _, err := r.apply(ctx, first.s, noHint); err != nil {
		return err
	}
	if now, _ := r.writes(); counts && now != was {
		return fmt.Errorf("the first Apply after a restart made %d writes where all was right", now-was)
	}
	if err := r.at(ctx, first); err != nil {
		return fmt.Errorf("the first Apply after a restart: %w", err)
	}
	if err := r.open(ctx, false); err != nil {
		return err
	}
	if err := r.step(ctx, last); err != nil {
		return fmt.Errorf("restarted over an older world: %w", err)
	}
	return nil
}

// firstDifference shows the first lines in which two texts differ, with a little of what is around them.
func firstDifference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	i := 0
	for i < len(as) && i < len(bs) && as[i] == bs[i] {
		i++
	}
	var sb strings.Builder
	for _, l := range as[max(0, i-3):min(i, len(as))] {
		fmt.Fprintf(&sb, "  %s\n", l)
	}
	for _, l := range as[i:min(i+5, len(as))] {
		fmt.Fprintf(&sb, "- %s\n", l)
	}
	for _, l := range bs[i:min(i+5, len(bs))] {
		fmt.Fprintf(&sb, "+ %s\n", l)
	}
	return sb.String()
}
