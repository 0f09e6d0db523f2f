package drivers

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTiers(t *testing.T) {
	b := func(name string, def Action, rules ...Rule) change { return tierOf("b normal in", name, def, rules...) }
	profiles := func(ids ...PolicyID) change { return with("b", func(e *Endpoint) { e.Profiles = ids }) }
	passProfile := PolicyID{Kind: KindProfile, Name: "pass"}
	denyProfile := PolicyID{Kind: KindProfile, Name: "deny"}
	more := func(s *State) {
		s.Policies[passProfile] = &Policy{ID: passProfile, In: []Rule{{Action: Pass}}}
		s.Policies[denyProfile] = &Policy{ID: denyProfile, In: []Rule{{Action: Deny}}}
	}
	noPolicies := with("b", func(e *Endpoint) {
		e.Policy.Normal.In = &TierList{Tiers: []TierPolicies{{Name: "empty", Default: Deny}}}
	})
	missing := with("b", func(e *Endpoint) {
		e.Policy.Normal.In = &TierList{Tiers: []TierPolicies{{Name: "t", Policies: []PolicyID{{Kind: KindNetworkPolicy, Name: "gone"}}}}}
	})
	toB := pkt(fromA, fromB, "10.0.0.1", "10.0.0.2")
	wrongSet := func(s *State) { s.Sets["x"] = NewSet(SetPort) }
	names := func(m *Match) { m.Src.NotSets = []SetID{"x"} }
	runCases(t, []evalCase{
		{"no tiers, no profiles", []change{profiles()}, toB, deny, StageIngress, "no policy and no profile"},
		{"an allow ends the stage", []change{b("t", Deny, rule(Allow)), b("u", Deny, rule(Deny))}, toB, allow, StageIngress, "tier=t"},
		{"a deny ends it", []change{b("t", Pass, rule(Deny)), b("u", Deny, rule(Allow))}, toB, deny, StageIngress, "tier=t"},
		{"a pass leads to the next tier", []change{b("t", Deny, rule(Pass)), b("u", Deny, rule(Allow))}, toB, allow, StageIngress, "tier=u"},
		{"and past the rest of its own", []change{b("t", Deny, rule(Pass), rule(Deny)), b("u", Deny, rule(Allow))}, toB, allow, StageIngress, "tier=u"},
		{"a pass out of the last tier leads to the profiles", []change{b("t", Deny, rule(Pass))}, toB, allow, StageIngress, "Profile/allow"},
		{"a log goes on", []change{b("t", Deny, rule(Log), rule(Allow))}, toB, allow, StageIngress, "rule 1"},
		{"the first rule that matches counts", []change{b("t", Deny, rule(Deny, dport(81)), rule(Allow, dport(80)), rule(Deny))}, toB, allow, StageIngress, "rule 1"},
		{"the end of a tier denies", []change{b("t", Deny, rule(Allow, dport(81))), b("u", Deny, rule(Allow))}, toB, deny, StageIngress, "end of tier"},
		{"or passes", []change{b("t", Pass, rule(Allow, dport(81))), b("u", Deny, rule(Allow))}, toB, allow, StageIngress, "tier=u"},
		{"a default that nobody knows denies", []change{b("t", Action(9))}, toB, deny, StageIngress, "end of tier"},
		{"an action that nobody knows denies", []change{b("t", Pass, rule(Action(9)))}, toB, deny, StageIngress, "rule 0"},
		{"a tier without policies has no end", []change{noPolicies}, toB, allow, StageIngress, "Profile/allow"},
		{"a missing policy denies", []change{missing}, toB, deny, StageIngress, "the policy is missing"},
		{"a missing profile denies", []change{profiles(PolicyID{Kind: KindProfile, Name: "gone"}, allowAll)}, toB, deny, StageIngress, "the profile is missing"},
		{"profiles are asked in order", []change{more, profiles(denyProfile, allowAll)}, toB, deny, StageIngress, "Profile/deny"},
		{"a pass in a profile leads to the next", []change{more, profiles(passProfile, allowAll)}, toB, allow, StageIngress, "Profile/allow"},
		{"and out of the last to a deny", []change{more, profiles(allowAll, passProfile), b("t", Deny, rule(Pass)), profiles(passProfile)}, toB, deny, StageIngress, "no policy and no profile"},
		{"a missing set denies, whatever the action", []change{b("t", Deny, rule(Allow, names))}, toB, deny, StageIngress, "set that is missing"},
		{"and whatever the other clauses say", []change{b("t", Deny, rule(Allow, names, dport(81)), rule(Allow))}, toB, deny, StageIngress, "set that is missing"},
		{"a set of the wrong kind denies", []change{wrongSet, b("t", Deny, rule(Allow, names))}, toB, deny, StageIngress, "wrong kind"},
		{"but not before its rule is reached", []change{b("t", Deny, rule(Allow), rule(Allow, names))}, toB, allow, StageIngress, "rule 0"},
		{"an allow with HTTP allows nothing", []change{b("t", Deny, rule(Allow, func(m *Match) { m.HTTP = &HTTP{} }))}, toB, deny, StageIngress, "end of tier"},
		{"an allow that could not be read allows nothing", []change{b("t", Deny, rule(Allow, unsupported))}, toB, deny, StageIngress, "end of tier"},
		{"a deny that could not be read denies", []change{b("t", Deny, rule(Deny, unsupported), rule(Allow))}, toB, deny, StageIngress, "not supported"},
		{"a pass that could not be read denies", []change{b("t", Deny, rule(Pass, unsupported))}, toB, deny, StageIngress, "not supported"},
		{"a log that could not be read goes on", []change{b("t", Deny, rule(Log, unsupported), rule(Allow))}, toB, allow, StageIngress, "rule 1"},
		{"as far as the rest of it matches", []change{b("t", Deny, rule(Deny, unsupported, dport(81)), rule(Allow))}, toB, allow, StageIngress, "rule 1"},
	})
}

func unsupported(m *Match) { m.Unsupported = []string{"destination.domains"} }

// TestStagedPolicies shows that staged policies leave traces and nothing else.
func TestStagedPolicies(t *testing.T) {
	toB := pkt(fromA, fromB, "10.0.0.1", "10.0.0.2")
	staged := func(rules ...Rule) change { return tierOf("b normal in", "staged", Deny, rules...) }
	for _, c := range []struct {
		name  string
		rules []Rule
		want  []string // outcomes of staged steps
	}{
		{"deny", []Rule{rule(Deny)}, []string{"deny"}},
		{"allow", []Rule{rule(Allow)}, []string{"allow"}},
		{"pass", []Rule{rule(Pass)}, []string{"pass"}},
		{"log, then deny", []Rule{rule(Log), rule(Deny)}, []string{"log", "deny"}},
		{"no match, end of tier", []Rule{rule(Allow, dport(81))}, []string{"no match", "deny"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Evaluate(testNode(staged(c.rules...)), toB)
			var outcomes []string
			var rest []Step
			for _, s := range got.Steps {
				if s.Staged {
					outcomes = append(outcomes, s.Outcome)
				} else {
					rest = append(rest, s)
				}
			}
			plain := Evaluate(testNode(), toB)
			if got.Verdict != plain.Verdict || cmp.Diff(rest, plain.Steps) != "" {
				t.Errorf("a staged policy had an effect:\n%s\nwithout it:\n%s", got, plain)
			}
			if d := cmp.Diff(c.want, outcomes); d != "" {
				t.Errorf("staged steps (-want +got):\n%s", d)
			}
		})
	}
}

// TestStagedBesideEnforced: an enforced policy in the tier makes its end count.
func TestStagedBesideEnforced(t *testing.T) {
	s := testNode(tierOf("b normal in", "staged", Deny, rule(Allow)), tierOf("b normal in", "t", Deny, rule(Allow, dport(81))))
	l := s.endpoint("b").Policy.Normal.In
	l.Tiers = []TierPolicies{{Name: "t", Policies: append(l.Tiers[0].Policies, l.Tiers[1].Policies...)}}
	got := Evaluate(s, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"))
	if got.Verdict != deny || !strings.Contains(got.String(), "end of tier") {
		t.Errorf("got:\n%s", got)
	}
}

func TestTraceText(t *testing.T) {
	s := testNode(tierOf("a normal out", "t", Pass, rule(Log), rule(Pass)), tierOf("b normal in", "u", Deny, rule(Allow, dport(81))))
	got := Evaluate(s, pkt(fromA, fromB, "10.0.0.1", "10.0.0.2"))
	want := `egress: out ns/a tier=t GlobalNetworkPolicy/t of a normal out rule 0 log
egress: out ns/a tier=t GlobalNetworkPolicy/t of a normal out rule 1 pass
egress: out ns/a Profile/allow rule 0 allow
ingress: in ns/b tier=u GlobalNetworkPolicy/u of b normal in no match
ingress: in ns/b tier=u deny (end of tier)
deny
`
	if d := cmp.Diff(want, got.String()); d != "" {
		t.Errorf("trace (-want +got):\n%s", d)
	}
}
