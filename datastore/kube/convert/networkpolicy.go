package convert

import (
	"maps"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/api/selector"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// NetworkPolicyPrefix begins the names of the policies that are made from NetworkPolicies of Kubernetes.
	NetworkPolicyPrefix = "knp.default."
	// networkPolicyOrder is the order of all of them, in the default tier: between them it does not matter, since they
	// only allow.
	networkPolicyOrder = 1000
)

// NetworkPolicy reads a networking.k8s.io/v1 NetworkPolicy. A rule that is not understood allows nothing. An error means
// that the policy can't be used at all, since it is not known which pods it selects.
func NetworkPolicy(data []byte) (*api.NetworkPolicy, []api.Problem, error) {
	from, problems, err := api.DecodeKubernetesPolicy(data)
	if err != nil {
		return nil, problems, err
	}
	pods, err := podsOnly(&from.Spec.PodSelector)
	if err != nil {
		return nil, problems, api.Problem{Path: "spec.podSelector", Reason: err.Error()}
	}
	order := float64(networkPolicyOrder)
	p := &api.NetworkPolicy{TypeMeta: typed(api.GroupVersion, "NetworkPolicy"), ObjectMeta: policyMeta(&from.ObjectMeta, NetworkPolicyPrefix, api.DefaultTier)}
	p.Spec = api.NetworkPolicySpec{Tier: api.DefaultTier, Order: &order, Selector: pods}
	p.Spec.Ingress, p.Spec.Egress, p.Spec.Types = api.KubernetesRules(&from.Spec)
	return p, problems, nil
}

// podsOnly returns the selector of the endpoints that s selects, if they are pods. Policies of Kubernetes mean nothing else.
func podsOnly(labels *metav1.LabelSelector) (string, error) {
	s, err := api.LabelSelector(labels)
	if err != nil {
		return "", err
	}
	pods := selector.Node(selector.Eq{Label: api.LabelOrchestrator, Value: api.OrchestratorKubernetes})
	if _, all := s.Root().(selector.All); !all {
		pods = selector.And{Of: []selector.Node{s.Root(), pods}}
	}
	both, err := selector.New(pods)
	if err != nil {
		return "", err
	}
	return both.String(), nil
}

// policyMeta returns the metadata of a policy that is made from another one, with the label that says its tier.
func policyMeta(m *metav1.ObjectMeta, prefix, tier string) metav1.ObjectMeta {
	out := objectMeta(m, prefix+m.Name)
	out.Labels = map[string]string{}
	maps.Copy(out.Labels, m.Labels)
	out.Labels[api.LabelTier] = tier
	return out
}
