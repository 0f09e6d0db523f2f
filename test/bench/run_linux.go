package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"

	"github.com/tortie/tortie/test/lab"
)

// Options of a run.
type Options struct {
	Bin  string         // folder of tortie, tortie-cni and tortie-bench
	Root string         // folder of the sources
	Rows *regexp.Regexp // which rows; nil = all
	Size Size
	Out  io.Writer // progress
}

// row is one thing that is measured.
type row struct {
	name  string
	about string
	bed   string // what it stands on, by its name in beds; "" = nothing
	// last says that the bed is of no use to other rows afterwards.
	last bool
	// limit is how long a full run may take over it.
	limit time.Duration
	run   func(ctx context.Context, m *measurement) error
}

// rows in the order in which they run: those that share a bed stand together.
func rows() []row {
	const pair, large, small = "pair", "large", "small"
	return []row{
		{name: "store", about: "the store: its disk, its writes, its memory", bed: "store", limit: time.Minute, run: storeRow},
		{name: "connect", about: "connect, request, close, against plain routed veth", bed: pair, limit: 4 * time.Minute, run: connectRow},
		{name: "throughput", about: "one TCP stream, against plain routed veth", bed: pair, limit: 3 * time.Minute, run: throughputRow},
		{name: "rate", about: "TCP connect rate, many rules against 10", bed: pair, limit: 5 * time.Minute, run: rateRow},
		{name: "fanout", about: "an endpoint written, a member on another node", bed: pair, limit: 2 * time.Minute, run: fanoutRow},
		{name: "restart", about: "agents killed and started under traffic", bed: pair, limit: 2 * time.Minute, run: restartRow},
		{name: "cni", about: "CNI ADD and DEL, exec to exit", bed: pair, limit: 6 * time.Minute, run: cniRow},
		{name: "reboot", about: "a host boots, the store is down", bed: pair, last: true, limit: 2 * time.Minute, run: rebootRow},
		{name: "change", about: "a policy changed, its first effect, on a large node", bed: large, limit: 5 * time.Minute, run: changeRow},
		{name: "programming", about: "an empty kernel, the large node's policies", bed: large, limit: 6 * time.Minute, run: programmingRow},
		{name: "resync", about: "a policy changed while a million members are compared", bed: large, last: true, limit: 6 * time.Minute, run: resyncRow},
		{name: "change-small", about: "a policy changed, its first effect, in a small cluster", bed: small, limit: 3 * time.Minute, run: changeSmallRow},
		{name: "rss", about: "memory of the agent, small cluster", bed: "rss", last: true, limit: 3 * time.Minute, run: rssRow},
		{name: "rss-large", about: "memory of the agent, large cluster", bed: "cluster", last: true, limit: 6 * time.Minute, run: rssLargeRow},
		{name: "graph", about: "the graph's benchmarks", limit: 8 * time.Minute, run: graphRow},
	}
}

// beds makes what rows stand on.
func beds() map[string]func(context.Context, *measurement) (*bed, error) {
	return map[string]func(context.Context, *measurement) (*bed, error){
		"store": newStoreBed, "pair": newPairBed, "large": newLargeBed, "small": newSmallBed, "rss": newRSSBed, "cluster": newClusterBed,
	}
}

// bedLimit is how long a bed may take to be made.
const bedLimit = 5 * time.Minute

// RowNames lists the rows and what they measure.
func RowNames() []string {
	var out []string
	for _, r := range rows() {
		out = append(out, fmt.Sprintf("%-14s %s", r.name, r.about))
	}
	return out
}

// measurement is what a row measures with.
type measurement struct {
	Options
	row    string
	bed    *bed
	report *Report
}

func (m *measurement) say(format string, args ...any) {
	fmt.Fprintf(m.Out, "  "+format+"\n", args...)
}

// add notes a figure.
func (m *measurement) add(r Result) {
	r.Row = m.row
	m.report.Results = append(m.report.Results, r)
	m.say("%s", r)
}

// Run measures the rows. It cleans up whatever happens, and returns what it has measured beside an error: that of ctx, or
// that of cleaning up. Rows that failed are in the report.
func Run(ctx context.Context, o Options) (*Report, error) {
	if _, err := lab.Clean(); err != nil {
		return nil, fmt.Errorf("cleaning up after earlier runs: %w", err)
	}
	began := time.Now()
	m := &measurement{Options: o, report: &Report{Machine: ThisMachine(o.Root), Date: began, Size: o.Size.Name}}
	r := &runner{m: m}
	var errs []error
	for i, row := range rows() {
		if o.Rows != nil && !o.Rows.MatchString(row.name) {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		fmt.Fprintf(o.Out, "%s: %s\n", row.name, row.about)
		if err := r.row(ctx, row); err != nil {
			m.report.Failed = append(m.report.Failed, Failure{Row: row.name, Why: err.Error()})
			m.say("FAILED: %v", err)
			errs = append(errs, r.down())
		}
		if row.last || !r.wanted(rows()[i+1:]) {
			errs = append(errs, r.down())
		}
	}
	errs = append(errs, r.down(), ctx.Err())
	m.report.Took = time.Since(began)
	return m.report, errors.Join(errs...)
}

// runner keeps the bed of the last row for the next.
type runner struct {
	m    *measurement
	have string
}

func (r *runner) row(ctx context.Context, row row) (err error) {
	if r.have != row.bed {
		if err := r.down(); err != nil {
			return err
		}
		if err := r.make(ctx, row.bed); err != nil {
			return fmt.Errorf("making the bed: %w", err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, row.limit)
	defer cancel()
	r.m.row = row.name
	before := len(r.m.report.Results)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		if err != nil && r.m.bed != nil {
			err = fmt.Errorf("%w%s", err, r.m.bed.logs())
		}
	}()
	if err := row.run(ctx, r.m); err != nil {
		return err
	}
	if len(r.m.report.Results) == before {
		return errors.New("it yielded no figure")
	}
	return nil
}

func (r *runner) make(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, bedLimit)
	defer cancel()
	b, err := beds()[name](ctx, r.m)
	if err != nil {
		return err
	}
	r.m.bed, r.have = b, name
	return nil
}

// down takes the bed down, if there is one.
func (r *runner) down() error {
	if r.m.bed == nil {
		return nil
	}
	b := r.m.bed
	r.m.bed, r.have = nil, ""
	if err := b.down(); err != nil {
		return fmt.Errorf("taking the bed down: %w", err)
	}
	return nil
}

// wanted reports whether one of the rows to come stands on the bed that is there.
func (r *runner) wanted(next []row) bool {
	return slices.ContainsFunc(next, func(w row) bool {
		return w.bed == r.have && (r.m.Rows == nil || r.m.Rows.MatchString(w.name))
	})
}
