package kubebench

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tortie/tortie/test/bench"
	"github.com/tortie/tortie/test/page"
)

// Rows are what can be measured, in the order of the page.
var Rows = []string{"podstart", "watchers", "idle"}

// Table is what one row of a run has measured.
type Table struct {
	Row     string        `json:"row"`
	Command string        `json:"command"`
	Date    time.Time     `json:"date"`
	Took    time.Duration `json:"took"`
	Machine bench.Machine `json:"machine"`
	Notes   []string      `json:"notes,omitempty"` // how it was measured
	Head    []string      `json:"head"`
	Lines   [][]string    `json:"lines"`
}

// Report has the last table of each row.
type Report struct {
	Tables []*Table `json:"tables"`
}

// Add puts a table in the place of an earlier one of the same row.
func (r *Report) Add(t *Table) {
	r.Tables = slices.DeleteFunc(r.Tables, func(was *Table) bool { return was.Row == t.Row })
	r.Tables = append(r.Tables, t)
	slices.SortStableFunc(r.Tables, func(a, b *Table) int { return slices.Index(Rows, a.Row) - slices.Index(Rows, b.Row) })
}

// Page is where the report stands in docs/benchmarks.md.
var Page = page.Section{Command: "make kubebench"}

// titles of rows on the page.
var titles = map[string]string{
	"podstart": "A pod's start",
	"watchers": "A block's write, until its pod is a member on every node",
	"idle":     "An idle cluster's requests",
}

const heading = "\n#### "

// Markdown is the report as a section of a page. Rows that it does not have stay as they were.
func (r *Report) Markdown(was string) string {
	sections := map[string]string{}
	for _, section := range strings.Split(was, heading)[1:] {
		title, _, _ := strings.Cut(section, "\n")
		sections[title] = section
	}
	for _, t := range r.Tables {
		sections[titles[t.Row]] = titles[t.Row] + "\n\n" + t.Markdown()
	}
	var w strings.Builder
	for _, row := range Rows {
		if s := sections[titles[row]]; s != "" {
			w.WriteString(heading + s)
		}
	}
	return w.String()
}

// busy is the load average from which a machine counts as one that has other work.
const busy = 1.0

// Markdown is the table with what belongs to it.
func (t *Table) Markdown() string {
	var w strings.Builder
	m := t.Machine
	fmt.Fprintf(&w, "%s, commit %s, `%s`, %v. Linux %s, %d x %s; the load average was %.2f when it began.\n", t.Date.UTC().Format("2006-01-02 15:04"), m.Commit,
		t.Command, t.Took.Round(time.Second), m.Kernel, m.CPUs, m.CPU, m.Load)
	if m.Load > busy {
		w.WriteString("**The machine had other work: what compares is worth more here than times.**\n")
	}
	w.WriteString("\n")
	row := func(cells []string) { fmt.Fprintf(&w, "| %s |\n", strings.Join(cells, " | ")) }
	row(t.Head)
	fmt.Fprintf(&w, "|---%s|\n", strings.Repeat("|--:", len(t.Head)-1))
	for _, l := range t.Lines {
		row(l)
	}
	if len(t.Notes) > 0 {
		w.WriteString("\n")
	}
	for _, n := range t.Notes {
		fmt.Fprintf(&w, "- %s\n", n)
	}
	return w.String()
}

// ms are samples in milliseconds.
type ms []float64

func (s ms) quantile(q float64) float64 { return bench.Quantile(s, q) }

// cell is the median, the 99th of a hundred, and the largest.
func (s ms) cell() string {
	if len(s) == 0 {
		return "-"
	}
	return fmt.Sprintf("%s / %s / %s", figure(s.quantile(0.5)), figure(s.quantile(0.99)), figure(slices.Max(s)))
}

// against compares medians and 99ths with those of others.
func (s ms) against(o ms) string {
	if len(s) == 0 || len(o) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f / %.2f", s.quantile(0.5)/o.quantile(0.5), s.quantile(0.99)/o.quantile(0.99))
}

// figure writes a number with three digits that count.
func figure(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.5:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 9.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// verdict says whether a budget of at most so much is met.
func verdict(got, most float64) string {
	if got <= most {
		return "met"
	}
	return "**not met**"
}
