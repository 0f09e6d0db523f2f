package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/agent/durable"
	"github.com/tortie/tortie/agent/install"
	"github.com/tortie/tortie/agent/lock"
	"github.com/tortie/tortie/drivers"
)

func cleanCommand() *cobra.Command {
	over := config.Default()
	var path string
	var all, stay bool
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Remove all rules and routes that Tortie made on this host",
		Long: `Remove all rules and routes that Tortie made on this host, also those of an agent that is long gone. Nothing that
belongs to others is touched. Policy is no longer enforced afterwards: workloads that are still plugged in stand open.

It refuses to run beside an agent. --all is for a host that Tortie leaves: the CNI configuration and plugin go as well, from
where the agent's file of settings says that it has put them, and what the agent remembers of workloads and policy.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := agentConfig(cmd.Flags(), path, over)
			if err != nil {
				return usage(err)
			}
			if err := clean(cmd.Context(), cfg, all); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "removed what Tortie made")
			if stay {
				<-cmd.Context().Done()
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "config", "", "the agent's file of settings (default "+defaultConfigFile+", if it is there)")
	f.StringVar(&over.RunDir, "run-dir", over.RunDir, "the agent's run folder, where its lock is")
	f.StringVar(&over.StateDir, "state-dir", over.StateDir, "the agent's folder of what outlives a reboot")
	f.StringVar(&over.Driver, "driver", over.Driver, "dataplane to clean")
	f.BoolVar(&all, "all", false, "remove the CNI configuration and plugin and the agent's memory, too")
	f.BoolVar(&stay, "stay", false, "then wait for a signal, as a pod of a DaemonSet must")
	return cmd
}

// clean removes what cfg's agent made on this host.
func clean(ctx context.Context, cfg config.Config, all bool) (err error) {
	l, err := lock.Acquire(filepath.Join(cfg.RunDir, "agent.lock"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: stop it first", err)
	}
	if l != nil {
		defer func() { err = errors.Join(err, l.Close()) }()
	}
	if all { // the configuration before all else: the runtime places nothing here from then on
		paths, err := files(cfg)
		if err != nil {
			return fmt.Errorf("cleaning up: %w", err)
		}
		for _, path := range paths {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("cleaning up: %w", err)
			}
		}
	}
	d, err := openDriver(ctx, cfg.Driver, drivers.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	c, ok := d.(drivers.Cleaner)
	if !ok {
		return fmt.Errorf("cleaning up: %w", drivers.ErrUnsupported)
	}
	if err := c.Clean(ctx); err != nil {
		return fmt.Errorf("cleaning up: %w", err)
	}
	if all {
		return left(cfg)
	}
	return nil
}

// files are what an agent makes in folders that others use too (the store has its data in the state folder), in the order
// in which it is to go. CNI configurations are known by what is in them: cfg may not be that of the agent that wrote them.
func files(cfg config.Config) (paths []string, err error) {
	if cfg.CNI.ConfDir != "" {
		if paths, _, err = install.Calling(cfg.CNI.ConfDir); err != nil {
			return nil, err
		}
	}
	if cfg.CNI.BinDir != "" {
		paths = append(paths, filepath.Join(cfg.CNI.BinDir, install.PluginName))
	}
	for _, name := range []string{"ledger", "notes", "state"} {
		paths = append(paths, filepath.Join(cfg.StateDir, name))
	}
	aside, err := durable.Leftovers(filepath.Join(cfg.StateDir, "state"))
	if err != nil {
		return nil, err
	}
	return append(append(paths, aside...), cfg.SocketPath(), filepath.Join(cfg.RunDir, "boot")), nil
}

// left says which configurations of others call the plugin that is gone: with these no container can be made.
func left(cfg config.Config) error {
	if cfg.CNI.ConfDir == "" {
		return nil
	}
	_, others, err := install.Calling(cfg.CNI.ConfDir)
	if err != nil || len(others) == 0 {
		return err
	}
	return fmt.Errorf("all is removed, but %s, which Tortie has not written, still calls %s: take that out of its plugins",
		strings.Join(others, ", "), install.PluginName)
}
