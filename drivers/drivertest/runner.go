package drivertest

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/tortie/tortie/drivers"
)

// runner drives one harness. Its methods return what went wrong.
type runner struct {
	h   Harness
	o   Options
	say func(format string, args ...any)

	d     drivers.Driver // nil = not open
	down  bool           // not open, on purpose
	f     drivers.Features
	last  *drivers.State   // what the next hint starts from, lowered; nil = unknown
	owed  *drivers.Changes // what the next hint must name besides
	ports batcher

	applies, pairs int
	probes         atomic.Int64
}

func (r *runner) close() error {
	if r.d == nil {
		return nil
	}
	d := r.d
	r.d, r.last, r.owed = nil, nil, nil
	if err := d.Close(); err != nil {
		return fmt.Errorf("closing the driver: %w", err)
	}
	return nil
}

// open opens the driver anew.
func (r *runner) open(ctx context.Context, fresh bool) error {
	if err := r.close(); err != nil {
		return err
	}
	d, err := r.h.Open(ctx, fresh)
	if err != nil {
		return fmt.Errorf("opening the driver: %w", err)
	}
	r.d, r.f, r.down = d, d.Features(), false
	return nil
}

// hint says what an Apply is told about changes.
type hint int

const (
	noHint hint = iota
	exact       // the difference to the last State
)

// changes is what an Apply of low is told.
func (r *runner) changes(low *drivers.State, h hint) *drivers.Changes {
	if h == noHint || r.last == nil {
		return nil
	}
	ch := Diff(r.last, low)
	if r.owed == nil {
		return ch
	}
	all := drivers.NewChanges()
	addChanges(all, r.owed)
	addChanges(all, ch)
	return all
}

// apply lowers s, hands it to the driver, and returns what it was given.
func (r *runner) apply(ctx context.Context, s *drivers.State, h hint) (*drivers.State, error) {
	if r.d == nil {
		if err := r.open(ctx, true); err != nil {
			return nil, err
		}
	}
	low, _ := drivers.Lower(s, r.f)
	return low, r.applyLowered(ctx, low, r.changes(low, h))
}

func (r *runner) applyLowered(ctx context.Context, low *drivers.State, ch *drivers.Changes) error {
	given := low.Clone()
	err := r.d.Apply(ctx, given, ch)
	r.applies++
	// A driver may keep values, but not the maps: they are the owner's.
	clear(given.Endpoints)
	clear(given.Policies)
	clear(given.Sets)
	clear(given.Routes)
	clear(given.Peers)
	if r.last, r.owed = low, nil; err != nil {
		r.last = nil
		return fmt.Errorf("applying: %w", err)
	}
	return nil
}

// send sends probes under s, which need not be lowered, in as many batches as their flows need.
func (r *runner) send(ctx context.Context, s *drivers.State, ps []Probe) ([]Result, error) {
	if err := checkBatch(s, ps); err != nil {
		return nil, err
	}
	var rs []Result
	for _, b := range batches(ps) {
		got, err := r.h.Verdict(ctx, b)
		if err == nil && len(got) != len(b) {
			err = fmt.Errorf("%d results for %d probes", len(got), len(b))
		}
		if err != nil {
			return nil, fmt.Errorf("probing: %w", err)
		}
		rs = append(rs, got...)
		r.probes.Add(int64(len(b)))
	}
	return rs, nil
}

// dump looks at the dataplane.
func (r *runner) dump(ctx context.Context) (Dump, error) {
	d, err := r.h.Dump(ctx)
	if err != nil {
		return d, fmt.Errorf("dumping: %w", err)
	}
	return d, nil
}

// oracle says what becomes of probes under one State.
type oracle struct {
	s  *drivers.State
	ev *drivers.Evaluator
}

func newOracle(s *drivers.State) oracle { return oracle{s, drivers.NewEvaluator(s)} }

// expect says whether p arrives, and whether an address of the node is its source then.
func (o oracle) expect(p drivers.Packet) (arrives, masq bool) {
	v, noTrack := o.ev.Verdict(p)
	if floats(p) && o.s.Destination(p.OrigDst.Addr()) != p.Dst {
		return false, false // it goes where the topology routes the floating address
	}
	if inAny(DriverRouted, p.Dst) && routedTo(o.s, p.Dst) != p.To.Iface {
		return false, false
	}
	return v == drivers.VerdictAllow, v == drivers.VerdictAllow && masquerades(o.s, p, noTrack)
}

// widened reports whether a driver lets a packet through that o, the oracle of the State as written, denies. What an untracked
// policy allows is not in the flow table, so a packet of an established flow that it allows says nothing here: tracked
// because of a rule that was lowered, its flow would have had to be allowed first.
func (o oracle) widened(p drivers.Packet, lowered bool) bool {
	arrives, _ := o.expect(p)
	_, noTrack := o.ev.Verdict(p)
	return lowered && !arrives && !(noTrack && p.CT != drivers.CTNew && p.CT != drivers.CTUntracked)
}

// judge compares a result with what the oracle says; nil if they agree.
func (o oracle) judge(p Probe, got Result) error {
	arrives, masq := o.expect(p.Packet)
	switch {
	case got.Delivered != arrives:
		return fmt.Errorf("%s: it %s, want it %s. The oracle:\n%s", probeText(p), fate(got.Delivered), wanted(arrives), drivers.Evaluate(o.s, p.Packet))
	case arrives && floats(p.Packet) && p.Packet.From == p.Packet.To && p.Packet.Src == p.Packet.Dst:
		if want := p.Packet.OrigDst.Addr(); got.Src != want {
			return fmt.Errorf("%s: arrived from %s, want %s: it has gone to itself", probeText(p), got.Src, want)
		}
		return nil
	case !arrives || p.Packet.ARP || !masq && got.Src == p.Packet.Src:
		return nil
	case !masq:
		return fmt.Errorf("%s: arrived from %s, want its own source", probeText(p), got.Src)
	}
	for _, a := range HostAddrs() {
		if got.Src == a {
			return nil
		}
	}
	return fmt.Errorf("%s: arrived from %s, want an address of the node (masqueraded)", probeText(p), got.Src)
}

// floats says whether the driver is to translate where a packet goes.
func floats(p drivers.Packet) bool {
	return p.OrigDst.IsValid() && inAny(FloatingRange, p.OrigDst.Addr())
}

func fate(arrived bool) string {
	if arrived {
		return "arrived"
	}
	return "did not arrive"
}

func wanted(arrives bool) string {
	if arrives {
		return "to arrive"
	}
	return "dropped"
}

// idle sees that Applies of the State that is there do nothing: with the hint that nothing changed, which only a driver
// can be given that has applied something before, and without a hint.
func (r *runner) idle(ctx context.Context, low *drivers.State, hinted bool) error {
	before, err := r.dump(ctx)
	if err != nil {
		return err
	}
	hints := []*drivers.Changes{nil}
	if hinted {
		hints = []*drivers.Changes{drivers.NewChanges(), nil}
	}
	for _, ch := range hints {
		told := "told that nothing changed"
		if ch == nil {
			told = "told nothing"
		}
		if err := r.applyLowered(ctx, low, ch); err != nil {
			return breach(nothingToDo, fmt.Errorf("an Apply with nothing to do, %s: %w", told, err))
		}
		after, err := r.dump(ctx)
		if err != nil {
			return err
		}
		if after.Writes != before.Writes || after.Ours != before.Ours {
			return breach(nothingToDo, fmt.Errorf("an Apply of what had been applied, %s, made %d writes%s", told,
				after.Writes-before.Writes, changed(before.Ours, after.Ours)))
		}
	}
	return nil
}

func changed(a, b string) string {
	if a == b {
		return ", none of which changed anything"
	}
	return ":\n" + firstDifference(a, b)
}

// firstDifference shows the first lines in which two texts differ, with a little of what is around them.
func firstDifference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	i := 0
	for i < len(as) && i < len(bs) && as[i] == bs[i] {
		i++
	}
	var sb strings.Builder
	for _, l := range as[max(0, i-3):min(i, len(as))] {
		fmt.Fprintf(&sb, "  %s\n", l)
	}
	for _, l := range as[i:min(i+5, len(as))] {
		fmt.Fprintf(&sb, "- %s\n", l)
	}
	for _, l := range bs[i:min(i+5, len(bs))] {
		fmt.Fprintf(&sb, "+ %s\n", l)
	}
	return sb.String()
}
