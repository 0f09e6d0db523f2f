package calcgraph

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// NodeInfo is what the agent of a node knows of it that the rest of the store does not say. It publishes it at its Node
// resource, so that who is elsewhere can compute the same State.
type NodeInfo struct {
	// Config is the agent's own configuration: FelixConfigurations are laid over it.
	Config Config
	// Ifaces are the interfaces of the host with addresses that others may reach, but workloads'. Of each only the name
	// and the addresses are told.
	Ifaces []drivers.HostIface
	// Uplinks are the interfaces of the default routes of IPv4 and IPv6; "" = there is none.
	Uplinks [2]string
}

// nodeInfoAnnotation holds a NodeInfo as JSON, at a Node resource.
const nodeInfoAnnotation = "tortie.io/agent"

// maxIfaces is how many interfaces are told at most: a resource has to stay small.
const maxIfaces = 64

// NewNodeInfo returns what there is to tell of a node.
func NewNodeInfo(c Config, host []drivers.HostIface, uplinks [2]string) NodeInfo {
	info := NodeInfo{Config: c, Uplinks: uplinks}
	for _, i := range host {
		ours := slices.ContainsFunc(c.WorkloadPrefixes, func(p string) bool { return strings.HasPrefix(i.Name, p) })
		addrs := slices.DeleteFunc(slices.Clone(i.Addrs), func(p netip.Prefix) bool {
			return p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast()
		})
		if !ours && i.Up && len(addrs) > 0 && len(info.Ifaces) < maxIfaces {
			info.Ifaces = append(info.Ifaces, drivers.HostIface{Name: i.Name, Up: true, Addrs: addrs})
		}
	}
	return info
}

// WriteTo puts i at a Node resource, and reports whether that changed it.
func (i NodeInfo) WriteTo(n *api.Node) (changed bool, err error) {
	text, err := json.Marshal(i)
	if err != nil {
		return false, fmt.Errorf("encoding what there is to tell of node %s: %w", n.Name, err)
	}
	if n.Annotations[nodeInfoAnnotation] == string(text) {
		return false, nil
	}
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	n.Annotations[nodeInfoAnnotation] = string(text)
	return true, nil
}

// ReadNodeInfo returns what the agent of a node has told of it; ok is false if it has told nothing that can be used.
func ReadNodeInfo(n *api.Node) (i NodeInfo, ok bool) {
	text := n.Annotations[nodeInfoAnnotation]
	if text == "" {
		return i, false
	}
	i.Config = Default(n.Name)
	if json.Unmarshal([]byte(text), &i) != nil {
		return i, false
	}
	i.Config.NodeName = n.Name
	return i, i.Config.Validate() == nil
}

// Uplink returns the interface by which the node reaches an address that is not its own nor a workload's; "" = unknown.
func (i NodeInfo) Uplink(far netip.Addr) string {
	best := netip.Prefix{}
	name := ""
	if far.IsValid() {
		name = i.Uplinks[family(far.Unmap())]
	}
	for _, iface := range i.Ifaces {
		for _, p := range iface.Addrs {
			if p.Contains(far.Unmap()) && (!best.IsValid() || p.Bits() > best.Bits()) {
				best, name = p, iface.Name
			}
		}
	}
	return name
}
