// Package status says of each endpoint whether its policy is in the dataplane, and why not.
//
//	endpoint ──► tier lists ──► policies ──► sets
//	    └──────► profiles ────────┘
//	    └──────► its route
//
// An endpoint is enforced if nothing in that closure waits for the dataplane or was refused by it.
package status

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/tortie/tortie/agent/pump"
	"github.com/tortie/tortie/drivers"
)

// Tracker answers from a pump's View. It is safe for concurrent use.
type Tracker struct {
	p *pump.Pump

	mu sync.Mutex
	ix *index // of one version of the View
}

// New returns a Tracker of p.
func New(p *pump.Pump) *Tracker { return &Tracker{p: p} }

// index is what isn't in the dataplane, and who depends on it.
type index struct {
	version  uint64
	bad      map[drivers.ObjectRef]string // and why
	policies map[drivers.PolicyID]string
	lists    map[*drivers.TierList]string
}

// at returns the index of v. The caller holds v still.
func (t *Tracker) at(v *pump.View) *index {
	if t.ix == nil || t.ix.version != v.Version() {
		t.ix = newIndex(v)
	}
	return t.ix
}

func newIndex(v *pump.View) *index {
	ix := &index{version: v.Version(), bad: make(map[drivers.ObjectRef]string, len(v.Unapplied)+len(v.Failed)),
		policies: map[drivers.PolicyID]string{}, lists: map[*drivers.TierList]string{}}
	for ref := range v.Unapplied {
		ix.bad[ref] = ref.String() + " is on its way to the dataplane"
	}
	for ref, err := range v.Failed {
		ix.bad[ref] = fmt.Sprintf("the dataplane refused %s: %v", ref, err)
	}
	if len(ix.bad) == 0 {
		return ix
	}
	for id, p := range v.Applied.Policies {
		if why := ix.policy(p); why != "" {
			ix.policies[id] = why
		}
	}
	for ref, why := range ix.bad { // also those that must leave
		if p := v.Applied.Policies[ref.Policy]; ref.Kind == drivers.ObjPolicy && (p == nil || !p.Staged) {
			ix.policies[ref.Policy] = why
		}
	}
	return ix
}

func (ix *index) policy(p *drivers.Policy) string {
	if p.Staged {
		return "" // no packet meets it
	}
	for id := range p.SetIDs {
		if why := ix.bad[drivers.ObjectRef{Kind: drivers.ObjSet, Set: id}]; why != "" {
			return fmt.Sprintf("%s, which %s refers to", why, p.ID)
		}
	}
	return ""
}

func (ix *index) list(l *drivers.TierList) string {
	if l == nil || len(ix.policies) == 0 {
		return ""
	}
	why, known := ix.lists[l]
	if known {
		return why
	}
	for _, tier := range l.Tiers {
		for _, id := range tier.Policies {
			if why = ix.policies[id]; why != "" {
				ix.lists[l] = why
				return why
			}
		}
	}
	ix.lists[l] = ""
	return ""
}

// endpoint says why e is not enforced; "" if it is.
func (ix *index) endpoint(v *pump.View, e *drivers.Endpoint) string {
	if v.AllUnapplied {
		return "nothing was applied to the dataplane yet"
	}
	if e.Degraded != "" {
		return "denied: " + e.Degraded
	}
	if len(ix.bad) == 0 {
		return ""
	}
	for _, ref := range []drivers.ObjectRef{{Kind: drivers.ObjEndpoint, Endpoint: e.ID}, {Kind: drivers.ObjNode}} {
		if why := ix.bad[ref]; why != "" {
			return why
		}
	}
	for _, d := range []drivers.Directions{e.Policy.Normal, e.Policy.Forward, e.Policy.PreDNAT, e.Policy.Untracked} {
		for _, l := range []*drivers.TierList{d.In, d.Out} {
			if why := ix.list(l); why != "" {
				return why
			}
		}
	}
	for _, id := range e.Profiles {
		if why := ix.policies[id]; why != "" {
			return why
		}
	}
	if e.ID.Kind != drivers.Workload {
		return ""
	}
	for _, a := range e.Addrs {
		ref := drivers.ObjectRef{Kind: drivers.ObjRoute, Route: netip.PrefixFrom(a, a.BitLen())}
		if why := ix.bad[ref]; why != "" {
			return why
		}
	}
	return ""
}

// Enforced reports whether what the State says of id, at generation or later, is in the dataplane, and if not, why.
func (t *Tracker) Enforced(id drivers.EndpointID, generation uint64) (ok bool, reason string) {
	t.p.Read(func(v *pump.View) { ok, reason = t.enforced(v, id, generation) })
	return ok, reason
}

func (t *Tracker) enforced(v *pump.View, id drivers.EndpointID, generation uint64) (bool, string) {
	e := v.Applied.Endpoints[id]
	switch {
	case e == nil:
		return false, "it is not known to the dataplane yet"
	case e.Generation < generation:
		return false, "its last change has not come to the dataplane yet"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	why := t.at(v).endpoint(v, e)
	return why == "", why
}

// NotEnforced is the error of waiting in vain.
type NotEnforced struct {
	Reason string
	Err    error // of the context
}

// Error says why.
func (e *NotEnforced) Error() string { return "policy is not enforced: " + e.Reason }

// Unwrap returns the context's error.
func (e *NotEnforced) Unwrap() error { return e.Err }

// WaitEnforced waits until id is enforced, at generation or later, in a State that has taken in the pump's Offer since.
// If ctx ends first it returns a *NotEnforced.
func (t *Tracker) WaitEnforced(ctx context.Context, id drivers.EndpointID, generation, since uint64) error {
	reason := ""
	err := t.p.Wait(ctx, func(v *pump.View) (ok bool) {
		if v.Merged < since {
			reason = waitReason(v, "its last change has not come to the dataplane yet")
			return false
		}
		if ok, reason = t.enforced(v, id, generation); !ok {
			reason = waitReason(v, reason)
		}
		return ok
	})
	if err != nil && ctx.Err() != nil {
		return &NotEnforced{Reason: reason, Err: err}
	}
	return err
}

// WaitGone waits until nothing of id is in the dataplane, as of the pump's Offer since.
func (t *Tracker) WaitGone(ctx context.Context, id drivers.EndpointID, since uint64) error {
	reason := ""
	err := t.p.Wait(ctx, func(v *pump.View) bool {
		ref := drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id}
		_, waits := v.Unapplied[ref]
		reason = waitReason(v, "its removal has not come to the dataplane yet")
		return v.Merged >= since && !v.AllUnapplied && !waits && v.Failed[ref] == nil && v.Applied.Endpoints[id] == nil
	})
	if err != nil && ctx.Err() != nil {
		return &NotEnforced{Reason: reason, Err: err}
	}
	return err
}

// waitReason adds what the dataplane said last.
func waitReason(v *pump.View, reason string) string {
	var partly *drivers.ApplyError
	if err := v.Last.Err; err != nil && !errors.As(err, &partly) {
		return fmt.Sprintf("%s (the last try: %v)", reason, err)
	}
	return reason
}

// Endpoint is an endpoint of the State, and how it is.
type Endpoint struct {
	Endpoint *drivers.Endpoint // as the driver has it
	Enforced bool
	Reason   string // why it isn't enforced
	Losses   []drivers.Loss
}

// Endpoints returns how every endpoint is, in no order.
func (t *Tracker) Endpoints() []Endpoint {
	var out []Endpoint
	t.p.Read(func(v *pump.View) {
		t.mu.Lock()
		defer t.mu.Unlock()
		ix, losses := t.at(v), newLosses(v.Losses)
		for _, e := range v.Applied.Endpoints {
			why := ix.endpoint(v, e)
			out = append(out, Endpoint{Endpoint: e, Enforced: why == "", Reason: why, Losses: losses.of(e)})
		}
	})
	return out
}

// LossesOf returns the losses in the closure of each of ids.
func (t *Tracker) LossesOf(ids ...drivers.EndpointID) []drivers.Loss {
	var out []drivers.Loss
	t.p.Read(func(v *pump.View) {
		losses := newLosses(v.Losses)
		for _, id := range ids {
			if e := v.Applied.Endpoints[id]; e != nil {
				out = append(out, losses.of(e)...)
			}
		}
	})
	return out
}

// losses finds the losses of an endpoint: its own, and those of its policies.
type losses struct {
	byRef map[drivers.ObjectRef][]drivers.Loss
	lists map[*drivers.TierList][]drivers.Loss
}

func newLosses(all []drivers.Loss) losses {
	l := losses{byRef: map[drivers.ObjectRef][]drivers.Loss{}, lists: map[*drivers.TierList][]drivers.Loss{}}
	for _, x := range all {
		l.byRef[x.Object] = append(l.byRef[x.Object], x)
	}
	return l
}

func (l losses) of(e *drivers.Endpoint) []drivers.Loss {
	if len(l.byRef) == 0 {
		return nil
	}
	out := append([]drivers.Loss(nil), l.byRef[drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: e.ID}]...)
	for _, d := range []drivers.Directions{e.Policy.Normal, e.Policy.Forward, e.Policy.PreDNAT, e.Policy.Untracked} {
		out = append(append(out, l.ofList(d.In)...), l.ofList(d.Out)...)
	}
	for _, id := range e.Profiles {
		out = append(out, l.byRef[drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id}]...)
	}
	return out
}

func (l losses) ofList(list *drivers.TierList) []drivers.Loss {
	if list == nil {
		return nil
	}
	out, known := l.lists[list]
	if !known {
		for _, tier := range list.Tiers {
			for _, id := range tier.Policies {
				out = append(out, l.byRef[drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: id}]...)
			}
		}
		l.lists[list] = out
	}
	return out
}

// Describe puts a loss into words.
func Describe(l drivers.Loss) string {
	var b strings.Builder
	b.WriteString(l.Object.String())
	if l.Index >= 0 {
		dir := "egress"
		if l.In {
			dir = "ingress"
		}
		fmt.Fprintf(&b, ", %s rule %d", dir, l.Index)
	}
	fmt.Fprintf(&b, ": %s: %s", l.Clause, l.Effect)
	return b.String()
}
