package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/tortie/tortie/internal/bounded"
)

// Calling are the configurations in dir that call our plugin, whatever their names: own are Tortie's, to be removed with the
// plugin; others are lists of other plugins that somebody has added ours to. A dir that is not there has none.
//
// What an agent has written behind another plugin (cni.chainTo) is Tortie's: the other's own file is beside it.
func Calling(dir string) (own, others []string, err error) {
	files, err := confs(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	for _, f := range files {
		path := filepath.Join(dir, f)
		b, err := bounded.ReadFile(path, maxConf)
		if err != nil {
			continue // the runtime can't read it, either
		}
		switch called := plugins(b); {
		case !slices.Contains(called, PluginName):
		case called[0] == PluginName || written(b):
			own = append(own, path)
		default:
			others = append(others, path)
		}
	}
	return own, others, nil
}

// plugins are the plugins that the configuration b calls, in their order; none if it can't be read.
func plugins(b []byte) (types []string) {
	var conf struct {
		Type    string
		Plugins []struct{ Type string }
	}
	if json.Unmarshal(b, &conf) != nil {
		return nil
	}
	for _, p := range conf.Plugins {
		types = append(types, p.Type)
	}
	if types == nil && conf.Type != "" {
		types = append(types, conf.Type)
	}
	return types
}

// written reports whether b is as behind writes it: ours is the last of the plugins, and it looks as nobody's own file does.
func written(b []byte) bool {
	var conf map[string]json.RawMessage
	var list []struct {
		Type    string
		Chained bool
	}
	if json.Unmarshal(b, &conf) != nil || json.Unmarshal(conf["plugins"], &list) != nil || len(list) == 0 {
		return false
	}
	again, err := marshal(conf)
	last := list[len(list)-1]
	return err == nil && bytes.Equal(again, b) && last.Type == PluginName && last.Chained
}

// removeStale removes what is the same as want under another name: the agent wrote it before cni.confName was changed.
func (i *Installer) removeStale(want []byte) error {
	files, err := confs(i.o.ConfDir)
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(i.o.ConfDir, f)
		if st, err := os.Lstat(path); f == i.o.ConfName || err != nil || !st.Mode().IsRegular() {
			continue
		}
		if b, err := bounded.ReadFile(path, maxConf); err != nil || !bytes.Equal(b, want) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing what was written under another name: %w", err)
		}
		i.o.Log.Info("removed what was written under another name", "file", path)
	}
	return nil
}
