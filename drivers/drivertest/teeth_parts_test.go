package drivertest_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// TestRandomFindsAndShrinks gives the generator drivers that are wrong, and takes it at its word: the case that it prints
// fails on the wrong driver and passes on the right one, and is small.
func TestRandomFindsAndShrinks(t *testing.T) {
	for _, name := range []string{
		"ends ranges one too early", "forgets negated sets", "takes Pass for Allow", "forgets forward policy", "checks no MAC",
		"sees no translation", "masquerades nothing",
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHarness(drivers.AllFeatures("wrong"))
			mistakes[name](h)
			err := drivertest.Check(t.Context(), h, drivertest.Options{Cases: []drivertest.Case{}, Random: 6000, Walks: -1, Seed: 7})
			if err == nil {
				t.Fatal("not found in 6000 pairs")
			}
			_, text, found := strings.Cut(err.Error(), "as a case:\n")
			if !found {
				t.Fatalf("no case: %v", err)
			}
			text, _, _ = strings.Cut(text, "\nseed ") // of the next one
			text, _, _ = strings.Cut(text, "\nenough")
			c, err := drivertest.ParseCase("found.txtar", []byte(text))
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if n := strings.Count(text, "\n"); n > 25 {
				t.Errorf("%d lines:\n%s", n, text)
			}
			only := drivertest.Options{Cases: []drivertest.Case{c}, Random: -1, Walks: -1}
			if drivertest.Check(t.Context(), h, only) == nil {
				t.Errorf("the case does not find it:\n%s", text)
			}
			if err := drivertest.Check(t.Context(), newFakeHarness(drivers.AllFeatures("right")), only); err != nil {
				t.Errorf("the case finds something in the right driver, too: %v\n%s", err, text)
			}
		})
	}
}

// forgetful is a harness whose dataplane does not outlive its driver.
type forgetful struct{ *fakeHarness }

func (h forgetful) Open(ctx context.Context, _ bool) (drivers.Driver, error) {
	return h.fakeHarness.Open(ctx, true)
}

// restless is a harness whose driver writes without need.
type restless struct {
	*fakeHarness
	n int
}

func (h *restless) Writes() int { h.n++; return h.n }

// historic is a harness whose dataplane shows how often it was written.
type historic struct{ *fakeHarness }

func (h historic) Dump(ctx context.Context) (string, error) {
	text, err := h.fakeHarness.Dump(ctx)
	return fmt.Sprint(text, h.world.Writes()), err
}

// blamer is a driver that names the innocent.
type blamer struct{ drivers.Driver }

func (d blamer) Apply(ctx context.Context, want *drivers.State, ch *drivers.Changes) error {
	err := d.Driver.Apply(ctx, want, ch)
	if partly := (*drivers.ApplyError)(nil); errors.As(err, &partly) {
		partly.Failed[drivers.ObjectRef{Kind: drivers.ObjNode}] = errors.New("why not")
	}
	return err
}

// hasty is a driver that, after its first Apply, does not look at what it is not told of.
type hasty struct {
	drivers.Driver
	applied bool
}

func (d *hasty) Apply(ctx context.Context, want *drivers.State, ch *drivers.Changes) error {
	if ch == nil && d.applied {
		ch = drivers.NewChanges()
	}
	d.applied = true
	return d.Driver.Apply(ctx, want, ch)
}

// proud is a driver that, after an Apply that failed, does not compare the sets that it may have half written.
type proud struct {
	drivers.Driver
	failed bool
}

func (d *proud) Apply(ctx context.Context, want *drivers.State, ch *drivers.Changes) error {
	if d.failed && ch != nil {
		maps.DeleteFunc(ch.Sets, func(id drivers.SetID, sc *drivers.SetChange) bool { return sc.Full && want.Sets[id] != nil })
	}
	err := d.Driver.Apply(ctx, want, ch)
	d.failed = err != nil
	return err
}

// TestTeethOfParts gives each of the suite's other parts something that only it is there to find.
func TestTeethOfParts(t *testing.T) {
	wrapped := func(wrap func(drivers.Driver) drivers.Driver) drivertest.Harness {
		h := newFakeHarness(drivers.AllFeatures("wrong"))
		h.wrap = wrap
		return h
	}
	fake := newFakeHarness(drivers.AllFeatures("wrong"))
	for _, tc := range []struct {
		name, part string
		h          drivertest.Harness
	}{
		{"a dataplane that dies with its driver", "restart: ", forgetful{fake}},
		{"a dataplane that remembers its history", "paths: ", historic{fake}},
		{"a driver that writes without need", "restart: ", &restless{fakeHarness: fake}},
		{"a driver that believes what it wrote last", "failures: ", wrapped(func(d drivers.Driver) drivers.Driver { return &proud{Driver: d} })},
		{"a driver that never resyncs", "tampering: ", wrapped(func(d drivers.Driver) drivers.Driver { return &hasty{Driver: d} })},
		{"a driver that names the innocent", "refusals: ", wrapped(func(d drivers.Driver) drivers.Driver { return blamer{d} })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := drivertest.Check(t.Context(), tc.h, drivertest.Options{Cases: []drivertest.Case{}, Random: -1, Walks: 2, Seed: 3, First: true})
			if err == nil || !strings.Contains(err.Error(), tc.part) {
				t.Errorf("got %v, want an error of %q", err, tc.part)
			}
		})
	}
	t.Run("an Apply with nothing to do", func(t *testing.T) {
		err := drivertest.Check(t.Context(), &restless{fakeHarness: fake}, drivertest.Options{Random: -1, Walks: -1, First: true})
		if err == nil || !strings.Contains(err.Error(), "with nothing to do") {
			t.Errorf("got %v", err)
		}
	})
}
