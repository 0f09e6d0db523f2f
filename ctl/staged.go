package ctl

import (
	"slices"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// enforceStaged makes the world what it would be if every staged policy were enforced: each takes the place of the policy
// that it is named after, and those that stage a deletion delete it.
func (w *world) enforceStaged() {
	gone := w.replaced()
	for name, s := range w.states {
		w.states[name] = enforced(s, gone)
	}
}

// replaced returns the policies in whose place staged ones come.
func (w *world) replaced() map[drivers.PolicyID]bool {
	gone := map[drivers.PolicyID]bool{}
	for key, o := range w.objects {
		var action api.StagedAction
		id := drivers.PolicyID{Namespace: key.Namespace, Name: key.Name}
		switch o := o.(type) {
		case *api.StagedNetworkPolicy:
			id.Kind, action = drivers.KindNetworkPolicy, o.Spec.StagedAction
		case *api.StagedGlobalNetworkPolicy:
			id.Kind, action = drivers.KindGlobalNetworkPolicy, o.Spec.StagedAction
		case *api.StagedKubernetesNetworkPolicy:
			id.Kind, action = drivers.KindKubernetesNetworkPolicy, o.Spec.StagedAction
		}
		if action == api.StagedSet || action == api.StagedDelete {
			gone[id] = true
		}
	}
	return gone
}

// enforced returns a State in which staged policies are policies, without those that are gone.
func enforced(s *drivers.State, gone map[drivers.PolicyID]bool) *drivers.State {
	out := s.Clone()
	for id, p := range s.Policies {
		if p.Staged {
			now := *p
			now.Staged = false
			out.Policies[id] = &now
		}
	}
	lists := map[*drivers.TierList]*drivers.TierList{nil: nil}
	list := func(l **drivers.TierList) {
		now, ok := lists[*l]
		if !ok {
			now = &drivers.TierList{}
			for _, t := range (*l).Tiers {
				t.Staged = false
				t.Policies = slices.DeleteFunc(slices.Clone(t.Policies), func(id drivers.PolicyID) bool { return gone[id] })
				if len(t.Policies) > 0 {
					now.Tiers = append(now.Tiers, t)
				}
			}
			lists[*l] = now
		}
		*l = now
	}
	for id, e := range s.Endpoints {
		now := *e
		for _, d := range []*drivers.Directions{&now.Policy.Normal, &now.Policy.Forward, &now.Policy.PreDNAT, &now.Policy.Untracked} {
			list(&d.In)
			list(&d.Out)
		}
		out.Endpoints[id] = &now
	}
	return out
}
