package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tortie/tortie/agent/config"
	"github.com/tortie/tortie/agent/durable"
	"github.com/tortie/tortie/agent/install"
)

// TestFilesOfAnAgent: what `clean --all` removes is the agent's alone, the configuration first.
func TestFilesOfAnAgent(t *testing.T) {
	c := t.TempDir()
	put(t, map[string]string{filepath.Join(c, "05-x.conflist"): `{"name": "x", "plugins": [{"type": "tortie-cni"}]}`})
	for _, c := range []struct {
		config string
		want   []string
	}{
		{"", []string{"/var/lib/tortie/ledger", "/var/lib/tortie/notes", "/var/lib/tortie/state", "/run/tortie/agent.sock", "/run/tortie/boot"}},
		{"{stateDir: /s, runDir: /r, cni: {binDir: /b, confDir: " + c + "}}", []string{
			c + "/05-x.conflist", "/b/tortie-cni", "/s/ledger", "/s/notes", "/s/state", "/r/agent.sock", "/r/boot"}},
	} {
		cfg, err := config.Parse([]byte(c.config))
		if err != nil {
			t.Fatal(err)
		}
		got, err := files(cfg)
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%s: %v %s", c.config, err, d)
		}
	}
}

const (
	ofCloud  = `{"cniVersion": "1.0.0", "name": "cloud", "plugins": [{"type": "ptp"}, {"type": "portmap"}]}`
	byHand   = `{"name": "byhand", "plugins": [{"type": "ptp"}, {"type": "tortie-cni", "chained": true}]}`
	ofMultus = `{"name": "multus", "type": "multus", "delegates": [{"type": "tortie-cni"}]}`
)

// TestCleanConfigurations: with the settings of deploy/clean.yaml, what an agent has written goes whatever its name, and what
// it has not stays.
func TestCleanConfigurations(t *testing.T) {
	for name, o := range map[string]install.Options{
		"by default":            {ConfName: "10-tortie.conflist"},
		"by another name":       {ConfName: "05-tortie.conflist"},
		"another network":       {ConfName: "87-x.conflist", Conf: install.Conf{Network: "k8s", Socket: "/x/agent.sock"}},
		"behind another plugin": {ConfName: "00-tortie.conflist", Conf: install.Conf{ChainTo: "cloud"}},
	} {
		dir := t.TempDir()
		cfg := config.Default()
		cfg.Driver, cfg.RunDir, cfg.StateDir = dryRunName, filepath.Join(dir, "run"), filepath.Join(dir, "state")
		cfg.CNI.BinDir, cfg.CNI.ConfDir = filepath.Join(dir, "bin"), filepath.Join(dir, "net.d")
		others := map[string]string{
			"05-other.conflist":         `{"name": "other", "plugins": [{"type": "bridge"}]}`,
			"10-cloud.conflist":         ofCloud,
			"11-multus.conf":            ofMultus,
			"12-rubbish.conflist":       "\x00tortie-cni{",
			"13-empty.conf":             "",
			"14-tortie.conf.bak":        `{"name": "x", "type": "tortie-cni"}`,
			"15-tortie-cni.json":        `["tortie-cni"]`,
			"16-folder.conflist/a.conf": `{"name": "x", "type": "tortie-cni"}`,
		}
		before := map[string]string{filepath.Join(cfg.RunDir, "agent.lock"): "", filepath.Join(dir, "plugin"): "plugin"}
		for name, text := range others {
			before[filepath.Join(cfg.CNI.ConfDir, name)] = text
		}
		put(t, before)
		o.Source, o.BinDir, o.ConfDir = filepath.Join(dir, "plugin"), cfg.CNI.BinDir, cfg.CNI.ConfDir
		runInstaller(t, o)
		if err := clean(t.Context(), cfg, true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(others, read(t, cfg.CNI.ConfDir)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if bin := read(t, cfg.CNI.BinDir); len(bin) != 0 {
			t.Errorf("%s: %v", name, bin)
		}
	}
}

// TestCleanLeavesAPluginInAnothersList: who has added the plugin to a list by hand is told, after all else is done.
func TestCleanLeavesAPluginInAnothersList(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Default()
	cfg.Driver, cfg.RunDir, cfg.StateDir, cfg.CNI.ConfDir = dryRunName, dir, dir, filepath.Join(dir, "net.d")
	conf := filepath.Join(cfg.CNI.ConfDir, "10-cloud.conflist")
	put(t, map[string]string{conf: byHand, filepath.Join(dir, "state"): "x"})
	if err := clean(t.Context(), cfg, true); err == nil || !strings.Contains(err.Error(), conf) {
		t.Errorf("%v", err)
	}
	if d := cmp.Diff(map[string]string{"10-cloud.conflist": byHand}, read(t, cfg.CNI.ConfDir)); d != "" {
		t.Error(d)
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); err == nil {
		t.Error("the state is still there")
	}
	if err := clean(t.Context(), cfg, false); err != nil {
		t.Errorf("without --all: %v", err)
	}
}

// TestCleanDamaged: files that were found damaged and set aside go with the others; what else is in the folder stays.
func TestCleanDamaged(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Default()
	cfg.Driver, cfg.RunDir, cfg.StateDir = dryRunName, filepath.Join(dir, "run"), filepath.Join(dir, "lib")
	state, entry := filepath.Join(cfg.StateDir, "state"), filepath.Join(cfg.StateDir, "ledger", "0a.entry")
	note, store := filepath.Join(cfg.StateDir, "notes", "0b.detach"), filepath.Join(cfg.StateDir, "store", "state.bad-1")
	for n := range 2 {
		put(t, map[string]string{state: "x", entry: "x", note: "x", store: "x", filepath.Join(cfg.RunDir, "boot"): "x"})
		for _, path := range []string{state, entry, note} {
			if _, err := durable.SetAside(path, time.Unix(int64(n), 0)); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(t, map[string]string{state + ".tmp": "x"})
	if err := clean(t.Context(), cfg, false); err != nil {
		t.Fatal(err)
	}
	if got := read(t, cfg.StateDir); len(got) != 8 {
		t.Errorf("without --all: %v", got)
	}
	if err := clean(t.Context(), cfg, true); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]string{"store/state.bad-1": "x"}, read(t, cfg.StateDir)); d != "" {
		t.Error(d)
	}
}

// runInstaller has an agent's installer write its files.
func runInstaller(t *testing.T, o install.Options) {
	t.Helper()
	o.Ready, o.Log = func() bool { return true }, slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		install.New(o).Run(ctx)
	}()
	path := filepath.Join(o.ConfDir, o.ConfName)
	deadline := time.Now().Add(10 * time.Second)
	for _, err := os.Stat(path); err != nil; _, err = os.Stat(path) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come", path)
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-ended
}

// put writes files, by their paths.
func put(t *testing.T, files map[string]string) {
	t.Helper()
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// read are the files in dir and below, by their paths there.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		name, relErr := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = string(b)
		return errors.Join(err, relErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
