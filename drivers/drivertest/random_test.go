package drivertest

import (
	"testing"

	"github.com/tortie/tortie/drivers"
)

func TestRandomIsMadeOfItsSeed(t *testing.T) {
	text := func(seed uint64) string {
		s, ps := Random(seed)
		out := stateText(s)
		for _, p := range ps {
			out += probeText(p) + "\n"
		}
		return out
	}
	one, again := text(5), text(5)
	if one != again {
		t.Error("one seed gives two States")
	}
	if one == text(6) {
		t.Error("two seeds give one State")
	}
}

// TestRandomAimsWell sees that the generator's packets are worth sending: half are allowed, every state of the flow table
// and every way through the node comes up, and most verdicts are policy's.
func TestRandomAimsWell(t *testing.T) {
	total, allowed, byPolicy := 0, 0, 0
	states, ways := map[drivers.CTState]int{}, map[[2]drivers.PlaceKind]int{}
	decided := map[drivers.Stage]int{}
	translated := 0
	for seed := range uint64(100) {
		s, ps := Random(seed)
		for _, p := range ps {
			if err := checkBatch(s, []Probe{p}); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			tr := drivers.Evaluate(s, p.Packet)
			total++
			if tr.Verdict == drivers.VerdictAllow {
				allowed++
			}
			if p.Packet.OrigDst.IsValid() {
				translated++
			}
			states[p.Packet.CT]++
			ways[[2]drivers.PlaceKind{p.Packet.From.Kind, p.Packet.To.Kind}]++
			for i := len(tr.Steps) - 1; i >= 0; i-- {
				if st := tr.Steps[i]; !st.Staged && (st.Outcome == "allow" || st.Outcome == "deny") {
					decided[st.Stage]++
					if st.Tier != "" || st.Policy.Name != "" {
						byPolicy++
					}
					break
				}
			}
		}
	}
	t.Logf("%d packets, %d allowed, %d decided by policy, %d translated; %v; %v; %v", total, allowed, byPolicy, translated, states, ways, decided)
	atLeast := func(what string, n, percent int) {
		t.Helper()
		if n*100 < percent*total {
			t.Errorf("%s: %d of %d", what, n, total)
		}
	}
	if total < 5000 {
		t.Errorf("only %d packets", total)
	}
	atLeast("allowed", allowed, 40)
	atLeast("denied", total-allowed, 40)
	atLeast("decided by policy", byPolicy, 40)
	atLeast("translated", translated, 1)
	for ct := drivers.CTNew; ct <= drivers.CTUntracked; ct++ {
		atLeast(ct.String(), states[ct], 2)
	}
	for _, from := range []drivers.PlaceKind{drivers.PlaceWorkload, drivers.PlaceHostIface, drivers.PlaceProcess} {
		for _, to := range []drivers.PlaceKind{drivers.PlaceWorkload, drivers.PlaceHostIface, drivers.PlaceProcess} {
			if from != drivers.PlaceProcess || to != drivers.PlaceProcess {
				atLeast(from.String()+" to "+to.String(), ways[[2]drivers.PlaceKind{from, to}], 2)
			}
		}
	}
	for _, stage := range []drivers.Stage{
		drivers.StageUntracked, drivers.StagePreDNAT, drivers.StageForward, drivers.StageHost, drivers.StageFailsafe,
		drivers.StageEgress, drivers.StageIngress, drivers.StageSource, drivers.StageInterface, drivers.StageConntrack,
	} {
		if decided[stage] < 5 {
			t.Errorf("stage %s decides %d of %d", stage, decided[stage], total)
		}
	}
}
