package bench

import (
	"fmt"
	"time"
)

// Size is how much work a run does. The budgets speak of Full.
type Size struct {
	Name   string
	Rounds int           // of interleaved measurements
	Time   time.Duration // of one measurement in a round

	ADDs, SustainedADDs, Workers int   // of the CNI plugin, one after the other and at once
	Bursts                       []int // ADDs that all begin at once

	Policies, Locals, Members int // of the large node: policies on each local workload, and members of all sets
	Changes                   int // of a policy, deny and allow counted apart
	SmallPolicies, SmallPods  int // of the small cluster
	FirstProgrammings         int

	Rules      int // against 10
	PodLoad    int // policies on one pod
	Endpoints  int // of the large cluster
	LargeRules int // policies there
	RSSLocals  int
	Settle     time.Duration

	RestartTime time.Duration // between two kills of the agent
	Restarts    int
	Reboots     int
	Fanout      int      // endpoints written
	GraphCount  int      // runs of each benchmark
	Graph       []string // the benchmarks of ./calcgraph
	Fsyncs      int
}

// graphAll are the benchmarks of ./calcgraph that have budgets.
func graphAll() []string {
	return []string{"Snapshot250k", "SnapshotNetsets10k", "SnapshotNetsets1k", "SnapshotMembership", "LabelChange10kSelectors", "NamespaceLabel", "NewSelector"}
}

// Full is the work that the budgets speak of: about a quarter of an hour.
func Full() Size {
	return Size{
		Name: "full", Rounds: 10, Time: time.Second,
		ADDs: 200, SustainedADDs: 300, Workers: 8, Bursts: []int{50, 100},
		Policies: 10_000, Locals: 250, Members: 1_000_000, Changes: 300, SmallPolicies: 1000, SmallPods: 2000, FirstProgrammings: 3,
		Rules: 10_000, PodLoad: 1000, Endpoints: 250_000, LargeRules: 10_000, RSSLocals: 100, Settle: time.Minute,
		RestartTime: 5 * time.Second, Restarts: 3, Reboots: 5, Fanout: 300, GraphCount: 3, Graph: graphAll(), Fsyncs: 300,
	}
}

// Quick is a few minutes' work that shows roughly the same, where it does not depend on the scale.
func Quick() Size {
	return Size{
		Name: "quick", Rounds: 5, Time: 200 * time.Millisecond,
		ADDs: 40, SustainedADDs: 60, Workers: 8, Bursts: []int{50},
		Policies: 1000, Locals: 30, Members: 20_000, Changes: 30, SmallPolicies: 200, SmallPods: 200, FirstProgrammings: 1,
		Rules: 1000, PodLoad: 1000, Endpoints: 25_000, LargeRules: 1000, RSSLocals: 20, Settle: 5 * time.Second,
		RestartTime: 2 * time.Second, Restarts: 1, Reboots: 2, Fanout: 40, GraphCount: 1, Graph: graphAll(), Fsyncs: 100,
	}
}

// Tiny measures everything once, to see that it can be.
func Tiny() Size {
	return Size{
		Name: "tiny", Rounds: 1, Time: 20 * time.Millisecond,
		ADDs: 2, SustainedADDs: 3, Workers: 2, Bursts: []int{3},
		Policies: 20, Locals: 2, Members: 300, Changes: 2, SmallPolicies: 5, SmallPods: 10, FirstProgrammings: 1,
		Rules: 20, PodLoad: 10, Endpoints: 200, LargeRules: 10, RSSLocals: 2, Settle: 50 * time.Millisecond,
		RestartTime: 300 * time.Millisecond, Restarts: 1, Reboots: 1, Fanout: 3, GraphCount: 1, Graph: []string{"SnapshotNetsets1k"}, Fsyncs: 10,
	}
}

// Sizes finds a size by its name.
func Sizes(name string) (Size, error) {
	for _, s := range []Size{Full(), Quick(), Tiny()} {
		if s.Name == name {
			return s, nil
		}
	}
	return Size{}, fmt.Errorf("size %q: want full, quick or tiny", name)
}
