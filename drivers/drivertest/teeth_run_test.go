package drivertest_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tortie/tortie/drivers"
	"github.com/tortie/tortie/drivers/drivertest"
)

// caught is a table of mistakes, and what caught them.
type caught struct {
	mu    sync.Mutex
	lines map[string]string
}

// put notes by what a mistake was caught, and returns the properties that it broke.
func (c *caught) put(t *testing.T, bug string, err error) map[int]bool {
	t.Helper()
	if err == nil {
		t.Fatal("nothing found it")
	}
	broken := map[int]bool{}
	for _, b := range breaches(err) {
		broken[b.Property] = true
	}
	by, _, _ := strings.Cut(err.Error(), ": ")
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines[bug] = fmt.Sprintf("%-14s first by %s", strings.Trim(fmt.Sprint(slices.Sorted(maps.Keys(broken))), "[]"), by)
	return broken
}

// breaches are all in err.
func breaches(err error) []*drivertest.Breach {
	if b, ok := err.(*drivertest.Breach); ok {
		return []*drivertest.Breach{b}
	}
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		var bs []*drivertest.Breach
		for _, e := range all.Unwrap() {
			bs = append(bs, breaches(e)...)
		}
		return bs
	}
	if e := errors.Unwrap(err); e != nil {
		return breaches(e)
	}
	return nil
}

func (c *caught) log(t *testing.T) {
	var sb strings.Builder
	for _, bug := range slices.Sorted(maps.Keys(c.lines)) {
		fmt.Fprintf(&sb, "\n%-46s %s", bug, c.lines[bug])
	}
	t.Logf("%d planted bugs, and the properties that they broke:%s", len(c.lines), sb.String())
}

// TestTeeth gives the suite drivers that are wrong in one thing each: what policy means must be caught by a case, and what
// else the contract says by the part that is there for it.
func TestTeeth(t *testing.T) {
	cases, err := drivertest.Cases()
	if err != nil {
		t.Fatal(err)
	}
	table := &caught{lines: map[string]string{}}
	t.Run("bugs", func(t *testing.T) {
		for bug, mistake := range mistakes {
			t.Run(bug, func(t *testing.T) {
				t.Parallel()
				h := newFakeHarness(drivers.AllFeatures("wrong"))
				mistake(h)
				err := drivertest.Check(t.Context(), h, drivertest.Options{Cases: cases, Random: -1, Walks: -1, First: true})
				if table.put(t, bug, err); !strings.Contains(err.Error(), ".txtar") {
					t.Errorf("the error names no case: %v", err)
				}
			})
		}
		for bug, mistake := range partBugs {
			t.Run(bug, func(t *testing.T) {
				t.Parallel()
				err := drivertest.Check(t.Context(), mistake.harness(), drivertest.Options{
					Cases: []drivertest.Case{}, Random: -1, Walks: 3, Seed: 3, Only: mistake.property,
				})
				if broken := table.put(t, bug, err); !broken[mistake.property] {
					t.Errorf("caught by properties %v, want %d: %v", broken, mistake.property, err)
				}
			})
		}
	})
	table.log(t)
}

// found runs the generator against a harness, and returns the first case that it prints, parsed.
func found(t *testing.T, h drivertest.Harness, o drivertest.Options) (drivertest.Case, string) {
	t.Helper()
	err := drivertest.Check(t.Context(), h, o)
	var b *drivertest.Breach
	if !errors.As(err, &b) || b.Case == "" {
		t.Fatalf("no case: %v", err)
	}
	c, err := drivertest.ParseCase("found.txtar", []byte(b.Case))
	if err != nil {
		t.Fatalf("%v\n%s", err, b.Case)
	}
	return c, b.Error()
}

// shows takes a printed case at its word: it fails on the wrong driver and passes on the right one.
func shows(t *testing.T, c drivertest.Case, text string, h drivertest.Harness) {
	t.Helper()
	only := drivertest.Options{Cases: []drivertest.Case{c}, Random: -1, Walks: -1}
	if drivertest.Check(t.Context(), h, only) == nil {
		t.Errorf("the case does not find it:\n%s", text)
	}
	if err := drivertest.Check(t.Context(), newFakeHarness(drivers.AllFeatures("right")), only); err != nil {
		t.Errorf("the case finds something in the right driver, too: %v\n%s", err, text)
	}
}

// TestRandomFindsAndShrinks gives the generator drivers that are wrong, and sees that the case that it prints shows it, and
// is small.
func TestRandomFindsAndShrinks(t *testing.T) {
	for _, name := range []string{
		"ends ranges one too early", "forgets a negation: sets", "treats Pass as Allow", "forgets forward policy", "checks no MAC",
		"sees no translation", "masquerades nothing",
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHarness(drivers.AllFeatures("wrong"))
			mistakes[name](h)
			c, text := found(t, h, drivertest.Options{Cases: []drivertest.Case{}, Random: 10000, Walks: -1, Seed: 7})
			if n := strings.Count(text, "\n"); n > 32 {
				t.Errorf("%d lines:\n%s", n, text)
			}
			shows(t, c, text, h)
		})
	}
}

// TestWalksAreShrunk: what a walk finds becomes a case of a few States, with what happened between them.
func TestWalksAreShrunk(t *testing.T) {
	for _, bug := range []string{"leaks a member", "misses endpoints that go", "misses policies that change"} {
		t.Run(bug, func(t *testing.T) {
			h := newFakeHarness(drivers.AllFeatures("wrong"))
			mistakes[bug](h)
			c, text := found(t, h, drivertest.Options{Cases: []drivertest.Case{}, Random: -1, Walks: 6, Seed: 11, First: true})
			if n := len(c.Scenes); n > 3 || strings.Count(text, "\n") > 60 {
				t.Errorf("%d scenes:\n%s", n, text)
			}
			shows(t, c, text, h)
		})
	}
	for _, bug := range []string{"ignores Full", "believes what it wrote last, after an error", "never resyncs", "names the innocent"} {
		t.Run(bug, func(t *testing.T) {
			c, text := found(t, partBugs[bug].harness(), drivertest.Options{Cases: []drivertest.Case{}, Random: -1, Walks: 3, Seed: 3, First: true})
			if n := len(c.Scenes); n > 4 || strings.Count(text, "\n") > 80 {
				t.Errorf("%d scenes:\n%s", n, text)
			}
			shows(t, c, text, partBugs[bug].harness())
		})
	}
}
