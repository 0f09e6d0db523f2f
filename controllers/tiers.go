package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/datastore"
)

const (
	// tierFinalizer keeps a tier while there are policies in it: without their tier they would deny everything. Built-in
	// tiers go without: nobody may delete them by themselves, and with Tortie they are to go.
	tierFinalizer = "tortie.io/policies"
	// waiting is the condition of a tier that is to go and can't yet.
	waiting = "Terminating"
)

// tiers sees to it that the built-in tiers exist and that no tier goes before its policies. It is for Kubernetes: nowhere
// else do finalizers keep an object, and nobody needs the built-in ones to be objects.
type tiers struct {
	w      *world
	config *config
	store  datastore.Store
}

// tiered are the kinds that are in tiers.
var tiered = []string{"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"}

func (t *tiers) part() part {
	return part{name: "tiers", step: t.step, needs: t.w.sees, every: t.config.every, kinds: append([]string{"Tier"}, tiered...)}
}

func (t *tiers) step(ctx context.Context) error {
	stored, err := listed[*api.Tier](t.w, "Tier")
	unreadable := errors.Is(err, datastore.ErrUnreadable)
	if err != nil && !unreadable {
		return err
	}
	var errs []error
	there := map[string]bool{}
	// In this order: members that came with the end of such an error count.
	blind := t.w.unlisted(tiered...)
	in := t.members()
	for _, o := range stored {
		there[o.Name] = true
		errs = append(errs, t.keep(ctx, o, in[o.Name], blind))
	}
	for _, o := range api.BuiltinTiers() {
		if there[o.Name] {
			continue
		}
		if _, err := t.store.Create(ctx, o); !errors.Is(err, datastore.ErrExists) { // or there, and can't be read
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// members returns the names of the policies of each tier, sorted.
func (t *tiers) members() map[string][]string {
	in := map[string][]string{}
	for key, p := range t.w.allPolicies() {
		if p.problem != nil {
			continue // it might be in any; it denies nothing, since it is absent
		}
		in[p.tier] = append(in[p.tier], key.String())
	}
	for _, names := range in {
		slices.Sort(names)
	}
	return in
}

// keep gives a tier the finalizer, or takes it away from one that is to go and is empty. blind says why there may be more
// policies than members.
func (t *tiers) keep(ctx context.Context, o *api.Tier, members []string, blind error) error {
	c := api.DeepCopy(o).(*api.Tier)
	var stays error
	has := slices.Contains(o.Finalizers, tierFinalizer)
	switch {
	case has && isBuiltin(o.Name):
		c.Finalizers = slices.DeleteFunc(c.Finalizers, func(f string) bool { return f == tierFinalizer })
	case isBuiltin(o.Name):
		return nil
	case o.DeletionTimestamp == nil && !has:
		c.Finalizers = append(c.Finalizers, tierFinalizer)
	case o.DeletionTimestamp == nil:
		return nil
	case has && len(members) == 0 && blind == nil:
		c.Finalizers = slices.DeleteFunc(c.Finalizers, func(f string) bool { return f == tierFinalizer })
	case has:
		if len(members) == 0 {
			stays = fmt.Errorf("tier %s is to go, and there may be policies in it: %w", o.Name, blind)
		}
		if !setCondition(c, members) {
			return stays
		}
	default:
		return nil
	}
	_, err := t.store.Update(ctx, c)
	return errors.Join(stays, ignoreRaces(err))
}

func isBuiltin(name string) bool {
	return slices.ContainsFunc(api.BuiltinTiers(), func(t *api.Tier) bool { return t.Name == name })
}

// setCondition says which policies a tier that is to go waits for, none being those that can't be seen; false if it says so
// already.
func setCondition(o *api.Tier, members []string) (changed bool) {
	const most = 5
	message := fmt.Sprintf("it goes when its policies are gone: %s", strings.Join(members[:min(most, len(members))], ", "))
	switch {
	case len(members) == 0:
		message = "it goes when its policies are gone, and not all kinds of them can be listed now"
	case len(members) > most:
		message += fmt.Sprintf(" and %d more", len(members)-most)
	}
	if o.Status == nil {
		o.Status = &api.ConditionsStatus{}
	}
	for i := range o.Status.Conditions {
		if c := &o.Status.Conditions[i]; c.Type == waiting {
			if c.Status == metav1.ConditionTrue && c.Message == message {
				return false
			}
			c.Status, c.Reason, c.Message = metav1.ConditionTrue, "PoliciesRemain", message
			return true
		}
	}
	o.Status.Conditions = append(o.Status.Conditions, metav1.Condition{
		Type: waiting, Status: metav1.ConditionTrue, Reason: "PoliciesRemain", Message: message, LastTransitionTime: metav1.Now(),
	})
	return true
}
