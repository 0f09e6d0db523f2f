package bench

import (
	"slices"
	"strconv"
	"strings"
)

// parseBench reads what `go test -bench` prints: for each benchmark, its figures by unit. It adds to samples, and to the
// order in which benchmarks were seen.
func parseBench(out string, samples map[string]map[string][]float64, order []string) []string {
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(f[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 { // of GOMAXPROCS
			name = name[:i]
		}
		if samples[name] == nil {
			samples[name] = map[string][]float64{}
		}
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				samples[name][f[i+1]] = append(samples[name][f[i+1]], v)
			}
		}
	}
	return order
}
