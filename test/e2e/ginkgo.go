package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ginkgoReport is what we read of Ginkgo's JSON report. It lists every spec of the program, those that were not chosen
// as skipped ones.
type ginkgoReport struct {
	SpecReports []struct {
		ContainerHierarchyTexts []string
		LeafNodeType            string
		LeafNodeText            string
		State                   string
		RunTime                 float64 // nanoseconds
		Failure                 struct{ Message string }
	}
}

// runGinkgo runs a suite that is a choice of Kubernetes's own specs. What failed among others is run again, alone: most
// specs give a probe one second, which a busy machine does not always grant. What failed twice has failed.
func (b *Bed) runGinkgo(ctx context.Context, s Suite, c Cluster, o Options) ([]Spec, error) {
	all, err := b.listSpecs(ctx, o.Dir)
	if err != nil {
		return nil, fmt.Errorf("listing the specs: %w", err)
	}
	specs, err := s.choose(all, c, o.Focus)
	if err != nil {
		return nil, err
	}
	if err := b.runSpecs(ctx, specs, Skipped, o.Procs, filepath.Join(o.Dir, "run")); err != nil || o.Procs < 2 || count(specs, Failed) == 0 {
		return specs, err
	}
	fmt.Fprintf(b.Out, "again, each alone: %d that failed\n", count(specs, Failed))
	return specs, b.runSpecs(ctx, specs, Failed, 1, filepath.Join(o.Dir, "again"))
}

// listSpecs are the names of all specs of sig-network.
func (b *Bed) listSpecs(ctx context.Context, dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "list.json")
	out, err := exec.CommandContext(ctx, b.Bin("e2e.test"), "--ginkgo.dry-run", "--ginkgo.json-report", file, "--ginkgo.focus", `\[sig-network\]`).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	specs, err := readGinkgo(file)
	var names []string
	for _, spec := range specs {
		if spec.State == Passed { // what a dry run says of all that it would run
			names = append(names, spec.Name)
		}
	}
	return names, err
}

// choose makes the specs of a suite out of the names of all. Those to be run are skipped without a reason, yet.
func (s Suite) choose(all []string, c Cluster, focus string) ([]Spec, error) {
	pattern := s.Focus
	if c.Dual && s.Dual != "" {
		pattern += "|" + s.Dual
	}
	in, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	more, err := regexp.Compile(focus)
	if err != nil {
		return nil, fmt.Errorf("the focus: %w", err)
	}
	var specs []Spec
	for _, name := range all {
		if in.MatchString(name) && more.MatchString(name) {
			specs = append(specs, Spec{Name: name, State: Skipped, Reason: s.skip(name)})
		}
	}
	return specs, nil
}

// runSpecs runs those specs that are in a state and have no reason to be skipped, and writes down how they ended.
func (b *Bed) runSpecs(ctx context.Context, specs []Spec, state State, procs int, dir string) error {
	var names []string
	for i := range specs {
		if specs[i].State == state && (state == Failed || specs[i].Reason == "") {
			names = append(names, regexp.QuoteMeta(specs[i].Name))
		}
	}
	if len(names) == 0 {
		return nil
	}
	// the shell's own default of SKIP stands for those who call it by hand: what we skip is not among the names
	runErr := b.testbed(ctx, []string{"OUT=" + dir, "PROCS=" + strconv.Itoa(procs), "SKIP=^$"}, "run", strings.Join(names, "|"))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	ran, err := readGinkgo(filepath.Join(dir, "r.json"))
	if err != nil {
		return errors.Join(runErr, err)
	}
	failed := 0
	for _, r := range ran {
		i := slices.IndexFunc(specs, func(s Spec) bool { return s.Name == r.Name })
		if i < 0 || !slices.Contains(names, regexp.QuoteMeta(r.Name)) {
			continue
		}
		r.Again = state == Failed
		if specs[i] = r; r.State == Failed {
			failed++
		}
	}
	if runErr != nil && failed == 0 {
		return fmt.Errorf("the program failed outside of its specs: %w (log in %s)", runErr, dir)
	}
	return nil
}

func readGinkgo(file string) ([]Spec, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseGinkgo(data)
}

func parseGinkgo(data []byte) ([]Spec, error) {
	var reports []ginkgoReport
	if err := json.Unmarshal(data, &reports); err != nil {
		return nil, fmt.Errorf("reading the report: %w", err)
	}
	var specs []Spec
	for _, r := range reports {
		for _, s := range r.SpecReports {
			if s.LeafNodeType != "It" {
				continue
			}
			spec := Spec{Name: strings.Join(append(s.ContainerHierarchyTexts, s.LeafNodeText), " "), Seconds: s.RunTime / 1e9}
			switch message := firstLine(s.Failure.Message); s.State {
			case "passed":
				spec.State = Passed
			case "skipped", "pending":
				spec.State, spec.Reason = Skipped, message
			default: // failed, panicked, interrupted, aborted, timedout
				spec.State, spec.Reason = Failed, message
				if message == "" {
					spec.Reason = s.State
				}
			}
			specs = append(specs, spec)
		}
	}
	return specs, nil
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}
