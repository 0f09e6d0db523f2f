package drivertest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tortie/tortie/drivers"
)

// traffic sends the same packets again and again while something else goes on.
type traffic struct {
	r      *runner
	s      *drivers.State
	ps     []Probe
	judge  func(Probe, Result) error
	rounds chan struct{} // one for each round that has been sent and judged
	done   chan error
}

// traffic starts sending.
func (r *runner) traffic(ctx context.Context, s *drivers.State, ps []Probe, judge func(Probe, Result) error) (*traffic, context.CancelFunc) {
	sending, stop := context.WithCancel(ctx)
	t := &traffic{r: r, s: s, ps: ps, judge: judge, rounds: make(chan struct{}), done: make(chan error, 1)}
	go func() { t.done <- t.send(ctx, sending) }()
	return t, stop
}

// errTraffic says that it is the traffic that ended: its own error says why.
var errTraffic = errors.New("the traffic ended")

func (t *traffic) send(ctx, sending context.Context) error {
	for sending.Err() == nil {
		rs, err := t.r.send(ctx, t.s, t.ps)
		if err != nil {
			return err
		}
		var errs []error
		for i, p := range t.ps {
			errs = append(errs, t.judge(p, rs[i]))
		}
		if err := few(errs); err != nil {
			return breach(noPacketLost, err)
		}
		select {
		case t.rounds <- struct{}{}:
		case <-sending.Done():
		}
	}
	return nil
}

// flows waits until packets that were sent after the call have been judged.
func (t *traffic) flows(ctx context.Context) error {
	for range 2 { // the first round may have begun before
		select {
		case <-t.rounds:
		case err := <-t.done:
			t.done <- err
			return errTraffic
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// end stops the traffic. What it has seen counts before what was done meanwhile.
func (t *traffic) end(stop context.CancelFunc, meanwhile error) error {
	stop()
	if err := <-t.done; err != nil {
		return err
	}
	return meanwhile
}

// underTraffic closes a driver and opens another while packets go through, of established flows and of new ones. What is
// allowed must arrive in every round; what is denied must not.
func (r *runner) underTraffic(ctx context.Context, seed uint64) error {
	g := newGen(seed)
	s := g.state()
	if err := r.open(ctx, true); err != nil {
		return err
	}
	low, err := r.apply(ctx, s, noHint)
	if err != nil {
		return breach(noPacketLost, err)
	}
	o := newOracle(low)
	t, stop := r.traffic(ctx, s, g.probes(s, 40), o.judge)
	err = func() error {
		for range 3 {
			for _, do := range []func() error{
				r.close,
				func() error { return r.open(ctx, false) },
				func() error { return r.applyLowered(ctx, low, nil) },
				func() error { return r.applyLowered(ctx, low, drivers.NewChanges()) },
			} {
				if err := errors.Join(t.flows(ctx), do()); err != nil {
					return err
				}
			}
		}
		return t.flows(ctx)
	}()
	if err = t.end(stop, err); err != nil {
		if b := (*Breach)(nil); errors.As(err, &b) {
			sc := sceneOf(s)
			b.Hint = "while drivers were closed and opened; the State is"
			b.Case = caseText("Packets are lost while the driver restarts.", []Scene{sc, again(sc, Event{Kind: Stop}), again(sc, Event{Kind: Start}),
				again(sc, Event{Kind: Resync})})
		}
		return seeded(seed, "restarted under traffic", err)
	}
	return nil
}

// oldOrNew sends packets while States change: an atomic driver treats each packet by the old State or by the new one. The
// others owe that to what does not change: packets between endpoints of which nothing has been touched.
func (r *runner) oldOrNew(ctx context.Context, seed uint64) error {
	g := newGen(seed)
	s := g.state()
	if err := r.open(ctx, true); err != nil {
		return err
	}
	if _, err := r.apply(ctx, s, noHint); err != nil {
		return breach(noPacketLost, err)
	}
	for range 4 {
		next := g.mutate(s)
		var ps []Probe
		oldLow, _ := drivers.Lower(s, r.f)
		newLow, _ := drivers.Lower(next, r.f)
		ch := Diff(oldLow, newLow)
		for _, p := range g.probes(s, 60) {
			if CheckProbe(next, p) == nil && sameNeighbour(s, next, p.Packet.To.Iface) && (r.f.Atomic || untouchedBy(ch, newLow, p.Packet)) {
				ps = append(ps, p)
			}
		}
		if len(ps) == 0 {
			s = next
			if _, err := r.apply(ctx, s, exact); err != nil {
				return breach(noPacketLost, err)
			}
			continue
		}
		was, is := newOracle(oldLow), newOracle(newLow)
		t, stop := r.traffic(ctx, s, ps, func(p Probe, got Result) error {
			if was.judge(p, got) == nil || is.judge(p, got) == nil {
				return nil
			}
			return fmt.Errorf("neither as before nor as after an Apply: %w", is.judge(p, got))
		})
		err := func() error {
			for range 3 {
				for _, to := range []*drivers.State{next, s} {
					if err := t.flows(ctx); err != nil {
						return err
					}
					if _, err := r.apply(ctx, to, exact); err != nil {
						return err
					}
				}
			}
			return t.flows(ctx)
		}()
		if err = t.end(stop, err); err != nil {
			if b := (*Breach)(nil); errors.As(err, &b) {
				b.Hint = "between these two States, in either direction"
				b.Case = caseText("A packet meets a State half applied.", []Scene{sceneOf(s), sceneOf(next)})
			}
			return seeded(seed, "changed under traffic", err)
		}
	}
	return nil
}

// sameNeighbour reports whether a workload, if one is on the interface, keeps its addresses and its MAC: nobody is there to
// be asked for another, and what waits for an answer is late but not lost.
func sameNeighbour(old, now *drivers.State, iface string) bool {
	a, b := workloadOn(old, iface), workloadOn(now, iface)
	if a == nil || b == nil {
		return a == b
	}
	return a.MAC == b.MAC && slices.Equal(a.Addrs, b.Addrs)
}

// untouchedBy reports whether nothing that decides about p has changed.
func untouchedBy(ch *drivers.Changes, s *drivers.State, p drivers.Packet) bool {
	if ch.Node || ch.Masquerade || len(ch.Routes)+len(ch.Peers) > 0 {
		return false
	}
	for id := range ch.Endpoints {
		if e := s.Endpoints[id]; e == nil || e.Iface == p.From.Iface || e.Iface == p.To.Iface || e.Iface == drivers.AllHostIfaces {
			return false
		}
	}
	for _, e := range s.Endpoints {
		if e.Iface != p.From.Iface && e.Iface != p.To.Iface && e.Iface != drivers.AllHostIfaces {
			continue
		}
		for id := range e.PolicyIDs {
			if _, touched := ch.Policies[id]; touched {
				return false
			}
			if pol := s.Policies[id]; pol != nil {
				for set := range pol.SetIDs {
					if ch.Sets[set] != nil {
						return false
					}
				}
			}
		}
	}
	return true
}
