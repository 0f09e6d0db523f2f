package pump

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/drivers"
)

// words is what a hint names: "endpoint a", "policy p", "set s +1 -0" or "set s full"; "everything" if it is nil.
func words(ch *drivers.Changes) []string {
	if ch == nil {
		return []string{"everything"}
	}
	out := []string{}
	for id := range ch.Endpoints {
		out = append(out, "endpoint "+id.Sandbox)
	}
	for id := range ch.Policies {
		out = append(out, "policy "+id.Name)
	}
	for id, sc := range ch.Sets {
		what := fmt.Sprintf("+%d -%d", len(sc.Added), len(sc.Removed))
		if sc.Full {
			what = "full"
		}
		out = append(out, fmt.Sprintf("set %s %s", id, what))
	}
	slices.Sort(out)
	return out
}

func refuse(refs ...drivers.ObjectRef) error {
	e := &drivers.ApplyError{Failed: map[drivers.ObjectRef]error{}}
	for _, r := range refs {
		e.Failed[r] = errors.New("no")
	}
	return e
}

func policyRef(name string) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjPolicy, Policy: policyID(name)}
}

func policyID(name string) drivers.PolicyID {
	return drivers.PolicyID{Kind: drivers.KindGlobalNetworkPolicy, Name: name}
}

// world is the set s of two members, the policy p that names it, the policy q that does not, and an endpoint of each.
func world() *drivers.Update {
	u := setUpdate(0, 2)
	p := &drivers.Policy{ID: policyID("p"), Tier: "default", In: []drivers.Rule{{Action: drivers.Allow}}}
	p.In[0].Match.Src.Sets = []drivers.SetID{"s"}
	u.Policies[p.ID] = p
	u.Policies[policyID("q")] = &drivers.Policy{ID: policyID("q"), Tier: "default", In: []drivers.Rule{{Action: drivers.Deny}}}
	for _, name := range []string{"p", "q"} {
		list := &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default", Policies: []drivers.PolicyID{policyID(name)}}}}
		e := &drivers.Endpoint{ID: id("of-" + name)}
		e.Policy.Normal.In = list
		u.Endpoints[e.ID] = e
	}
	return u
}

// TestHintBesidePoison: what was applied beside an object that is refused is not looked at again and again.
func TestHintBesidePoison(t *testing.T) {
	run(t, Options{}, func(t *testing.T, p *Pump, d *script) {
		var failing []drivers.ObjectRef
		d.answer(func(int) (time.Duration, error) {
			if len(failing) == 0 {
				return 0, nil
			}
			return 0, refuse(failing...)
		})
		p.Offer(world())
		p.InSync()
		synctest.Wait()
		n := 1
		step := func(what string, u *drivers.Update, want ...string) {
			t.Helper()
			p.Offer(u)
			synctest.Wait()
			calls := d.seen()
			if len(calls) != n+1 {
				t.Fatalf("%s: %d Applies", what, len(calls)-n)
			}
			n++
			slices.Sort(want)
			if d := cmp.Diff(want, words(calls[n-1].ch)); d != "" {
				t.Errorf("%s: the hint:\n%s", what, d)
			}
		}
		step("nothing is wrong", setUpdate(2, 3), "set s +1 -0")
		failing = []drivers.ObjectRef{ref("bad")}
		step("it comes", endpoints("bad"), "endpoint bad")
		step("a set changes beside it", setUpdate(3, 4), "endpoint bad", "set s +1 -0")
		step("the set is compared once", endpoints("a"), "endpoint bad", "endpoint a", "set s full")
		step("and no more", endpoints("b"), "endpoint bad", "endpoint b")
		step("an exact difference is good again", setUpdate(4, 5), "endpoint bad", "set s +1 -0")
		step("what comes to a set that is to be compared", setUpdate(5, 6), "endpoint bad", "set s full")
		failing = []drivers.ObjectRef{{Kind: drivers.ObjSet, Set: "s"}}
		step("a set is refused", endpoints("c"), "endpoint bad", "endpoint c")
		step("what hangs on it may not be there", endpoints("d"), "endpoint d", "endpoint of-p", "policy p", "set s full")
		failing = []drivers.ObjectRef{policyRef("q")}
		step("another is refused", endpoints("e"), "endpoint e", "endpoint of-p", "policy p", "set s full")
		failing = nil
		step("all is well", endpoints("f"), "endpoint f", "endpoint of-q", "policy q")
		step("exact again", setUpdate(6, 7), "set s +1 -0")
	})
}

// TestHintStaysSmall: as many changes as there may be beside a poison object, the hint of each names the change.
func TestHintStaysSmall(t *testing.T) {
	run(t, Options{}, func(t *testing.T, p *Pump, d *script) {
		d.answer(func(int) (time.Duration, error) { return 0, refuse(ref("bad")) })
		p.Offer(endpoints("bad"))
		p.InSync()
		synctest.Wait()
		for i := range 1000 {
			p.Offer(endpoints(fmt.Sprint(i)))
			synctest.Wait()
		}
		for _, c := range d.seen()[1:] {
			if n := len(c.ch.Endpoints); n > 2 {
				t.Fatalf("a hint names %d endpoints after one has changed", n)
			}
		}
	})
}

// TestHintAfterAMix: an Apply that fails as a whole, between two that fail partly, loses nothing of the hint.
func TestHintAfterAMix(t *testing.T) {
	run(t, Options{}, func(t *testing.T, p *Pump, d *script) {
		p.Offer(setUpdate(0, 2))
		p.InSync()
		synctest.Wait()
		d.answer(func(n int) (time.Duration, error) {
			switch n {
			case 1:
				return 0, refuse(ref("bad"))
			case 2:
				return 0, errors.New("boom")
			}
			return 0, nil
		})
		u := endpoints("bad", "a")
		maps.Copy(u.Sets, setUpdate(2, 3).Sets)
		p.Offer(u)
		synctest.Wait()
		p.Offer(endpoints("b"))
		time.Sleep(time.Minute)
		var got [][]string
		for _, c := range d.seen()[1:] {
			got = append(got, words(c.ch))
		}
		want := [][]string{
			{"endpoint a", "endpoint bad", "set s +1 -0"},
			{"endpoint b", "endpoint bad", "set s full"},
			{"endpoint b", "endpoint bad", "set s full"},
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
}

// TestLoweredPoliciesAreInTheHint: a policy that enters or leaves an untracked list comes out of Lower different, though
// nothing about itself has changed.
func TestLoweredPoliciesAreInTheHint(t *testing.T) {
	d := &script{lacks: func(f *drivers.Features) { f.HTTP = false }}
	runWith(t, d, Options{}, func(t *testing.T, p *Pump, d *script) {
		pol := &drivers.Policy{ID: policyID("p"), Tier: "default", In: []drivers.Rule{{Action: drivers.Allow}}}
		pol.In[0].Match.HTTP = &drivers.HTTP{Methods: []string{"GET"}}
		u := drivers.NewUpdate()
		u.Policies[pol.ID] = pol
		p.Offer(u)
		p.InSync()
		synctest.Wait()
		host := drivers.EndpointID{Kind: drivers.HostInterface, Interface: "eth0"}
		for _, untracked := range []bool{true, false} {
			e := &drivers.Endpoint{ID: host, Iface: "eth0"}
			if untracked {
				e.Policy.Untracked.In = &drivers.TierList{Tiers: []drivers.TierPolicies{{Name: "default", Policies: []drivers.PolicyID{pol.ID}}}}
			}
			u := drivers.NewUpdate()
			u.Endpoints[host] = e
			p.Offer(u)
			synctest.Wait()
			calls := d.seen()
			last := calls[len(calls)-1]
			if _, ok := last.ch.Policies[pol.ID]; !ok {
				t.Errorf("untracked %v: the hint does not name the policy: %v", untracked, words(last.ch))
			}
		}
	})
}

// TestKicksInABusyCluster: a Kick that waits for its time does not make each change look at everything.
func TestKicksInABusyCluster(t *testing.T) {
	run(t, Options{}, func(t *testing.T, p *Pump, d *script) {
		p.InSync()
		synctest.Wait()
		for i := range 1000 { // ten seconds
			p.Kick()
			p.Offer(endpoints(fmt.Sprint(i)))
			time.Sleep(10 * time.Millisecond)
		}
		calls, full := d.seen()[1:], 0
		for _, c := range calls {
			if c.ch == nil {
				full++
			}
		}
		if full < 9 || full > 11 || len(calls) < 1000 {
			t.Errorf("%d Applies, of which %d looked at everything", len(calls), full)
		}
	})
}

// TestResyncBesidePoisonAndChange: rounds go on in a busy cluster in which an object is refused, and end.
func TestResyncBesidePoisonAndChange(t *testing.T) {
	run(t, Options{Resync: time.Minute}, func(t *testing.T, p *Pump, d *script) {
		d.answer(func(int) (time.Duration, error) { return 0, refuse(ref("bad")) })
		var names []string
		for i := range 600 {
			names = append(names, fmt.Sprint(i))
		}
		p.Offer(endpoints(append(names, "bad")...))
		p.InSync()
		synctest.Wait()
		skip := len(d.seen())
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			p.Offer(endpoints("busy"))
		}
		synctest.Wait()
		seen := map[string]bool{}
		for _, c := range d.seen()[skip:] {
			if n := len(c.ch.Endpoints); n > 25 {
				t.Fatalf("%d endpoints in one hint", n)
			}
			for id := range c.ch.Endpoints {
				seen[id.Sandbox] = true
			}
		}
		if len(seen) < 600 {
			t.Errorf("a round looked at %d objects of 601", len(seen))
		}
	})
}

func TestSetResync(t *testing.T) {
	run(t, Options{}, func(t *testing.T, p *Pump, d *script) {
		p.Offer(endpoints("a"))
		p.InSync()
		time.Sleep(time.Hour)
		if n := len(d.seen()); n != 1 {
			t.Fatalf("%d Applies without a resync", n)
		}
		p.SetResync(time.Minute)
		time.Sleep(10 * time.Minute)
		if n := len(d.seen()); n < 590 || n > 610 {
			t.Errorf("%d Applies in ten rounds of 60 ticks", n)
		}
		p.SetResync(0)
		synctest.Wait()
		n := len(d.seen())
		time.Sleep(time.Hour)
		if m := len(d.seen()); m != n {
			t.Errorf("%d Applies after it was switched off", m-n)
		}
	})
}

// TestWatchdogOfOtherCalls: whatever talks to the driver has the deadline and the watchdog of an Apply.
func TestWatchdogOfOtherCalls(t *testing.T) {
	run(t, Options{ApplyTimeout: time.Minute}, func(t *testing.T, p *Pump, _ *script) {
		p.InSync()
		synctest.Wait()
		ended := make(chan error)
		go func() {
			ended <- p.Do(t.Context(), func(ctx context.Context) {
				<-ctx.Done()
				time.Sleep(time.Hour)
			})
		}()
		time.Sleep(time.Minute + stuckAfter + time.Second)
		p.Read(func(v *View) {
			if !v.Stuck || v.Started.IsZero() {
				t.Errorf("nobody has noticed: %+v", v)
			}
		})
		if err := <-ended; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		p.Read(func(v *View) {
			if v.Stuck || !v.Started.IsZero() {
				t.Errorf("it came back: %+v", v)
			}
		})
	})
}
