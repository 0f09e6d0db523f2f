// Command tortie-e2e runs Tortie on a real Kubernetes cluster of two nodes, and the upstream suites on it: `make e2e`.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tortie/tortie/test/e2e"
	"github.com/tortie/tortie/test/page"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	o, err := flags()
	if err != nil {
		fmt.Fprintf(os.Stderr, "tortie-e2e: %v\n", err)
		return 2
	}
	if err := o.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\ntortie-e2e: %v\n", err)
		return 1
	}
	return 0
}

type options struct {
	suites   []e2e.Suite
	clusters []e2e.Cluster
	asked    bool // the clusters are what a flag has asked for
	focus    string
	procs    int
	keep     bool
	cni      string
	page     string
	json     string
	dir      string // of this run
	report   *e2e.Report
}

func flags() (*options, error) {
	o := &options{}
	suite := flag.String("suite", "", "suites to run, with commas between: "+strings.Join(names(), ", ")+" (default all)")
	proxy := flag.String("proxy", "", "kube-proxy's mode, iptables or nftables. This flag and the next three ask for one kind of cluster (default: all kinds in turn)")
	var c e2e.Cluster
	flag.BoolVar(&c.Dual, "dual-stack", false, "IPv4 and IPv6")
	flag.BoolVar(&c.IPv6, "ipv6", false, "IPv6 only")
	from := flag.String("from", "", "who gives pods their addresses: host-local, or another network plugin (\"another\")")
	flag.StringVar(&o.focus, "focus", "", "regular expression of the specs to run of the suites")
	flag.IntVar(&o.procs, "procs", 4, "specs at once, of Kubernetes's suites")
	flag.BoolVar(&o.keep, "keep", false, "leave the cluster running, and use one that runs already")
	flag.StringVar(&o.cni, "cni", "", "a folder with another network plugin, to try the suites without Tortie (see test/e2e/README.md); nothing is recorded")
	flag.StringVar(&o.page, "page", "docs/e2e.md", "page to write the results into; empty: none")
	flag.StringVar(&o.json, "json", "bin/e2e.json", "file of the results, those of earlier runs among them")
	flag.Parse()
	if flag.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	}
	c.From, c.Proxy = e2e.From(*from), *proxy
	o.clusters = e2e.Clusters()
	if c != (e2e.Cluster{}) {
		c.Proxy = cmp.Or(c.Proxy, "iptables")
		o.clusters, o.asked = []e2e.Cluster{c}, true
	}
	switch {
	case c.Proxy != "" && c.Proxy != "iptables" && c.Proxy != "nftables":
		return nil, fmt.Errorf("-proxy: %q is neither iptables nor nftables", c.Proxy)
	case c.Dual && c.IPv6:
		return nil, errors.New("-dual-stack and -ipv6: a cluster is one or the other")
	case !slices.Contains([]e2e.From{e2e.FromPools, e2e.FromHostLocal, e2e.FromAnother}, c.From):
		return nil, fmt.Errorf("-from: %q is neither host-local nor another", c.From)
	case c.IPv6 && c.From == e2e.FromHostLocal:
		return nil, errors.New("-from host-local: there is only IPv4")
	}
	for _, s := range e2e.Suites() {
		if *suite == "" || slices.Contains(strings.Split(*suite, ","), s.Name) {
			o.suites = append(o.suites, s)
		}
	}
	if len(o.suites) == 0 || *suite != "" && len(o.suites) != len(strings.Split(*suite, ",")) {
		return nil, fmt.Errorf("-suite: %q names a suite that there is not; there are %s", *suite, strings.Join(names(), ", "))
	}
	return o, nil
}

func names() []string {
	var names []string
	for _, s := range e2e.Suites() {
		names = append(names, s.Name)
	}
	return names
}

func (o *options) run(ctx context.Context) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	bed := &e2e.Bed{Root: root, Out: os.Stdout}
	unlock, err := bed.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if !o.keep && bed.Runs() {
		return fmt.Errorf("a cluster runs in %s already: end it (test/e2e/testbed down), use it (-keep), or have another beside it (TORTIE_E2E_DIR=/tmp/another)", bed.State())
	}
	work := o.plan()
	if len(work) == 0 {
		return errors.New("none of these suites runs in such a cluster")
	}
	fmt.Printf("%s; about %.0f minutes once Kubernetes is built (results in %s)\n", work, work.minutes(), bed.State())
	o.dir = filepath.Join(bed.State(), "results", time.Now().Format("20060102-150405"))
	if err := bed.Build(ctx); err != nil {
		return err
	}
	if o.report, err = page.Read[e2e.Report](in(root, o.json)); err != nil {
		return err
	}
	all := &e2e.Report{}
	var errs []error
	for i, w := range work {
		if ctx.Err() != nil {
			break
		}
		fmt.Printf("\n== a cluster: %s (%d of %d; about %.0f minutes are left)\n", w.cluster, i+1, len(work), work[i:].minutes())
		runs, err := o.cluster(ctx, bed, w.cluster, w.suites)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w.cluster, err))
		}
		for _, r := range runs {
			all.Add(r)
		}
	}
	fmt.Printf("\n%s\n", all.Table())
	for _, r := range all.Runs {
		if n := r.Count(e2e.Failed); n > 0 {
			errs = append(errs, fmt.Errorf("%s, %s: %d specs failed", r.Suite, r.Cluster, n))
		}
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// piece is a cluster with the suites that run in it.
type piece struct {
	cluster e2e.Cluster
	suites  []e2e.Suite
}

type pieces []piece

// plan says what runs where.
func (o *options) plan() pieces {
	var work pieces
	for n, c := range o.clusters {
		w := piece{cluster: c}
		for _, s := range o.suites {
			if s.In(c, n) || o.asked && (s.Where == e2e.Beside) == (c.From != e2e.FromPools) {
				w.suites = append(w.suites, s)
			}
		}
		if len(w.suites) > 0 {
			work = append(work, w)
		}
	}
	return work
}

// minutes is how long it takes on two processors.
func (ps pieces) minutes() float64 {
	total := 0.0
	for _, p := range ps {
		total++ // to make the cluster
		for _, s := range p.suites {
			total += s.Minutes
		}
	}
	return total
}

func (ps pieces) String() string {
	n := 0
	for _, p := range ps {
		n += len(p.suites)
	}
	return fmt.Sprintf("%d runs of suites in %d clusters", n, len(ps))
}

// cluster makes a cluster and runs suites in it.
func (o *options) cluster(ctx context.Context, bed *e2e.Bed, c e2e.Cluster, suites []e2e.Suite) (runs []*e2e.Run, err error) {
	if !o.keep {
		defer func() { err = errors.Join(err, bed.Down()) }()
	}
	if err := bed.Up(ctx, c, o.cni); err != nil {
		return nil, err
	}
	if o.cni == "" {
		if err := bed.Install(ctx, c); err != nil {
			return nil, errors.Join(err, bed.Keep(ctx, filepath.Join(o.dir, "install.logs")))
		}
	}
	if o.report.Versions, err = bed.Versions(ctx); err != nil {
		return nil, err
	}
	var (
		mu     sync.Mutex // runs, errs
		errs   []error
		beside sync.WaitGroup
	)
	one := func(s e2e.Suite) {
		r, err := o.suite(ctx, bed, c, s)
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
		if len(r.Specs) > 0 && ctx.Err() == nil { // one that was interrupted says nothing
			runs = append(runs, r)
			errs = append(errs, o.record(bed.Root, r))
		}
	}
	room := runtime.NumCPU() >= 4 // with less, suites beside each other starve each other
	for _, s := range suites {
		if s.Beside && room {
			beside.Go(func() { one(s) })
		}
	}
	for _, s := range suites {
		if s.Beside && room || ctx.Err() != nil {
			continue
		}
		if s.Where == e2e.Once {
			beside.Wait()
		}
		one(s)
	}
	beside.Wait()
	return runs, errors.Join(append(errs, ctx.Err())...)
}

// suite runs one suite, and keeps logs if anything failed.
func (o *options) suite(ctx context.Context, bed *e2e.Bed, c e2e.Cluster, s e2e.Suite) (*e2e.Run, error) {
	fmt.Printf("\n== %s (%s)\n", s.Title, c)
	name := s.Name + "-" + c.Name()
	r, err := bed.Run(ctx, s, c, e2e.Options{Focus: o.focus, Procs: o.procs, Dir: filepath.Join(o.dir, name)})
	fmt.Printf("== %s: %d passed, %d failed, %d skipped, %.0fs\n", s.Title, r.Count(e2e.Passed), r.Count(e2e.Failed), r.Count(e2e.Skipped), r.Seconds)
	if ctx.Err() == nil && (err != nil || r.Count(e2e.Failed) > 0) {
		logs := filepath.Join(o.dir, name+".logs")
		fmt.Printf("logs, status and rules of all nodes are in %s\n", logs)
		err = errors.Join(err, bed.Keep(ctx, logs))
	}
	return r, err
}

// record writes down how a suite went, if all of it was run, and of Tortie.
func (o *options) record(root string, r *e2e.Run) error {
	if o.cni != "" || o.focus != "" {
		return nil
	}
	o.report.Add(r)
	if err := page.Write(in(root, o.json), o.report); err != nil {
		return err
	}
	if o.page == "" {
		return nil
	}
	return e2e.Page.Update(in(root, o.page), func(string) string { return o.report.Markdown() })
}

// in is a path, below root unless it is an absolute one.
func in(root, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(root, path)
}
