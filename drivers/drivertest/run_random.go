package drivertest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// statesPerChain is how many States follow one another by small changes before the generator begins anew.
const statesPerChain = 5

// random sends packets at random States. Each chain of States has a generator of its own; its seed is the suite's and the
// chain's number.
func (r *runner) random(ctx context.Context) error {
	var errs []error
	allowed, progress := 0, max(500, r.o.Random/5)
	var past []Scene // of all chains: what came before may matter
	for chain := uint64(0); r.pairs < r.o.Random; chain++ {
		g := newGen(r.o.Seed + chain)
		var scenes []Scene
		for i := 0; i < statesPerChain && r.pairs < r.o.Random; i++ {
			s := g.next(scenes)
			sc := sceneOf(s, g.probes(s, min(probesPerState, r.o.Random-r.pairs))...)
			if g.chance(20) {
				sc.Before = []Event{{Kind: Resync}}
			}
			scenes = append(scenes, sc)
			past = append(past[max(0, len(past)-2*statesPerChain):], sc)
			pl := &player{runner: r, hint: exact}
			f := pl.play(ctx, []Scene{sc})
			r.pairs, allowed = r.pairs+len(sc.Lines), allowed+pl.allowed
			if f == nil {
				continue
			}
			f.scene = len(past) - 1
			errs = append(errs, fmt.Errorf("seed %d, state %d: %w", r.o.Seed+chain, i, r.report(ctx, verdicts, past, f)))
			break
		}
		if len(errs) >= 3 {
			return errors.Join(append(errs, errors.New("enough"))...)
		}
		if r.pairs >= progress {
			r.say("random: %d of %d pairs, %d%% allowed", r.pairs, r.o.Random, 100*allowed/r.pairs)
			progress += max(500, r.o.Random/5)
		}
	}
	return errors.Join(errs...)
}

// next is the State that comes after scenes.
func (g *gen) next(scenes []Scene) *drivers.State {
	if len(scenes) == 0 {
		return g.state()
	}
	return g.mutate(scenes[len(scenes)-1].State)
}

// sceneOf is a scene of one State and some packets, with the verdicts that the oracle gives.
func sceneOf(s *drivers.State, ps ...Probe) Scene {
	sc := Scene{Title: "state", State: s}
	o := newOracle(s)
	for _, p := range ps {
		l := Line{Probes: []Probe{p}}
		verdict := " = deny"
		if l.Allow, l.Masq = o.expect(p.Packet); l.Masq {
			verdict = " = allow masqueraded"
		} else if l.Allow {
			verdict = " = allow"
		}
		l.Text = probeText(p) + verdict
		sc.Lines = append(sc.Lines, l)
	}
	return sc
}

// report makes a Breach of what was found while scenes were played, with a case that shows it on a fresh dataplane.
func (r *runner) report(ctx context.Context, p property, scenes []Scene, f *finding) error {
	if f.fatal {
		return f.err
	}
	b := &Breach{Property: int(p), Sentence: contract[p].says, What: f.err}
	scenes = slices.Clone(scenes[:f.scene+1])
	for _, from := range []int{f.scene, max(0, f.scene-1), 0} {
		// Not one step more of the way than it takes; and first without the packets that show nothing.
		for _, bare := range []bool{true, false} {
			try := slices.Clone(scenes[from:])
			if bare {
				try = onlyProbe(try, f.probe)
			}
			if !playable(try) || !r.fails(ctx, try) {
				continue
			}
			small := r.shrink(ctx, try)
			b.Case = caseText("Found by the generator.", small)
			if _, g, err := r.fresh(ctx, small, nil); err == nil && g != nil {
				b.What = g.err // in the words of the small case
			}
			return b
		}
	}
	b.Hint = "on a fresh dataplane it does not happen: what came before matters. The last States, as a case"
	b.Case = caseText("Found by the generator.", onlyProbe(scenes[max(0, len(scenes)-2):], f.probe))
	return b
}

// fails reports whether scenes show something on a fresh dataplane.
func (r *runner) fails(ctx context.Context, scenes []Scene) bool {
	_, f, err := r.fresh(ctx, scenes, nil)
	return err == nil && f != nil && !f.fatal
}

// onlyProbe keeps of the packets of scenes the one that shows something, in the last.
func onlyProbe(scenes []Scene, p *Probe) []Scene {
	scenes = slices.Clone(scenes)
	for i := range scenes {
		scenes[i].Lines = nil
	}
	if last := &scenes[len(scenes)-1]; p != nil {
		last.Lines = sceneOf(last.State, *p).Lines
	}
	return scenes
}

// playable reports whether scenes can be a case: nothing in the first refers to what was before it.
func playable(scenes []Scene) bool {
	first := &scenes[0]
	if first.Kept || first.has(Tamper) || first.has(Stop) || first.has(Start) || first.has(Squash) || first.fault() != (Event{}) {
		return false
	}
	return true
}
