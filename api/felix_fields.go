package api

import (
	"fmt"
	"math"
	"slices"
)

// Effect is what a setting of a FelixConfiguration does in Tortie.
type Effect uint8

const (
	Honoured Effect = iota // it does what it does in Calico, or what Reason says
	Ignored                // it is accepted and reported; nothing follows from it
	Refused                // a value that asks for something is an error: to ignore it would be worse
)

// FelixField describes a setting.
type FelixField struct {
	Section string
	Name    string
	Values  string // in words
	Default string // Calico's; "" = none
	Effect  Effect
	Reason  string // how it is honoured, or why it is not

	typ  felixType
	same string // the value that asks for what Tortie does anyway
}

// Limits says which values the setting takes.
func (f FelixField) Limits() FelixLimits {
	l := f.typ.limits
	l.Type = f.typ.goType
	if f.Effect == Refused {
		l.Only = f.same
	}
	return l
}

// The table and its index are never written to.
var (
	felixFields = slices.Concat(felixGeneral(), felixCommon(), felixNAT(), felixRoutes(), felixRules(), felixBPF(), felixBPFSizes(),
		felixOverlays(), felixLogging(), felixServers(), felixProcess(), felixPlatforms(), felixDebug())
	felixIndex = indexFelix(felixFields)
)

func indexFelix(fields []FelixField) map[string]int {
	index := map[string]int{}
	for i, f := range fields {
		index[f.Name] = i
	}
	return index
}

// FelixFields returns all settings of a FelixConfiguration, by section.
func FelixFields() []FelixField { return slices.Clone(felixFields) }

func felixField(name string) (FelixField, bool) {
	i, ok := felixIndex[name]
	if !ok {
		return FelixField{}, false
	}
	return felixFields[i], true
}

// setting is a row of the table that is ignored for the reason of its section.
func setting(name string, typ felixType, def string) FelixField {
	return FelixField{Name: name, Values: typ.words, Default: def, Effect: Ignored, typ: typ, same: def}
}

func (f FelixField) honoured(how string) FelixField {
	f.Effect, f.Reason = Honoured, how
	return f
}

func (f FelixField) because(format string, args ...any) FelixField {
	f.Reason = fmt.Sprintf(format, args...)
	return f
}

// like says which value asks for what Tortie does anyway, where that is not Calico's default. "-" = none does.
func (f FelixField) like(value string) FelixField {
	f.same = value
	return f
}

// refused is for settings that promise a protection which Tortie does not give, or put something else in its place.
func (f FelixField) refused(why string) FelixField {
	f.Effect, f.Reason = Refused, why
	return f
}

func section(name, reason string, rows ...FelixField) []FelixField {
	for i := range rows {
		rows[i].Section = name
		if rows[i].Reason == "" {
			rows[i].Reason = reason
		}
	}
	return rows
}

func felixOnOff() felixType { return felixEnum("Enabled", "Disabled") }

func felixGeneral() []FelixField {
	return section("Scope", "",
		setting("nodeSelector", felixSelector(), "").honoured("the nodes that the object is for; not in \"default\" and \"node.<name>\""),
	)
}

func felixCommon() []FelixField {
	const encap = "workloads may send IPIP and VXLAN of their own if both this and its twin are true; one alone changes nothing"
	return section("Policy", "",
		setting("defaultEndpointToHostAction", felixEnum("Drop", "Accept", "Return"), "Drop").
			honoured("packets of workloads to their own host, after their egress policy"),
		setting("failsafeInboundHostPorts", felixFailsafes(), "TCP 22, 179, 2379, 2380, 5473, 6443, 6666, 6667; UDP 68").
			honoured("traffic to the host that no policy stops; [] = none"),
		setting("failsafeOutboundHostPorts", felixFailsafes(), "TCP 179, 2379, 2380, 5473, 6443, 6666, 6667; UDP 53, 67").
			honoured("traffic from the host that no policy stops; [] = none"),
		setting("interfacePrefix", felixPattern("prefixes of names of interfaces, with commas between",
			`[a-zA-Z0-9_-]{1,15}(,[a-zA-Z0-9_-]{1,15})*`), "cali").
			honoured("these and Tortie's own \"tort\" begin the names of workload interfaces; one with such a name that is no workload's passes nothing. A prefix of an interface that has an address of the host does not count"),
		setting("allowVXLANPacketsFromWorkloads", felixBool(), "false").honoured(encap),
		setting("allowIPIPPacketsFromWorkloads", felixBool(), "false").honoured(encap),
		setting("workloadSourceSpoofing", felixEnum("Disabled", "Any"), "Disabled").
			honoured("Any: workloads may send from their allowedSourcePrefixes, too; Disabled: none may. Unless it is said, pods of Kubernetes may not, and workloads that whoever runs the node plugs in may"),
		setting("interfaceExclude", felixText(), "kube-ipvs0").like("-").
			because("a HostEndpoint for all interfaces takes all but workloads' and the loopback"),
		setting("disableConntrackInvalidCheck", felixBool(), "false").because("packets that conntrack calls invalid are always dropped"),
		setting("floatingIPs", felixOnOff(), "Disabled").
			honoured("Enabled: workloads can be reached by the floating addresses that they ask for (ipNATs of a WorkloadEndpoint, a pod's annotation)"),
		setting("policySyncPathPrefix", felixText(), "").because("there is no enforcer of HTTP rules yet; an Allow with an http clause allows nothing"),
		setting("istioAmbientMode", felixOnOff(), "Disabled").because("Tortie does not work together with Istio yet"),
		setting("istioDSCPMark", felixDSCP(), "23").because("Tortie does not work together with Istio yet"),
		setting("sidecarAccelerationEnabled", felixBool(), "false").because("there is no such acceleration"),
		setting("endpointStatusPathPrefix", felixText(), "/var/run/calico").like("-").
			because("an ADD of the CNI plugin waits for enforcement by itself; `tortie status` shows it"),
	)
}

func felixNAT() []FelixField {
	const masquerade = "masquerading always takes an address of the interface that the packet leaves by"
	return section("Address translation", masquerade,
		setting("natOutgoingAddress", felixAddr(4), ""),
		setting("natOutgoingExclusions", felixEnum("IPPoolsOnly", "IPPoolsAndHostIPs"), "IPPoolsOnly").
			because("only pools, and the natExclusions of the agent's configuration, are left out"),
		setting("natPortRange", felixPortRange(), "").because("the kernel picks the ports"),
		setting("iptablesNATOutgoingInterfaceFilter", felixPattern("the name of an interface, + = any text", `[a-zA-Z0-9:._+-]{0,15}`), "").
			because("what leaves by any interface is masqueraded"),
		setting("kubeNodePortRanges", felixPortRanges(), "30000:32767").because("policy sees packets after the service's translation, whoever does it"),
		setting("serviceLoopPrevention", felixEnum("Drop", "Reject", "Disabled"), "Drop").because("Tortie advertises no service addresses yet").like("Disabled"),
	)
}

func felixRoutes() []FelixField {
	const refresh = "how long a round of comparing the whole dataplane takes: the shortest of the refresh intervals that are given; at least a second"
	const protocol = "the routes of Tortie have protocol number 84"
	priority := felixInt(1, math.MaxInt32-1)
	return section("Routes and interfaces", "",
		setting("routeRefreshInterval", felixDuration(), "90s").honoured(refresh),
		setting("interfaceRefreshInterval", felixDuration(), "90s").because("the kernel says when interfaces change"),
		setting("routeSource", felixEnum("CalicoIPAM", "WorkloadIPs"), "CalicoIPAM").because("routes come from blocks of addresses"),
		setting("routeSyncDisabled", felixBool(), "false").because("there are routes for the address pools only; without a pool there are none"),
		setting("routeTableRange", felixTables(), "").because("no further routing tables are used yet"),
		setting("routeTableRanges", felixTableRanges(), "1 to 250").because("no further routing tables are used yet").like("-"),
		setting("removeExternalRoutes", felixBool(), "true").because("foreign routes are left alone: "+protocol).like("false"),
		setting("deviceRouteProtocol", felixInt(0, 255), "3").because(protocol).like("84"),
		setting("deviceRouteSourceAddress", felixAddr(4), "").because("the kernel picks the source of the host's packets"),
		setting("deviceRouteSourceAddressIPv6", felixAddr(6), "").because("the kernel picks the source of the host's packets"),
		setting("ipv4NormalRoutePriority", priority, "1024").because("routes have the kernel's usual metric").like("-"),
		setting("ipv6NormalRoutePriority", priority, "1024").because("routes have the kernel's usual metric").like("-"),
		setting("ipv4ElevatedRoutePriority", priority, "512").because("virtual machines don't migrate yet"),
		setting("ipv6ElevatedRoutePriority", priority, "512").because("virtual machines don't migrate yet"),
		setting("liveMigrationRouteConvergenceTime", felixDuration(), "30s").because("virtual machines don't migrate yet"),
		setting("programClusterRoutes", felixEnum("Enabled", "Disabled", "EnabledIPIPOnly"), "EnabledIPIPOnly").like("Enabled").
			because("there is no BGP yet, so the agent makes the routes to all other nodes"),
		setting("localSubnetL2Reachability", felixEnum("Disabled", "PodsAndLoadBalancers"), "Disabled").
			because("nodes answer no ARP for workloads on their own network"),
		setting("localSubnetL2ReachabilityRefreshInterval", felixDuration(), "120s").because("nodes answer no ARP for workloads on their own network"),
		setting("ipForwarding", felixOnOff(), "Enabled").because("the agent switches forwarding on as soon as it has routes"),
		setting("ipv6Support", felixBool(), "true").because("IPv6 takes the same path as IPv4; it can't be switched off"),
		setting("externalNodesList", felixPrefixes(), "").because("only nodes of the cluster may send to the tunnels"),
		setting("mtuIfacePattern", felixRegexp(), "").because("`mtu` in the agent's configuration is the MTU of workloads"),
		setting("requireMTUFile", felixBool(), "false").because("`mtu` in the agent's configuration is the MTU of workloads"),
		setting("netlinkTimeout", felixDuration(), "10s").because("`applyTimeout` in the agent's configuration bounds a change of the dataplane").like("-"),
	)
}

func felixRules() []FelixField {
	const refresh = "as routeRefreshInterval"
	const hooks = "Tortie's table is its own, and what it accepts goes on through all others"
	const marks = "Tortie marks no packets"
	const reject = "what is denied is dropped"
	const sets = "sets of addresses have no limit of their own"
	verdict, deny := felixEnum("Accept", "Return"), felixEnum("Drop", "Reject")
	return section("nftables and iptables", hooks,
		setting("nftablesMode", felixEnum("Enabled", "Disabled", "Auto"), "Auto").because("`driver` in the agent's configuration picks the dataplane"),
		setting("iptablesBackend", felixEnum("Auto", "Legacy", "NFT"), "Auto").because("`driver` in the agent's configuration picks the dataplane"),
		setting("nftablesRefreshInterval", felixDuration(), "180s").honoured(refresh),
		setting("iptablesRefreshInterval", felixDuration(), "180s").honoured(refresh),
		setting("ipsetsRefreshInterval", felixDuration(), "90s").honoured(refresh),
		setting("chainInsertMode", felixEnum("Insert", "Append"), "Insert"),
		setting("nftablesFilterAllowAction", verdict, "Accept").like("Return"),
		setting("nftablesMangleAllowAction", verdict, "Accept").like("Return"),
		setting("nftablesFilterDenyAction", deny, "Drop").because(reject),
		setting("nftablesMarkMask", felixMarks(), "0xffff0000").because(marks).like("-"),
		setting("iptablesFilterAllowAction", verdict, "Accept").like("Return"),
		setting("iptablesMangleAllowAction", verdict, "Accept").like("Return"),
		setting("iptablesFilterDenyAction", deny, "Drop").because(reject),
		setting("iptablesMarkMask", felixMarks(), "0xffff0000").because(marks).like("-"),
		setting("iptablesLockFilePath", felixText(), "/run/xtables.lock").because("iptables is not run").like("-"),
		setting("iptablesLockTimeout", felixDuration(), "0s").because("iptables is not run").like("-"),
		setting("iptablesLockProbeInterval", felixDuration(), "50ms").because("iptables is not run").like("-"),
		setting("iptablesPostWriteCheckInterval", felixDuration(), "5s").because("nobody else writes to Tortie's table; the periodic comparison would notice").like("-"),
		setting("maxIpsetSize", felixSize(), "1048576").because(sets).like("-"),
		setting("xdpEnabled", felixBool(), "true").because("untracked policy is enforced by nftables").like("false"),
		setting("xdpRefreshInterval", felixDuration(), "90s").because("untracked policy is enforced by nftables").like("-"),
		setting("genericXDPEnabled", felixBool(), "false").because("untracked policy is enforced by nftables"),
	)
}
