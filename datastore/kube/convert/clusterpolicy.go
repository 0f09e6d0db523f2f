package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

const (
	// AdminPolicyPrefix begins the names of the policies that are made from ClusterNetworkPolicies of the tier Admin.
	AdminPolicyPrefix = "kcnp.admin."
	// BaselinePolicyPrefix begins the names of those of the tier Baseline.
	BaselinePolicyPrefix = "kcnp.baseline."

	clusterPolicyVersion = "policy.networking.k8s.io/v1alpha2"
	clusterPolicyKind    = "ClusterNetworkPolicy"
)

// clusterPolicy is a ClusterNetworkPolicy whose parts have not been read, so that one that can't be does not take the
// others away.
type clusterPolicy struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Metadata   json.RawMessage `json:"metadata"`
	Spec       struct {
		Tier     json.RawMessage `json:"tier"`
		Priority json.RawMessage `json:"priority"`
		Subject  json.RawMessage `json:"subject"`
		Ingress  json.RawMessage `json:"ingress"`
		Egress   json.RawMessage `json:"egress"`
	} `json:"spec"`
	Status json.RawMessage `json:"status"`
}

// ClusterNetworkPolicy reads a policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy. A rule that is not understood, or
// that can't be said in our words, matches nothing if it accepts, and denies everything if it denies or passes, as the API
// asks for. An error means that the policy can't be used at all, since it is not known which pods it selects, or its tier
// or priority.
func ClusterNetworkPolicy(data []byte) (*api.GlobalNetworkPolicy, []api.Problem, error) {
	from, meta, problems, err := readClusterPolicy(data)
	if err != nil {
		return nil, problems, fmt.Errorf("reading a ClusterNetworkPolicy: %w", err)
	}
	everywhere := problems
	p := &api.GlobalNetworkPolicy{TypeMeta: typed(api.GroupVersion, "GlobalNetworkPolicy")}
	p.Spec.Tier, p.Spec.Order, err = clusterPlace(from)
	err = errors.Join(err, clusterSubject(from.Spec.Subject, &p.Spec))
	if err != nil {
		return nil, problems, fmt.Errorf("reading ClusterNetworkPolicy %s: %w", meta.Name, err)
	}
	prefix := AdminPolicyPrefix
	if p.Spec.Tier == api.BaselineTier {
		prefix = BaselinePolicyPrefix
	}
	p.ObjectMeta = policyMeta(meta, prefix, p.Spec.Tier)
	for _, d := range []struct {
		name  string
		data  json.RawMessage
		read  func(string, []byte) (clusterRule, []api.Problem)
		rules *[]api.Rule
		kind  api.PolicyType
	}{
		{"spec.ingress", from.Spec.Ingress, readIngress, &p.Spec.Ingress, api.Ingress},
		{"spec.egress", from.Spec.Egress, readEgress, &p.Spec.Egress, api.Egress},
	} {
		rules, found := clusterRules(d.name, d.data, d.read)
		for i := range rules {
			for _, e := range everywhere {
				rules[i].Unreadable = append(rules[i].Unreadable, e.Error())
			}
		}
		*d.rules = rules
		problems = append(problems, found...)
		if len(rules) > 0 { // a direction without rules is not governed
			p.Spec.Types = append(p.Spec.Types, d.kind)
		}
	}
	return p, problems, nil
}

// readClusterPolicy takes a policy apart. The problems are those that concern all of it.
func readClusterPolicy(data []byte) (*clusterPolicy, *metav1.ObjectMeta, []api.Problem, error) {
	if len(data) > api.MaxInput {
		return nil, nil, nil, fmt.Errorf("value of %d bytes is larger than %d", len(data), api.MaxInput)
	}
	from := &clusterPolicy{}
	problems, err := strict("", data, from)
	if err != nil {
		return nil, nil, nil, err
	}
	meta := &metav1.ObjectMeta{}
	// What is odd about the other metadata means nothing.
	if err := kjson.UnmarshalCaseSensitivePreserveInts(from.Metadata, meta); meta.Name == "" {
		return nil, nil, problems, errors.Join(api.Problem{Path: "metadata.name", Reason: "is missing"}, err)
	}
	if from.Kind != "" && from.Kind != clusterPolicyKind {
		return nil, nil, problems, api.Problem{Path: "kind", Reason: fmt.Sprintf("%q is not %s", from.Kind, clusterPolicyKind)}
	}
	if from.APIVersion != "" && from.APIVersion != clusterPolicyVersion {
		problems = append(problems, api.Problem{Path: "apiVersion", Reason: fmt.Sprintf("%q is not %s", from.APIVersion, clusterPolicyVersion)})
	}
	for _, p := range problems {
		switch p.Path {
		case "spec", "metadata", "spec.tier", "spec.priority", "spec.subject": // given twice
			return nil, nil, problems, p
		}
	}
	return from, meta, problems, nil
}

// clusterPlace returns the tier of a policy, and its order there.
func clusterPlace(from *clusterPolicy) (tier string, order *float64, err error) {
	var name *cnp.Tier
	switch err := json.Unmarshal(from.Spec.Tier, &name); {
	case err != nil || name == nil:
		return "", nil, api.Problem{Path: "spec.tier", Reason: "must be Admin or Baseline"}
	case *name == cnp.AdminTier:
		tier = api.AdminTier
	case *name == cnp.BaselineTier:
		tier = api.BaselineTier
	default:
		return "", nil, api.Problem{Path: "spec.tier", Reason: fmt.Sprintf("%q is neither Admin nor Baseline", *name)}
	}
	var priority *int32
	if err := json.Unmarshal(from.Spec.Priority, &priority); err != nil || priority == nil {
		return "", nil, api.Problem{Path: "spec.priority", Reason: "must be a whole number"}
	}
	o := float64(*priority)
	return tier, &o, nil
}

// clusterSubject has to be understood whole: half of it would be other pods.
func clusterSubject(data []byte, s *api.GlobalNetworkPolicySpec) error {
	const path = "spec.subject"
	var subject cnp.ClusterNetworkPolicySubject
	problems := wholly(path, data, &subject)
	switch {
	case len(problems) > 0:
		return problems[0]
	case (subject.Namespaces == nil) == (subject.Pods == nil):
		return api.Problem{Path: path, Reason: "must hold either namespaces or pods"}
	}
	pods, problem := clusterPods(path, subject.Namespaces, subject.Pods)
	if problem != nil {
		return *problem
	}
	s.Selector, s.NamespaceSelector = pods.Selector, pods.NamespaceSelector
	return nil
}

// clusterRules reads the rules of one direction. What is no list denies everything.
func clusterRules(path string, data []byte, read func(string, []byte) (clusterRule, []api.Problem)) ([]api.Rule, []api.Problem) {
	var items []json.RawMessage
	if len(data) > 0 {
		if err := json.Unmarshal(data, &items); err != nil {
			p := api.Problem{Path: path, Reason: "must be a list"}
			return []api.Rule{{Action: api.Deny, Unreadable: []string{p.Error()}}}, []api.Problem{p}
		}
	}
	var rules []api.Rule
	var problems []api.Problem
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", path, i)
		c, found := read(at, item)
		var out []api.Rule
		if len(found) == 0 {
			out, found = c.rules(at)
		}
		if len(found) > 0 {
			out = []api.Rule{c.closed(found)}
		}
		rules, problems = append(rules, out...), append(problems, found...)
	}
	return rules, problems
}

// wholly reads a piece of JSON at path into a value, and notes everything that is odd. A null is: no list has empty items,
// and no label has a null for a value.
func wholly(path string, data []byte, into any) []api.Problem {
	problems, err := strict(path, data, into)
	if err != nil {
		problems = []api.Problem{{Path: path, Reason: err.Error()}}
	}
	if bytes.Contains(data, []byte("null")) {
		var tree any
		if json.Unmarshal(data, &tree) == nil {
			problems = append(problems, nulls(path, tree)...)
		}
	}
	return problems
}

func nulls(path string, v any) []api.Problem {
	var problems []api.Problem
	switch v := v.(type) {
	case nil:
		return []api.Problem{{Path: path, Reason: "must not be null"}}
	case []any:
		for i, item := range v {
			problems = append(problems, nulls(fmt.Sprintf("%s[%d]", path, i), item)...)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			problems = append(problems, nulls(joinPath(path, k), v[k])...)
		}
	}
	return problems
}

// strict reads a piece of JSON at path into a value. What is unknown or given twice is a problem; an error means that
// something has the wrong type.
func strict(path string, data []byte, into any) ([]api.Problem, error) {
	if len(data) == 0 {
		return []api.Problem{{Path: path, Reason: "is missing"}}, nil
	}
	errs, err := kjson.UnmarshalStrict(data, into)
	if err != nil {
		return nil, err
	}
	var problems []api.Problem
	for _, e := range errs {
		p := api.Problem{Path: path, Reason: "unknown field"}
		if strings.HasPrefix(e.Error(), "duplicate") {
			p.Reason = "given twice"
		}
		if f, ok := e.(kjson.FieldError); ok {
			p.Path = joinPath(path, f.FieldPath())
		}
		problems = append(problems, p)
	}
	return problems, nil
}

func joinPath(a, b string) string {
	if a == "" {
		return b
	}
	return a + "." + b
}
