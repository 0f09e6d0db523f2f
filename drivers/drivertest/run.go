package drivertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// SeedVariable is the environment variable that says which seed the random parts begin with. RandomVariable and
// WalksVariable say how much Run does where its Options leave it open: for long runs.
const (
	SeedVariable   = "TORTIE_SEED"
	RandomVariable = "TORTIE_RANDOM"
	WalksVariable  = "TORTIE_WALKS"
)

// Options says how much Run does. The zero value is what a driver has to pass.
type Options struct {
	Cases  []Case // nil = the suite's own
	Random int    // number of random (State, packet) pairs; 0 = RandomVariable, or 10000; negative = none
	Walks  int    // random walks for each property that is about the way to a State; 0 = WalksVariable, or 3; negative = none
	Seed   uint64 // 0 = SeedVariable, or the clock
	First  bool   // Check ends with the first part that fails; each case is one
	Only   int    // only the part of this property; 0 = all

	share int    // that this is
	base  uint64 // Seed of the whole of which this is a share
}

func (o *Options) defaults() error {
	number := func(name string, none uint64) (uint64, error) {
		text := os.Getenv(name)
		if text == "" {
			return none, nil
		}
		n, err := strconv.ParseUint(text, 0, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		return n, nil
	}
	random, err1 := number(RandomVariable, 10000)
	walks, err2 := number(WalksVariable, 3)
	seed, err3 := number(SeedVariable, uint64(time.Now().UnixNano()))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	if o.Random == 0 {
		o.Random = int(random)
	}
	if o.Walks == 0 {
		o.Walks = int(walks)
	}
	if o.Seed == 0 {
		o.Seed = seed
	}
	var err error
	if o.Cases == nil {
		o.Cases, err = Cases()
	}
	return err
}

// Share is what part i of n of a suite does that is run in parts side by side: every n-th case, its part of the random
// pairs, and walks from seeds of its own. Options that say nothing are as Run has them.
func (o Options) Share(i, n int) (Options, error) {
	if err := o.defaults(); err != nil {
		return o, err
	}
	cases := o.Cases
	o.Cases = nil
	for j := i; j < len(cases); j += n {
		o.Cases = append(o.Cases, cases[j])
	}
	share := func(all int) int {
		if all < 0 {
			return all
		}
		return max(1, (all+n-1-i)/n)
	}
	o.share, o.Random, o.Walks = i, share(o.Random), share(o.Walks)
	o.base = o.Seed
	o.Seed += uint64(i) << 32 // the seeds that follow one another within a part are not those of the next one
	return o, nil
}

// Run puts a driver through the suite: each property of the contract is a test of its own. Errors are Breaches: they name
// the sentence that was broken, and show how.
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
			t.Errorf("%v\n%s=%d go test -run '%s' repeats it", err, SeedVariable, cmp.Or(o.base, o.Seed), t.Name())
		}
	}
	for _, p := range r.parts() {
		t.Run(p.property.test(), func(t *testing.T) {
			if p.property == verdicts {
				for i, c := range o.Cases {
					t.Run(c.Name, func(t *testing.T) { check(t, r.runCase(ctx, c, i%2 == 0)) })
				}
			}
			for _, s := range p.steps {
				t.Run(s.name, func(t *testing.T) { check(t, s.run(ctx)) })
			}
		})
	}
	t.Logf("%s: %d cases, %d random pairs of State and packet (seed %d), %d walks; %d Applies, %d packets in all", r.f.Driver,
		len(o.Cases), r.pairs, o.Seed, max(0, o.Walks), r.applies, r.probes.Load())
}

// Check is Run without a test around it: it returns everything that went wrong.
func Check(ctx context.Context, h Harness, o Options) error {
	if err := o.defaults(); err != nil {
		return err
	}
	r := &runner{h: h, o: o, say: func(string, ...any) {}}
	var steps []step
	for i, c := range o.Cases {
		if o.Only > int(verdicts) {
			break
		}
		steps = append(steps, step{"case " + c.Name, func(ctx context.Context) error { return r.runCase(ctx, c, i%2 == 0) }})
	}
	for _, p := range r.parts() {
		steps = append(steps, p.steps...)
	}
	var errs []error
	for _, s := range steps {
		if err := s.run(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
			if o.First {
				break
			}
		}
	}
	return errors.Join(append(errs, r.close())...)
}

// part is what proves one property; verdicts have the cases besides.
type part struct {
	property property
	steps    []step
}

type step struct {
	name string
	run  func(context.Context) error
}

func (r *runner) parts() []part {
	all := []part{
		{verdicts, []step{{"random", r.random}}},
		{nothingToDo, []step{{"idle", r.walks(r.idleWalk)}}},
		{anyPath, []step{{"paths", r.walks(r.paths)}}},
		{failures, []step{{"every-write", r.walks(r.everyWrite)}, {"refused-object", r.refusals}}},
		{restarts, []step{{"over-an-older-world", r.walks(r.olderWorld)}, {"foreign", r.walks(r.foreign)}}},
		{tampering, []step{{"damage", r.walks(r.damage)}}},
		{untouched, []step{{"open-writes-nothing", r.walks(r.openWrites)}, {"persisted-state-first", r.walks(r.reboot)}}},
		{unknownInterfaces, []step{{"open-and-closed", r.walks(r.unknown)}}},
		{noPacketLost, []step{{"restart-under-traffic", r.walks(r.underTraffic)}, {"each-packet-old-or-new", r.walks(r.oldOrNew)}}},
		{scale, []step{{"writes", r.growth}}},
	}
	return slices.DeleteFunc(all, func(p part) bool {
		// Nothing random is in the scale: one of several shares is enough.
		return r.o.Only != 0 && p.property != property(r.o.Only) || p.property == scale && r.o.share > 0
	})
}

// walks runs what is to be done with each walk. A walk of its own, and not the walks of another part: so more is seen.
func (r *runner) walks(run func(ctx context.Context, seed uint64) error) func(context.Context) error {
	return func(ctx context.Context) error {
		for i := range r.o.Walks {
			if err := run(ctx, r.o.Seed+uint64(i)); err != nil {
				return err
			}
		}
		return nil
	}
}
