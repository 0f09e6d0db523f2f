package calcgraph

import (
	"reflect"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// profile is the rules of a profile that exists, or that an endpoint of this node names.
type profile struct {
	name    string
	exists  bool
	builtin bool
	ingress []api.Rule
	egress  []api.Rule
	users   int // endpoints of this node
	fresh   bool
	value   *drivers.Policy
	held    []*set
	bad     []Problem // of the rules, while in use
}

func profileID(name string) drivers.PolicyID {
	return drivers.PolicyID{Kind: drivers.KindProfile, Name: name}
}

func (ps *policies) profile(name string) *profile {
	p := ps.profiles[name]
	if p == nil {
		p = &profile{name: name}
		for _, b := range api.BuiltinProfiles() {
			if b.Name == name {
				p.exists, p.builtin, p.ingress, p.egress = true, true, b.Spec.Ingress, b.Spec.Egress
			}
		}
		ps.profiles[name] = p
	}
	return p
}

// setProfile takes in the rules of a profile, nil if it is gone. Built-in profiles are what they are.
func (ps *policies) setProfile(name string, o *api.Profile) {
	p := ps.profile(name)
	defer ps.pruneProfile(p)
	if p.builtin {
		return
	}
	var ingress, egress []api.Rule
	if o != nil {
		ingress, egress = o.Spec.Ingress, o.Spec.Egress
	}
	if p.exists == (o != nil) && reflect.DeepEqual(p.ingress, ingress) && reflect.DeepEqual(p.egress, egress) {
		return
	}
	p.exists, p.ingress, p.egress = o != nil, ingress, egress
	ps.touchProfile(p)
}

func (ps *policies) pruneProfile(p *profile) {
	if p.users == 0 && (!p.exists || p.builtin) {
		delete(ps.profiles, p.name)
	}
}

func (ps *policies) touchProfile(p *profile) {
	p.fresh = true
	ps.changed[profileID(p.name)] = struct{}{}
}

// useProfile counts an endpoint of this node that names a profile.
func (ps *policies) useProfile(name string) {
	p := ps.profile(name)
	if p.users++; p.users == 1 {
		ps.touchProfile(p)
	}
}

func (ps *policies) unuseProfile(name string) {
	p := ps.profiles[name]
	if p.users--; p.users == 0 {
		ps.touchProfile(p)
		ps.pruneProfile(p)
		ps.sets.release(p.held)
		p.value, p.held, p.bad = nil, nil, nil
	}
}

// flushProfiles reads the rules of profiles that are in use. A missing one denies what comes to it: profiles before it come
// first.
func (ps *policies) flushProfiles() {
	for id := range ps.changed {
		p := ps.profiles[id.Name]
		if id.Kind != drivers.KindProfile || p == nil || p.users == 0 || !p.fresh {
			continue
		}
		p.fresh = false
		r := &ruleReader{sets: ps.sets, problems: problems{key: keyOf(id)}}
		v := &drivers.Policy{ID: id, In: []drivers.Rule{{Action: drivers.Deny}}, Out: []drivers.Rule{{Action: drivers.Deny}}}
		if p.exists {
			v.In, v.Out = r.rules("spec.ingress", true, p.ingress), r.rules("spec.egress", false, p.egress)
		} else {
			r.problems.add("", "the profile is missing: it gives no labels, and endpoints that have it deny what no policy and none of their profiles before it decides")
		}
		v.SetRuleIDs()
		ps.sets.release(p.held)
		p.value, p.held = v, r.held
		ps.stage(id)
		p.bad = r.problems.list
	}
}
