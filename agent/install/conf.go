package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/tortie/tortie/internal/agentapi"
)

// Conf is what a configuration says.
type Conf struct {
	Network          string
	Socket, NotesDir string         // the agent's
	IPAM             map[string]any // nil = Tortie's own
	ChainTo          string         // the network of another plugin, behind which ours comes; "" = none
}

// chained are plugins that come behind ours, if they are there: the ports of the host that pods ask for, and their limits of
// bandwidth.
var chained = []struct{ plugin, capability string }{{"portmap", "portMappings"}, {"bandwidth", "bandwidth"}}

// Stand-ins for the ranges that the cluster has given the node, as the IPAM plugin host-local has no way to know them.
const (
	usePodCIDR   = "usePodCidr"
	usePodCIDRv6 = "usePodCidrIPv6"
)

var errNoPodCIDR = errors.New("the cluster has given this node no range of that family (spec.podCIDRs of the node)")

// list is the configuration as JSON. there says whether a plugin is installed.
func (c Conf) list(podCIDRs []string, there func(plugin string) bool) ([]byte, error) {
	ipam := map[string]any{"type": "tortie"}
	if c.IPAM != nil {
		filled, err := fill(c.IPAM, podCIDRs)
		if err != nil {
			return nil, err
		}
		ipam = filled.(map[string]any) // of a map it makes a map
	}
	plugins := []any{c.ours(map[string]any{"ipam": ipam, "capabilities": map[string]bool{"ips": true, "mac": true, "dns": true}})}
	for _, p := range chained {
		if there(p.plugin) {
			plugins = append(plugins, map[string]any{"type": p.plugin, "capabilities": map[string]bool{p.capability: true}})
		}
	}
	b, err := json.MarshalIndent(map[string]any{"cniVersion": "1.0.0", "name": c.Network, "plugins": plugins}, "", "  ")
	return append(b, '\n'), err
}

// ours is what the configuration of our plugin says, with keys.
func (c Conf) ours(keys map[string]any) map[string]any {
	keys["type"] = PluginName
	if c.Socket != agentapi.DefaultSocket {
		keys["socket"] = c.Socket
	}
	if c.NotesDir != agentapi.DefaultNotesDir {
		keys["notesDir"] = c.NotesDir
	}
	return keys
}

// fill is v with the stand-ins replaced.
func fill(v any, podCIDRs []string) (any, error) {
	var err error
	switch v := v.(type) {
	case string:
		if v != usePodCIDR && v != usePodCIDRv6 {
			return v, nil
		}
		for _, c := range podCIDRs {
			if p, err := netip.ParsePrefix(c); err == nil && p.Addr().Is4() == (v == usePodCIDR) {
				return p.String(), nil
			}
		}
		return nil, fmt.Errorf("cni.ipam: %s: %w", v, errNoPodCIDR)
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, x := range v {
			if out[key], err = fill(x, podCIDRs); err != nil {
				return nil, err
			}
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for n, x := range v {
			if out[n], err = fill(x, podCIDRs); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return v, nil
}
