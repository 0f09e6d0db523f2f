package drivers

import "net/netip"

// Packet is one packet on one node, as policy sees it: after DNAT, before SNAT, decapsulated, fragments reassembled.
type Packet struct {
	From, To         Place // To: after DNAT and routing
	Src, Dst         netip.Addr
	Proto            uint8
	SrcPort, DstPort uint16 // of TCP, UDP and SCTP
	ICMPType         uint8  // of ICMP and ICMPv6
	ICMPCode         uint8
	OrigDst          netip.AddrPort // before DNAT; the zero value means that nothing was translated
	CT               CTState        // this node's flow table: an input
	SrcMAC           MAC            // zero = the endpoint's own
	HopLimit         uint8          // matters for neighbour discovery only (255)
	ARP              bool           // an ARP packet; Src and Dst are its sender and target protocol addresses
}

// PlaceKind is what a packet comes from or goes to.
type PlaceKind uint8

const (
	PlaceUnknown   PlaceKind = iota // an interface with a workload's name that is no endpoint's
	PlaceWorkload                   // a local workload's interface
	PlaceHostIface                  // any other interface of the host, tunnels included
	PlaceProcess                    // the host itself
)

// Place is one end of a packet's way through this node. Iface is "" for PlaceProcess.
type Place struct {
	Kind  PlaceKind
	Iface string
}

// CTState is what the flow table of this node says of a packet.
type CTState uint8

const (
	CTNew CTState = iota // also TCP picked up in mid-stream
	CTEstablished
	CTRelated
	CTInvalid
	CTUntracked // before tracking was decided: the packet is not in the flow table, and nothing is said about it
)

// Verdict is the fate of a packet.
type Verdict uint8

const (
	VerdictDeny Verdict = iota
	VerdictAllow
)

// Stage is where in a packet's way a step was taken.
type Stage string

const (
	StageInterface Stage = "interface"        // step 1
	StageSource    Stage = "source"           // step 2
	StageLink      Stage = "link"             // step 3
	StageUntracked Stage = "untracked"        // step 4
	StageConntrack Stage = "conntrack"        // step 5
	StagePreDNAT   Stage = "pre-dnat"         // step 6
	StageEgress    Stage = "egress"           // step 7, workload
	StageIngress   Stage = "ingress"          // step 7, workload
	StageForward   Stage = "forward"          // step 7, host
	StageHost      Stage = "host"             // step 7, host, Normal
	StageToHost    Stage = "endpoint-to-host" // step 7
	StageFailsafe  Stage = "failsafe"
)

// Step is one decision on a packet's way. Outcome is what it did: "allow", "deny", "pass", "log", "no match", "continue".
type Step struct {
	Stage    Stage
	Endpoint string // Endpoint.Name; "" where none is concerned
	In       bool   // direction, where the stage has one
	Tier     string
	Policy   PolicyID // zero where no policy is concerned
	Rule     RuleID   // 0 = none
	Index    int      // of the rule in its direction; -1 = none
	Staged   bool     // the outcome of a staged policy: it has no effect
	Outcome  string
	Reason   string // in words, for people; "" if Outcome says it all
}

// Trace is the verdict on a packet and every step that led to it.
type Trace struct {
	Verdict Verdict
	NoTrack bool // an untracked policy allowed it: the flow table will not see it
	Steps   []Step
}
