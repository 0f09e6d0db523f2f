package api

import (
	"fmt"
	"strings"

	"github.com/tortie/tortie/api/selector"
)

// Labels that every endpoint of a namespace has beside its own, and prefixes of labels that it inherits.
const (
	LabelNamespace      = "projectcalico.org/namespace"
	LabelOrchestrator   = "projectcalico.org/orchestrator"
	LabelServiceAccount = "projectcalico.org/serviceaccount"
	LabelTier           = "projectcalico.org/tier" // of policies
	LabelName           = "projectcalico.org/name" // of namespaces and service accounts, below the prefixes

	NamespaceLabelPrefix      = "pcns." // label x of a namespace is pcns.x on its endpoints
	ServiceAccountLabelPrefix = "pcsa."

	NamespaceProfilePrefix      = "kns." // kns.<namespace> is the profile of a namespace
	ServiceAccountProfilePrefix = "ksa." // ksa.<namespace>.<name> is the profile of a service account

	OrchestratorKubernetes = "k8s" // value of LabelOrchestrator on pods
)

// ReservedLabel says whether a label speaks of an endpoint's namespace, service account or orchestrator: it is not the
// object's own to give.
func ReservedLabel(name string) bool {
	switch name {
	case LabelNamespace, LabelOrchestrator, LabelServiceAccount:
		return true
	}
	return strings.HasPrefix(name, NamespaceLabelPrefix) || strings.HasPrefix(name, ServiceAccountLabelPrefix)
}

// SubjectSelector returns the selector of the endpoints that a policy applies to, as matched against their labels
// together with those that they inherit.
//
// A policy of a namespace applies to endpoints of that namespace only. Each all() of selector means every endpoint of
// any namespace as soon as there is a namespaceSelector, and every endpoint with a service account if there is only a
// serviceAccountSelector: so "selector: all()" with a namespaceSelector does not apply to host
// endpoints, whereas "selector: role == 'x'" does if the namespaceSelector holds for an endpoint without a namespace,
// as "env != 'prod'" does. Calico reaches this by replacing the text "all()" wherever it stands, in a quoted value too;
// here it is the node of the syntax tree that is replaced, and an empty selector is all().
func SubjectSelector(o Object) (*selector.Selector, error) {
	switch o := o.(type) {
	case *NetworkPolicy:
		return subjectInNamespace(o.Namespace, &o.Spec)
	case *StagedNetworkPolicy:
		return subjectInNamespace(o.Namespace, &o.Spec.NetworkPolicySpec)
	case *GlobalNetworkPolicy:
		return globalSubject(&o.Spec)
	case *StagedGlobalNetworkPolicy:
		return globalSubject(&o.Spec.GlobalNetworkPolicySpec)
	case *StagedKubernetesNetworkPolicy:
		pods, err := kubernetesSelector(&o.Spec.PodSelector)
		if err != nil {
			return nil, fmt.Errorf("podSelector: %w", err)
		}
		return join(pods, selector.Eq{Label: LabelNamespace, Value: o.Namespace}, kubernetesOnly)
	}
	return nil, fmt.Errorf("a %s applies to no endpoints", o.GetKind())
}

func subjectInNamespace(namespace string, s *NetworkPolicySpec) (*selector.Selector, error) {
	own, err := parsePlain("selector", s.Selector)
	if err != nil {
		return nil, err
	}
	accounts, err := serviceAccountSelector("serviceAccountSelector", s.ServiceAccountSelector)
	if err != nil {
		return nil, err
	}
	if s.ServiceAccountSelector != "" {
		own = replaceAll(own, selector.Has{Label: LabelServiceAccount})
	}
	return join(own, selector.Eq{Label: LabelNamespace, Value: namespace}, accounts)
}

func globalSubject(s *GlobalNetworkPolicySpec) (*selector.Selector, error) {
	own, err := parsePlain("selector", s.Selector)
	if err != nil {
		return nil, err
	}
	namespaces, err := namespaceSelector("namespaceSelector", s.NamespaceSelector)
	if err != nil {
		return nil, err
	}
	accounts, err := serviceAccountSelector("serviceAccountSelector", s.ServiceAccountSelector)
	if err != nil {
		return nil, err
	}
	switch {
	case s.NamespaceSelector != "":
		own = replaceAll(own, selector.Has{Label: LabelNamespace})
	case s.ServiceAccountSelector != "":
		own = replaceAll(own, selector.Has{Label: LabelServiceAccount})
	}
	return join(own, namespaces, accounts)
}

// EntitySelector returns the selector of the endpoints and network sets that one end of a rule must belong to, from its
// selector, namespaceSelector and serviceAccounts; nil if none is asked for. policyNamespace is "" for rules of global
// policies and of profiles.
//
// Without a namespaceSelector, a rule of a namespace's policy means that namespace as soon as it selects at all, also
// if only by notSelector. A namespaceSelector all() means endpoints of any namespace, global() those of none (host
// endpoints and global network sets). notSelector stands for itself: it has no part in the result, and the rule matches
// what this selector matches and notSelector does not.
func EntitySelector(policyNamespace string, e *EntityRule) (*selector.Selector, error) {
	own, err := parsePlain("selector", e.Selector)
	if err != nil {
		return nil, err
	}
	accounts, err := serviceAccountMatch(e.ServiceAccounts)
	if err != nil {
		return nil, err
	}
	selects := e.Selector != "" || accounts != nil
	var namespaces selector.Node
	switch {
	case e.NamespaceSelector != "":
		if namespaces, err = entityNamespaces(e.NamespaceSelector); err != nil {
			return nil, err
		}
	case policyNamespace != "" && (selects || e.NotSelector != ""):
		namespaces = selector.Eq{Label: LabelNamespace, Value: policyNamespace}
	case !selects:
		return nil, nil
	}
	return join(own, namespaces, accounts)
}

// entityNamespaces reads a rule's namespaceSelector, where global() has a meaning.
func entityNamespaces(s string) (selector.Node, error) {
	parsed, err := selector.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("namespaceSelector: %w", err)
	}
	if _, ok := parsed.Root().(selector.Global); ok {
		return selector.Not{Of: selector.Has{Label: LabelNamespace}}, nil
	}
	return namespaceSelector("namespaceSelector", s)
}

// serviceAccountMatch returns nil if m asks for nothing.
func serviceAccountMatch(m *ServiceAccountMatch) (selector.Node, error) {
	if m == nil || len(m.Names) == 0 && m.Selector == "" {
		return nil, nil
	}
	accounts, err := serviceAccountSelector("serviceAccounts.selector", m.Selector)
	if err != nil {
		return nil, err
	}
	if len(m.Names) == 0 {
		return accounts, nil
	}
	names := selector.In{Label: LabelServiceAccount, Values: m.Names}
	if m.Selector == "" {
		return names, nil
	}
	return selector.And{Of: []selector.Node{names, accounts}}, nil
}

// namespaceSelector turns a selector of namespaces' labels into one of the labels that endpoints inherit.
func namespaceSelector(field, s string) (selector.Node, error) {
	return inherited(field, s, NamespaceLabelPrefix, LabelNamespace)
}

func serviceAccountSelector(field, s string) (selector.Node, error) {
	return inherited(field, s, ServiceAccountLabelPrefix, LabelServiceAccount)
}

// inherited puts prefix before the labels of s; all() there means that the endpoint has label. Empty gives all().
func inherited(field, s, prefix, label string) (selector.Node, error) {
	if s == "" {
		return selector.All{}, nil
	}
	n, err := parsePlain(field, s)
	if err != nil {
		return nil, err
	}
	n = selector.Relabel(n, func(name string) string { return prefix + name })
	return replaceAll(n, selector.Has{Label: label}), nil
}

// parsePlain reads a selector in which global() has no meaning.
func parsePlain(field, s string) (selector.Node, error) {
	parsed, err := selector.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	if usesGlobal(parsed) {
		return nil, fmt.Errorf("%s: %s", field, globalMisplaced)
	}
	return parsed.Root(), nil
}

const globalMisplaced = "global() can only be the whole of a rule's namespaceSelector"

func usesGlobal(s *selector.Selector) bool {
	found := false
	selector.Walk(s.Root(), func(n selector.Node) {
		if _, ok := n.(selector.Global); ok {
			found = true
		}
	})
	return found
}

func replaceAll(n, by selector.Node) selector.Node {
	return selector.Rewrite(n, func(n selector.Node) selector.Node {
		if _, ok := n.(selector.All); ok {
			return by
		}
		return n
	})
}

// join makes the selector that needs all of nodes, without nil, all() and repeated ones.
func join(nodes ...selector.Node) (*selector.Selector, error) {
	var parts []selector.Node
	seen := map[string]bool{}
	for _, n := range nodes {
		if n == nil {
			continue
		}
		s, err := selector.New(n)
		if err != nil {
			return nil, err
		}
		if _, all := s.Root().(selector.All); all || seen[s.String()] {
			continue
		}
		seen[s.String()] = true
		parts = append(parts, s.Root())
	}
	switch len(parts) {
	case 0:
		return selector.New(selector.All{})
	case 1:
		return selector.New(parts[0])
	}
	return selector.New(selector.And{Of: parts})
}
