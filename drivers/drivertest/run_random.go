package drivertest

import (
	"context"
	"errors"
	"fmt"

	"github.com/tortie/tortie/drivers"
)

// statesPerChain is how many States follow one another by small changes before the generator begins anew.
const statesPerChain = 5

// random sends packets at random States. Each chain of States has a generator of its own; its seed is the suite's and the
// chain's number.
func (r *runner) random(ctx context.Context) error {
	var errs []error
	allowed, progress := 0, 500
	var done int
	for chain := uint64(0); done < r.o.Random; chain++ {
		g := newGen(r.o.Seed + chain)
		var s *drivers.State
		for i := 0; i < statesPerChain && done < r.o.Random; i++ {
			before := s
			if i == 0 {
				s = g.state()
			} else {
				s = g.mutate(s)
			}
			h := exact
			if g.chance(20) {
				h = noHint
			}
			ps := g.probes(s, min(probesPerState, r.o.Random-done))
			n, err := r.pair(ctx, before, s, ps, h)
			if err != nil {
				errs = append(errs, fmt.Errorf("seed %d, state %d: %w", r.o.Seed+chain, i, err))
			}
			done, allowed = done+len(ps), allowed+n
		}
		if len(errs) >= 3 {
			return errors.Join(append(errs, errors.New("enough"))...)
		}
		if done >= progress {
			r.say("random: %d of %d pairs, %d%% allowed", done, r.o.Random, 100*allowed/done)
			progress += max(500, r.o.Random/6)
		}
	}
	return errors.Join(errs...)
}

// pair applies s, which came after before, and sends probes. It returns how many the oracle allows.
func (r *runner) pair(ctx context.Context, before, s *drivers.State, ps []Probe, h hint) (int, error) {
	low, err := r.apply(ctx, s, h)
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, stateText(s))
	}
	rs, err := r.send(ctx, s, ps)
	if err != nil {
		return 0, err
	}
	o, written := newOracle(low), newOracle(s)
	allowed := 0
	for i, p := range ps {
		arrives, _ := o.expect(p.Packet)
		if written.widened(p.Packet, arrives) {
			return 0, fmt.Errorf("lowered for %s, the State allows what is denied as written:\n%s", r.f.Driver, caseOf(s, p))
		}
		if arrives {
			allowed++
		}
		if err := o.judge(p, rs[i]); err != nil {
			return allowed, r.explain(ctx, before, s, p, err)
		}
	}
	return allowed, nil
}

// explain turns a disagreement into a case that shows it, as small as it will go.
func (r *runner) explain(ctx context.Context, before, s *drivers.State, p Probe, found error) error {
	if err := r.open(ctx, true); err != nil {
		return errors.Join(found, err)
	}
	if !r.disagrees(ctx, s, p) {
		scenes := []Scene{sceneOf(s, p)}
		if before != nil {
			scenes = append([]Scene{{State: before}}, scenes...)
		}
		return fmt.Errorf("%w\nnot on a fresh dataplane: what came before matters. The last two States, as a case:\n%s",
			found, caseText("Found by the generator.", scenes))
	}
	tries := 300
	small := shrink(s, func(c *drivers.State) bool {
		tries--
		return tries >= 0 && CheckProbe(c, p) == nil && r.disagrees(ctx, c, p)
	})
	return fmt.Errorf("%w\nas a case:\n%s", found, caseOf(small, p))
}

// disagrees reports whether s, applied without a hint, makes the driver and the oracle differ about p.
func (r *runner) disagrees(ctx context.Context, s *drivers.State, p Probe) bool {
	low, err := r.apply(ctx, s, noHint)
	if err != nil {
		return false
	}
	rs, err := r.send(ctx, s, []Probe{p})
	return err == nil && newOracle(low).judge(p, rs[0]) != nil
}

// caseOf writes a case of one State and one packet, with the verdict that the oracle gives.
func caseOf(s *drivers.State, p Probe) string {
	return caseText("Found by the generator.", []Scene{sceneOf(s, p)})
}

func sceneOf(s *drivers.State, p Probe) Scene {
	verdict := " = deny"
	if allow, masq := newOracle(s).expect(p.Packet); masq {
		verdict = " = allow masqueraded"
	} else if allow {
		verdict = " = allow"
	}
	return Scene{State: s, Lines: []Line{{Text: probeText(p) + verdict}}}
}
