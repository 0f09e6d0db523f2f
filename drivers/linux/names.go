package linux

// Every kernel object that the driver makes is recognisable as ours without memory: by one of these names.
const (
	driverName = "nftables"

	// TableName is the name of our nftables tables, in the families inet and arp.
	TableName = "tortie"

	// defaultPrefix begins the names of workload interfaces where no State has said so yet.
	defaultPrefix = "tort"

	// RouteProtocol marks our routes in the kernel (rtnetlink's rtm_protocol).
	RouteProtocol = 84

	// MarkPass is the bit of the packet mark that says "pass to the next tier" between a policy's chain and its
	// tier's. It is cleared before a tier that uses it and again after it, in one run of one base chain, so that
	// nobody else's use of the bit can change a verdict; what another program kept in the bit is lost for packets
	// that are judged by a tier with a Pass rule.
	//
	// It is the only bit of the mark that is used. What an untracked or pre-DNAT policy allowed is not remembered in
	// a mark but judged again where a later host stage would follow (see base.go), since a mark between two hooks is
	// anybody's to set.
	MarkPass uint32 = 0x10000000

	// LogPrefix is how a line of the kernel's log that a Log rule made begins.
	LogPrefix = "tortie: "
)

// Base chains: one for each stage, so that an Allow of one stage (accept, which ends one base chain only) leaves the
// next stage its say. Their priorities keep them ahead of other programs' chains of the same kind.
const (
	baseRawIn     = "raw-prerouting" // unknown interfaces, sources of workloads, untracked policy
	baseRawOut    = "raw-output"     // untracked policy of what the host sends
	baseFwdFrom   = "forward-from"   // the stages of where a forwarded packet comes from
	baseFwdTo     = "forward-to"     // the stages of where it goes
	baseInFrom    = "input-from"     // egress of workloads towards the host
	baseInTo      = "input-to"       // tunnels, endpoint-to-host, Normal In
	basePost      = "postrouting"    // unknown interfaces, Normal Out (an output hook knows a stale interface)
	baseNAT       = "nat-postrouting"
	baseFloatIn   = "floating-prerouting"  // floating addresses become the workloads' own
	baseFloatOut  = "floating-output"      // the same for what the host sends
	baseFloatBack = "floating-postrouting" // what a workload sends itself by its floating address comes from that
	baseARPIn     = "arp-input"
	baseARPOut    = "arp-output"
	prioRaw       = -300 // before conntrack (-200), after reassembly (-400)
	prioFrom      = -20
	prioTo        = -10
	prioPost      = -150 // before source NAT (100)
	prioSourceNAT = 100
	prioFloatDNAT = -101 // before other programs' destination NAT (-100)
	prioFloatSNAT = 99
	prioARP       = 0
)

// Names of sets and maps that there is one of.
const (
	setWorkloads = "workloads" // interfaces of workloads
	setUnknown   = "unknown"   // interfaces that more than one endpoint claims
	setHairpin   = "hairpin"   // (interface, interface) of each workload
	setPorts     = "port-protocols"
	setLink1     = "link-solicit"         // ICMPv6 types of link traffic from workloads that must have hop limit 255
	setLink2     = "link-listen"          // those that need not
	setHostLink1 = "host-link-neighbours" // the same for the host's own interfaces, and towards workloads
	setHostLink2 = "host-link-listeners"

	mapSource    = "source"     // workload interface -> its chain of sources
	mapARPSource = "arp-source" // the same for ARP

	// Maps from an interface to the chain of its tier list, or of its list of profiles, in a stage.
	mapEgress, mapEgressProfiles    = "egress", "egress-profiles"
	mapIngress, mapIngressProfiles  = "ingress", "ingress-profiles"
	mapFwdIn, mapFwdOut             = "forward-in", "forward-out"
	mapHostIn, mapHostInProfiles    = "host-in", "host-in-profiles"
	mapHostOut, mapHostOutProfiles  = "host-out", "host-out-profiles"
	mapUntrackedIn, mapUntrackedOut = "untracked-in", "untracked-out"
	mapPreDNAT, mapPreDNATPlain     = "pre-dnat", "pre-dnat-plain" // of flows, and of packets without one

	// Maps from floating addresses to the workloads' own, and the (source, destination, floating) of what workloads send to
	// themselves by them.
	mapFloating4, mapFloating6         = "floating4", "floating6"
	setFloatingSelf4, setFloatingSelf6 = "floating-self4", "floating-self6"

	setPeers4, setPeers6               = "peers4", "peers6"
	setMasqFrom4, setMasqFrom6         = "masquerade-from4", "masquerade-from6"
	setMasqExcept4, setMasqExcept6     = "masquerade-except4", "masquerade-except6"
	setFailsafeIn, setFailsafeOut      = "failsafe-in", "failsafe-out" // (protocol, port) from and to anywhere
	chainSourceOK                      = "source-ok"
	chainSourceLink, chainSourceUnspec = "source-link-local", "source-unspecified"
	chainTunnelIn, chainTunnelOut      = "tunnel-in", "tunnel-out"
	chainHostAll                       = "host-all"

	// Both directions of TCP connections that were cut, and what happens to their packets.
	setSevered4, setSevered6 = "severed4", "severed6"
	chainSevered             = "severed"
)
