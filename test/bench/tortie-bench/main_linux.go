// Command tortie-bench measures Tortie: `make bench` runs it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/test/bench"
	"github.com/tortie/tortie/test/bench/load"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	root := &cobra.Command{Use: "tortie-bench", Short: "Measures Tortie in a lab of network namespaces", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(runCommand(), rowsCommand(), compareCommand(), pageCommand(), loadCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\ntortie-bench: %v\n", err)
		return 1
	}
	return 0
}

func runCommand() *cobra.Command {
	var rows, size, page, out string
	var benchtime time.Duration
	cmd := &cobra.Command{
		Use: "run", Short: "Measure, and write what was measured into a page", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			o := bench.Options{Out: cmd.OutOrStdout(), Root: "."}
			if o.Rows, err = regexp.Compile(rows); err != nil {
				return fmt.Errorf("--rows: %w", err)
			}
			if o.Size, err = bench.Sizes(size); err != nil {
				return fmt.Errorf("--size: %w", err)
			}
			if benchtime > 0 {
				o.Size.Time = benchtime
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Bin = filepath.Dir(self)
			return measure(cmd.Context(), o, out, page)
		},
	}
	f := cmd.Flags()
	f.StringVar(&rows, "rows", "", "regular expression of the rows to measure (tortie-bench rows lists them)")
	f.StringVar(&size, "size", "full", "how much work: full, quick or tiny")
	f.DurationVar(&benchtime, "benchtime", 0, "how long one measurement of a round takes")
	f.StringVarP(&out, "output", "o", "", "file for the figures as JSON, to compare later")
	f.StringVar(&page, "page", "", "page to write the report into, between its markers")
	return cmd
}

func measure(ctx context.Context, o bench.Options, out, page string) error {
	report, err := bench.Run(ctx, o)
	if report == nil {
		return err
	}
	errs := []error{err}
	if out != "" {
		errs = append(errs, writeJSON(report, out))
	}
	if page != "" && ctx.Err() == nil && len(report.Results) > 0 {
		errs = append(errs, writePage(report, page))
	}
	if n := len(report.Failed); n > 0 {
		errs = append(errs, fmt.Errorf("%d of the rows failed", n))
	}
	return errors.Join(errs...)
}

func writeJSON(r *bench.Report, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(r.WriteJSON(f), f.Close())
}

func writePage(r *bench.Report, path string) error {
	return bench.Page.Update(path, func(string) string { return r.Markdown() })
}

func rowsCommand() *cobra.Command {
	return &cobra.Command{Use: "rows", Short: "List the rows", Args: cobra.NoArgs, Run: func(cmd *cobra.Command, _ []string) {
		fmt.Fprintln(cmd.OutOrStdout(), strings.Join(bench.RowNames(), "\n"))
	}}
}

func compareCommand() *cobra.Command {
	return &cobra.Command{Use: "compare old.json new.json", Short: "Compare two runs", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		was, err := readJSON(args[0])
		if err != nil {
			return err
		}
		is, err := readJSON(args[1])
		if err != nil {
			return err
		}
		bench.Compare(cmd.OutOrStdout(), was, is)
		return nil
	}}
}

func pageCommand() *cobra.Command {
	return &cobra.Command{Use: "page run.json page.md", Short: "Write an earlier run into a page", Args: cobra.ExactArgs(2), RunE: func(_ *cobra.Command, args []string) error {
		r, err := readJSON(args[0])
		if err != nil {
			return err
		}
		return writePage(r, args[1])
	}}
}

func readJSON(path string) (*bench.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bench.ReadJSON(f)
}

// loadCommand makes traffic inside the namespace that it is started in.
func loadCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "load", Short: "Make traffic in this network namespace, and print what was measured", Hidden: true}
	timed := func(use string, client func(ctx context.Context, to netip.AddrPort, d time.Duration, args []string) (any, error)) *cobra.Command {
		return &cobra.Command{Use: use, Args: cobra.MinimumNArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
			to, err := netip.ParseAddrPort(args[0])
			if err != nil {
				return err
			}
			d, err := time.ParseDuration(args[1])
			if err != nil {
				return err
			}
			result, err := client(cmd.Context(), to, d, args[2:])
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(result)
		}}
	}
	cmd.AddCommand(
		&cobra.Command{Use: "serve kind:port...", Args: cobra.MinimumNArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
			go func() {
				_, _ = io.Copy(io.Discard, os.Stdin)
				os.Exit(0) // whoever wanted the servers is gone
			}()
			return load.Serve(args, func() { fmt.Fprintln(cmd.OutOrStdout(), "ready") })
		}},
		timed("stream address:port time", func(_ context.Context, to netip.AddrPort, d time.Duration, _ []string) (any, error) {
			return load.Stream(to, d)
		}),
		timed("flows address:port time rate kept", flows),
	)
	for _, c := range []load.Client{load.Connect, load.Request} {
		cmd.AddCommand(timed(string(c)+" address:port time", func(_ context.Context, to netip.AddrPort, d time.Duration, _ []string) (any, error) {
			return load.Rate(to, d, c)
		}))
	}
	return cmd
}

func flows(ctx context.Context, to netip.AddrPort, d time.Duration, args []string) (any, error) {
	if len(args) != 2 {
		return nil, errors.New("want a rate and a number of connections to keep")
	}
	rate, err := strconv.Atoi(args[0])
	if err != nil {
		return nil, err
	}
	kept, err := strconv.Atoi(args[1])
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return load.Flows(ctx, to, rate, kept)
}
