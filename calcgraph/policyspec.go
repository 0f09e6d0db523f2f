package calcgraph

import (
	"slices"

	"github.com/tortie/tortie/api"
)

// policySpec is what a policy of any kind says.
type policySpec struct {
	tier            string
	order           float64
	ingress, egress []api.Rule
	in, out         bool
	staged          bool
	untracked       bool
	preDNAT         bool
	forward         bool
}

// sameButRules reports whether s and o differ at most in their rules.
func (s *policySpec) sameButRules(o *policySpec) bool {
	return s.tier == o.tier && s.order == o.order && s.in == o.in && s.out == o.out && s.staged == o.staged &&
		s.untracked == o.untracked && s.preDNAT == o.preDNAT && s.forward == o.forward
}

// kubernetesOrder is the order of policies made from Kubernetes network policies, all in the default tier.
const kubernetesOrder = 1000

// readPolicy returns what a policy says. ok is false for a staged one that has nothing to watch: one that would delete
// its namesake, or that is still being learned.
func readPolicy(o api.Object) (s policySpec, ok bool) {
	action := api.StagedSet
	var types []api.PolicyType
	switch o := o.(type) {
	case *api.NetworkPolicy:
		s, types = readNamespaced(&o.Spec)
	case *api.StagedNetworkPolicy:
		s, types = readNamespaced(&o.Spec.NetworkPolicySpec)
		s.staged, action = true, o.Spec.StagedAction
	case *api.GlobalNetworkPolicy:
		s, types = readGlobal(&o.Spec)
	case *api.StagedGlobalNetworkPolicy:
		s, types = readGlobal(&o.Spec.GlobalNetworkPolicySpec)
		s.staged, action = true, o.Spec.StagedAction
	case *api.StagedKubernetesNetworkPolicy:
		s.staged, action = true, o.Spec.StagedAction
		s.order = kubernetesOrder
		s.ingress, s.egress, types = api.KubernetesRules(&o.Spec)
	}
	if action != "" && action != api.StagedSet {
		return s, false
	}
	if s.tier == "" {
		s.tier = api.DefaultTier
	}
	s.in, s.out = slices.Contains(types, api.Ingress), slices.Contains(types, api.Egress)
	if len(types) == 0 {
		s.out = len(s.egress) > 0
		s.in = !s.out || len(s.ingress) > 0
	}
	if s.preDNAT {
		s.out = false
	}
	return s, true
}

func readNamespaced(p *api.NetworkPolicySpec) (policySpec, []api.PolicyType) {
	return policySpec{tier: p.Tier, order: orderOf(p.Order), ingress: p.Ingress, egress: p.Egress}, p.Types
}

func readGlobal(p *api.GlobalNetworkPolicySpec) (policySpec, []api.PolicyType) {
	return policySpec{
		tier: p.Tier, order: orderOf(p.Order), ingress: p.Ingress, egress: p.Egress,
		untracked: p.DoNotTrack, preDNAT: p.PreDNAT, forward: p.ApplyOnForward,
	}, p.Types
}

func orderOf(o *float64) float64 {
	if o == nil {
		return lastOrder
	}
	return min(*o, lastOrder)
}
