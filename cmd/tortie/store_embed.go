//go:build !noembed

package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

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
traffic and policy go on as they are; only changes wait.

With --listen https://ADDRESS:PORT other hosts can use it, too: those that have joined by a token (tortie store token,
tortie join), with certificates that the store has issued, each of them for what is its own.`,
		Example: `  tortie store
  tortie store --listen https://0.0.0.0:2379 --advertise store.example.org
  tortie store status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.QuotaBytes = quota << 20
			cfg.Log = newStoreLog(os.Stderr)
			cfg.Ready = func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) }
			if err := cfg.Validate(); err != nil {
				return usage(err)
			}
			return runStore(cmd.Context(), cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Dir, "dir", cfg.Dir, "folder of the data")
	f.StringArrayVar(&cfg.Listen, "listen", cfg.Listen, "where to listen: unix:///path, or https://address:port for hosts that join (may be given several times)")
	f.StringArrayVar(&cfg.Advertise, "advertise", nil, "where other hosts find the store: name, address or either with a port (may be given several times; default where it listens)")
	f.DurationVar(&cfg.CertLife, "certificate-life", cfg.CertLife, "how long certificates of hosts that join are valid; agents renew theirs in time")
	f.Int64Var(&quota, "quota-mib", quota, "size that the data may have, in MiB")
	f.DurationVar(&cfg.Compaction, "compaction", cfg.Compaction, "how long old revisions are kept")
	cmd.AddCommand(storeStatusCommand(), tokenCommand(), membersCommand(), expelCommand(), snapshotCommand())
	return []*cobra.Command{cmd}
}

func newStoreLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

func storeStatusCommand() *cobra.Command {
	var o output
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the store's size, quota and revision",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			info, err := store.Status(cmd.Context(), localStore(cmd))
			if err != nil {
				return err
			}
			return o.print(cmd.OutOrStdout(), info, func(w io.Writer) { printStatus(w, info) })
		},
	}
	o.register(cmd)
	return cmd
}

func printStatus(w io.Writer, info store.Info) {
	state := "takes writes"
	if info.Full {
		state = "full: takes only deletions until it has healed itself (compaction, defragmentation)"
	}
	fmt.Fprintf(w, "Engine\tetcd %s\nState\t%s\nRevision\t%d\nSize\t%.1f MiB (%.1f in use) of %d MiB\n", info.Version, state,
		info.Revision, float64(info.Size)/(1<<20), float64(info.InUse)/(1<<20), info.Quota>>20)
	for _, a := range info.Alarms {
		fmt.Fprintf(w, "Alarm\t%s\n", a)
	}
}
