// Command tortie-kubebench measures Tortie on a real Kubernetes cluster: `make kubebench`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tortie/tortie/test/e2e"
	"github.com/tortie/tortie/test/e2e/kubebench"
	"github.com/tortie/tortie/test/page"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	o := options{Options: kubebench.Options{Out: os.Stdout}}
	if err := o.parse(); err != nil {
		fmt.Fprintf(os.Stderr, "tortie-kubebench: %v\n", err)
		return 2
	}
	if err := o.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\ntortie-kubebench: %v\n", err)
		return 1
	}
	return 0
}

type options struct {
	kubebench.Options
	rows       []string
	json, page string
}

func (o *options) parse() (err error) {
	rows := flag.String("rows", "podstart,watchers", "what to measure, with commas between: "+strings.Join(kubebench.Rows, ", ")+"; empty: only write the page")
	flag.IntVar(&o.Pods, "pods", 200, "podstart: pods for each plugin")
	flag.IntVar(&o.Watchers, "watchers", 1000, "watchers: how many")
	flag.IntVar(&o.Nodes, "nodes", 3, "watchers: nodes with agents")
	flag.IntVar(&o.Writes, "writes", 300, "watchers: pods that come, and go")
	rates := flag.String("rates", "2,5", "watchers: pods that come in a second, and as many that go: one round for each of these")
	flag.DurationVar(&o.Idle, "idle", time.Hour, "idle: how long nothing happens")
	since := flag.String("since", "", "idle: time (RFC 3339) since when a cluster that runs already has idled; it is left as it is")
	flag.StringVar(&o.json, "json", "bin/kubebench.json", "file of the results, those of earlier runs among them")
	flag.StringVar(&o.page, "page", "docs/benchmarks.md", "page to write the results into; empty: none")
	flag.Parse()
	if o.Root, err = os.Getwd(); err != nil {
		return err
	}
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	if o.Pods < 2 || o.Watchers < 0 || o.Nodes < 1 || o.Nodes > 9 || o.Writes < 1 || o.Idle <= 0 {
		return errors.New("want at least two pods, one to nine nodes, a pod that comes and goes, and a time")
	}
	for rate := range strings.SplitSeq(*rates, ",") {
		v, err := strconv.ParseFloat(rate, 64)
		if err != nil || !(v > 0 && v <= 1000) {
			return fmt.Errorf("-rates: %q is no rate", rate)
		}
		o.Rates = append(o.Rates, v)
	}
	if *rows != "" {
		o.rows = strings.Split(*rows, ",")
	}
	o.Flags = shown()
	for _, row := range o.rows {
		if !slices.Contains(kubebench.Rows, row) {
			return fmt.Errorf("-rows: no row %q; there are %s", row, strings.Join(kubebench.Rows, ", "))
		}
	}
	if *since != "" {
		if o.Since, err = time.Parse(time.RFC3339, *since); err != nil {
			return fmt.Errorf("-since: %w", err)
		}
	}
	return nil
}

// shown are the flags that say how much is measured, as they are given to make.
func shown() string {
	var out []string
	flag.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "rows", "json", "page":
		default:
			out = append(out, "-"+f.Name+" "+f.Value.String())
		}
	})
	if len(out) == 0 {
		return ""
	}
	return "KUBEBENCH='" + strings.Join(out, " ") + "'"
}

func (o *options) run(ctx context.Context) error {
	report, err := page.Read[kubebench.Report](o.json)
	if err != nil {
		return err
	}
	if len(o.rows) == 0 {
		return o.record(report)
	}
	if err := (&e2e.Bed{Root: o.Root, Out: o.Out}).Build(ctx); err != nil {
		return err
	}
	var errs []error
	for _, row := range o.rows {
		if ctx.Err() != nil {
			break
		}
		t, err := kubebench.Run(ctx, &o.Options, row)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", row, err))
			continue
		}
		fmt.Printf("\n%s\n", t.Markdown())
		report.Add(t)
		errs = append(errs, o.record(report))
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// record writes the report down.
func (o *options) record(report *kubebench.Report) error {
	if err := page.Write(o.json, report); err != nil {
		return err
	}
	if o.page == "" {
		return nil
	}
	return kubebench.Page.Update(o.page, report.Markdown)
}
