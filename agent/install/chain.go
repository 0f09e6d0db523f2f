package install

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tortie/tortie/internal/bounded"
)

// chain is the configuration of the other plugin's network, with ours as the last of its plugins. The network keeps its
// name: what is plugged in already is deleted by that name, and addresses may be kept by it.
func (i *Installer) chain() ([]byte, error) {
	files, err := confs(i.o.ConfDir)
	if err != nil {
		return nil, err
	}
	var others []string
	for _, f := range files {
		if f == i.o.ConfName {
			continue
		}
		b, err := bounded.ReadFile(filepath.Join(i.o.ConfDir, f), maxConf)
		if err != nil {
			return nil, err
		}
		var conf map[string]json.RawMessage
		var name string
		if json.Unmarshal(b, &conf) != nil || json.Unmarshal(conf["name"], &name) != nil {
			others = append(others, f+" (can't be read)")
			continue
		}
		if name != i.o.Conf.ChainTo {
			others = append(others, f+" ("+name+")")
			continue
		}
		if slices.Contains(plugins(b), PluginName) { // what was written under another name, most often
			others = append(others, f+" ("+name+", with "+PluginName+" in it)")
			continue
		}
		b, err = i.o.Conf.behind(conf)
		if err != nil {
			err = fmt.Errorf("%s: %w", f, err)
		}
		return b, err
	}
	return nil, fmt.Errorf("cni.chainTo: %s has no configuration of a network %q; there are: %s", i.o.ConfDir, i.o.Conf.ChainTo,
		strings.Join(others, ", "))
}

// behind is conf with our plugin as the last.
func (c Conf) behind(conf map[string]json.RawMessage) ([]byte, error) {
	var plugins []json.RawMessage
	if list, ok := conf["plugins"]; ok {
		if err := json.Unmarshal(list, &plugins); err != nil {
			return nil, fmt.Errorf("plugins: %w", err)
		}
	} else { // it is of one plugin
		one, err := json.Marshal(conf)
		if err != nil {
			return nil, err
		}
		plugins, conf = []json.RawMessage{one}, map[string]json.RawMessage{"cniVersion": conf["cniVersion"], "name": conf["name"]}
		if conf["cniVersion"] == nil {
			delete(conf, "cniVersion")
		}
	}
	ours, err := json.Marshal(c.ours(map[string]any{"chained": true}))
	if err != nil {
		return nil, err
	}
	if conf["plugins"], err = json.Marshal(append(plugins, ours)); err != nil {
		return nil, err
	}
	return marshal(conf)
}

// marshal is conf as JSON, with its keys sorted.
func marshal(conf map[string]json.RawMessage) ([]byte, error) {
	b, err := json.MarshalIndent(conf, "", "  ")
	return append(b, '\n'), err
}
