package drivers

// full is a stage of a workload, or the Normal stage of a host: tiers, then profiles, then Deny.
func (w *walk) full(stage Stage, e *Endpoint, in bool, l *TierList) result {
	if r := w.degraded(stage, e, in); r == denied {
		return r
	}
	if r := w.tiers(stage, e, in, l, w.p); r != next {
		return r
	}
	for _, id := range e.Profiles {
		pol := w.s.Policies[id]
		step := Step{Stage: stage, Endpoint: e.Name, In: in, Policy: id, Index: -1}
		if pol == nil {
			return w.rule(step, nil, denied, "the profile is missing")
		}
		// Profiles have no tier: a Pass leads to the next profile.
		if r := w.rules(step, pol, w.p); r == allowed || r == denied {
			return r
		}
	}
	return w.say(denied, stage, e, in, "no policy and no profile allows it")
}

// degraded denies if the endpoint is on a deny stand-in. The stand-in has the stages of the endpoint: an untracked or
// pre-DNAT stage without a list is no stage.
func (w *walk) degraded(stage Stage, e *Endpoint, in bool) result {
	if e.Degraded == "" {
		return next
	}
	return w.say(denied, stage, e, in, "degraded: "+e.Degraded)
}

// passed is the result of rules that ended in Pass.
const passed = denied + 1

// tiers judges p by a tier list.
func (w *walk) tiers(stage Stage, e *Endpoint, in bool, l *TierList, p Packet) result {
	if l == nil {
		return next
	}
	for i := range l.Tiers {
		if r := w.tier(Step{Stage: stage, Endpoint: e.Name, In: in, Index: -1}, &l.Tiers[i], p); r == allowed || r == denied {
			return r
		}
	}
	return next
}

// tier judges p by one tier; passed and next both mean the next tier.
func (w *walk) tier(step Step, t *TierPolicies, p Packet) result {
	step.Tier = t.Name
	enforced, decided := false, false // decided: a staged policy would have
	for _, id := range t.Policies {
		step.Policy = id
		pol := w.s.Policies[id]
		if pol == nil {
			return w.rule(step, nil, denied, "the policy is missing")
		}
		if pol.Staged {
			if w.tracing {
				would := step
				would.Staged = true
				decided = w.rules(would, pol, p) != next || decided
			}
			continue
		}
		enforced = true
		if r := w.rules(step, pol, p); r != next {
			return r
		}
	}
	step.Policy = PolicyID{}
	if step.Stage == StageUntracked || step.Stage == StagePreDNAT {
		return next
	}
	if enforced {
		return w.rule(step, nil, tierDefault(t), "end of tier")
	}
	if w.tracing && len(t.Policies) > 0 && !decided {
		step.Staged = true
		w.rule(step, nil, tierDefault(t), "end of tier, were its policies enforced")
	}
	return next
}

func tierDefault(t *TierPolicies) result {
	if t.Default == Pass {
		return passed
	}
	return denied
}

// rules judges p by a policy's rules of one direction, in order.
func (w *walk) rules(step Step, pol *Policy, p Packet) result {
	list := pol.Out
	if step.In {
		list = pol.In
	}
	for i := range list {
		r := &list[i]
		m := w.match(r, p)
		if m == matchNo {
			continue
		}
		step.Index = i
		switch {
		case m == matchUnresolved:
			return w.rule(step, r, denied, "the rule names a set that is missing or of the wrong kind")
		case m == matchUnreadable && (r.Action == Allow || r.Action == Log):
			continue // what can't be judged allows nothing
		case m == matchUnreadable:
			return w.rule(step, r, denied, "the rule has a clause that is not supported")
		}
		switch r.Action {
		case Allow:
			return w.rule(step, r, allowed, "")
		case Pass:
			return w.rule(step, r, passed, "")
		case Log:
			w.rule(step, r, next, "")
		default:
			return w.rule(step, r, denied, "")
		}
	}
	step.Index = -1
	return w.rule(step, nil, next, "")
}

// rule records what a rule (nil = none) of step's policy did, and returns r.
func (w *walk) rule(step Step, rule *Rule, r result, reason string) result {
	if !w.tracing {
		return r
	}
	switch {
	case rule != nil && r == next:
		step.Outcome = "log"
	case r == next:
		step.Outcome = "no match"
	case r == passed:
		step.Outcome = "pass"
	default:
		step.Outcome = outcomes[r]
	}
	if rule != nil {
		step.Rule = rule.ID
	}
	step.Reason = reason
	w.trace.Steps = append(w.trace.Steps, step)
	return r
}
