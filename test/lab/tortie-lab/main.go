//go:build linux

// Command tortie-lab brings up nodes, workloads and policies on one machine: to show, to play with, to test.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/test/lab"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "\ntortie-lab: %v\n", err)
		return 1
	}
	return 0
}

func command() *cobra.Command {
	self, err := os.Executable()
	if err != nil {
		self = "bin/tortie-lab"
	}
	d := &lab.Demo{Out: os.Stdout, Color: isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == "" || os.Getenv("FORCE_COLOR") != ""}
	root := &cobra.Command{
		Use:           "tortie-lab",
		Short:         "Nodes and workloads of a small cluster, as network namespaces of this machine",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&d.Options.Binary, "tortie", filepath.Join(filepath.Dir(self), "tortie"), "the tortie binary")
	root.PersistentFlags().StringVar(&d.Examples, "examples", "examples/demo", "folder of the demo's YAML files")
	root.AddCommand(
		&cobra.Command{Use: "demo", Short: "Tell the whole story, and clean up", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return d.Run(cmd.Context()) }},
		&cobra.Command{Use: "up", Short: "Bring up the demo's nodes and workloads, and leave them running until Ctrl-C", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return up(cmd.Context(), d) }},
		&cobra.Command{Use: "clean", Short: "Remove what labs left behind whose process is gone", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				ids, err := lab.Clean()
				for _, id := range ids {
					fmt.Println("removed", id)
				}
				return err
			}},
	)
	return root
}

func up(ctx context.Context, d *lab.Demo) (err error) {
	err = d.Up(ctx)
	l := d.Lab()
	if l == nil {
		return err
	}
	if err == nil {
		fmt.Print(d.Hints())
		<-ctx.Done()
		fmt.Println("\nTaking the lab down")
	}
	if down := l.Down(); err == nil {
		err = down
	}
	return err
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
