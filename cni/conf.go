package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tortie/tortie/internal/agentapi"
)

const (
	defaultTimeout = time.Minute
	maxTimeout     = 10 * time.Minute
	maxConf        = 1 << 20 // bytes
	ipamTortie     = "tortie"
)

// conf is a network configuration.
type conf struct {
	CNIVersion string
	Name       string
	IPAM       ipamConf
	DNS        types.DNS
	Runtime    runtimeConf
	Args       argsConf
	Prev       json.RawMessage
	Valid      []types.GCAttachment

	Socket    string
	NotesDir  string
	Timeout   time.Duration
	Away      time.Duration // how long the ADD of a pod waits for an agent before that
	Chained   bool          // the interface is another plugin's, the one before
	MTU       int
	Namespace string
	Labels    map[string]string
	Profiles  []string
	Ports     []agentapi.Port
	Sources   []netip.Prefix
}

// ipamConf is the ipam section; only Type counts if another plugin allocates.
type ipamConf struct {
	Type     string   `json:"type"`
	Families []string `json:"families"`
	Pools    []string `json:"pools"`
}

// runtimeConf is what the runtime says of capabilities.
type runtimeConf struct {
	IPs []string `json:"ips"`
	MAC string   `json:"mac"`
	DNS struct {
		Servers  []string `json:"servers"`
		Searches []string `json:"searches"`
		Options  []string `json:"options"`
	} `json:"dns"`
}

// argsConf is structured arguments, as the conventions of CNI have them.
type argsConf struct {
	CNI struct {
		Labels []struct {
			Key   string `json:"key"`
			Value string `json:"value"`
		} `json:"labels"`
		IPs []string `json:"ips"`
	} `json:"cni"`
}

// others are capabilities of other plugins: who declares one here expects something that would not happen.
var others = map[string]string{"portMappings": "portmap", "bandwidth": "bandwidth"}

// foreign are well-known keys that say nothing to this plugin.
var foreign = []string{"type", "capabilities", "cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins"}

// delegated says whether another plugin allocates addresses.
func (c *conf) delegated() bool { return c.IPAM.Type != "" && c.IPAM.Type != ipamTortie }

// fields says where the values of keys go. Those of minimal are what every verb needs.
func (c *conf) fields(minimal bool, timeout *string) map[string]any {
	m := map[string]any{
		"cniVersion": &c.CNIVersion, "name": &c.Name, "socket": &c.Socket, "notesDir": &c.NotesDir,
		"timeout": timeout, "cni.dev/valid-attachments": &c.Valid, "chained": &c.Chained,
	}
	if minimal {
		return m
	}
	m["mtu"], m["namespace"], m["labels"] = &c.MTU, &c.Namespace, &c.Labels
	m["profiles"], m["ports"], m["allowedSourcePrefixes"] = &c.Profiles, &c.Ports, &c.Sources
	m["dns"], m["prevResult"] = &c.DNS, &c.Prev
	return m
}

// parse reads a configuration: strictly, or (minimal) only what DEL and GC need.
func parse(b []byte, minimal bool) (*conf, error) {
	if len(b) > maxConf {
		return nil, types.NewError(types.ErrDecodingFailure, "reading the network configuration",
			fmt.Sprintf("%d bytes are more than the %d that it may have", len(b), maxConf))
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "reading the network configuration", err.Error())
	}
	c := &conf{Socket: agentapi.DefaultSocket, NotesDir: agentapi.DefaultNotesDir, Timeout: defaultTimeout, Away: awayTime}
	timeout := ""
	fields := c.fields(minimal, &timeout)
	for _, key := range sortedKeys(keys) {
		into, known := fields[key]
		switch {
		case known:
			if err := strict(keys[key], into); err != nil {
				return nil, invalid("%s: %v", key, err)
			}
		case !minimal && !tolerated(key):
			return nil, types.NewError(types.ErrUnsupportedField, fmt.Sprintf("unsupported field %q: %s", key, keys[key]),
				"this plugin knows "+strings.Join(sortedKeys(fields), ", "))
		}
	}
	if err := c.sections(keys, minimal); err != nil {
		return nil, err
	}
	if timeout != "" {
		d, err := time.ParseDuration(timeout)
		if err != nil || d <= 0 || d > maxTimeout {
			return nil, invalid("timeout: %q is no duration between 0 and %v, such as \"60s\"", timeout, maxTimeout)
		}
		c.Timeout, c.Away = d, 0 // all that was asked for
	}
	return c, nil
}

// sections reads what is not only for this plugin, and so not wholly known to it.
func (c *conf) sections(keys map[string]json.RawMessage, minimal bool) error {
	if b := keys["ipam"]; len(b) > 0 {
		if err := json.Unmarshal(b, &struct{ Type *string }{&c.IPAM.Type}); err != nil {
			return invalid("ipam: %v", err)
		}
		if !minimal && !c.delegated() {
			if err := strict(b, &c.IPAM); err != nil {
				return invalid("ipam: %v", err)
			}
		}
	}
	for _, f := range c.IPAM.Families {
		if f != "IPv4" && f != "IPv6" {
			return invalid("ipam.families: %q is neither IPv4 nor IPv6", f)
		}
	}
	if minimal {
		return nil
	}
	if b := keys["runtimeConfig"]; len(b) > 0 {
		var all map[string]json.RawMessage
		if err := errors.Join(json.Unmarshal(b, &all), json.Unmarshal(b, &c.Runtime)); err != nil {
			return invalid("runtimeConfig: %v", err)
		}
		for _, key := range sortedKeys(all) {
			if other := others[key]; other != "" {
				return types.NewError(types.ErrUnsupportedField, fmt.Sprintf("unsupported field \"runtimeConfig.%s\": %s", key, all[key]),
					fmt.Sprintf("add the plugin %q behind this one, and move the capability there", other))
			}
		}
	}
	if b := keys["args"]; len(b) > 0 {
		if err := json.Unmarshal(b, &c.Args); err != nil {
			return invalid("args: %v", err)
		}
	}
	var masq bool
	if b := keys["ipMasq"]; len(b) > 0 {
		if err := json.Unmarshal(b, &masq); err != nil || masq {
			return types.NewError(types.ErrUnsupportedField, fmt.Sprintf("unsupported field \"ipMasq\": %s", b),
				"an address pool says whether its workloads are masqueraded")
		}
	}
	return nil
}

// tolerated reports whether a key that this plugin does not know is somebody else's.
func tolerated(key string) bool {
	return slices.Contains(foreign, key) || slices.Contains([]string{"ipam", "runtimeConfig", "args", "ipMasq"}, key) ||
		strings.HasPrefix(key, "_") || strings.HasPrefix(key, "x-") || strings.Contains(key, "/")
}

// strict reads one JSON value; unknown fields are errors.
func strict(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value")
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
