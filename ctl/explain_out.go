package ctl

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tortie/tortie/drivers"
)

// explainedFlow is a drivers.Flow5 as -o json gives it.
type explainedFlow struct {
	Src      netip.Addr `json:"src"`
	Dst      netip.Addr `json:"dst"`
	Proto    uint8      `json:"proto"`
	SrcPort  uint16     `json:"srcPort"`
	DstPort  uint16     `json:"dstPort"`
	ICMPType uint8      `json:"icmpType"`
	ICMPCode uint8      `json:"icmpCode"`
	UplinkA  string     `json:"uplinkA,omitempty"`
	UplinkB  string     `json:"uplinkB,omitempty"`
}

// explainedStep is a drivers.Step as -o json gives it.
type explainedStep struct {
	Stage    string          `json:"stage"`
	Endpoint string          `json:"endpoint,omitempty"`
	In       bool            `json:"in"`
	Tier     string          `json:"tier,omitempty"`
	Policy   explainedPolicy `json:"policy,omitzero"`
	Rule     string          `json:"rule,omitempty"` // its id, in hex as in the kernel's log
	Index    int             `json:"index"`          // -1 = no rule
	Staged   bool            `json:"staged,omitempty"`
	Outcome  string          `json:"outcome"`
	Reason   string          `json:"reason,omitempty"`
}

type explainedPolicy struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func newExplainedPolicy(p drivers.PolicyID) explainedPolicy {
	return explainedPolicy{Kind: string(p.Kind), Namespace: p.Namespace, Name: p.Name}
}

func newExplainedStep(s drivers.Step) explainedStep {
	out := explainedStep{Stage: string(s.Stage), Endpoint: s.Endpoint, In: s.In, Tier: s.Tier, Policy: newExplainedPolicy(s.Policy),
		Index: s.Index, Staged: s.Staged, Outcome: s.Outcome, Reason: s.Reason}
	if s.Rule != 0 {
		out.Rule = s.Rule.String()
	}
	return out
}

// lineOf gives a step for people. That of a Log rule says how they find its lines in the kernel's log.
func lineOf(s drivers.Step) string {
	if s.Outcome == "log" && !s.Staged {
		return fmt.Sprintf("%s, as %q", s, "tortie: "+s.Rule.String())
	}
	return s.String()
}

// parseRuleID reads the id of a rule, or the beginning of a line in the kernel's log.
func parseRuleID(text string) (drivers.RuleID, error) {
	if text == "" {
		return 0, nil
	}
	word := strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "tortie:"))
	n, err := strconv.ParseUint(word, 16, 64)
	if err != nil || len(word) != len(drivers.RuleID(0).String()) {
		return 0, usage("--rule: %q is no id of a rule: those are 16 hex digits", text)
	}
	return drivers.RuleID(n), nil
}

// explainedRule is what -o json gives of a rule.
type explainedRule struct {
	Rule   string          `json:"rule"`
	Policy explainedPolicy `json:"policy"`
	Tier   string          `json:"tier,omitempty"`
	Staged bool            `json:"staged,omitempty"`
	In     bool            `json:"in"`
	Index  int             `json:"index"`
	Name   string          `json:"name,omitempty"`
	Action string          `json:"action"`
	Nodes  []string        `json:"nodes"` // that enforce it

	id drivers.PolicyID
}

// explainRule says which rule has an id.
func (env *Env) explainRule(w *world, o explainOptions, id drivers.RuleID) error {
	var found *explainedRule
	for _, node := range slices.Sorted(maps.Keys(w.states)) {
		if r := ruleIn(w.states[node], id); r != nil {
			if found == nil {
				found = r
			}
			found.Nodes = append(found.Nodes, node)
		}
	}
	if found == nil {
		toKnow(env.Err, w.problems)
		return &ExitCoder{Code: ExitMissing, Err: fmt.Errorf("no rule that is known here has the id %s: it may have been changed or deleted since", id)}
	}
	switch o.output {
	case "json":
		return writeJSON(env.Out, found)
	case "yaml":
		return writeYAML(env.Out, found)
	case "text":
	default:
		return usage("there is no output format %q; the formats are text, json and yaml", o.output)
	}
	direction := map[bool]string{true: "in", false: "out"}[found.In]
	fmt.Fprintf(env.Out, "%s %s rule %d %s", found.id, direction, found.Index, found.Action)
	if found.Name != "" {
		fmt.Fprintf(env.Out, " (%s)", found.Name)
	}
	fmt.Fprintf(env.Out, "\n  on %s\n", few(found.Nodes))
	toKnow(env.Err, w.problems)
	return nil
}

// ruleIn finds a rule in a State; nil if it is not there.
func ruleIn(s *drivers.State, id drivers.RuleID) *explainedRule {
	for _, p := range s.Policies {
		for _, in := range []bool{true, false} {
			rules := p.Out
			if in {
				rules = p.In
			}
			for i, r := range rules {
				if r.ID == id {
					return &explainedRule{Rule: id.String(), Policy: newExplainedPolicy(p.ID), Tier: p.Tier, Staged: p.Staged, In: in, Index: i,
						Name: r.Name, Action: r.Action.String(), id: p.ID}
				}
			}
		}
	}
	return nil
}
