//go:build !noembed

package main

import (
	"fmt"
	"log/slog"
	"os"
	"text/tabwriter"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/tortie/tortie/store"
)

const hasStore = true

func storeCommands() []*cobra.Command {
	cfg := store.Default()
	quota := cfg.QuotaBytes >> 20
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Run the store: etcd, embedded, as a process of its own",
		Long: `Run the store that holds all objects: etcd, embedded, as a process of its own, so that an agent's upgrade or death does
not take it along.

On one machine it needs no configuration: it listens on a Unix socket that only root may use. If the store is away,
traffic and policy go on as they are; only changes wait.`,
		Example: "  tortie store\n  tortie store status",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.QuotaBytes = quota << 20
			cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
			cfg.Ready = func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) }
			if err := cfg.Validate(); err != nil {
				return usage(err)
			}
			return store.Run(cmd.Context(), cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Dir, "dir", cfg.Dir, "folder of the data")
	f.StringArrayVar(&cfg.Listen, "listen", cfg.Listen, "where to listen: unix:///path, or https://address:port with mutual TLS (may be given several times)")
	f.StringVar(&cfg.TLS.CertFile, "tls-cert", "", "certificate of https listeners")
	f.StringVar(&cfg.TLS.KeyFile, "tls-key", "", "key of https listeners")
	f.StringVar(&cfg.TLS.ClientCAFile, "tls-client-ca", "", "authority whose certificates clients must show")
	f.Int64Var(&quota, "quota-mib", quota, "size that the data may have, in MiB")
	f.DurationVar(&cfg.Compaction, "compaction", cfg.Compaction, "how long old revisions are kept")
	cmd.AddCommand(storeStatusCommand())
	return []*cobra.Command{cmd}
}

func storeStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the store's size, quota and revision",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			endpoint, err := cmd.Flags().GetStringSlice("store")
			if err != nil {
				return err
			}
			info, err := store.Status(cmd.Context(), endpoint[0])
			if err != nil {
				return err
			}
			state := "takes writes"
			if info.Full {
				state = "full: takes only deletions until it has healed itself (compaction, defragmentation)"
			}
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintf(tw, "Engine\tetcd %s\nState\t%s\nRevision\t%d\nSize\t%.1f MiB (%.1f in use) of %d MiB\n", info.Version, state,
				info.Revision, float64(info.Size)/(1<<20), float64(info.InUse)/(1<<20), info.Quota>>20)
			for _, a := range info.Alarms {
				fmt.Fprintf(tw, "Alarm\t%s\n", a)
			}
			return tw.Flush()
		},
	}
}
