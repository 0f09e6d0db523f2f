package status

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tortie/tortie/agent/pump"
	"github.com/tortie/tortie/drivers"
)

// oddDriver answers with what a test says.
type oddDriver struct {
	mu  sync.Mutex
	err error
}

func (d *oddDriver) answer(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *oddDriver) Features() drivers.Features {
	f := drivers.AllFeatures("odd")
	f.Log = false
	return f
}
func (d *oddDriver) Close() error { return nil }
func (d *oddDriver) Apply(context.Context, *drivers.State, *drivers.Changes) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func run(t *testing.T, fn func(t *testing.T, tr *Tracker, d *oddDriver)) {
	synctest.Test(t, func(t *testing.T) {
		d := &oddDriver{}
		p := pump.New(pump.Options{Driver: d, Log: slog.New(slog.DiscardHandler), ApplyTimeout: time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			p.Run(ctx)
		}()
		fn(t, New(p), d)
		cancel()
		<-ended
	})
}

var (
	polA   = drivers.PolicyID{Kind: drivers.KindNetworkPolicy, Namespace: "n", Name: "a"}
	polB   = drivers.PolicyID{Kind: drivers.KindNetworkPolicy, Namespace: "n", Name: "b"}
	prof   = drivers.PolicyID{Kind: drivers.KindProfile, Name: "p"}
	staged = drivers.PolicyID{Kind: drivers.KindStagedNetworkPolicy, Namespace: "n", Name: "s"}
	addr   = netip.MustParseAddr("10.0.0.1")
)

// world is endpoint "a" with policy a (set s), policy b logging, a staged policy (set t) and profile p (set u); and
// endpoint "b" with nothing.
func world() *drivers.Update {
	rule := func(id drivers.RuleID, action drivers.Action, set drivers.SetID) []drivers.Rule {
		r := drivers.Rule{ID: id, Action: action}
		if set != "" {
			r.Match.Src.NotSets = []drivers.SetID{set}
		}
		return []drivers.Rule{r}
	}
	u := drivers.NewUpdate()
	for _, s := range []drivers.SetID{"s", "t", "u"} {
		u.Sets[s] = drivers.SetUpdate{Set: drivers.NewSet(drivers.SetNet), Full: true}
	}
	u.Policies[polA] = &drivers.Policy{ID: polA, In: rule(1, drivers.Allow, "s")}
	u.Policies[polB] = &drivers.Policy{ID: polB, Out: rule(2, drivers.Log, "")}
	u.Policies[staged] = &drivers.Policy{ID: staged, Staged: true, In: rule(3, drivers.Deny, "t")}
	u.Policies[prof] = &drivers.Policy{ID: prof, Out: rule(4, drivers.Allow, "u")}
	a := &drivers.Endpoint{ID: id("a"), Iface: "tort1", Addrs: []netip.Addr{addr}, Generation: 5, Profiles: []drivers.PolicyID{prof}}
	a.Policy.Normal.In = &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default", Policies: []drivers.PolicyID{polA, staged}}}}
	a.Policy.Normal.Out = &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default", Policies: []drivers.PolicyID{polB}}}}
	u.Endpoints[id("a")] = a
	u.Endpoints[id("b")] = &drivers.Endpoint{ID: id("b"), Iface: "tort2"}
	u.Routes[netip.PrefixFrom(addr, 32)] = &drivers.Route{Dst: netip.PrefixFrom(addr, 32), Iface: "tort1"}
	return u
}

func TestEnforcedFollowsTheClosure(t *testing.T) {
	for _, c := range []struct {
		failed drivers.ObjectRef
		want   string // in the reason of a; "" = it is enforced
		b      bool
	}{
		{drivers.ObjectRef{Kind: drivers.ObjSet, Set: "s"}, "refused set s: no, which NetworkPolicy/n/a refers to", true},
		{drivers.ObjectRef{Kind: drivers.ObjSet, Set: "u"}, "which Profile/p refers to", true},
		{drivers.ObjectRef{Kind: drivers.ObjSet, Set: "t"}, "", true},
		{drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: polB}, "refused policy NetworkPolicy/n/b", true},
		{drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: prof}, "refused policy Profile/p", true},
		{drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: staged}, "", true},
		{drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id("a")}, "refused endpoint a/eth0", true},
		{drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id("b")}, "", false},
		{drivers.ObjectRef{Kind: drivers.ObjRoute, Route: netip.PrefixFrom(addr, 32)}, "refused route 10.0.0.1/32", true},
		{drivers.ObjectRef{Kind: drivers.ObjRoute, Route: netip.MustParsePrefix("10.9.0.0/16")}, "", true},
		{drivers.ObjectRef{Kind: drivers.ObjNode}, "refused node", false},
		{drivers.ObjectRef{Kind: drivers.ObjMasquerade}, "", true},
	} {
		run(t, func(t *testing.T, tr *Tracker, d *oddDriver) {
			if ok, reason := tr.Enforced(id("a"), 0); ok || reason == "" {
				t.Errorf("before anything: %v %q", ok, reason)
			}
			d.answer(&drivers.ApplyError{Failed: map[drivers.ObjectRef]error{c.failed: errors.New("no")}})
			tr.p.Offer(world())
			tr.p.InSync()
			synctest.Wait()
			ok, reason := tr.Enforced(id("a"), 5)
			if ok != (c.want == "") || !strings.Contains(reason, c.want) {
				t.Errorf("%s failed: a is enforced: %v, %q, want %q", c.failed, ok, reason, c.want)
			}
			if ok, reason := tr.Enforced(id("b"), 0); ok != c.b {
				t.Errorf("%s failed: b is enforced: %v, %q", c.failed, ok, reason)
			}
			d.answer(nil)
			time.Sleep(time.Minute)
			if ok, reason := tr.Enforced(id("a"), 5); !ok {
				t.Errorf("%s is accepted: %q", c.failed, reason)
			}
			if ok, _ := tr.Enforced(id("a"), 6); ok {
				t.Error("a generation that is yet to come is enforced")
			}
		})
	}
}

func TestWhatFailsAsAWholeIsNotEnforced(t *testing.T) {
	run(t, func(t *testing.T, tr *Tracker, d *oddDriver) {
		tr.p.Offer(world())
		tr.p.InSync()
		synctest.Wait()
		d.answer(errors.New("kernel busy"))
		u := drivers.NewUpdate()
		u.Policies[polA] = &drivers.Policy{ID: polA}
		since := tr.p.Offer(u)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := tr.WaitEnforced(ctx, id("a"), 0, since)
		var not *NotEnforced
		if !errors.As(err, &not) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "kernel busy") ||
			!strings.Contains(err.Error(), "NetworkPolicy/n/a") {
			t.Errorf("%v", err)
		}
		if ok, reason := tr.Enforced(id("b"), 0); !ok {
			t.Errorf("b has nothing to do with it: %q", reason)
		}
		d.answer(nil)
		if err := tr.WaitEnforced(t.Context(), id("a"), 0, since); err != nil {
			t.Error(err)
		}
	})
}

func TestWaitGone(t *testing.T) {
	run(t, func(t *testing.T, tr *Tracker, d *oddDriver) {
		tr.p.Offer(world())
		tr.p.InSync()
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tr.WaitGone(short, id("a"), 0); err == nil {
			t.Error("it is still there")
		}
		d.answer(&drivers.ApplyError{Failed: map[drivers.ObjectRef]error{{Kind: drivers.ObjEndpoint, Endpoint: id("a")}: errors.New("no")}})
		u := drivers.NewUpdate()
		u.Endpoints[id("a")] = nil
		since := tr.p.Offer(u)
		short, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tr.WaitGone(short, id("a"), since); err == nil {
			t.Error("its removal was refused")
		}
		d.answer(nil)
		if err := tr.WaitGone(t.Context(), id("a"), since); err != nil {
			t.Error(err)
		}
	})
}

func TestLossesOfAnEndpoint(t *testing.T) {
	run(t, func(t *testing.T, tr *Tracker, d *oddDriver) {
		tr.p.Offer(world())
		tr.p.InSync()
		synctest.Wait()
		for _, e := range tr.Endpoints() {
			if !e.Enforced {
				t.Errorf("%+v", e)
			}
			want := 0
			if e.Endpoint.ID == id("a") {
				want = 1
			}
			if len(e.Losses) != want || len(tr.LossesOf(e.Endpoint.ID)) != want {
				t.Errorf("%s: %v", e.Endpoint.ID.Sandbox, e.Losses)
			}
			for _, l := range e.Losses {
				if got := Describe(l); !strings.HasPrefix(got, "policy NetworkPolicy/n/b, egress rule 0: log: ") {
					t.Errorf("%q", got)
				}
			}
		}
	})
}
