package pump

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tortie/tortie/drivers"
)

// script is a driver that notes its calls and does what a test says.
type script struct {
	mu      sync.Mutex
	calls   []applied
	busy    bool
	cuts    [][]netip.Addr
	answers func(n int) (time.Duration, error) // of the n-th Apply, from 0
	lacks   func(*drivers.Features)            // what it can't
	deaf    bool                               // ignores its context
}

// applied is one call of Apply.
type applied struct {
	at        time.Time
	endpoints []string
	ch        *drivers.Changes
}

func (d *script) Features() drivers.Features {
	f := drivers.AllFeatures("script")
	if d.lacks != nil {
		d.lacks(&f)
	}
	return f
}

func (d *script) Close() error { return nil }

func (d *script) Apply(ctx context.Context, s *drivers.State, ch *drivers.Changes) error {
	d.enter()
	defer d.leave()
	a := applied{at: time.Now()}
	for id := range s.Endpoints {
		a.endpoints = append(a.endpoints, id.Sandbox)
	}
	slices.Sort(a.endpoints)
	if ch != nil {
		a.ch = drivers.NewChanges()
		a.ch.Node, a.ch.Masquerade = ch.Node, ch.Masquerade
		maps.Copy(a.ch.Endpoints, ch.Endpoints)
		maps.Copy(a.ch.Policies, ch.Policies)
		for id, sc := range ch.Sets {
			c := *sc
			a.ch.Sets[id] = &c
		}
	}
	d.mu.Lock()
	n, answers, deaf := len(d.calls), d.answers, d.deaf
	d.calls = append(d.calls, a)
	d.mu.Unlock()
	if answers == nil {
		return nil
	}
	wait, err := answers(n)
	if deaf {
		time.Sleep(wait)
		return err
	}
	select {
	case <-time.After(wait):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *script) CutFlows(_ context.Context, addrs []netip.Addr) error {
	d.enter()
	defer d.leave()
	d.cuts = append(d.cuts, addrs)
	return nil
}

// enter panics if two calls overlap.
func (d *script) enter() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy {
		panic("two calls of one driver overlap")
	}
	d.busy = true
}

func (d *script) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = false
}

func (d *script) seen() []applied {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

func (d *script) answer(fn func(n int) (time.Duration, error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers = fn
}

// run tests fn with a running pump, in a bubble with a clock of its own.
func run(t *testing.T, o Options, fn func(t *testing.T, p *Pump, d *script)) {
	runWith(t, &script{}, o, fn)
}

func runWith(t *testing.T, d *script, o Options, fn func(t *testing.T, p *Pump, d *script)) {
	synctest.Test(t, func(t *testing.T) {
		o.Driver, o.Log = d, slog.New(slog.DiscardHandler)
		if o.ApplyTimeout == 0 {
			o.ApplyTimeout = time.Minute
		}
		p := New(o)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			p.Run(ctx)
		}()
		fn(t, p, d)
		cancel()
		<-ended
	})
}

func id(name string) drivers.EndpointID { return drivers.EndpointID{Sandbox: name, Interface: "eth0"} }

func endpoints(names ...string) *drivers.Update {
	u := drivers.NewUpdate()
	for _, n := range names {
		u.Endpoints[id(n)] = &drivers.Endpoint{ID: id(n)}
	}
	return u
}

func member(n int) drivers.Member {
	return drivers.AddrMember(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}))
}

// setUpdate says that the set has come to hold the members 0 to n-1, of which those from was on are new.
func setUpdate(was, n int) *drivers.Update {
	var all []drivers.Member
	for i := range n {
		all = append(all, member(i))
	}
	u := drivers.NewUpdate()
	su := drivers.SetUpdate{Set: drivers.NewSet(drivers.SetNet, all...), Full: was == 0}
	if was > 0 {
		su.Added = all[was:]
	}
	u.Sets["s"] = su
	return u
}

func ref(name string) drivers.ObjectRef {
	return drivers.ObjectRef{Kind: drivers.ObjEndpoint, Endpoint: id(name)}
}

func TestNothingBeforeInSync(t *testing.T) {
	run(t, Options{Resync: time.Minute}, func(t *testing.T, p *Pump, d *script) {
		p.Offer(endpoints("a"))
		p.Kick()
		time.Sleep(time.Hour)
		if n := len(d.seen()); n != 0 {
			t.Fatalf("%d Applies before in-sync", n)
		}
		p.Offer(endpoints("b"))
		p.InSync()
		synctest.Wait()
		calls := d.seen()
		if len(calls) == 0 || calls[0].ch != nil {
			t.Fatalf("after in-sync: %+v", calls)
		}
		if d := cmp.Diff([]string{"a", "b"}, calls[0].endpoints); d != "" {
			t.Error(d)
		}
	})
}

func TestOffersAreCoalesced(t *testing.T) {
	run(t, Options{}, func(t *testing.T, p *Pump, d *script) {
		p.Offer(setUpdate(0, 2))
		p.InSync()
		synctest.Wait()
		d.answer(func(int) (time.Duration, error) { return 10 * time.Second, nil })
		var last uint64
		for i := range 1000 { // the first starts a slow Apply, the others come while it runs
			before := time.Now()
			u := endpoints(fmt.Sprint(i)) // in one Offer: between two of them the slow Apply may begin
			u.Sets = setUpdate(i+2, i+3).Sets
			last = p.Offer(u)
			if d := time.Since(before); d != 0 {
				t.Fatalf("an Offer took %v", d)
			}
			if i == 0 {
				time.Sleep(time.Second)
			}
		}
		time.Sleep(time.Minute)
		calls := d.seen()
		if len(calls) != 3 {
			t.Fatalf("%d Applies, want 3: the first, the slow one, and one for all the rest", len(calls))
		}
		sc := calls[2].ch.Sets["s"]
		if sc.Full || len(sc.Added) != 999 || len(sc.Removed) != 0 {
			t.Errorf("the set's change: full %v, %d added, %d removed", sc.Full, len(sc.Added), len(sc.Removed))
		}
		if len(calls[2].endpoints) != 1000 || len(calls[2].ch.Endpoints) != 999 {
			t.Errorf("%d endpoints, %d changed", len(calls[2].endpoints), len(calls[2].ch.Endpoints))
		}
		p.Read(func(v *View) {
			if !v.Clean() || v.Merged < last || v.Wanted.Sets["s"].Len() != 1002 {
				t.Errorf("clean %v, merged %d of %d, %d members", v.Clean(), v.Merged, last, v.Wanted.Sets["s"].Len())
			}
		})
	})
}

func TestBackoffIsKeptWhenChangesArrive(t *testing.T) {
	run(t, Options{}, func(t *testing.T, p *Pump, d *script) {
		p.Offer(setUpdate(0, 2))
		p.InSync()
		synctest.Wait()
		boom := errors.New("boom")
		d.answer(func(int) (time.Duration, error) { return 0, boom })
		p.Offer(setUpdate(2, 3))
		for i := range 600 { // for a minute, something changes ten times a second
			time.Sleep(100 * time.Millisecond)
			p.Offer(setUpdate(i+3, i+4))
		}
		calls := d.seen()[1:]
		if len(calls) > 14 {
			t.Errorf("%d Applies in a minute of failures", len(calls))
		}
		for i, c := range calls {
			switch {
			case i == 0 && (c.ch == nil || c.ch.Sets["s"].Full):
				t.Errorf("the first had a plain hint to go by: %+v", c.ch)
			case (i == 1 || i == 2) && (c.ch == nil || !c.ch.Sets["s"].Full):
				t.Errorf("Apply %d after an error: %+v, want the set Full", i, c.ch)
			case i >= 3 && c.ch != nil:
				t.Errorf("Apply %d after many errors still trusts its hints", i)
			}
		}
		p.Read(func(v *View) {
			if v.Clean() || !errors.Is(v.Last.Err, boom) || v.Retry.Before(time.Now()) {
				t.Errorf("%+v", v)
			}
		})
		d.answer(nil)
		p.Offer(endpoints("late"))
		time.Sleep(maxRetry)
		p.Read(func(v *View) {
			if !v.Clean() || v.Last.Err != nil || len(v.Applied.Endpoints) != 1 {
				t.Errorf("after it went away: %+v", v)
			}
		})
		n := len(d.seen())
		p.Offer(endpoints("later"))
		synctest.Wait()
		if calls := d.seen(); len(calls) != n+1 || calls[n].ch == nil || len(calls[n].ch.Endpoints) != 1 {
			t.Errorf("hints are exact again: %+v", calls[n:])
		}
	})
}

func TestAPoisonObjectDoesNotHoldUpOthers(t *testing.T) {
	run(t, Options{}, func(t *testing.T, p *Pump, d *script) {
		poison := &drivers.ApplyError{Failed: map[drivers.ObjectRef]error{ref("bad"): errors.New("no")}}
		d.answer(func(int) (time.Duration, error) { return 0, poison })
		p.Offer(endpoints("good", "bad"))
		p.InSync()
		synctest.Wait()
		p.Read(func(v *View) {
			if v.AllUnapplied || len(v.Unapplied) != 0 || len(v.Failed) != 1 || v.Failed[ref("bad")] == nil {
				t.Errorf("%+v", v)
			}
		})
		start := time.Now()
		for i := range 100 {
			p.Offer(endpoints(fmt.Sprint(i)))
			synctest.Wait()
		}
		calls := d.seen()
		if len(calls) != 101 || time.Since(start) != 0 {
			t.Errorf("%d Applies for 100 changes, %v late", len(calls), time.Since(start))
		}
		for _, c := range calls[1:] {
			if c.ch == nil {
				t.Fatal("a change was applied by looking at everything")
			}
			if _, ok := c.ch.Endpoints[id("bad")]; !ok {
				t.Fatalf("what has failed is not in the hint: %+v", c.ch)
			}
		}
		time.Sleep(10 * time.Minute)
		again := d.seen()[len(calls):]
		if n := len(again); n < 20 || n > 35 {
			t.Errorf("tried again %d times in ten minutes", n)
		}
		for _, c := range again {
			if c.ch == nil {
				t.Error("an object that is refused for good has everything looked at again and again")
			}
		}
		d.answer(nil)
		time.Sleep(maxRetry)
		p.Read(func(v *View) {
			if !v.Clean() {
				t.Errorf("%+v", v)
			}
		})
		n := len(d.seen())
		time.Sleep(time.Hour)
		if len(d.seen()) != n {
			t.Error("Apply is called again and again with nothing to do")
		}
	})
}

func TestBootState(t *testing.T) {
	boot := drivers.NewState()
	boot.Merge(endpoints("old"), nil)
	fails := func(n int) (time.Duration, error) {
		if n < 2 {
			return 0, errors.New("not yet")
		}
		return 0, nil
	}
	run(t, Options{Boot: boot, Resync: time.Hour}, func(t *testing.T, p *Pump, d *script) {
		d.answer(fails)
		p.Offer(endpoints("new"))
		time.Sleep(time.Hour)
		calls := d.seen()
		if len(calls) != 3 {
			t.Fatalf("%d Applies of the boot State, want 3: two failed", len(calls))
		}
		for _, c := range calls {
			if c.ch != nil || !slices.Equal(c.endpoints, []string{"old"}) {
				t.Errorf("%+v", c)
			}
		}
		p.Read(func(v *View) {
			if v.InSync || v.Merged != 0 || !v.Clean() {
				t.Errorf("%+v", v)
			}
		})
		p.Kick() // the dataplane is ours already, so it is mended
		synctest.Wait()
		if calls := d.seen(); len(calls) != 4 || calls[3].ch != nil || !slices.Equal(calls[3].endpoints, []string{"old"}) {
			t.Errorf("after a kick: %+v", calls[3:])
		}
		p.InSync()
		synctest.Wait()
		calls = d.seen()
		if len(calls) != 5 || calls[4].ch != nil || !slices.Equal(calls[4].endpoints, []string{"new"}) {
			t.Errorf("after in-sync: %+v", calls[4:])
		}
	})
}

func TestKicksLookAtEverything(t *testing.T) {
	run(t, Options{}, func(t *testing.T, p *Pump, d *script) {
		p.InSync()
		synctest.Wait()
		for range 1000 { // ten seconds of kicks
			p.Kick()
			time.Sleep(10 * time.Millisecond)
		}
		calls := d.seen()[1:]
		if len(calls) < 9 || len(calls) > 11 {
			t.Errorf("%d Applies", len(calls))
		}
		for _, c := range calls {
			if c.ch != nil {
				t.Errorf("%+v", c.ch)
			}
		}
	})
}

func TestRollingResync(t *testing.T) {
	run(t, Options{Resync: time.Minute}, func(t *testing.T, p *Pump, d *script) {
		var names []string
		for i := range 600 {
			names = append(names, fmt.Sprint(i))
		}
		p.Offer(endpoints(names...))
		p.Offer(setUpdate(0, 64*600))
		p.InSync()
		synctest.Wait()
		for round := range 3 {
			skip := len(d.seen())
			for range 600 { // a busy cluster: it goes round all the same
				time.Sleep(100 * time.Millisecond)
				p.Offer(endpoints("busy"))
			}
			synctest.Wait()
			seen := map[string]int{}
			for _, c := range d.seen()[skip:] {
				if c.ch == nil {
					t.Fatal("everything was looked at")
				}
				if n := len(c.ch.Endpoints); n > 25 {
					t.Errorf("%d endpoints in one tick", n)
				}
				for id := range c.ch.Endpoints {
					seen[id.Sandbox]++
				}
				if sc := c.ch.Sets["s"]; sc != nil {
					seen["s"]++
					if !sc.Full {
						t.Errorf("%+v", sc)
					}
				}
			}
			delete(seen, "busy")
			if len(seen) < 599 || len(seen) > 601 { // the ticks may be one off the rounds
				t.Errorf("round %d looked at %d objects of 601", round, len(seen))
			}
		}
	})
}

func TestResyncNever(t *testing.T) {
	run(t, Options{}, func(t *testing.T, p *Pump, d *script) {
		p.Offer(endpoints("a"))
		p.InSync()
		time.Sleep(24 * time.Hour)
		if n := len(d.seen()); n != 1 {
			t.Errorf("%d Applies in a day without change", n)
		}
	})
}

func TestDeadlineAndWatchdog(t *testing.T) {
	run(t, Options{ApplyTimeout: time.Minute}, func(t *testing.T, p *Pump, d *script) {
		d.answer(func(n int) (time.Duration, error) {
			if n == 0 {
				return time.Hour, nil
			}
			return 0, nil
		})
		p.Offer(endpoints("a"))
		p.InSync()
		time.Sleep(61 * time.Second)
		p.Read(func(v *View) {
			if !v.Clean() || v.Stuck || len(d.seen()) != 2 {
				t.Errorf("after a deadline: %+v", v)
			}
		})
		d.mu.Lock()
		d.deaf = true
		d.mu.Unlock()
		d.answer(func(int) (time.Duration, error) { return time.Hour, nil })
		p.Offer(endpoints("b"))
		time.Sleep(time.Minute + stuckAfter - time.Second)
		p.Read(func(v *View) {
			if v.Stuck || v.Started.IsZero() {
				t.Errorf("stuck too early: %+v", v)
			}
		})
		time.Sleep(2 * time.Second)
		p.Read(func(v *View) {
			if !v.Stuck {
				t.Error("nobody has noticed")
			}
		})
		time.Sleep(time.Hour)
		p.Read(func(v *View) {
			if v.Stuck || !v.Clean() {
				t.Errorf("it came back: %+v", v)
			}
		})
	})
}

func TestCutFlowsInOneGo(t *testing.T) {
	run(t, Options{}, func(t *testing.T, p *Pump, d *script) {
		d.answer(func(int) (time.Duration, error) { return time.Second, nil })
		p.InSync()
		synctest.Wait() // an Apply runs
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if err := p.CutFlows(t.Context(), []netip.Addr{member(i).Prefix.Addr()}); err != nil {
					t.Error(err)
				}
			})
		}
		ran := false
		wg.Go(func() {
			if err := p.Do(t.Context(), func(context.Context) { ran = true }); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if len(d.cuts) != 1 || len(d.cuts[0]) != 50 || !ran {
			t.Errorf("%d cuts, do %v", len(d.cuts), ran)
		}
	})
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &script{}
		d.answer(func(int) (time.Duration, error) { return 50 * time.Second, nil })
		p := New(Options{Driver: d, Log: slog.New(slog.DiscardHandler), ApplyTimeout: time.Minute})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			p.Run(ctx)
		}()
		p.InSync()
		synctest.Wait()
		start := time.Now()
		cancel()
		if err := p.CutFlows(t.Context(), nil); !errors.Is(err, ErrStopped) {
			t.Errorf("cut: %v", err)
		}
		if err := p.Wait(t.Context(), func(*View) bool { return false }); !errors.Is(err, ErrStopped) {
			t.Errorf("wait: %v", err)
		}
		<-ended
		if d := time.Since(start); d != farewell {
			t.Errorf("it took %v", d)
		}
	})
}

func TestPendingUpdatesCompose(t *testing.T) {
	p := New(Options{Driver: &script{}})
	offer := func(su drivers.SetUpdate) {
		u := drivers.NewUpdate()
		u.Sets["s"] = su
		p.Offer(u)
	}
	set := drivers.NewSet(drivers.SetNet, member(1))
	offer(drivers.SetUpdate{Set: set, Added: []drivers.Member{member(1), member(2)}, Removed: []drivers.Member{member(3)}})
	offer(drivers.SetUpdate{Set: set, Added: []drivers.Member{member(3)}, Removed: []drivers.Member{member(2)}})
	u, seq := p.takeUpdate()
	want := drivers.SetUpdate{Set: set, Added: []drivers.Member{member(1)}}
	if d := cmp.Diff(want, u.Sets["s"], cmp.Comparer((*drivers.Set).Equal), cmpopts.EquateComparable(netip.Prefix{})); d != "" || seq != 2 {
		t.Errorf("%d %s", seq, d)
	}
	offer(drivers.SetUpdate{})
	offer(drivers.SetUpdate{Set: set, Full: true})
	offer(drivers.SetUpdate{Set: set, Added: []drivers.Member{member(1)}})
	if u, _ := p.takeUpdate(); !u.Sets["s"].Full || u.Sets["s"].Added != nil {
		t.Errorf("%+v", u.Sets["s"])
	}
	offer(drivers.SetUpdate{Set: set, Full: true})
	offer(drivers.SetUpdate{})
	if u, _ := p.takeUpdate(); u.Sets["s"].Set != nil {
		t.Errorf("%+v", u.Sets["s"])
	}
	if u, _ := p.takeUpdate(); u != nil {
		t.Errorf("%+v", u)
	}
}
