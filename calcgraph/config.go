package calcgraph

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// Config is what the graph knows of its node beside the four inputs. It doesn't change; FelixConfigurations are laid over
// it.
type Config struct {
	// NodeName is this node's name in the store.
	NodeName string
	// WorkloadPrefixes are the beginnings of the names of workload interfaces.
	WorkloadPrefixes []string
	// MTU of workload interfaces, in bytes; 0 = the driver's default.
	MTU int
	// FailsafeIn and FailsafeOut are what no policy of a host endpoint may stop.
	FailsafeIn, FailsafeOut []drivers.Failsafe
	EndpointToHost          drivers.EndpointToHost
	ServiceNAT              drivers.ServiceNAT
	// CutEstablished has a changed policy cut the flows that it no longer allows.
	CutEstablished bool
	// VXLANPort is the UDP port of overlays; 0 = 4789.
	VXLANPort uint16
	// AllowEncapFromWorkloads lets workloads send IPIP and VXLAN of their own.
	AllowEncapFromWorkloads bool
	// SourceSpoofing says whose allowed source prefixes count.
	SourceSpoofing SourceSpoofing
	// FloatingIPs gives workloads the floating addresses that they ask for.
	FloatingIPs bool
	// NATExclusions are destinations that are never masqueraded, beside the address pools.
	NATExclusions []netip.Prefix
	// NodeRanges has the ranges that the cluster gives each node (podCIDRs) routed like blocks: the addresses of pods come from
	// there.
	NodeRanges bool
	// Fixed names settings of FelixConfigurations that don't count, because the node's operator has said them; the values
	// are where, in the operator's words.
	Fixed map[string]string
}

// SourceSpoofing says which workloads may send from the source prefixes that they are allowed.
type SourceSpoofing uint8

const (
	SpoofTrusted SourceSpoofing = iota // those whose WorkloadEndpoint was written; pods say of themselves what they want
	SpoofAny                           // all
	SpoofNone                          // none
)

// Default returns the configuration of a node on which the operator has set nothing.
func Default(nodeName string) Config {
	const tcp, udp = 6, 17
	ports := func(proto uint8, ports ...uint16) (out []drivers.Failsafe) {
		for _, p := range ports {
			out = append(out, drivers.Failsafe{Proto: proto, Port: p})
		}
		return out
	}
	return Config{
		NodeName:         nodeName,
		WorkloadPrefixes: []string{"tort"},
		// SSH, BGP, etcd, Typha, the Kubernetes API; DHCP; and out of the host DNS.
		FailsafeIn:  append(ports(tcp, 22, 179, 2379, 2380, 5473, 6443, 6666, 6667), ports(udp, 68)...),
		FailsafeOut: append(ports(tcp, 179, 2379, 2380, 5473, 6443, 6666, 6667), ports(udp, 53, 67)...),
	}
}

// Validate returns everything that is wrong with c.
func (c Config) Validate() error {
	var errs []error
	if c.NodeName == "" {
		errs = append(errs, errors.New("the node has no name"))
	}
	if len(c.WorkloadPrefixes) == 0 || slices.Contains(c.WorkloadPrefixes, "") {
		errs = append(errs, errors.New("workload interfaces need a prefix that isn't empty: every interface would be a workload's"))
	}
	if c.MTU < 0 || c.MTU > 65535 {
		errs = append(errs, fmt.Errorf("an MTU of %d is not between 0 and 65535", c.MTU))
	}
	for _, p := range c.NATExclusions {
		if !p.IsValid() {
			errs = append(errs, errors.New("a NAT exclusion is not a prefix"))
		}
	}
	return errors.Join(errs...)
}

// node returns the settings of the node, with the addresses that its Node resource gives it.
func (c Config) node(addrs []netip.Addr) *drivers.Node {
	return &drivers.Node{
		Name: c.NodeName, Addresses: addrs, MTU: c.MTU, WorkloadPrefixes: slices.Clone(c.WorkloadPrefixes),
		FailsafeIn: slices.Clone(c.FailsafeIn), FailsafeOut: slices.Clone(c.FailsafeOut),
		EndpointToHost: c.EndpointToHost, ServiceNAT: c.ServiceNAT, CutEstablished: c.CutEstablished,
		VXLANPort: c.VXLANPort, AllowEncapFromWorkloads: c.AllowEncapFromWorkloads,
	}
}

// toHost are the words of the API. What is not one of them drops.
var toHost = map[string]drivers.EndpointToHost{
	"Drop": drivers.ToHostDrop, "Accept": drivers.ToHostAccept, "Return": drivers.ToHostReturn,
}

// spoofing are the words of the API. What is not one of them allows none.
var spoofing = map[string]SourceSpoofing{"Any": SpoofAny, "Disabled": SpoofNone}

// allows says whether the source prefixes of a WorkloadEndpoint count.
func (s SourceSpoofing) allows(o *api.WorkloadEndpoint) bool {
	isPod := o.Spec.ContainerID == "" // it names no sandbox
	return s == SpoofAny || s == SpoofTrusted && !isPod
}

// with lays settings over c.
func (c Config) with(s *api.NodeSettings) Config {
	if s.EndpointToHost != "" {
		c.EndpointToHost = toHost[s.EndpointToHost]
	}
	if s.FailsafeIn != nil {
		c.FailsafeIn = failsafes(s.FailsafeIn)
	}
	if s.FailsafeOut != nil {
		c.FailsafeOut = failsafes(s.FailsafeOut)
	}
	c.WorkloadPrefixes = slices.Clone(c.WorkloadPrefixes)
	for _, p := range s.WorkloadPrefixes {
		if !slices.Contains(c.WorkloadPrefixes, p) {
			c.WorkloadPrefixes = append(c.WorkloadPrefixes, p)
		}
	}
	if s.AllowEncapFromWorkloads != nil {
		c.AllowEncapFromWorkloads = *s.AllowEncapFromWorkloads
	}
	if s.SourceSpoofing != "" {
		c.SourceSpoofing = SpoofNone
		if x, ok := spoofing[s.SourceSpoofing]; ok {
			c.SourceSpoofing = x
		}
	}
	if s.FloatingIPs != "" {
		c.FloatingIPs = s.FloatingIPs == "Enabled"
	}
	if s.VXLANPort != 0 {
		c.VXLANPort = s.VXLANPort
	}
	return c
}

func failsafes(from []api.Failsafe) []drivers.Failsafe {
	out := make([]drivers.Failsafe, 0, len(from))
	for _, f := range from {
		out = append(out, drivers.Failsafe{Proto: f.Proto, Port: f.Port, Net: f.Net})
	}
	return out
}
