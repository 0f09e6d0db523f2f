package drivertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/tortie/tortie/drivers"
)

// SeedVariable is the environment variable that says which seed the random parts begin with.
const SeedVariable = "TORTIE_SEED"

// Options says how much Run does. The zero value is what a driver has to pass.
type Options struct {
	Cases  []Case // nil = the suite's own
	Random int    // number of random (State, packet) pairs; 0 = 3000, negative = none
	Walks  int    // random walks for path independence, restarts and faults; 0 = 3, negative = none
	Seed   uint64 // 0 = SeedVariable, or the clock
	First  bool   // Check ends with the first part that fails; each case is one
}

func (o *Options) defaults() error {
	if o.Random == 0 {
		o.Random = 3000
	}
	if o.Walks == 0 {
		o.Walks = 3
	}
	var err error
	if o.Cases == nil {
		if o.Cases, err = Cases(); err != nil {
			return err
		}
	}
	if text := os.Getenv(SeedVariable); o.Seed == 0 && text != "" {
		if o.Seed, err = strconv.ParseUint(text, 0, 64); err != nil {
			return fmt.Errorf("%s: %w", SeedVariable, err)
		}
	}
	if o.Seed == 0 {
		o.Seed = uint64(time.Now().UnixNano())
	}
	return nil
}

// Run puts a driver through the suite: each case, random States and packets, and then what is about the driver as such:
// Applies with nothing to do, paths to a State, restarts, and, where the harness has them, damage and failures.
func Run(t *testing.T, h Harness, o Options) {
	if err := o.defaults(); err != nil {
		t.Fatal(err)
	}
	r := &runner{h: h, o: o, say: t.Logf}
	defer func() {
		if err := r.close(); err != nil {
			t.Errorf("closing the driver: %v", err)
		}
	}()
	ctx := t.Context()
	check := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	t.Run("cases", func(t *testing.T) {
		for i, c := range o.Cases {
			t.Run(c.Name, func(t *testing.T) { check(t, r.runCase(ctx, c, i%2 == 0)) })
		}
	})
	t.Logf("%s: the random parts begin with seed %d (%s=%d repeats them)", r.f.Driver, o.Seed, SeedVariable, o.Seed)
	t.Run("random", func(t *testing.T) { check(t, r.random(ctx)) })
	for _, part := range r.parts() {
		t.Run(part.name, func(t *testing.T) { check(t, part.run(ctx)) })
	}
	t.Logf("%s: %d applies, %d packets", r.f.Driver, r.applies, r.probes)
}

// Check is Run without a test around it: it returns everything that went wrong.
func Check(ctx context.Context, h Harness, o Options) error {
	if err := o.defaults(); err != nil {
		return err
	}
	r := &runner{h: h, o: o, say: func(string, ...any) {}}
	var parts []part
	for i, c := range o.Cases {
		parts = append(parts, part{"case " + c.Name, func(ctx context.Context) error { return r.runCase(ctx, c, i%2 == 0) }})
	}
	parts = append(parts, part{"random", r.random})
	parts = append(parts, r.parts()...)
	var errs []error
	for _, p := range parts {
		if err := p.run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
			if o.First {
				break
			}
		}
	}
	return errors.Join(append(errs, r.close())...)
}

// part is one part of the suite.
type part struct {
	name string
	run  func(context.Context) error
}

// parts are those about the driver as such, as far as the harness has the means for them.
func (r *runner) parts() []part {
	ps := []part{{"paths", r.paths}, {"restart", r.restart}}
	_, dumps := r.h.(Dumper)
	if _, ok := r.h.(Failer); ok && dumps {
		ps = append(ps, part{"failures", r.failures})
	}
	if _, ok := r.h.(Tamperer); ok && dumps {
		ps = append(ps, part{"tampering", r.tampering})
	}
	if _, ok := r.h.(Refuser); ok {
		ps = append(ps, part{"refusals", r.refusals})
	}
	return ps
}

// runner drives one harness. Its methods return what went wrong.
type runner struct {
	h   Harness
	o   Options
	say func(format string, args ...any)

	d     drivers.Driver // nil = not open
	f     drivers.Features
	last  *drivers.State // what the driver has applied, lowered; nil = unknown
	ports batcher

	applies, probes int
}

func (r *runner) close() error {
	if r.d == nil {
		return nil
	}
	d := r.d
	r.d, r.last = nil, nil
	return d.Close()
}

// open opens the driver anew.
func (r *runner) open(ctx context.Context, fresh bool) error {
	if err := r.close(); err != nil {
		return fmt.Errorf("closing the driver: %w", err)
	}
	d, err := r.h.Open(ctx, fresh)
	if err != nil {
		return fmt.Errorf("opening the driver: %w", err)
	}
	r.d, r.f = d, d.Features()
	return nil
}

// hint says what an Apply is told about changes.
type hint int

const (
	noHint hint = iota
	exact       // the difference to the last State
)

// apply lowers s, hands it to the driver, and returns what it was given.
func (r *runner) apply(ctx context.Context, s *drivers.State, h hint) (*drivers.State, error) {
	if r.d == nil {
		if err := r.open(ctx, true); err != nil {
			return nil, err
		}
	}
	low, _ := drivers.Lower(s, r.f)
	var ch *drivers.Changes
	if h == exact && r.last != nil {
		ch = Diff(r.last, low)
	}
	return low, r.applyLowered(ctx, low, ch)
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
	if r.last = low; err != nil {
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
		got, err := r.h.Probe(ctx, b)
		if err == nil && len(got) != len(b) {
			err = fmt.Errorf("%d results for %d probes", len(got), len(b))
		}
		if err != nil {
			return nil, fmt.Errorf("probing: %w", err)
		}
		rs = append(rs, got...)
		r.probes += len(b)
	}
	return rs, nil
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
		return fmt.Errorf("%s: %s, want %s\n%s", probeText(p), fate(got.Delivered), fate(arrives), drivers.Evaluate(o.s, p.Packet))
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

func fate(arrived bool) string {
	if arrived {
		return "arrived"
	}
	return "did not arrive"
}

// verify sends probes and returns every disagreement with the oracle under low, the lowered State.
func (r *runner) verify(ctx context.Context, low *drivers.State, ps []Probe) error {
	rs, err := r.send(ctx, low, ps)
	if err != nil {
		return err
	}
	o := newOracle(low)
	var errs []error
	for i, p := range ps {
		errs = append(errs, o.judge(p, rs[i]))
	}
	return errors.Join(errs...)
}

// dump is the harness's dump, and whether there is one.
func (r *runner) dump(ctx context.Context) (string, bool, error) {
	d, ok := r.h.(Dumper)
	if !ok {
		return "", false, nil
	}
	text, err := d.Dump(ctx)
	if err != nil {
		return "", true, fmt.Errorf("dumping: %w", err)
	}
	return text, true, nil
}

// writes is the number of writes, and whether the harness counts them.
func (r *runner) writes() (int, bool) {
	if c, ok := r.h.(WriteCounter); ok {
		return c.Writes(), true
	}
	return 0, false
}

// idle sees that Applies of the State that is there do nothing: without a hint, and with the hint that nothing changed.
func (r *runner) idle(ctx context.Context) error {
	before, _, err := r.dump(ctx)
	if err != nil {
		return err
	}
	for _, ch := range []*drivers.Changes{drivers.NewChanges(), nil} {
		was, counts := r.writes()
		if err := r.applyLowered(ctx, r.last, ch); err != nil {
			return fmt.Errorf("with nothing to do: %w", err)
		}
		if now, _ := r.writes(); counts && now != was {
			return fmt.Errorf("an Apply with nothing to do (hint: %t) made %d writes", ch != nil, now-was)
		}
	}
	after, _, err := r.dump(ctx)
	if err == nil && before != after {
		err = fmt.Errorf("an Apply with nothing to do changed the dataplane:\n%s", firstDifference(before, after))
	}
	return err
}
