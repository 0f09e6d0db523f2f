package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/ctl"
	"github.com/tortie/tortie/drivers"
)

func TestUsageHasItsOwnExitCode(t *testing.T) {
	for _, args := range [][]string{
		{"explain", "10.0.0.1"}, {"get"}, {"get", "--bogus"}, {"apply"}, {"version", "please"}, {"agent", "--log-level", "loud"},
	} {
		root := rootCommand()
		root.SetArgs(args)
		root.SetOut(&bytes.Buffer{})
		root.SetErr(&bytes.Buffer{})
		if code := ctl.ExitCode(root.ExecuteContext(t.Context())); code != ctl.ExitUsage {
			t.Errorf("tortie %s: exit code %d, want %d", strings.Join(args, " "), code, ctl.ExitUsage)
		}
	}
}

func TestVersionNamesDrivers(t *testing.T) {
	root := rootCommand()
	var out bytes.Buffer
	root.SetArgs([]string{"version"})
	root.SetOut(&out)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, d := range driverTable {
		if !strings.Contains(out.String(), d.Name) {
			t.Errorf("no %s in %q", d.Name, out.String())
		}
	}
}

// TestAutoNeverEnforcesNothing says that only who asks for the dry run gets it.
func TestAutoNeverEnforcesNothing(t *testing.T) {
	saved := driverTable
	defer func() { driverTable = saved }()
	broken := errors.New("no such kernel")
	driverTable = []driver{{Name: "broken", Open: func(context.Context, drivers.Options) (drivers.Driver, error) { return nil, broken }}, dryRun}
	if _, err := openDriver(t.Context(), "auto", drivers.Options{}); !errors.Is(err, broken) {
		t.Errorf("auto: %v", err)
	}
	if _, err := openDriver(t.Context(), "netfilter", drivers.Options{}); err == nil || !strings.Contains(err.Error(), "broken, dry-run") {
		t.Errorf("an unknown driver: %v", err)
	}
	d, err := openDriver(t.Context(), dryRunName, drivers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

// TestAgentConfig says who wins: flags over the environment over the file over the defaults.
func TestAgentConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	text := "nodeName: from-file\nrunDir: /run/from-file\nstore: {endpoints: [unix:///from-file.sock]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(args ...string) (cfg config.Config, err error) {
		root := rootCommand()
		cmd, rest, _ := root.Find(append([]string{"agent"}, args...))
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return nil }
		root.SetArgs(append([]string{"agent"}, rest...))
		if err := root.ExecuteContext(t.Context()); err != nil {
			return cfg, err
		}
		over := config.Default()
		over.NodeName = "from-flag"
		return agentConfig(cmd.Flags(), file, over)
	}
	cfg, err := read()
	if err != nil || cfg.NodeName != "from-file" || cfg.RunDir != "/run/from-file" || cfg.Store.Endpoints[0] != "unix:///from-file.sock" {
		t.Errorf("file: %+v, %v", cfg, err)
	}
	t.Setenv("TORTIE_STORE", "unix:///from-env.sock")
	if cfg, err = read("--node-name", "x"); err != nil || cfg.NodeName != "from-flag" || cfg.Store.Endpoints[0] != "unix:///from-env.sock" {
		t.Errorf("environment and flag: %+v, %v", cfg, err)
	}
	if cfg, err = read("--store", "unix:///from-flag.sock"); err != nil || cfg.Store.Endpoints[0] != "unix:///from-flag.sock" {
		t.Errorf("flag: %+v, %v", cfg, err)
	}
	if err := os.WriteFile(file, []byte("nodname: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(); err == nil || !strings.Contains(err.Error(), "nodeName") {
		t.Errorf("an unknown key: %v", err)
	}
}
