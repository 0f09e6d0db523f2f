// Package config is the agent's configuration: one small file, read strictly, and the flags that cmd lays over it.
package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tortie/tortie/calcgraph"
	"github.com/tortie/tortie/drivers"
)

// Config is everything that an operator can say to an agent. Default has the values for what isn't said.
type Config struct {
	// NodeName is the name of this node in the store; the host's name unless it is said.
	NodeName string `json:"nodeName,omitempty"`
	// NodeAddresses are this node's addresses with the prefix length of their network, at most one per family; those of
	// the interface with the default route unless they are said.
	NodeAddresses []netip.Prefix `json:"nodeAddresses,omitempty"`
	// Driver names the dataplane; "auto" takes the first that works on this host.
	Driver string `json:"driver,omitempty"`
	// Store is how the store is reached.
	Store Store `json:"store,omitempty"`

	// StateDir holds what must outlive a reboot: the ledger and the last State.
	StateDir string `json:"stateDir,omitempty"`
	// RunDir holds what must not: the lock, the socket.
	RunDir string `json:"runDir,omitempty"`
	// Socket is where the agent listens; agent.sock in RunDir unless it is said.
	Socket string `json:"socket,omitempty"`
	// SocketGroup is the id of a group whose members may look through the socket (status, explain, what is attached); only
	// root may attach and detach. 0 = none.
	SocketGroup uint32 `json:"socketGroup,omitempty"`
	// Listen is where health and metrics are served; "" = nowhere.
	Listen string `json:"listen,omitempty"`

	// CNI is where this agent puts the CNI plugin and its configuration.
	CNI CNI `json:"cni,omitempty"`

	// InterfacePrefix begins the names of workload interfaces. An interface with such a name that is no workload's
	// passes nothing.
	InterfacePrefix string `json:"interfacePrefix,omitempty"`
	// MTU is that of workload interfaces, in bytes; 0 = the driver's choice.
	MTU int `json:"mtu,omitempty"`
	// EndpointToHost says what becomes of packets from workloads to their own host, after their egress policy: Drop,
	// Accept, or Return (the host endpoint's policy decides). Drop, or with Kubernetes Accept, unless it is said.
	EndpointToHost string `json:"endpointToHost,omitempty"`
	// FailsafeIn and FailsafeOut are traffic of the host which no policy may stop: "tcp:22", or "tcp:22:192.0.2.0/24".
	FailsafeIn  []Failsafe `json:"failsafeIn"`
	FailsafeOut []Failsafe `json:"failsafeOut"`
	// CutEstablished lets a changed policy cut connections that it no longer allows.
	CutEstablished bool `json:"cutEstablished,omitempty"`
	// AllowEncapFromWorkloads lets workloads send IPIP and VXLAN of their own.
	AllowEncapFromWorkloads bool `json:"allowEncapFromWorkloads,omitempty"`
	// WorkloadSourceSpoofing says who may send from the source prefixes that it is allowed: Any, all workloads; Disabled, none;
	// "", those whose WorkloadEndpoint was written, not pods of Kubernetes.
	WorkloadSourceSpoofing string `json:"workloadSourceSpoofing,omitempty"`
	// FloatingIPs is Enabled if workloads get the floating addresses that they ask for; Disabled, or "", if not.
	FloatingIPs string `json:"floatingIPs,omitempty"`

	// VXLANPort is the UDP port of overlays; 0 = 4789.
	VXLANPort uint16 `json:"vxlanPort,omitempty"`
	// NATExclusions are destinations that are never masqueraded, beside the address pools.
	NATExclusions []netip.Prefix `json:"natExclusions,omitempty"`

	// ResyncInterval is how long a round of comparing the whole dataplane with what it must hold takes; 0 = never.
	ResyncInterval Duration `json:"resyncInterval,omitempty"`
	// InspectInterval is how often the agent looks for foreign rules that are in the way; 0 = only when asked.
	InspectInterval Duration `json:"inspectInterval,omitempty"`
	// PersistDelay is how long changes are collected before the State is written to StateDir.
	PersistDelay Duration `json:"persistDelay,omitempty"`
	// ApplyTimeout bounds one change of the dataplane.
	ApplyTimeout Duration `json:"applyTimeout,omitempty"`
	// BootIDFile holds an id that is new after each boot of the host.
	BootIDFile string `json:"bootIDFile,omitempty"`

	// LogLevel is debug, info, warn or error.
	LogLevel slog.Level `json:"logLevel,omitempty"`
	// LogFormat is text or json.
	LogFormat string `json:"logFormat,omitempty"`

	// Said are the keys that the file or a flag has given. FelixConfigurations can't change those.
	Said []string `json:"-"`
}

// felixNames is which settings of a FelixConfiguration say the same as a key.
var felixNames = map[string][]string{
	"endpointToHost":          {"defaultEndpointToHostAction"},
	"failsafeIn":              {"failsafeInboundHostPorts"},
	"failsafeOut":             {"failsafeOutboundHostPorts"},
	"allowEncapFromWorkloads": {"allowVXLANPacketsFromWorkloads", "allowIPIPPacketsFromWorkloads"},
	"workloadSourceSpoofing":  {"workloadSourceSpoofing"},
	"floatingIPs":             {"floatingIPs"},
	"vxlanPort":               {"vxlanPort"},
	"resyncInterval":          {"routeRefreshInterval", "nftablesRefreshInterval", "iptablesRefreshInterval", "ipsetsRefreshInterval"},
	"logLevel":                {"logSeverityScreen"},
}

// Fixed names the settings that FelixConfigurations can't change on this node, and the key that says them instead.
func (c Config) Fixed() map[string]string {
	fixed := map[string]string{}
	for _, key := range c.Said {
		for _, name := range felixNames[key] {
			fixed[name] = key
		}
	}
	return fixed
}

// Store is how the store is reached.
type Store struct {
	// Kubernetes says that the API server of Kubernetes is the store; all of the others are then of no use. An empty section
	// is the cluster that the agent runs in.
	Kubernetes *Kubernetes `json:"kubernetes,omitempty"`
	// Endpoints are "unix:///path", "http://host:port" or "https://host:port".
	Endpoints []string `json:"endpoints,omitempty"`
	// CAFile holds the certificates that the store's own is checked with; CertFile and KeyFile are the agent's.
	CAFile   string `json:"caFile,omitempty"`
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
	// ServerName is the name in the store's certificate, if it isn't that of the endpoint.
	ServerName string `json:"serverName,omitempty"`
	// Username and PasswordFile are for a store that asks for them.
	Username     string `json:"username,omitempty"`
	PasswordFile string `json:"passwordFile,omitempty"`
}

// Kubernetes is how the API server is reached.
type Kubernetes struct {
	// Kubeconfig is a file as kubectl has; "" = the service account of the pod that the agent is in, or what kubectl would use.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// APIServers are "https://host:port", tried in turn instead of the service address that pods are told: a node must not
	// need kube-proxy before it has a network.
	APIServers []string `json:"apiServers,omitempty"`
}

// kubernetesStore is what --store names the API server of Kubernetes by.
const kubernetesStore = "kubernetes"

// ReadKubernetes reads "kubernetes" and "kubernetes:/path/of/kubeconfig"; ok is false for any other store.
func ReadKubernetes(text string) (k Kubernetes, ok bool) {
	if text == kubernetesStore {
		return k, true
	}
	k.Kubeconfig, ok = strings.CutPrefix(text, kubernetesStore+":")
	return k, ok
}

// Use lays over s what somebody else says of where the store is.
func (s *Store) Use(endpoints []string) {
	if len(endpoints) == 1 {
		if k, ok := ReadKubernetes(endpoints[0]); ok {
			if s.Kubernetes == nil {
				s.Kubernetes = &Kubernetes{}
			}
			s.Kubernetes.Kubeconfig = cmp.Or(k.Kubeconfig, s.Kubernetes.Kubeconfig)
			return
		}
	}
	s.Kubernetes, s.Endpoints = nil, endpoints
}

// CNI is where an agent puts the CNI plugin and its configuration, for the runtime of its node.
type CNI struct {
	// Source is the plugin; tortie-cni beside the agent's own program unless it is said.
	Source string `json:"source,omitempty"`
	// BinDir is where the runtime looks for plugins; "" = it is put nowhere.
	BinDir string `json:"binDir,omitempty"`
	// ConfDir is where the runtime looks for configuration; "" = none is written. ConfName is the name of the file: of several
	// the runtime takes the one that sorts first.
	ConfDir  string `json:"confDir,omitempty"`
	ConfName string `json:"confName,omitempty"`
	// Network is the name of the network.
	Network string `json:"network,omitempty"`
	// IPAM is the section ipam of the plugin's configuration; {"type": "tortie"} unless it is said.
	IPAM map[string]any `json:"ipam,omitempty"`
	// IPAddrsNoIPAM lets pods have the addresses that they say themselves, outside every pool: their annotation
	// cni.projectcalico.org/ipAddrsNoIpam.
	IPAddrsNoIPAM bool `json:"ipAddrsNoIpam,omitempty"`
	// FloatingIPs lets pods ask for floating addresses: their annotation cni.projectcalico.org/floatingIPs.
	FloatingIPs bool `json:"floatingIPs,omitempty"`
	// ChainTo is the name of another plugin's network, whose configuration is in ConfDir: what it plugs in gets policy. Ours is
	// then its configuration with our plugin as the last, and Network and IPAM say nothing.
	ChainTo string `json:"chainTo,omitempty"`
}

// Duration is written "90s" or "1h30m".
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Default returns the values for what isn't said. NodeName is the host's.
func Default() Config {
	host, err := os.Hostname()
	if err != nil {
		host = "" // Validate asks for a name then
	}
	return Config{
		NodeName: strings.ToLower(host),
		Driver:   "auto",
		Store:    Store{Endpoints: []string{"unix:///run/tortie/store.sock"}},
		StateDir: "/var/lib/tortie",
		RunDir:   "/run/tortie",
		CNI:      CNI{ConfName: "10-tortie.conflist", Network: "tortie"},
		Listen:   "127.0.0.1:9091",

		InterfacePrefix: "tort",
		EndpointToHost:  "Drop",
		FailsafeIn:      failsafes([]uint16{22, 179, 2379, 2380, 5473, 6443, 6666, 6667}, 68),
		FailsafeOut:     failsafes([]uint16{179, 2379, 2380, 5473, 6443, 6666, 6667}, 53, 67),

		ResyncInterval:  Duration(5 * time.Minute),
		InspectInterval: Duration(5 * time.Minute),
		PersistDelay:    Duration(5 * time.Second),
		ApplyTimeout:    Duration(time.Minute),
		BootIDFile:      "/proc/sys/kernel/random/boot_id",
		LogFormat:       "text",
	}
}

func failsafes(tcp []uint16, udp ...uint16) []Failsafe {
	var out []Failsafe
	for _, p := range tcp {
		out = append(out, Failsafe{Proto: protoTCP, Port: p})
	}
	for _, p := range udp {
		out = append(out, Failsafe{Proto: protoUDP, Port: p})
	}
	return out
}

// SocketPath is Socket, or where it is if it isn't said.
func (c Config) SocketPath() string {
	if c.Socket != "" {
		return c.Socket
	}
	return filepath.Join(c.RunDir, "agent.sock")
}

// Settle gives what nobody has said the values that go with what was said.
func (c *Config) Settle() {
	if c.Store.Kubernetes != nil && !slices.Contains(c.Said, "endpointToHost") {
		// Of a cluster's own services some are on the node itself: the API server, a cache of its DNS.
		c.EndpointToHost = "Accept"
	}
}

var toHost = map[string]drivers.EndpointToHost{
	"Drop": drivers.ToHostDrop, "Accept": drivers.ToHostAccept, "Return": drivers.ToHostReturn,
}

var spoofing = map[string]calcgraph.SourceSpoofing{
	"": calcgraph.SpoofTrusted, "Any": calcgraph.SpoofAny, "Disabled": calcgraph.SpoofNone,
}

// Graph is what c says to the graph.
func (c Config) Graph() calcgraph.Config {
	g := calcgraph.Config{
		NodeName: c.NodeName, WorkloadPrefixes: []string{c.InterfacePrefix}, MTU: c.MTU, EndpointToHost: toHost[c.EndpointToHost],
		CutEstablished: c.CutEstablished, VXLANPort: c.VXLANPort, AllowEncapFromWorkloads: c.AllowEncapFromWorkloads,
		SourceSpoofing: spoofing[c.WorkloadSourceSpoofing], FloatingIPs: c.FloatingIPs == "Enabled", NATExclusions: c.NATExclusions, Fixed: c.Fixed(),
		NodeRanges: c.CNI.ofNode(),
	}
	for _, f := range c.FailsafeIn {
		g.FailsafeIn = append(g.FailsafeIn, drivers.Failsafe(f))
	}
	for _, f := range c.FailsafeOut {
		g.FailsafeOut = append(g.FailsafeOut, drivers.Failsafe(f))
	}
	return g
}

// Node is what c says of the node, for a State that no graph has made.
func (c Config) Node() drivers.Node {
	g := c.Graph()
	n := drivers.Node{
		Name: g.NodeName, MTU: g.MTU, WorkloadPrefixes: g.WorkloadPrefixes, FailsafeIn: g.FailsafeIn, FailsafeOut: g.FailsafeOut,
		EndpointToHost: g.EndpointToHost, CutEstablished: g.CutEstablished, VXLANPort: g.VXLANPort,
		AllowEncapFromWorkloads: g.AllowEncapFromWorkloads,
	}
	for _, a := range c.NodeAddresses {
		n.Addresses = append(n.Addresses, a.Addr())
	}
	return n
}

// Validate returns all that is wrong with c.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
	}
	if !dnsName(c.NodeName) {
		bad("nodeName", "%q is no name for a node: want lower-case letters, digits, '-' and '.'", c.NodeName)
	}
	families := map[bool]bool{}
	for _, a := range c.NodeAddresses {
		if !a.IsValid() || a.Addr().IsUnspecified() || a.Addr().IsLoopback() || a.Addr().Is4In6() || families[a.Addr().Is4()] {
			bad("nodeAddresses", "%s: want at most one address of each family, with a prefix length, and not a loopback one", a)
		}
		families[a.Addr().Is4()] = true
	}
	for field, v := range map[string]string{"driver": c.Driver, "stateDir": c.StateDir, "runDir": c.RunDir, "bootIDFile": c.BootIDFile} {
		if v == "" {
			bad(field, "may not be empty")
		}
	}
	if n := len(c.InterfacePrefix); n < 1 || n > 8 || strings.ContainsAny(c.InterfacePrefix, " /%\"\\*+") {
		bad("interfacePrefix", "%q: want 1 to 8 letters, so that there is room for a hash", c.InterfacePrefix)
	}
	if c.MTU != 0 && (c.MTU < 1280 || c.MTU > 65535) {
		bad("mtu", "%d: want 1280 to 65535, or 0 for the driver's choice", c.MTU)
	}
	if c.FloatingIPs != "" && c.FloatingIPs != "Enabled" && c.FloatingIPs != "Disabled" {
		bad("floatingIPs", "%q: want Enabled or Disabled", c.FloatingIPs)
	}
	if _, ok := spoofing[c.WorkloadSourceSpoofing]; !ok {
		bad("workloadSourceSpoofing", "%q: want Any or Disabled", c.WorkloadSourceSpoofing)
	}
	if _, ok := toHost[c.EndpointToHost]; !ok {
		bad("endpointToHost", "%q: want Drop, Accept or Return", c.EndpointToHost)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		bad("logFormat", "%q: want text or json", c.LogFormat)
	}
	if c.Listen != "" {
		if _, err := net.ResolveTCPAddr("tcp", c.Listen); err != nil {
			bad("listen", "%v", err)
		}
	}
	for field, d := range map[string]Duration{"resyncInterval": c.ResyncInterval, "inspectInterval": c.InspectInterval, "persistDelay": c.PersistDelay} {
		if d < 0 {
			bad(field, "%v: may not be negative", time.Duration(d))
		}
	}
	if c.ApplyTimeout < Duration(time.Second) {
		bad("applyTimeout", "%v: want a second or more", time.Duration(c.ApplyTimeout))
	}
	errs = append(errs, c.Store.validate()...)
	errs = append(errs, c.CNI.validate()...)
	return errors.Join(errs...)
}

func (c CNI) validate() []error {
	var errs []error
	if ext := filepath.Ext(c.ConfName); ext != ".conflist" || filepath.Base(c.ConfName) != c.ConfName || strings.HasPrefix(c.ConfName, ".") {
		errs = append(errs, fmt.Errorf("cni.confName: %q: want the name of a file that ends in .conflist", c.ConfName))
	}
	if c.Network == "" || strings.Trim(c.Network, networkLetters) != "" {
		errs = append(errs, fmt.Errorf("cni.network: %q: want letters, digits, '_', '.' and '-'", c.Network))
	}
	for field, dir := range map[string]string{"cni.binDir": c.BinDir, "cni.confDir": c.ConfDir} {
		if dir != "" && !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("%s: %q: want an absolute path", field, dir))
		}
	}
	if c.ChainTo != "" && c.IPAM != nil {
		errs = append(errs, errors.New("cni.ipam: the plugin of cni.chainTo gives the addresses: there can be no other"))
	}
	if t, ok := c.IPAM["type"].(string); c.IPAM != nil && (!ok || t == "") {
		errs = append(errs, errors.New("cni.ipam.type: want the name of an IPAM plugin, or tortie"))
	}
	return errs
}

// ofNode says whether addresses come from the range that the cluster has given the node.
func (c CNI) ofNode() bool {
	text, err := json.Marshal(c.IPAM)
	return err == nil && bytes.Contains(text, []byte(`"usePodCidr`))
}

const networkLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"

func (s Store) validate() []error {
	if s.Kubernetes != nil {
		return s.Kubernetes.validate()
	}
	var errs []error
	if len(s.Endpoints) == 0 {
		errs = append(errs, errors.New("store.endpoints: want one or more"))
	}
	for _, e := range s.Endpoints {
		scheme, rest, ok := strings.Cut(e, "://")
		if !ok || rest == "" || scheme != "unix" && scheme != "http" && scheme != "https" {
			errs = append(errs, fmt.Errorf("store.endpoints: %q: want unix:///path, http://host:port or https://host:port", e))
		}
	}
	if (s.CertFile == "") != (s.KeyFile == "") {
		errs = append(errs, errors.New("store.certFile, store.keyFile: one is of no use without the other"))
	}
	if (s.Username == "") != (s.PasswordFile == "") {
		errs = append(errs, errors.New("store.username, store.passwordFile: one is of no use without the other"))
	}
	return errs
}

func (k Kubernetes) validate() []error {
	var errs []error
	for _, e := range k.APIServers {
		if u, err := url.Parse(e); err != nil || u.Scheme != "https" || u.Host == "" {
			errs = append(errs, fmt.Errorf("store.kubernetes.apiServers: %q: want https://host:port", e))
		}
	}
	return errs
}

// dnsName reports whether s may be the name of a resource.
func dnsName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}
