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
		if sc.fault() != (Event{}) {
			continue // the verdicts are those of deny stand-ins
		}
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

// runCase plays the scenes of a case. A case that changes its State runs with the changes as hints and without any; hinted
// says which of the two ways a case of one scene goes.
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
	direct := map[*drivers.State]string{}
	if err := r.directs(ctx, c.Scenes, direct); err != nil {
		return err
	}
	if len(direct) > 0 { // what it left is where the case leads to
		if err := r.open(ctx, true); err != nil {
			return err
		}
	}
	for _, h := range ways {
		if err := r.caseWay(ctx, c, h, direct); err != nil {
			return err
		}
	}
	return nil
}

// caseWay plays a case one way, first over what the case before left.
func (r *runner) caseWay(ctx context.Context, c Case, h hint, direct map[*drivers.State]string) error {
	scenes := c.Scenes
	play := func() error {
		f := (&player{runner: r, hint: h, direct: direct}).play(ctx, scenes)
		if f == nil {
			err := r.idle(ctx, r.last, true)
			if b := (*Breach)(nil); errors.As(err, &b) {
				b.What = fmt.Errorf("%s.txtar, at its end: %w", c.Name, b.What)
			}
			return err
		}
		if f.fatal {
			return f.err
		}
		p := anyPath // but for verdicts, what a case compares is where its way leads to
		if f.p != 0 {
			p = f.p
		}
		return breach(p, fmt.Errorf("%s.txtar, scene %q: %w", c.Name, scenes[f.scene].Title, f.err))
	}
	err := play()
	if err == nil {
		return nil
	}
	// Does it take what went before?
	again := r.open(ctx, true)
	if again == nil {
		again = play()
	}
	if b := (*Breach)(nil); again == nil && errors.As(err, &b) {
		b.Hint = "on a fresh dataplane it passes: what came before it matters"
	}
	return err
}
