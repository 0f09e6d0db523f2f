package api

import "math"

// noBPF is why nothing follows from the settings of Calico's eBPF dataplane.
const noBPF = "there is no eBPF driver yet"

func felixBPF() []FelixField {
	return section("eBPF", noBPF,
		setting("bpfEnabled", felixBool(), "false"),
		setting("bpfAttachType", felixEnum("TC", "TCX", "Netkit"), "Netkit"),
		setting("bpfDataIfacePattern", felixRegexp(), ""),
		setting("bpfL3IfacePattern", felixRegexp(), ""),
		setting("bpfDisableGROForIfaces", felixRegexp(), ""),
		setting("bpfDisableUnprivileged", felixBool(), "true"),
		setting("bpfEnforceRPF", felixEnum("Disabled", "Strict", "Loose"), "Loose"),
		setting("bpfJITHardening", felixEnum("Auto", "Strict"), "Auto"),
		setting("bpfHostConntrackBypass", felixBool(), "false"),
		setting("bpfRedirectToPeer", felixEnum("Enabled", "Disabled", "L2Only"), "Enabled"),
		setting("bpfForceTrackPacketsFromIfaces", felixInterfaces(), "docker+"),
		setting("bpfConnectTimeLoadBalancing", felixEnum("TCP", "Enabled", "Disabled"), "TCP"),
		setting("bpfConnectTimeLoadBalancingEnabled", felixBool(), ""),
		setting("bpfHostNetworkedNATWithoutCTLB", felixOnOff(), "Enabled"),
		setting("bpfExternalServiceMode", felixEnum("Tunnel", "DSR"), "Tunnel"),
		setting("bpfDSROptoutCIDRs", felixPrefixes(), ""),
		setting("bpfExcludeCIDRsFromNAT", felixPrefixes(), ""),
		setting("bpfExtToServiceConnmark", felixInt(0, math.MaxUint32), "0"),
		setting("bpfIPFragTimeout", felixDuration(), ""),
		setting("bpfIPFragmentReassemblyEnabled", felixBool(), "true"),
		setting("bpfOverlayHostSourceIP", felixEnum("TunnelAddress", "HostAddress"), "TunnelAddress"),
		setting("bpfPSNATPorts", felixPortRange(), "20000:29999"),
		setting("bpfKubeProxyIptablesCleanupEnabled", felixBool(), "true"),
		setting("bpfKubeProxyMinSyncPeriod", felixDuration(), "1s"),
		setting("bpfKubeProxyEndpointSlicesEnabled", felixBool(), "true"),
		setting("bpfKubeProxyHealthzPort", felixPort(), "10256"),
		setting("bpfMaglevMaxServices", felixInt(1, 3000), "100"),
		setting("bpfMaglevMaxEndpointsPerService", felixInt(1, 3000), "100"),
		setting("bpfLogLevel", felixEnum("Off", "Info", "Debug"), "Off"),
		setting("bpfLogFilters", felixFilters(), ""),
		setting("bpfCTLBLogFilter", felixEnum("all"), ""),
		setting("bpfPolicyDebugEnabled", felixBool(), "true"),
		setting("bpfProfiling", felixOnOff(), "Disabled"),
		setting("bpfExportBufferSizeMB", felixSize(), "1"),
		setting("cgroupV2Path", felixText(), ""),
	)
}

func felixBPFSizes() []FelixField {
	return section("eBPF: connections and sizes of maps", noBPF,
		setting("bpfConntrackMode", felixEnum("Auto", "Userspace", "BPFProgram"), "Auto"),
		setting("bpfConntrackLogLevel", felixEnum("Off", "Debug"), "Off"),
		setting("bpfConntrackTimeouts", felixConntrack(), ""),
		setting("bpfMapSizeConntrack", felixSize(), "512000"),
		setting("bpfMapSizePerCpuConntrack", felixSize(), "0"),
		setting("bpfMapSizeConntrackScaling", felixEnum("Disabled", "DoubleIfFull"), "DoubleIfFull"),
		setting("bpfMapSizeConntrackCleanupQueue", felixSize(), "100000"),
		setting("bpfMapSizeIPSets", felixSize(), "1048576"),
		setting("bpfMapSizeIfState", felixSize(), "1000"),
		setting("bpfMapSizeNATFrontend", felixSize(), "65536"),
		setting("bpfMapSizeNATBackend", felixSize(), "262144"),
		setting("bpfMapSizeNATAffinity", felixSize(), "65536"),
		setting("bpfMapSizeRoute", felixSize(), "262144"),
	)
}

func felixOverlays() []FelixField {
	const tunnels = "there are no tunnels between nodes yet; packets of pools that want one go nowhere"
	const clear = "Tortie does not encrypt yet: the traffic would go in the clear"
	const wireguard = "there is no WireGuard yet"
	mtu := felixInt(0, math.MaxUint16)
	return section("Overlays and encryption", tunnels,
		setting("vxlanPort", felixInt(1, math.MaxUint16), "4789").honoured("the UDP port by which VXLAN of workloads and strangers is known and dropped"),
		setting("vxlanEnabled", felixBool(), "").like("false"),
		setting("vxlanMTU", mtu, "0"),
		setting("vxlanMTUV6", mtu, "0"),
		setting("vxlanVNI", felixInt(1, 1<<24-1), "4096"),
		setting("ipipEnabled", felixBool(), "").like("false"),
		setting("ipipMTU", mtu, "0"),
		setting("wireguardEnabled", felixBool(), "false").refused(clear),
		setting("wireguardEnabledV6", felixBool(), "false").refused(clear),
		setting("wireguardHostEncryptionEnabled", felixBool(), "false").refused(clear),
		setting("wireguardListeningPort", felixInt(1, math.MaxUint16), "51820").because(wireguard),
		setting("wireguardListeningPortV6", felixInt(1, math.MaxUint16), "51821").because(wireguard),
		setting("wireguardInterfaceName", felixInterface(), "wireguard.cali").because(wireguard),
		setting("wireguardInterfaceNameV6", felixInterface(), "wg-v6.cali").because(wireguard),
		setting("wireguardMTU", mtu, "0").because(wireguard),
		setting("wireguardMTUV6", mtu, "0").because(wireguard),
		setting("wireguardRoutingRulePriority", felixInt(0, 32765), "99").because(wireguard),
		setting("wireguardKeepAlive", felixDuration(), "0s").because(wireguard),
		setting("wireguardThreadingEnabled", felixBool(), "false").because(wireguard),
	)
}

func felixLogging() []FelixField {
	const only = "the agent logs to its standard error only, which systemd or the container's runtime keep"
	const flows = "there are no flow logs yet"
	severity := felixEnum("Trace", "Debug", "Info", "Warning", "Error", "Fatal")
	return section("Logs and flows", only,
		setting("logSeverityScreen", severity, "Info").honoured("the level of the agent's log: Trace is Debug, and Fatal is Error"),
		setting("logSeverityFile", severity, "Info").like("-"),
		setting("logSeveritySys", felixEnum("None", "Trace", "Debug", "Info", "Warning", "Error", "Fatal"), "Info").like("None"),
		setting("logFilePath", felixText(), "/var/log/calico/felix.log").like("none"),
		setting("logDebugFilenameRegex", felixRegexp(), ""),
		setting("debugDisableLogDropping", felixBool(), "false"),
		setting("logPrefix", felixPattern("letters, digits, blanks and %:/_-", `[a-zA-Z0-9%: /_-]*`), "calico-packet").
			because("lines of Log rules begin with \"tortie\"").like("-"),
		setting("logActionRateLimit", felixPattern("N/second, N/minute, N/hour or N/day, N up to 9999", `([1-9]\d{0,3}/(second|minute|hour|day))?`), "").
			because("lines of Log rules are not limited yet"),
		setting("logActionRateLimitBurst", felixInt(0, 9999), "5").because("lines of Log rules are not limited yet"),
		setting("flowLogsFlushInterval", felixDuration(), "300s").because(flows),
		setting("flowLogsGoldmaneServer", felixText(), "").because(flows),
		setting("flowLogsLocalReporter", felixOnOff(), "Disabled").because(flows),
		setting("flowLogsPolicyEvaluationMode", felixEnum("None", "Continuous"), "Continuous").because(flows),
		setting("flowLogsCollectorDebugTrace", felixBool(), "false").because(flows),
		setting("usageReportingEnabled", felixBool(), "true").because("Tortie reports to nobody").like("false"),
		setting("usageReportingInitialDelay", felixDuration(), "300s").because("Tortie reports to nobody").like("-"),
		setting("usageReportingInterval", felixDuration(), "86400s").because("Tortie reports to nobody").like("-"),
	)
}

func felixServers() []FelixField {
	const listen = "`listen` in the agent's configuration says where health and metrics are served"
	const tls = "metrics are served without TLS; put a proxy before them"
	return section("Health and metrics", listen,
		setting("healthEnabled", felixBool(), "false").like("true"),
		setting("healthHost", felixHost(), "localhost").like("-"),
		setting("healthPort", felixPort(), "9099").like("-"),
		setting("healthTimeoutOverrides", felixTimeouts(), "").because("`applyTimeout` in the agent's configuration bounds a change of the dataplane"),
		setting("dataplaneWatchdogTimeout", felixDuration(), "90s").because("`applyTimeout` in the agent's configuration bounds a change of the dataplane").like("-"),
		setting("prometheusMetricsEnabled", felixBool(), "false").like("true"),
		setting("prometheusMetricsHost", felixHost(), "").like("-"),
		setting("prometheusMetricsPort", felixPort(), "9091").like("-"),
		setting("prometheusMetricsCAFile", felixText(), "").because(tls),
		setting("prometheusMetricsCertFile", felixText(), "").because(tls),
		setting("prometheusMetricsKeyFile", felixText(), "").because(tls),
		setting("prometheusMetricsClientAuth", felixEnum("NoClientCert", "RequireAnyClientCert", "RequireAndVerifyClientCert",
			"VerifyClientCertIfGiven"), "NoClientCert").because(tls),
		setting("prometheusGoMetricsEnabled", felixBool(), "true").because("all metrics are always there"),
		setting("prometheusProcessMetricsEnabled", felixBool(), "true").because("all metrics are always there"),
		setting("prometheusWireGuardMetricsEnabled", felixBool(), "true").because("there is no WireGuard yet").like("false"),
		setting("debugHost", felixHost(), "localhost").because("there is no debug port").like("-"),
		setting("debugPort", felixPort(), "").because("there is no debug port").like("0"),
	)
}

func felixProcess() []FelixField {
	const env = "the variables GOGC, GOMEMLIMIT and GOMAXPROCS of the agent's environment say it"
	flags := func(value string) felixType {
		one := `[a-zA-Z0-9_-]+=` + value
		return felixPattern("name=value, with commas between", `(`+one+`(,`+one+`)*)?`)
	}
	return section("Process", env,
		setting("goGCThreshold", felixInt(-1, math.MaxInt64), "40").like("100"),
		setting("goMemoryLimitMB", felixInt(-1, math.MaxInt64), "-1"),
		setting("goMaxProcs", felixInt(-1, math.MaxInt64), "-1"),
		setting("featureDetectOverride", flags(`(true|false|)`), "").because("features are probed on the kernel"),
		setting("featureGates", flags(`[^=,]+`), "").because("there are no such gates"),
		setting("useInternalDataplaneDriver", felixBool(), "true").like("true").
			refused("Tortie does not run a dataplane of somebody else's: nothing would be enforced as written"),
		setting("dataplaneDriver", felixText(), "").because("`driver` in the agent's configuration picks the dataplane"),
	)
}

func felixPlatforms() []FelixField {
	const openstack = "OpenStack is not supported"
	return section("Platforms", openstack,
		setting("awsSrcDstCheck", felixEnum("DoNothing", "Enable", "Disable"), "DoNothing").because("Tortie does not talk to AWS; change the instance's setting there"),
		setting("windowsManageFirewallRules", felixOnOff(), "Disabled").because("there is no Windows driver yet"),
		setting("endpointReportingEnabled", felixBool(), "false"),
		setting("endpointReportingDelay", felixDuration(), "1s"),
		setting("metadataAddr", felixPattern("the name or address of a host, or None", `[a-zA-Z0-9_.:-]+`), "127.0.0.1").like("none"),
		setting("metadataPort", felixPort(), "8775"),
		setting("openstackRegion", felixPattern("a DNS label", `([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?`), ""),
		setting("reportingInterval", felixDuration(), "30s").like("0s"),
		setting("reportingTTL", felixDuration(), "90s").like("-"),
	)
}

func felixDebug() []FelixField {
	const hooks = "Tortie has no hooks that make it fail in production; its tests have faults of their own"
	return section("Calico's own tests", hooks,
		setting("debugMemoryProfilePath", felixText(), ""),
		setting("debugSimulateCalcGraphHangAfter", felixDuration(), "0s").refused(hooks),
		setting("debugSimulateDataplaneHangAfter", felixDuration(), "0s").refused(hooks),
		setting("debugSimulateDataplaneApplyDelay", felixDuration(), "0s").refused(hooks),
	)
}
