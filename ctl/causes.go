package ctl

import (
	"fmt"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// causes says what decides now, and what decided before, at the place where the two traces part: where the one denies.
// A nil trace is of an end that is not there.
func causes(before, after *drivers.PathTrace) (by, was string) {
	switch {
	case before == nil:
		return "it is new", ""
	case after == nil:
		return "it is gone", ""
	case after.Verdict == drivers.VerdictAllow:
		hop, step := decisive(before)
		return decider(after, hop, step), wording(before, hop, len(before.Hops[hop].Trace.Steps)-1)
	}
	hop, step := decisive(after)
	return wording(after, hop, len(after.Hops[hop].Trace.Steps)-1), decider(before, hop, step)
}

// decisive returns the last hop of a denied path and its last step.
func decisive(t *drivers.PathTrace) (hop int, step drivers.Step) {
	hop = len(t.Hops) - 1
	steps := t.Hops[hop].Trace.Steps
	if len(steps) == 0 {
		return hop, drivers.Step{}
	}
	return hop, steps[len(steps)-1]
}

// decider says what let a packet through where another denied it.
func decider(t *drivers.PathTrace, hop int, at drivers.Step) string {
	if hop >= len(t.Hops) {
		return ""
	}
	steps := t.Hops[hop].Trace.Steps
	for i, s := range slices.Backward(steps) {
		if s.Stage == at.Stage && s.Endpoint == at.Endpoint && s.In == at.In && !s.Staged && s.Outcome != "log" && s.Outcome != "no match" {
			return wording(t, hop, i)
		}
	}
	return ""
}

// wording names what a step is about: a rule, the end of a tier with the policies that make it count, or a reason.
func wording(t *drivers.PathTrace, hop, i int) string {
	steps := t.Hops[hop].Trace.Steps
	if i < 0 || i >= len(steps) {
		return ""
	}
	s := steps[i]
	switch {
	case s.Policy != (drivers.PolicyID{}) && s.Index >= 0:
		return fmt.Sprintf("%s rule %d", s.Policy, s.Index)
	case s.Policy != (drivers.PolicyID{}):
		return fmt.Sprintf("%s (%s)", s.Policy, s.Reason)
	case s.Tier == "":
		return s.Reason
	}
	var names []string
	for _, o := range steps[:i] {
		if o.Stage == s.Stage && o.Endpoint == s.Endpoint && o.In == s.In && o.Tier == s.Tier && !o.Staged && o.Outcome == "no match" {
			names = append(names, o.Policy.String())
		}
	}
	return fmt.Sprintf("the end of tier %s: no rule of %s decides", s.Tier, few(names))
}
