package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
)

// targets are what must be right for a packet's fate to be. Tests that judge them need no kernel, and are the same each
// time.
var targets = []*target{
	{
		Name: "Evaluate", Dir: "drivers", Files: []string{"evaluate*.go", "path.go"},
		Tests: []suite{
			{Dir: "drivers", Run: ".", Skip: "Lower|Encode|TestSet"},
			{Dir: "drivers/drivertest", Run: "TestOracle$"},
			{Dir: "drivers", Run: "Lower"},
		},
	},
	{
		Name: "Lower", Dir: "drivers", Files: []string{"lower*.go", "features.go"},
		Tests: []suite{
			{Dir: "drivers", Run: "Lower|Features|Deny", Skip: "Remembers|NeverAllows"},
			{Dir: "drivers", Run: "Remembers|NeverAllows", Short: true},
		},
	},
	{
		Name: "the rule renderer of drivers/linux", Dir: "drivers/linux",
		Files: []string{"compiler.go", "program.go", "match.go", "lists.go", "endpoint.go", "base.go", "merge.go", "mergeunits.go", "plan.go"},
		Tests: []suite{
			{Dir: "drivers/linux", Run: "Golden|TestOps|TestUnchanged|TestNodeSettings|TestNamesThat|TestUnlowered|TestContentsDiff|TestGroups|TestEmpty|TestLoops|TestMergedEqual|TestMergedIsNot|TestPoisoned|TestFirst|TestCounting|TestShorten|TestMergePorts|TestFullIsNot|TestPoisonW|TestTwoFor|TestInvalid|TestTwice|TestClaims|TestDeltaIn|TestMixing|TestTaken|TestSame|TestLoops", Short: true},
			{Dir: "drivers/linux", Run: "TestCasesAgree|TestCrowds", Short: true},
			{Dir: "drivers/linux", Run: "TestWorth|TestMergedContents|TestNothing|TestHeld|TestHolds", Short: true},
			{Dir: "drivers/linux", Run: "TestCompilerFollows|TestPlan|TestDangling|TestProgramSize", Short: true},
			{Dir: "drivers/linux", Run: "TestProgramAgrees|TestMergedDeltas", Short: true},
		},
	},
}

func main() { os.Exit(run()) }

func run() int {
	only := flag.String("only", "", "a regular expression: targets whose name it matches")
	files := flag.String("file", "", "a regular expression: files to mutate; the report is not written")
	workers := flag.Int("workers", 2, "runs of the tests at the same time")
	fresh := flag.Bool("fresh", false, "forget the results of earlier runs")
	list := flag.Bool("list", false, "list the mutants and run nothing")
	again := flag.Bool("again", false, "only those that are not known to be killed")
	reportOnly := flag.Bool("report", false, "run nothing, write the report of what has been run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := mutate(ctx, options{*only, *files, *workers, *fresh, *list, *reportOnly, *again}); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		return 1
	}
	return 0
}

// options are the flags.
type options struct {
	only, files              string
	workers                  int
	fresh, list, skip, again bool
}

func mutate(ctx context.Context, o options) error {
	pick, err := regexp.Compile(o.only)
	if err != nil {
		return err
	}
	pickFile, err := regexp.Compile(o.files)
	if err != nil {
		return err
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	kept := filepath.Join(root, "bin", "mutate.jsonl")
	if err := os.MkdirAll(filepath.Dir(kept), 0o755); err != nil {
		return err
	}
	if o.fresh {
		if err := os.RemoveAll(kept); err != nil {
			return err
		}
	}
	rs, err := openResults(kept)
	if err != nil {
		return err
	}
	defer rs.file.Close()
	say := func(format string, args ...any) { fmt.Printf(format+"\n", args...) }
	parts, order := map[string][]*mutant{}, []string{}
	for _, t := range targets {
		ms, err := t.judged(ctx, root, rs, settings{
			run: pick.MatchString(t.Name) && !o.list && !o.skip, again: o.again, file: pickFile, workers: o.workers, say: say,
		})
		if err != nil {
			return err
		}
		parts[t.Name], order = ms, append(order, t.Name)
		if o.list && pick.MatchString(t.Name) {
			for _, m := range ms {
				say("%s:%d: %s %s", m.File, m.Line, m.Func, m.What)
			}
		}
	}
	if o.list {
		return nil
	}
	reasons, err := parseReasons(reasonsText)
	if err != nil {
		return err
	}
	doc, wrong := report(parts, order, rs, reasons)
	if o.only == "" && o.files == "" {
		if err := os.WriteFile(filepath.Join(root, "docs", "mutation.md"), doc, 0o644); err != nil {
			return err
		}
	}
	for _, name := range order {
		scores, _ := tally(parts[name], rs)
		for _, s := range append(scores, sum(name, scores)) {
			say("%-36s %5d mutants, %5d run, %5d killed, %5.1f%%", s.file, s.all, s.run, s.run-s.survived, s.percent())
		}
	}
	if len(wrong) > 0 && o.files == "" {
		return fmt.Errorf("%d things to look at:\n%s", len(wrong), strings.Join(wrong, "\n"))
	}
	return nil
}

// settings say how a target is judged.
type settings struct {
	run     bool
	again   bool // only those that are not known to be killed
	file    *regexp.Regexp
	workers int
	say     func(string, ...any)
}

// judged builds a target's mutants and runs them, if it is asked to, and returns those that compile, as far as is known.
func (t *target) judged(ctx context.Context, root string, rs *results, o settings) ([]*mutant, error) {
	if !o.run {
		_, ms, err := t.load(root)
		return rs.compiling(ms), err
	}
	dir, err := os.MkdirTemp("", "tortie-mutate-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	b, err := t.build(ctx, root, dir, rs, func(m *mutant) bool {
		_, killed := rs.outcome(m)
		return o.file.MatchString(m.File) && (!o.again || !killed)
	})
	if err != nil {
		return nil, err
	}
	if err := b.run(ctx, root, rs, o.workers, o.say); err != nil {
		return nil, err
	}
	_, ms, err := t.load(root)
	return rs.compiling(ms), err
}

// moduleRoot is the folder of go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("asking for the module's folder: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
