package drivers

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// lowerTrial checks one State and one cut of features: what is allowed lowered is allowed as written.
func lowerTrial(t *testing.T, seed uint64, packets int) (allowed int) {
	t.Helper()
	g := newGen(seed)
	s, f := g.state(), g.features()
	before := s.String()
	low, losses := Lower(s, f)
	if s.String() != before {
		t.Fatalf("seed %d: Lower changed its input", seed)
	}
	if low != s && len(losses) == 0 {
		t.Fatalf("seed %d: rewritten without a loss", seed)
	}
	if again, more := Lower(low, f); len(more) > 0 && again.String() != low.String() {
		t.Fatalf("seed %d: lowering again changes something:\n%s", seed, cmp.Diff(low.String(), again.String()))
	}
	ev, evLow := NewEvaluator(s), NewEvaluator(low)
	for range packets {
		p := g.packet(s)
		v, _ := evLow.Verdict(p)
		if v == VerdictDeny {
			continue
		}
		allowed++
		if v, _ := ev.Verdict(p); v == VerdictDeny {
			t.Fatalf("seed %d: features %+v\n%s\nwritten:\n%s\nlowered:\n%s\n%s\n%s", seed, f, p, ev.Evaluate(p), evLow.Evaluate(p), s, low)
		}
	}
	return allowed
}

func TestLowerNeverAllowsMore(t *testing.T) {
	const first, packets = 1, 20
	trials := uint64(2000)
	if testing.Short() {
		trials = 400
	}
	allowed := 0
	for seed := uint64(first); seed < first+trials; seed++ {
		allowed += lowerTrial(t, seed, packets)
	}
	t.Logf("seeds %d to %d, %d packets, %d allowed lowered", first, first+trials-1, trials*packets, allowed)
	if allowed < int(trials) {
		t.Errorf("only %d packets were allowed: the trial says little", allowed)
	}
}

func FuzzLower(f *testing.F) {
	for seed := range uint64(8) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { lowerTrial(t, seed, 50) })
}
