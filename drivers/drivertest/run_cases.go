package drivertest

import (
	"context"
	"errors"
	"fmt"

	"github.com/tortie/tortie/drivers"
)

// CheckOracle sees that Evaluate says what the author of a case expects. It needs no driver.
func CheckOracle(c Case) error {
	var errs []error
	var ports batcher
	for _, sc := range c.Scenes {
		o := newOracle(sc.State)
		for _, l := range sc.Lines {
			for _, p := range l.Probes {
				ports.assign(&p)
				errs = append(errs, checkLine(o, l, p))
			}
		}
	}
	return errors.Join(errs...)
}

func checkLine(o oracle, l Line, p Probe) error {
	allow, masq := o.expect(p.Packet)
	t := drivers.Evaluate(o.s, p.Packet)
	switch {
	case allow != l.Allow:
		return fmt.Errorf("%s: %s\nthe oracle says %s for %s:\n%s", l.Pos, l.Text, t.Verdict, probeText(p), t)
	case masq != l.Masq:
		return fmt.Errorf("%s: %s\nmasqueraded: %t", l.Pos, l.Text, masq)
	case l.By != "" && !decidedBy(t, l.By):
		return fmt.Errorf("%s: %s\nthat is not what decides:\n%s", l.Pos, l.Text, t)
	}
	return nil
}

// decidedBy reports whether the last step that allowed or denied is what by says: a stage, a tier's end ("tier:NAME"), or
// a policy.
func decidedBy(t drivers.Trace, by string) bool {
	var last drivers.Step
	for _, s := range t.Steps {
		if !s.Staged && (s.Outcome == "allow" || s.Outcome == "deny") {
			last = s
		}
	}
	switch {
	case last.Policy != (drivers.PolicyID{}):
		return policyRef(last.Policy) == by
	case last.Tier != "":
		return "tier:"+last.Tier == by
	}
	return string(last.Stage) == by
}

// runCase applies the scenes of a case and sends its packets. A case that changes its State runs with the changes as
// hints and without any; hinted says which of the two ways a case of one scene goes.
func (r *runner) runCase(ctx context.Context, c Case, hinted bool) error {
	if err := CheckOracle(c); err != nil {
		return err
	}
	ways := []hint{noHint}
	if hinted {
		ways = []hint{exact}
	}
	if len(c.Scenes) > 1 {
		ways = []hint{exact, noHint}
	}
	for _, h := range ways {
		err := r.runScenes(ctx, c, h)
		if err == nil {
			err = r.idle(ctx)
		}
		if err == nil {
			continue
		}
		// Does it take what went before?
		again := r.open(ctx, true)
		if again == nil {
			again = r.runScenes(ctx, c, h)
		}
		if again == nil {
			return fmt.Errorf("%w\n(on a fresh dataplane the case passes: what came before it matters)", err)
		}
		return err
	}
	return nil
}

func (r *runner) runScenes(ctx context.Context, c Case, h hint) error {
	for _, sc := range c.Scenes {
		low, err := r.apply(ctx, sc.State, h)
		if err != nil {
			return fmt.Errorf("%s, scene %q: %w", c.Name, sc.Title, err)
		}
		var ps []Probe
		var lines []Line
		for _, l := range sc.Lines {
			for _, p := range l.Probes {
				r.ports.assign(&p)
				ps, lines = append(ps, p), append(lines, l)
			}
		}
		rs, err := r.send(ctx, sc.State, ps)
		if err != nil {
			return fmt.Errorf("%s, scene %q: %w", c.Name, sc.Title, err)
		}
		o, written := newOracle(low), newOracle(sc.State)
		var errs []error
		for i, l := range lines {
			if allow, _ := o.expect(ps[i].Packet); written.widened(ps[i].Packet, allow) {
				errs = append(errs, fmt.Errorf("%s: %s\nlowered for %s, the State allows what is denied as written", l.Pos, l.Text, r.f.Driver))
			}
			if err := o.judge(ps[i], rs[i]); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s\n%w", l.Pos, l.Text, err))
			}
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}
