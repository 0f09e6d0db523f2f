package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tortie/tortie/agent/pump"
	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/fake"
)

func id(name string) drivers.EndpointID { return drivers.EndpointID{Sandbox: name, Interface: "eth0"} }

func member(n int) drivers.Member {
	return drivers.AddrMember(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}))
}

// randomState returns a State of a few objects in which every reference resolves.
func randomState(r *rand.Rand) *drivers.State {
	s := drivers.NewState()
	s.Node = drivers.Node{Name: "n", WorkloadPrefixes: []string{"tort"}, MTU: 1400 + r.IntN(2)}
	var sets []drivers.SetID
	for i := range 5 {
		if r.IntN(4) > 0 {
			var ms []drivers.Member
			for range r.IntN(8) {
				ms = append(ms, member(r.IntN(8)))
			}
			id := drivers.SetID(fmt.Sprint("s", i))
			s.Sets[id], sets = drivers.NewSet(drivers.SetNet, ms...), append(sets, id)
		}
	}
	var policies []drivers.PolicyID
	for i := range 5 {
		if r.IntN(4) > 0 && len(sets) > 0 {
			p := &drivers.Policy{ID: drivers.PolicyID{Kind: drivers.KindGlobalNetworkPolicy, Name: fmt.Sprint("p", i)}, Tier: "default"}
			p.In = []drivers.Rule{{ID: drivers.RuleID(r.IntN(100) + 1), Action: drivers.Allow,
				Match: drivers.Match{Src: drivers.Side{Sets: []drivers.SetID{sets[r.IntN(len(sets))]}}}}}
			s.Policies[p.ID], policies = p, append(policies, p.ID)
		}
	}
	for i := range 5 {
		if r.IntN(4) > 0 {
			e := &drivers.Endpoint{ID: id(fmt.Sprint("e", i)), Iface: fmt.Sprint("tort", i), Name: "x"}
			if len(policies) > 0 {
				e.Policy.Normal.In = &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default", Policies: []drivers.PolicyID{policies[r.IntN(len(policies))]}}}}
			}
			s.Endpoints[e.ID] = e
		}
	}
	return s
}

// update returns what makes b of a.
func update(a, b *drivers.State) *drivers.Update {
	u := drivers.NewUpdate()
	u.Node = &b.Node
	changed(u.Endpoints, a.Endpoints, b.Endpoints)
	changed(u.Policies, a.Policies, b.Policies)
	for id := range a.Sets {
		if b.Sets[id] == nil {
			u.Sets[id] = drivers.SetUpdate{}
		}
	}
	for id, set := range b.Sets {
		was := a.Sets[id]
		if was == nil {
			u.Sets[id] = drivers.SetUpdate{Set: set, Full: true}
			continue
		}
		su := drivers.SetUpdate{Set: set}
		for m := range set.All() {
			if !was.Has(m) {
				su.Added = append(su.Added, m)
			}
		}
		for m := range was.All() {
			if !set.Has(m) {
				su.Removed = append(su.Removed, m)
			}
		}
		u.Sets[id] = su
	}
	return u
}

func changed[K comparable, V any](u, a, b map[K]*V) {
	for k := range a {
		if b[k] == nil {
			u[k] = nil
		}
	}
	maps.Copy(u, b)
}

// TestRandomWay offers random States while writes fail, objects are refused and everything is slow: in the end the World
// is as the last State says, and on the way nothing is called enforced that the World has not.
func TestRandomWay(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	claims := 0
	for i := range 40 {
		synctest.Test(t, func(t *testing.T) { claims += randomWay(t, rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	if claims < 40 {
		t.Errorf("only %d endpoints were ever said to be enforced", claims)
	}
}

func randomWay(t *testing.T, r *rand.Rand) int {
	w := fake.NewWorld()
	w.Edit(func(s *drivers.State) { s.Merge(update(s, randomState(r)), nil) }) // an older agent's
	d, err := fake.Open(t.Context(), drivers.Options{}, w)
	if err != nil {
		t.Fatal(err)
	}
	p := pump.New(pump.Options{Driver: d, Log: slog.New(slog.DiscardHandler), ApplyTimeout: time.Minute})
	w.OnWrite(func(int, drivers.ObjectRef) { time.Sleep(time.Millisecond) })
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.Run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	p.InSync()
	tr := New(p)
	was, claims := drivers.NewState(), 0
	refused := drivers.ObjectRef{Kind: drivers.ObjSet, Set: "s1"}
	for range 60 {
		now := randomState(r)
		p.Offer(update(was, now))
		was = now
		switch r.IntN(6) {
		case 0:
			w.FailWrite(1 + r.IntN(10))
		case 1:
			w.Refuse(refused, errors.New("no"))
		case 2:
			w.Accept(refused)
		case 3:
			time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
			synctest.Wait()
			claims += checkClaims(t, tr, w)
		}
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
	}
	w.Accept(refused)
	w.FailWrite(0)
	time.Sleep(time.Minute)
	if got, want := w.State().String(), was.String(); got != want {
		t.Errorf("the World is\n%s\nwant\n%s", got, want)
	}
	for _, e := range tr.Endpoints() {
		if !e.Enforced {
			t.Errorf("in the end %s is not enforced: %s", e.Endpoint.ID.Sandbox, e.Reason)
		}
	}
	return claims
}

// checkClaims looks for what an endpoint that is said to be enforced must have in the World, and returns how many are.
func checkClaims(t *testing.T, tr *Tracker, w *fake.World) int {
	held, claims := w.State(), 0
	for _, e := range tr.Endpoints() {
		if !e.Enforced {
			if e.Reason == "" {
				t.Errorf("%s isn't enforced, and nobody knows why", e.Endpoint.ID.Sandbox)
			}
			continue
		}
		claims++
		if !reflect.DeepEqual(held.Endpoints[e.Endpoint.ID], e.Endpoint) {
			t.Errorf("%s is said to be enforced, but isn't there as it should be", e.Endpoint.ID.Sandbox)
		}
		if e.Endpoint.Policy.Normal.In == nil {
			continue
		}
		pid := e.Endpoint.Policy.Normal.In.Tiers[0].Policies[0]
		tr.p.Read(func(v *pump.View) {
			pol := v.Applied.Policies[pid]
			set := pol.In[0].Match.Src.Sets[0]
			if !reflect.DeepEqual(held.Policies[pid], pol) {
				t.Errorf("%s is said to be enforced, but its policy isn't there", e.Endpoint.ID.Sandbox)
			}
			if got := held.Sets[set]; got == nil || !got.Equal(v.Applied.Sets[set]) {
				t.Errorf("%s is said to be enforced, but its set isn't there", e.Endpoint.ID.Sandbox)
			}
		})
	}
	return claims
}
