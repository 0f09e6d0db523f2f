package bench

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseBench(t *testing.T) {
	samples := map[string]map[string][]float64{}
	order := parseBench(`goos: linux
BenchmarkSnapshot250k-2   	       1	 712345678 ns/op	        118.9 live-MB	         0.7000 s/snapshot	90 B/op	 3500000 allocs/op
BenchmarkLabelChange10kSelectors/10-2         	   10000	     22100 ns/op
PASS
`, samples, nil)
	order = parseBench("BenchmarkSnapshot250k-2 1 800000000 ns/op 120 live-MB\n", samples, order)
	if diff := cmp.Diff([]string{"Snapshot250k", "LabelChange10kSelectors/10"}, order); diff != "" {
		t.Error(diff)
	}
	want := map[string]map[string][]float64{
		"Snapshot250k":               {"ns/op": {712345678, 8e8}, "live-MB": {118.9, 120}, "s/snapshot": {0.7}, "B/op": {90}, "allocs/op": {3.5e6}},
		"LabelChange10kSelectors/10": {"ns/op": {22100}},
	}
	if diff := cmp.Diff(want, samples); diff != "" {
		t.Error(diff)
	}
}

func TestCPUName(t *testing.T) {
	for in, want := range map[string]string{
		"processor\t: 0\nmodel name\t: AMD EPYC\n":                                  "AMD EPYC",
		"vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\nflags\t: a b\n": "AuthenticAMD family 26 model 2",
	} {
		if got := cpuName(in); got != want {
			t.Errorf("cpuName(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestStatusField(t *testing.T) {
	const status = "Name:\ttortie\nVmHWM:\t  2000 kB\nVmRSS:\t  1000 kB\nThreads:\t8\n"
	if v, err := statusField(status, "VmRSS"); err != nil || v != 1.024 {
		t.Errorf("VmRSS = %v, %v", v, err)
	}
	for _, name := range []string{"VmSwap", "Threads", "Name"} {
		if v, err := statusField(status, name); err == nil {
			t.Errorf("%s = %v", name, v)
		}
	}
}
