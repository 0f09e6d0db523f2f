package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tortie/tortie/agent"
	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/agent/install"
	"github.com/tortie/tortie/datastore"
	"github.com/tortie/tortie/datastore/kube"
	"github.com/tortie/tortie/drivers"
)

// defaultConfigFile is read if it is there and --config does not name another.
const defaultConfigFile = "/etc/tortie/agent.yaml"

func agentCommand() *cobra.Command {
	var path string
	over := config.Default()
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent of this node: it enforces policy, and plugs workloads in",
		Long: fmt.Sprintf(`Run the agent of this node: it follows the store, enforces policy in the kernel, and plugs workloads in and out through
its socket.

Stopping or killing it changes nothing in the kernel: what was allowed goes on, what was not stays out. A file of settings
is read from %s if it is there; flags win over it. Drivers: %s.`, defaultConfigFile, driverHelp()),
		Example: "  tortie agent\n  tortie agent --config agent.yaml --node-name n1 --log-level debug",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := agentConfig(cmd.Flags(), path, over)
			if err != nil {
				return usage(err)
			}
			return runAgent(cmd.Context(), cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&path, "config", "", "file of settings (default "+defaultConfigFile+", if it is there)")
	f.StringVar(&over.NodeName, "node-name", over.NodeName, "name of this node in the store (environment: NODE_NAME, if the file has none)")
	f.StringVar(&over.Driver, "driver", over.Driver, "dataplane: auto, or one of those above")
	f.StringVar(&over.StateDir, "state-dir", over.StateDir, "folder of what must outlive a reboot")
	f.StringVar(&over.RunDir, "run-dir", over.RunDir, "folder of what need not")
	f.StringVar(&over.Listen, "listen", over.Listen, "address of health and metrics; empty = nowhere")
	f.TextVar(&over.LogLevel, "log-level", over.LogLevel, "debug, info, warn or error")
	f.StringVar(&over.LogFormat, "log-format", over.LogFormat, "text or json")
	return cmd
}

func driverHelp() string {
	var s []string
	for _, d := range driverTable {
		s = append(s, fmt.Sprintf("%s (%s)", d.Name, d.Doc))
	}
	return strings.Join(s, "; ")
}

// agentConfig reads the file and lays the flags that were given over it.
func agentConfig(f *pflag.FlagSet, path string, over config.Config) (config.Config, error) {
	cfg, err := config.Load(cmp.Or(path, defaultConfigFile))
	if path == "" && errors.Is(err, os.ErrNotExist) {
		cfg, err = config.Default(), nil
	}
	if err != nil {
		return cfg, err
	}
	for name, set := range map[string]func(){
		"node-name":  func() { cfg.NodeName = over.NodeName },
		"driver":     func() { cfg.Driver = over.Driver },
		"state-dir":  func() { cfg.StateDir = over.StateDir },
		"run-dir":    func() { cfg.RunDir = over.RunDir },
		"listen":     func() { cfg.Listen = over.Listen },
		"log-level":  func() { cfg.LogLevel, cfg.Said = over.LogLevel, append(cfg.Said, "logLevel") },
		"log-format": func() { cfg.LogFormat = over.LogFormat },
	} {
		if f.Changed(name) {
			set()
		}
	}
	if name := os.Getenv("NODE_NAME"); name != "" && !f.Changed("node-name") && !slices.Contains(cfg.Said, "nodeName") {
		cfg.NodeName = name
	}
	if cfg.CNI.Source == "" {
		if self, err := os.Executable(); err == nil {
			cfg.CNI.Source = filepath.Join(filepath.Dir(self), install.PluginName)
		}
	}
	if f.Changed("socket") {
		cfg.Socket = f.Lookup("socket").Value.String()
	} else if s := os.Getenv("TORTIE_SOCKET"); s != "" && cfg.Socket == "" {
		cfg.Socket = s
	}
	if err := storeOver(f, &cfg.Store); err != nil {
		return cfg, err
	}
	cfg.Settle()
	return cfg, cfg.Validate()
}

// storeOver lays the flags of the store over the file's settings.
func storeOver(f *pflag.FlagSet, s *config.Store) error {
	if f.Changed("store") {
		endpoints, err := f.GetStringSlice("store")
		if err != nil {
			return err
		}
		s.Use(endpoints)
	} else if e := os.Getenv("TORTIE_STORE"); e != "" {
		s.Use([]string{e})
	}
	for name, field := range map[string]*string{
		"store-ca": &s.CAFile, "store-cert": &s.CertFile, "store-key": &s.KeyFile, "store-user": &s.Username,
		"store-password-file": &s.PasswordFile,
	} {
		if f.Changed(name) {
			*field = f.Lookup(name).Value.String()
		}
	}
	return nil
}

func runAgent(ctx context.Context, cfg config.Config) error {
	level := &slog.LevelVar{}
	level.Set(cfg.LogLevel)
	log := newLog(cfg, level)
	defer keepCertificate(ctx, cfg.Store, log)()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return agent.Run(ctx, agent.Deps{
		Config: cfg, Version: buildVersion(), Log: log, LogLevel: level, Registry: registry,
		OpenDriver: func(ctx context.Context, o drivers.Options) (drivers.Driver, error) {
			return openDriver(ctx, cfg.Driver, o)
		},
		OpenStore: func(ctx context.Context) (datastore.Store, error) {
			return openStore(ctx, cfg.Store, kube.Config{Node: cfg.NodeName, Version: buildVersion(), Log: log})
		},
	})
}

func newLog(cfg config.Config, level *slog.LevelVar) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}
