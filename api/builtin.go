package api

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// DefaultTier is the tier of policies that name none.
	DefaultTier = "default"
	// AdminTier holds the Admin policies of Kubernetes' ClusterNetworkPolicy.
	AdminTier = "kube-admin"
	// BaselineTier holds the Baseline policies of Kubernetes' ClusterNetworkPolicy.
	BaselineTier = "kube-baseline"
	// DefaultAllowProfile allows everything. Automatic host endpoints have it.
	DefaultAllowProfile = "projectcalico-default-allow"
)

// BuiltinTiers returns the tiers that exist in every cluster, in their order. They can't be changed or deleted; an
// object of the store that has such a name can only repeat them.
func BuiltinTiers() []*Tier {
	return []*Tier{
		builtinTier(AdminTier, 1000, Pass),
		builtinTier(DefaultTier, 1_000_000, Deny),
		builtinTier(BaselineTier, 10_000_000, Pass),
	}
}

func builtinTier(name string, order float64, end Action) *Tier {
	return &Tier{
		TypeMeta:   metav1.TypeMeta{APIVersion: GroupVersion, Kind: "Tier"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       TierSpec{Order: &order, DefaultAction: &end},
	}
}

func builtinTierNamed(name string) *Tier {
	for _, t := range BuiltinTiers() {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// BuiltinProfiles returns the profiles that exist in every cluster.
func BuiltinProfiles() []*Profile {
	return []*Profile{{
		TypeMeta:   metav1.TypeMeta{APIVersion: GroupVersion, Kind: "Profile"},
		ObjectMeta: metav1.ObjectMeta{Name: DefaultAllowProfile},
		Spec:       ProfileSpec{Ingress: []Rule{{Action: Allow}}, Egress: []Rule{{Action: Allow}}},
	}}
}
