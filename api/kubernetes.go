package api

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/tortie/tortie/api/selector"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kubernetesOnly selects pods. A Kubernetes policy speaks of pods alone, not of network sets that carry their labels.
var kubernetesOnly = selector.Eq{Label: LabelOrchestrator, Value: OrchestratorKubernetes}

// KubernetesPolicyVersion is the apiVersion of Kubernetes' own NetworkPolicy.
const KubernetesPolicyVersion = "networking.k8s.io/v1"

// kubernetesPolicy is Kubernetes' own NetworkPolicy, which has the fields of the policy that stages one.
var kubernetesPolicy = KindInfo{Kind: "NetworkPolicy", APIVersion: KubernetesPolicyVersion, Namespaced: true, New: func() Object {
	o := &StagedKubernetesNetworkPolicy{}
	setType(o, KubernetesPolicyVersion, "NetworkPolicy")
	return o
}}

// DecodeKubernetesPolicy reads a NetworkPolicy of Kubernetes as DecodeStored reads the policy that stages one: a rule that
// is not understood allows nothing, and an error means that it is not known which pods the policy selects. Nothing is said
// of its metadata and status.
func DecodeKubernetesPolicy(data []byte) (*StagedKubernetesNetworkPolicy, []Problem, error) {
	o, problems, err := readStored(kubernetesPolicy, data)
	if err != nil {
		return nil, nil, err
	}
	policy, ok := o.(*StagedKubernetesNetworkPolicy)
	if !ok {
		return nil, nil, fmt.Errorf("decoding a NetworkPolicy of Kubernetes: it was read as a %s", o.GetKind())
	}
	if policy.Spec.StagedAction != "" {
		problems = append(problems, Problem{"spec.stagedAction", "unknown field"})
		policy.Spec.StagedAction = ""
	}
	// Kubernetes takes a direction that is given twice.
	slices.Sort(policy.Spec.PolicyTypes)
	policy.Spec.PolicyTypes = slices.Compact(policy.Spec.PolicyTypes)
	problems, err = closeStored("NetworkPolicy of Kubernetes", policy, problems)
	problems = slices.DeleteFunc(problems, func(p Problem) bool { return under(p.Path, "metadata", "status") })
	if err != nil {
		return nil, problems, err
	}
	return policy, problems, nil
}

// LabelSelector turns a label selector of Kubernetes into one of ours; an empty one gives all().
func LabelSelector(s *metav1.LabelSelector) (*selector.Selector, error) {
	n, err := kubernetesSelector(s)
	if err != nil {
		return nil, err
	}
	return selector.New(n)
}

// KubernetesRules turns the rules of a Kubernetes network policy into rules like those of a NetworkPolicy of the same
// namespace: one Allow for each peer and protocol, with the ports of that protocol merged into ranges. Rules, peers and
// ports that are not valid become a rule that says so in Unreadable, and so allows nothing.
//
// Peers with a selector mean pods only. An empty namespaceSelector means all namespaces.
func KubernetesRules(s *StagedKubernetesNetworkPolicySpec) (ingress, egress []Rule, types []PolicyType) {
	for i, r := range s.Ingress {
		path := fmt.Sprintf("spec.ingress[%d]", i)
		for _, out := range kubernetesRule(path, "from", r.From, r.Ports, r.Unreadable) {
			ingress = append(ingress, out.rule(func(r *Rule) *EntityRule { return &r.Source }))
		}
	}
	for i, r := range s.Egress {
		path := fmt.Sprintf("spec.egress[%d]", i)
		for _, out := range kubernetesRule(path, "to", r.To, r.Ports, r.Unreadable) {
			egress = append(egress, out.rule(func(r *Rule) *EntityRule { return &r.Destination }))
		}
	}
	if types = slices.Clone(s.PolicyTypes); len(types) == 0 {
		types = kubernetesTypes(s)
	}
	return ingress, egress, types
}

// kubernetesTypes is the default of policyTypes: a policy always governs ingress.
func kubernetesTypes(s *StagedKubernetesNetworkPolicySpec) []PolicyType {
	if len(s.Egress) > 0 {
		return []PolicyType{Ingress, Egress}
	}
	return []PolicyType{Ingress}
}

// allowance is one peer with the ports of one protocol.
type allowance struct {
	peer       EntityRule
	protocol   *Protocol
	ports      []Port
	unreadable []string
}

func (a allowance) rule(end func(*Rule) *EntityRule) Rule {
	r := Rule{Action: Allow, Protocol: a.protocol, Unreadable: a.unreadable}
	*end(&r) = a.peer
	r.Destination.Ports = a.ports
	return r
}

func kubernetesRule(path, peersField string, peers []KubernetesPeer, ports []KubernetesPort, unreadable []string) []allowance {
	if len(unreadable) > 0 {
		return []allowance{{unreadable: unreadable}}
	}
	var out []allowance
	groups, bad := groupPorts(path, ports)
	for _, p := range bad {
		out = append(out, allowance{unreadable: []string{p}})
	}
	ends := []EntityRule{{}}
	if len(peers) > 0 {
		ends = ends[:0]
	}
	for i := range peers {
		end, err := kubernetesPeer(&peers[i])
		if err != nil {
			out = append(out, allowance{unreadable: []string{fmt.Sprintf("%s.%s[%d]: %s", path, peersField, i, err)}})
			continue
		}
		ends = append(ends, end)
	}
	for _, end := range ends {
		for _, g := range groups {
			g.peer = end
			out = append(out, g)
		}
	}
	return out
}

// groupPorts returns an allowance without a peer for each protocol; one without a protocol if there are no ports.
func groupPorts(path string, ports []KubernetesPort) (groups []allowance, bad []string) {
	if len(ports) == 0 {
		return []allowance{{}}, nil
	}
	every := map[string]bool{} // protocols that are allowed on all ports
	for i, p := range ports {
		protocol := Protocol{Name: "TCP"}
		if p.Protocol != nil {
			protocol = canonicalProtocol(*p.Protocol)
		}
		port, err := kubernetesPort(p, protocol)
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s.ports[%d]: %s", path, i, err))
			continue
		}
		at := slices.IndexFunc(groups, func(g allowance) bool { return *g.protocol == protocol })
		if at < 0 {
			at = len(groups)
			groups = append(groups, allowance{protocol: &protocol})
		}
		if port == nil {
			every[protocol.Name] = true
			continue
		}
		groups[at].ports = append(groups[at].ports, *port)
	}
	for i := range groups {
		groups[i].ports = mergePorts(groups[i].ports)
		if every[groups[i].protocol.Name] {
			groups[i].ports = nil
		}
	}
	return groups, bad
}

// kubernetesPort returns nil for all ports.
func kubernetesPort(p KubernetesPort, protocol Protocol) (*Port, error) {
	switch protocol.Name {
	case "TCP", "UDP", "SCTP":
	default:
		return nil, fmt.Errorf("protocol %s is not TCP, UDP or SCTP", protocol)
	}
	switch {
	case p.Port == nil && p.EndPort == nil:
		return nil, nil
	case p.Port == nil || p.EndPort != nil && p.Port.Name != "":
		return nil, errors.New("endPort needs a port that is a number")
	case p.Port.Name != "":
		if err := checkPortName(p.Port.Name); err != nil {
			return nil, err
		}
		return &Port{Name: p.Port.Name}, nil
	case p.Port.First != p.Port.Last:
		return nil, fmt.Errorf("port %s is a range; write endPort", p.Port)
	case p.Port.First == 0:
		return nil, errors.New("port 0 is not between 1 and 65535")
	}
	last := p.Port.First
	if p.EndPort != nil {
		last = *p.EndPort
	}
	if last < p.Port.First {
		return nil, fmt.Errorf("endPort %d is below port %d", last, p.Port.First)
	}
	return &Port{First: p.Port.First, Last: last}, nil
}

// mergePorts sorts ports, numbers before names, and joins what touches or overlaps.
func mergePorts(ports []Port) []Port {
	slices.SortFunc(ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	var out []Port
	for _, p := range ports {
		if n := len(out) - 1; n >= 0 && out[n].Name == p.Name {
			if p.Name != "" {
				continue
			}
			if int(p.First) <= int(out[n].Last)+1 {
				out[n].Last = max(out[n].Last, p.Last)
				continue
			}
		}
		out = append(out, p)
	}
	return out
}

func kubernetesPeer(p *KubernetesPeer) (EntityRule, error) {
	var e EntityRule
	if p.IPBlock != nil {
		if p.PodSelector != nil || p.NamespaceSelector != nil {
			return e, errors.New("ipBlock can't be combined with selectors")
		}
		return kubernetesBlock(p.IPBlock)
	}
	if p.PodSelector == nil && p.NamespaceSelector == nil {
		return e, errors.New("needs podSelector, namespaceSelector or ipBlock")
	}
	pods := selector.Node(selector.All{})
	if p.PodSelector != nil {
		n, err := kubernetesSelector(p.PodSelector)
		if err != nil {
			return e, fmt.Errorf("podSelector: %w", err)
		}
		pods = n
	}
	s, err := join(pods, kubernetesOnly)
	if err != nil {
		return e, fmt.Errorf("podSelector: %w", err)
	}
	e.Selector = s.String()
	if p.NamespaceSelector != nil {
		n, err := kubernetesSelector(p.NamespaceSelector)
		if err != nil {
			return e, fmt.Errorf("namespaceSelector: %w", err)
		}
		if s, err = selector.New(n); err != nil {
			return e, fmt.Errorf("namespaceSelector: %w", err)
		}
		e.NamespaceSelector = s.String()
	}
	return e, nil
}

func kubernetesBlock(b *KubernetesIPBlock) (EntityRule, error) {
	outer, err := ParsePrefix(b.CIDR)
	if err != nil {
		return EntityRule{}, fmt.Errorf("ipBlock.cidr: %w", err)
	}
	e := EntityRule{Nets: []string{outer.String()}}
	for i, x := range b.Except {
		inner, err := ParsePrefix(x)
		if err != nil {
			return EntityRule{}, fmt.Errorf("ipBlock.except[%d]: %w", i, err)
		}
		if inner.Bits() <= outer.Bits() || !outer.Contains(inner.Addr()) {
			return EntityRule{}, fmt.Errorf("ipBlock.except[%d]: %s is not a part of %s", i, inner, outer)
		}
		e.NotNets = append(e.NotNets, inner.String())
	}
	return e, nil
}

// kubernetesSelector turns a label selector into nodes; an empty one gives all().
func kubernetesSelector(s *metav1.LabelSelector) (selector.Node, error) {
	var nodes []selector.Node
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		nodes = append(nodes, selector.Eq{Label: k, Value: s.MatchLabels[k]})
	}
	for i, e := range s.MatchExpressions {
		n, err := kubernetesExpression(e)
		if err != nil {
			return nil, fmt.Errorf("matchExpressions[%d]: %w", i, err)
		}
		nodes = append(nodes, n)
	}
	joined, err := join(nodes...)
	if err != nil {
		return nil, err
	}
	return joined.Root(), nil
}

func kubernetesExpression(e metav1.LabelSelectorRequirement) (selector.Node, error) {
	if withValues := e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn; withValues != (len(e.Values) > 0) {
		return nil, fmt.Errorf("operator %q with %d values", e.Operator, len(e.Values))
	}
	switch e.Operator {
	case metav1.LabelSelectorOpIn:
		return selector.In{Label: e.Key, Values: e.Values}, nil
	case metav1.LabelSelectorOpNotIn:
		return selector.NotIn{Label: e.Key, Values: e.Values}, nil
	case metav1.LabelSelectorOpExists:
		return selector.Has{Label: e.Key}, nil
	case metav1.LabelSelectorOpDoesNotExist:
		return selector.Not{Of: selector.Has{Label: e.Key}}, nil
	}
	return nil, fmt.Errorf("operator %q is not In, NotIn, Exists or DoesNotExist", e.Operator)
}
