package bench

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// graphBudgets are by the benchmark's name, then by the unit in which it reports.
var graphBudgets = map[string]map[string]Budget{
	"Snapshot250k":                {"s/snapshot": AtMost(1.6), "allocs/op": AtMost(7e6), "live-MB": AtMost(140)},
	"SnapshotNetsets10k":          {"s/snapshot": AtMost(3), "allocs/op": AtMost(12e6), "live-MB": AtMost(300)},
	"SnapshotNetsets1k":           {"s/snapshot": AtMost(0.25), "allocs/op": AtMost(1.3e6), "live-MB": AtMost(50)},
	"SnapshotMembership":          {"s/snapshot": AtMost(4), "live-MB": AtMost(220)},
	"LabelChange10kSelectors/0":   {"ns/op": AtMost(50e3)},
	"LabelChange10kSelectors/1":   {"ns/op": AtMost(51e3)},
	"LabelChange10kSelectors/10":  {"ns/op": AtMost(60e3)},
	"LabelChange10kSelectors/100": {"ns/op": AtMost(150e3)},
	"NamespaceLabel":              {"ns/op": AtMost(5e6)},
	"NewSelector":                 {"ns/op": AtMost(30e6)},
}

// graphUnits are how figures of a benchmark are shown.
var graphUnits = map[string]struct {
	name, unit string
	scale      float64
}{
	"s/snapshot": {"time", "s", 1}, "allocs/op": {"allocations", "M", 1e-6}, "live-MB": {"live heap", "MB", 1}, "ns/op": {"time", "us", 1e-3},
}

// graphRow runs the graph's own benchmarks, which need no lab.
func graphRow(ctx context.Context, m *measurement) error {
	dir := filepath.Join(m.Root, "calcgraph")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", filepath.Join(m.Bin, "calcgraph.test"), ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the graph's benchmarks: %w: %s", err, out)
	}
	bin, err := filepath.Abs(filepath.Join(m.Bin, "calcgraph.test"))
	if err != nil {
		return err
	}
	samples := map[string]map[string][]float64{}
	var order []string
	for range m.Size.GraphCount {
		for _, name := range m.Size.Graph {
			benchtime := "200ms"
			if strings.HasPrefix(name, "Snapshot") {
				benchtime = "1x"
			}
			cmd := exec.CommandContext(ctx, bin, "-test.run", "^$", "-test.bench", "^Benchmark"+name+"$", "-test.benchtime", benchtime)
			cmd.Dir = dir
			out, err := cmd.Output()
			if err != nil {
				return fmt.Errorf("running Benchmark%s: %w", name, err)
			}
			order = parseBench(string(out), samples, order)
		}
	}
	m.addGraph(order, samples)
	return nil
}

// addGraph notes the figures that have a budget, and the time of each.
func (m *measurement) addGraph(order []string, samples map[string]map[string][]float64) {
	for _, name := range order {
		for _, unit := range []string{"s/snapshot", "ns/op", "allocs/op", "live-MB"} {
			if _, timed := samples[name]["s/snapshot"]; timed && unit == "ns/op" {
				continue // with the making of the input in it
			}
			v := samples[name][unit]
			if len(v) == 0 {
				continue
			}
			show := graphUnits[unit]
			if unit == "allocs/op" && graphBudgets[name][unit].Op == "" {
				continue
			}
			for i := range v {
				v[i] *= show.scale
			}
			budget := graphBudgets[name][unit]
			budget.Value *= show.scale
			m.add(Result{Name: name + " " + show.name, What: "Benchmark" + name + ": " + show.name, Unit: show.unit, Spread: Summarize(v), Budget: budget})
		}
	}
}
