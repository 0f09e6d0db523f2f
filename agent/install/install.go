// Package install puts the CNI plugin and its configuration where the runtime of this node looks for them.
//
//	plugin         at the start, and whenever it is not as it should be
//	configuration  once policy is enforced; it stays when the agent goes: containers that come meanwhile wait in the plugin
//
// Both are replaced in one step, and only if they differ: a runtime that reads them meanwhile finds the old or the new.
package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/tortie/tortie/agent/durable"
	"github.com/tortie/tortie/internal/backoff"
	"github.com/tortie/tortie/internal/bounded"
)

const (
	// PluginName is the plugin's file, and its type in a configuration.
	PluginName = "tortie-cni"

	maxPlugin = 256 << 20
	maxConf   = 1 << 20

	lookInterval  = time.Minute
	readyInterval = 200 * time.Millisecond
)

// Options says what goes where.
type Options struct {
	Source            string // the plugin
	BinDir            string // "" = the plugin is put nowhere
	ConfDir, ConfName string // ConfDir "" = no configuration is written
	// Ready says that configuration may be written: from then on the runtime places containers here.
	Ready func() bool
	Conf  Conf
	// PodCIDRs are the ranges that the cluster has given this node. May be nil.
	PodCIDRs func() []string
	Log      *slog.Logger
}

// Installer does the work in Run.
type Installer struct {
	o      Options
	plugin os.FileInfo // of what was put into BinDir; nil = nothing yet

	mu       sync.Mutex
	problems []error
}

// New returns an Installer.
func New(o Options) *Installer { return &Installer{o: o} }

// Problems are what is wrong with what the runtime finds.
func (i *Installer) Problems() []error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.problems)
}

// Run keeps the files as they should be until ctx ends.
func (i *Installer) Run(ctx context.Context) {
	if i.o.BinDir == "" && i.o.ConfDir == "" {
		return
	}
	retry := backoff.Backoff{Min: time.Second, Max: lookInterval}
	allowed := false
	for {
		allowed = allowed || i.o.Ready()
		wait := lookInterval
		if err := i.look(allowed); err != nil {
			wait = retry.Next()
		} else if retry.Reset(); !allowed {
			wait = readyInterval
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// look does what there is to do. The plugin comes first: a configuration that names one that is not there would be worse
// than none.
func (i *Installer) look(configure bool) error {
	var warnings []error
	err := i.putPlugin()
	if err == nil && configure {
		if err = i.putConf(); err == nil {
			warnings = append(warnings, i.inFront())
		}
	}
	i.note(append([]error{err}, warnings...))
	return err
}

func (i *Installer) note(found []error) {
	found = slices.DeleteFunc(found, func(err error) bool { return err == nil })
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, err := range found {
		if !slices.ContainsFunc(i.problems, func(old error) bool { return old.Error() == err.Error() }) {
			i.o.Log.Warn("the CNI plugin and its configuration", "err", err)
		}
	}
	i.problems = found
}

func (i *Installer) putPlugin() error {
	if i.o.BinDir == "" {
		return nil
	}
	to := filepath.Join(i.o.BinDir, PluginName)
	if now, err := os.Stat(to); err == nil && i.plugin != nil && os.SameFile(now, i.plugin) && now.Size() == i.plugin.Size() &&
		now.ModTime().Equal(i.plugin.ModTime()) && now.Mode() == i.plugin.Mode() {
		return nil
	}
	want, err := bounded.ReadFile(i.o.Source, maxPlugin)
	if err != nil {
		return fmt.Errorf("reading the CNI plugin: %w", err)
	}
	if err := i.put(to, want, 0o755, maxPlugin); err != nil {
		return fmt.Errorf("installing the CNI plugin: %w", err)
	}
	i.plugin, err = os.Stat(to)
	return err
}

func (i *Installer) putConf() error {
	if i.o.ConfDir == "" {
		return nil
	}
	var cidrs []string
	if i.o.PodCIDRs != nil {
		cidrs = i.o.PodCIDRs()
	}
	var want []byte
	var err error
	if i.o.Conf.ChainTo != "" {
		want, err = i.chain()
	} else {
		want, err = i.o.Conf.list(cidrs, func(plugin string) bool {
			st, err := os.Stat(filepath.Join(i.o.BinDir, plugin))
			return i.o.BinDir != "" && err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
		})
	}
	if err == nil {
		err = i.put(filepath.Join(i.o.ConfDir, i.o.ConfName), want, 0o644, maxConf)
	}
	if err == nil {
		err = i.removeStale(want)
	}
	if err != nil {
		return fmt.Errorf("writing the CNI configuration: %w", err)
	}
	return nil
}

// put makes the file at path hold want, if it does not.
func (i *Installer) put(path string, want []byte, mode os.FileMode, limit int64) error {
	have, err := bounded.ReadFile(path, limit)
	if err == nil && bytes.Equal(have, want) {
		if st, err := os.Stat(path); err == nil && st.Mode().Perm() == mode {
			return nil
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := (durable.Writer{Mode: mode}).WriteFile(path, want); err != nil {
		return err
	}
	i.o.Log.Info("installed", "file", path, "new", errors.Is(err, fs.ErrNotExist))
	return nil
}

// inFront says whether the runtime takes another configuration than ours: it takes the first.
func (i *Installer) inFront() error {
	if i.o.ConfDir == "" {
		return nil
	}
	files, err := confs(i.o.ConfDir)
	if err != nil || len(files) == 0 || files[0] == i.o.ConfName {
		return err
	}
	return fmt.Errorf("the runtime takes %s, which comes before %s in %s: remove it, or give ours another name (cni.confName)",
		files[0], i.o.ConfName, i.o.ConfDir)
}

// confs are the names of all configurations in dir, in the order in which the runtime takes them.
func confs(dir string) ([]string, error) {
	files, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("reading what CNI configurations there are: %w", err)
	}
	var names []string
	for _, f := range files {
		switch filepath.Ext(f.Name()) {
		case ".conf", ".conflist", ".json":
			names = append(names, f.Name())
		}
	}
	return names, nil
}
