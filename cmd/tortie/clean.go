package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/agent/lock"
	"github.com/tortie/tortie/drivers"
)

func cleanCommand() *cobra.Command {
	runDir, driver := config.Default().RunDir, "auto"
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Remove all rules and routes that Tortie made on this host",
		Long: `Remove all rules and routes that Tortie made on this host, also those of an agent that is long gone. Nothing that
belongs to others is touched. Policy is no longer enforced afterwards: workloads that are still plugged in stand open.

It refuses to run beside an agent.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			l, err := lock.Acquire(filepath.Join(runDir, "agent.lock"))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("%w: stop it first", err)
			}
			if l != nil {
				defer func() { err = errors.Join(err, l.Close()) }()
			}
			d, err := openDriver(cmd.Context(), driver, drivers.Options{Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, d.Close()) }()
			c, ok := d.(drivers.Cleaner)
			if !ok {
				return fmt.Errorf("cleaning up: %w", drivers.ErrUnsupported)
			}
			if err := c.Clean(cmd.Context()); err != nil {
				return fmt.Errorf("cleaning up: %w", err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "removed what Tortie made")
			return nil
		},
	}
	cmd.Flags().StringVar(&runDir, "run-dir", runDir, "the agent's run folder, where its lock is")
	cmd.Flags().StringVar(&driver, "driver", driver, "dataplane to clean")
	return cmd
}
