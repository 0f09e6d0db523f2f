package bench

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/tortie/tortie/internal/netns"
	"github.com/tortie/tortie/test/build"
	"github.com/tortie/tortie/test/lab"
)

// built is the folder of the programs that a run needs, built once.
var built string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "the benchmarks make network namespaces and need root: run the tests with sudo")
			return 1
		}
		var err error
		if built, err = os.MkdirTemp("", "tortie-bench-test-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(built)
		programs := map[string]string{}
		for _, pkg := range []string{"./cmd/tortie", "./cmd/tortie-cni", "./test/bench/tortie-bench"} {
			programs[filepath.Join(built, filepath.Base(pkg))] = pkg
		}
		if err := build.Programs(programs); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// leftovers are namespaces and folders of labs of this process.
func leftovers() (out []string) {
	mine := fmt.Sprintf("%s-%d-", lab.Prefix, os.Getpid())
	for _, dir := range []string{netns.Dir, os.TempDir()} {
		found, _ := filepath.Glob(filepath.Join(dir, mine+"*"))
		out = append(out, found...)
	}
	return out
}

// TestSmoke measures each row once, in its smallest form: each must yield plausible figures, whatever they are.
func TestSmoke(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	var out bytes.Buffer
	r, err := Run(ctx, Options{Bin: built, Root: "../..", Size: Tiny(), Out: &out})
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Failed {
		t.Errorf("row %s: %s", f.Row, f.Why)
	}
	seen := map[string]bool{}
	names := map[string]bool{}
	for _, x := range r.Results {
		seen[x.Row] = true
		name := x.Row + "/" + x.Name
		if names[name] {
			t.Errorf("two figures are called %s", name)
		}
		names[name] = true
		if problem := implausible(x); problem != "" {
			t.Errorf("%s: %s: %+v", name, problem, x)
		}
	}
	for _, row := range rows() {
		if !seen[row.name] {
			t.Errorf("row %s has no figure", row.name)
		}
	}
	for _, f := range []string{"connect/ratio same node", "cni/tortie-cni add p50", "change/quiet allow p99", "resync/resync deny p50", "rate/S3 ratio",
		"rss-large/peak", "store/fsync p50", "graph/SnapshotNetsets1k live heap", "restart/lost new", "programming/rules", "reboot/protected"} {
		if !names[f] {
			t.Errorf("no figure %s", f)
		}
	}
	if r.Machine.CPUs == 0 || r.Machine.Memory == 0 || r.Machine.Kernel == "unknown" || r.Took == 0 {
		t.Errorf("the machine: %+v, took %v", r.Machine, r.Took)
	}
	if left := leftovers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// implausible says what can't be right about a figure, on however slow a machine.
func implausible(r Result) string {
	low, high := 0.0, 1e12
	switch r.Unit {
	case "ms", "us":
		low, high = -60e6, 60e6 // an effect may come before the write returns
		if r.Row == "connect" || r.Row == "cni" {
			low = 0.1
		}
	case "s":
		low, high = 1e-6, 240
	case "x":
		low, high = 1e-6, 1e6
	case "MB":
		low, high = 1, 1e5
	case "Gbit/s":
		low, high = 0.001, 10_000
	case "rules":
		low = 20
	case "writes":
		low, high = 0.5, 10
	case "lost": // a machine that is too busy sends packets again
		high = 1e5
	}
	switch {
	case math.IsNaN(r.Median) || r.N == 0:
		return "no figure"
	case r.Median < low || r.Median > high:
		return fmt.Sprintf("not between %v and %v", low, high)
	case r.Min > r.Median || r.Max < r.Median:
		return "the median is outside of the spread"
	case r.What == "" || strings.Contains(r.What, "%!"):
		return "it does not say what it is"
	}
	return ""
}

// TestFailedRow: a row that fails says why and does not take others along, even if it panics; an end from outside ends the
// run at once. Nothing stays behind.
func TestFailedRow(t *testing.T) {
	// No plugin to measure: the row cni fails, on the bed of others.
	bin := t.TempDir()
	for _, name := range []string{"tortie", "tortie-bench"} {
		if err := os.Symlink(filepath.Join(built, name), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Bin: bin, Root: "/nonexistent", Size: Tiny(), Out: &bytes.Buffer{}, Rows: regexp.MustCompile("^(cni|reboot|graph)$")}
	r, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var failed []string
	for _, f := range r.Failed {
		failed = append(failed, f.Row)
	}
	if got := strings.Join(failed, " "); got != "cni graph" || !strings.Contains(r.Failed[0].Why, "tortie-cni") {
		t.Errorf("failed: %v, want cni and graph", r.Failed)
	}
	measured := map[string]bool{}
	for _, x := range r.Results {
		measured[x.Row] = true
	}
	if !measured["reboot"] {
		t.Errorf("measured: %v, want reboot", measured)
	}

	ctx, cancel := context.WithCancel(t.Context())
	o.Out = writerFunc(func(p []byte) (int, error) {
		if bytes.HasPrefix(p, []byte("cni")) {
			time.AfterFunc(100*time.Millisecond, cancel)
		}
		return len(p), nil
	})
	if _, err := Run(ctx, o); err == nil {
		t.Error("a run that was ended from outside went well")
	}
	if left := leftovers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
