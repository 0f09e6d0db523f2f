package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tortie/tortie/test/page"
)

// Report is what a run has measured.
type Report struct {
	Machine
	Date    time.Time     `json:"date"`
	Took    time.Duration `json:"took"`
	Size    string        `json:"size"` // "full", "quick" or "tiny"
	Results []Result      `json:"results"`
	Failed  []Failure     `json:"failed,omitempty"`
}

// Machine is where a run took place, and of what.
type Machine struct {
	Commit string  `json:"commit"`
	Kernel string  `json:"kernel"`
	CPU    string  `json:"cpu"`
	CPUs   int     `json:"cpus"`
	Memory float64 `json:"memoryGiB"`
	Load   float64 `json:"load"` // average of the minute before the start
}

// Result is one figure: a line of the table.
type Result struct {
	Row  string `json:"row"`
	Name string `json:"name"` // unique in its row; what two reports are compared by
	What string `json:"what"` // a line of the table
	Unit string `json:"unit"` // "ms", "us", "s", "/s", "MB", "x" (a ratio), "Gbit/s", or what is counted
	Spread
	Budget Budget `json:"budget,omitzero"`
	// Scaled says that the work was smaller than what the budget speaks of, so that the figure does not speak of it.
	Scaled bool `json:"scaled,omitempty"`
}

// Budget bounds a median from above or below. The zero Budget bounds nothing.
type Budget struct {
	Op    string  `json:"op,omitempty"` // "<=" or ">="
	Value float64 `json:"value,omitempty"`
}

// AtMost and AtLeast make budgets.
func AtMost(v float64) Budget  { return Budget{"<=", v} }
func AtLeast(v float64) Budget { return Budget{">=", v} }

// String is "≤ 5" in ASCII.
func (b Budget) String() string {
	if b.Op == "" {
		return ""
	}
	return b.Op + " " + figure(b.Value)
}

// Verdict is "met", "not met", or "" if the result is not judged.
func (r Result) Verdict() string {
	switch {
	case r.Budget.Op == "" || r.Scaled:
		return ""
	case r.Budget.Op == "<=" && r.Median <= r.Budget.Value, r.Budget.Op == ">=" && r.Median >= r.Budget.Value:
		return "met"
	}
	return "not met"
}

// Failure is a row that could not be measured.
type Failure struct {
	Row string `json:"row"`
	Why string `json:"why"`
}

// figure writes a number with three digits that count.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case a == 0 || a != a:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case a >= 100 || a == math.Trunc(a):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 0.1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

// String is the result as progress shows it.
func (r Result) String() string {
	s := fmt.Sprintf("%s: %s %s", r.What, figure(r.Median), r.Unit)
	if r.N > 1 {
		s += fmt.Sprintf(" (%s to %s, n=%d)", figure(r.Min), figure(r.Max), r.N)
	}
	if b := r.Budget.String(); b != "" {
		s += fmt.Sprintf(" [%s: %s]", b, orElse(r.Verdict(), "smaller than the budget's work, not judged"))
	}
	return s
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// WriteJSON writes the report for ReadJSON.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// ReadJSON reads what WriteJSON has written.
func ReadJSON(in io.Reader) (*Report, error) {
	r := &Report{}
	if err := json.NewDecoder(in).Decode(r); err != nil {
		return nil, fmt.Errorf("reading a report: %w", err)
	}
	return r, nil
}

// Page is where the report stands in docs/benchmarks.md.
var Page = page.Section{Command: "make bench"}

// Markdown is the report as a section of a page.
func (r *Report) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "## %s, commit %s, Linux %s\n\n", r.Date.UTC().Format(time.DateOnly), r.Commit, r.Kernel)
	fmt.Fprintf(&b, "%d x %s, %.0f GiB. The load average was %.2f when the run began, and the run (%s) took %v.\n", r.CPUs, r.CPU, r.Memory, r.Load,
		r.Size, r.Took.Round(time.Second))
	if r.Load > 0.5 {
		b.WriteString("**The machine had other work: times are worth less than ratios here.**\n")
	}
	if r.Size != "full" {
		b.WriteString("**This was not a full run: the work was smaller than what the budgets speak of.**\n")
	}
	b.WriteString("\n| row | what | median | min to max | n | budget | |\n|---|---|---|---|---|---|---|\n")
	for _, x := range r.Results {
		spread := ""
		if x.N > 1 {
			spread = figure(x.Min) + " to " + figure(x.Max)
		}
		verdict := x.Verdict()
		if verdict == "not met" {
			verdict = "**not met**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s %s | %s | %d | %s | %s |\n", x.Row, x.What, figure(x.Median), x.Unit, spread, x.N, x.Budget, verdict)
	}
	for _, f := range r.Failed {
		fmt.Fprintf(&b, "\nRow `%s` failed: %s\n", f.Row, strings.ReplaceAll(strings.TrimSpace(f.Why), "\n", " "))
	}
	return b.String()
}

// Compare writes a table of what two reports both measured, and of what only one did.
func Compare(w io.Writer, was, is *Report) {
	fmt.Fprintf(w, "%-52s %14s %14s %8s\n", fmt.Sprintf("%s (load %.2f) -> %s (load %.2f)", was.Commit, was.Load, is.Commit, is.Load), "old", "new", "new/old")
	old := map[string]Result{}
	for _, x := range was.Results {
		old[x.Row+"/"+x.Name] = x
	}
	for _, x := range is.Results {
		name := x.Row + "/" + x.Name
		o, ok := old[name]
		delete(old, name)
		switch {
		case !ok:
			fmt.Fprintf(w, "%-52s %14s %14s\n", name, "-", figure(x.Median)+" "+x.Unit)
		case o.Median == 0:
			fmt.Fprintf(w, "%-52s %14s %14s\n", name, figure(o.Median)+" "+o.Unit, figure(x.Median)+" "+x.Unit)
		default:
			// A difference inside both spreads may be nothing.
			mark := ""
			if x.Min > o.Max || x.Max < o.Min {
				mark = " *"
			}
			fmt.Fprintf(w, "%-52s %14s %14s %8.2f%s\n", name, figure(o.Median)+" "+o.Unit, figure(x.Median)+" "+x.Unit, x.Median/o.Median, mark)
		}
	}
	for _, x := range was.Results {
		if _, left := old[x.Row+"/"+x.Name]; left {
			fmt.Fprintf(w, "%-52s %14s %14s\n", x.Row+"/"+x.Name, figure(x.Median)+" "+x.Unit, "-")
		}
	}
	fmt.Fprintln(w, "* = the samples of the two runs do not overlap")
}
