package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tortie/tortie/test/page"
)

// Report is what the last run of each suite in each kind of cluster has shown.
type Report struct {
	Versions
	Runs []*Run `json:"runs"`
}

// Add puts a run in the place of an earlier one of the same suite and kind of cluster.
func (r *Report) Add(run *Run) {
	r.Runs = slices.DeleteFunc(r.Runs, func(was *Run) bool { return was.Suite == run.Suite && was.Cluster == run.Cluster })
	r.Runs = append(r.Runs, run)
	at := func(run *Run) int {
		return slices.IndexFunc(Suites(), func(s Suite) bool { return s.Name == run.Suite })
	}
	slices.SortStableFunc(r.Runs, func(a, b *Run) int {
		if d := at(a) - at(b); d != 0 {
			return d
		}
		return strings.Compare(a.Cluster.String(), b.Cluster.String())
	})
}

// Page is where the report stands in docs/e2e.md.
var Page = page.Section{Command: "make e2e"}

// Markdown is the report as a section of a page.
func (r *Report) Markdown() string {
	var w strings.Builder
	fmt.Fprintf(&w, "\nTwo nodes on one machine: %s.\n\n", r.Versions)
	w.WriteString(r.Table())
	r.failures(&w)
	r.skipped(&w)
	return w.String()
}

// Table has a line for each run.
func (r *Report) Table() string {
	var w strings.Builder
	w.WriteString("| suite | kube-proxy | addresses | run | passed | failed | skipped | time | of |\n|---|---|---|--:|--:|--:|--:|--:|---|\n")
	for _, run := range r.Runs {
		passed, failed := run.Count(Passed), run.Count(Failed)
		again := ""
		if n := run.again(); n > 0 {
			again = fmt.Sprintf(" (%d alone, at the second try)", n)
		}
		fmt.Fprintf(&w, "| %s | %s | %s | %d | %d%s | %d | %d | %s | %s, %s |\n", title(run.Suite), run.Cluster.Proxy, run.Cluster.Stack(),
			passed+failed, passed, again, failed, run.Count(Skipped), time.Duration(run.Seconds*float64(time.Second)).Round(time.Second),
			run.Date.Format("2006-01-02 15:04"), run.Tortie)
	}
	return w.String()
}

// again is the number of specs that passed only at the second try.
func (r *Run) again() int {
	n := 0
	for _, s := range r.Specs {
		if s.Again && s.State == Passed {
			n++
		}
	}
	return n
}

func title(suite string) string {
	for _, s := range Suites() {
		if s.Name == suite {
			return s.Title
		}
	}
	return suite
}

func (r *Report) failures(w *strings.Builder) {
	heading := "\nFailed:\n\n"
	for _, run := range r.Runs {
		for _, s := range run.Specs {
			if s.State == Failed {
				fmt.Fprintf(w, "%s- %s (%s): %s\n", heading, code(s.Name), run.Cluster, s.Reason)
				heading = ""
			}
		}
	}
}

// skipped lists what was not run by its reason, once for all clusters.
func (r *Report) skipped(w *strings.Builder) {
	heading := "\nSkipped:\n\n"
	seen := map[string]bool{}
	for _, run := range r.Runs {
		var reasons []string
		of := map[string][]string{}
		for _, s := range run.Specs {
			if s.State != Skipped || seen[run.Suite+s.Name] {
				continue
			}
			seen[run.Suite+s.Name] = true
			if of[s.Reason] == nil {
				reasons = append(reasons, s.Reason)
			}
			of[s.Reason] = append(of[s.Reason], s.Name)
		}
		for _, reason := range reasons {
			fmt.Fprintf(w, "%s- %s: %s\n", heading, title(run.Suite), reason)
			heading = ""
			for _, name := range of[reason] {
				fmt.Fprintf(w, "  - %s\n", code(name))
			}
		}
	}
}

func code(name string) string { return "`" + strings.ReplaceAll(name, "`", "'") + "`" }
