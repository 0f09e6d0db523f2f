package drivertest

import (
	"context"
	"net/netip"

	"github.com/tortie/tortie/drivers"
)

// Harness is a world that a driver works in: the fixed topology of topology.go on some dataplane, and the means to look at
// it. It is all that a new driver brings. The suite calls it from one goroutine, but for Verdict (see there).
//
// The topology is built once, before the suite runs; only the State that the driver is given varies. Everything that is
// not policy must be such that an allowed packet arrives: routes of the topology (in the kernel's tables with metric
// TopologyMetric, so that a route of the driver for the same prefix wins), neighbours (permanent entries, so that no
// probe waits for a resolution), forwarding on for both families, reverse-path filters off, no ICMP redirects, no limits
// on the rate of ICMP. Nothing behind the interfaces answers a probe. Something that is not the driver's should be there
// as well, of each kind that the driver writes: Dump shows that it stays.
type Harness interface {
	// Open starts a driver. With fresh, the dataplane first loses every trace of an earlier driver, as after a reboot;
	// without, it is as the last driver left it (its process ended: nothing in memory is left). The suite closes what
	// Open returned before it calls Open again.
	Open(ctx context.Context, fresh bool) (drivers.Driver, error)

	// Verdict sends the packets in order, each from where Packet.From says, and reports for each whether it came out
	// at Packet.To. Results are in the order of the probes. The contract is in the comments of Probe and Result; an
	// error means that the harness itself broke, and ends the test.
	//
	// Several thousand probes come at once, so a denial must not cost a time-out: send the probes, then a fence
	// packet on every path that was used, which takes the same queues and which no policy stops (redirected ahead of
	// the driver's hooks, say), and look at the receivers' captures once the fences have arrived.
	//
	// The flow table is empty of flows that probes could meet at the start of each call: the harness forgets its
	// flows before it sends the first probe, and then makes the entries that the probes ask for.
	//
	// While one goroutine is in Verdict, another may close the driver, Open it again without fresh, and Apply: so the
	// suite sees that no packet is lost meanwhile.
	Verdict(ctx context.Context, ps []Probe) ([]Result, error)

	// Dump looks at the dataplane without the driver's help.
	Dump(ctx context.Context) (Dump, error)

	// Tamper damages one object that the driver made, chosen by n (any number), as an operator or a foreign program
	// could: deletes it, changes it, adds to it. It says in words what it did; "" means that there is nothing to damage.
	Tamper(ctx context.Context, n uint64) (string, error)

	// Fail orders what is to go wrong from now on, in place of what was ordered before; the zero Fault ends it.
	Fail(f Fault)
}

// Dump is what a dataplane holds.
type Dump struct {
	// Ours is what the driver made: equal text for equal contents, however they came about. So: in a fixed order,
	// without handles, counters and times. "" = nothing.
	Ours string
	// Foreign is what others made, beside what the probes need, in the same manner. No driver may change it.
	Foreign string
	// Writes is the number of objects that drivers have written or deleted, over the harness's life.
	Writes int
}

// Fault is something that the dataplane does to a driver.
type Fault struct {
	// Write makes the n-th write from now on fail (1 is the next one; 0 none), and each try to write the same again,
	// with an error that a kernel could return. A failed write has no effect.
	Write int
	// Refuse makes every write of the object fail as if the dataplane did not like it; zero = none. Removing the
	// object, and what a driver puts in its place to deny, are not refused.
	Refuse drivers.ObjectRef
}

// Probe is one packet to send, and how to bring its flow-table state about.
//
// Who chooses what: the suite chooses every field of Packet that policy can see, source ports included. Within one call
// of Probe no two probes have flows that meet: the unordered pair of (address, port) and the protocol differ, before and
// after DNAT. The harness chooses the rest: ICMP ids, TCP sequence numbers, the payload with a nonce by which it knows
// the packet again.
//
// The suite sends only what CheckProbe accepts: From, To, Src and Dst agree with the topology, and the flow table of
// Linux can give the packet the state that CT says.
type Probe struct {
	// Packet is as the oracle sees it: Dst and DstPort after DNAT. SrcMAC is never zero when From is a workload or
	// Unknown: the suite fills in the topology's. What travels on the wire to the node:
	//
	//	OrigDst   valid: the packet is sent to OrigDst, and a rule of the harness (not the driver's) in the node
	//	          translates OrigDst to Dst:DstPort, as kube-proxy would. TCP and UDP only, CT New only. In FloatingRange:
	//	          it is the driver that translates, and no harness.
	//	CT        New          a tuple that the flow table does not hold; TCP: SYN unless MidStream
	//	          Established  the flow table holds the flow as one that has seen both directions; see Reply. TCP: ACK.
	//	                       ICMP: echo request, or with Reply echo reply. Entries may be made directly (netlink).
	//	          Related      an ICMP error (Packet says type and code) about a flow that the table holds: a UDP flow
	//	                       from Packet.Dst to Packet.Src. Of IPv4 or IPv6 as Packet.Src is.
	//	          Invalid      TCP: flags that can't be (SYN and FIN); UDP, UDPLite: a length beyond the packet's end;
	//	                       ICMP: an echo reply that nobody asked for, or an error about an unknown flow
	//	          Untracked    a foreign rule, ahead of the driver's, takes the packet out of tracking (by the DSCP
	//	                       that the harness gave it, say). ND and MLD are untracked by themselves; ARP has no CT.
	//	HopLimit  sent as it is, if not 0
	//	ARP       from a workload: an ARP request for Dst; delivered = the host's ARP code took it (it answers)
	//	          to a workload: a request of the host's kernel; delivered = it came out at the workload
	Packet drivers.Packet

	// Reply says, with CT Established, that the flow was opened from Dst to Src: the probe goes in the reply direction.
	Reply bool

	// MidStream sends a TCP packet of CT New as a bare ACK: a connection picked up in its middle.
	MidStream bool

	// Fragmented sends the packet as two IP fragments, the first one first. Delivered = the whole came out, in
	// fragments or reassembled. Not with ARP, not with CT Untracked, not with ND.
	Fragmented bool

	// Extended puts a header with destination options between the IPv6 header and what Proto says. It is no concern of
	// policy. Not with fragments, not with ND.
	Extended bool
}

// Result is what became of a probe.
type Result struct {
	// Delivered is true if the packet was seen at Packet.To: on the wire behind the interface, or, for PlaceProcess,
	// by a socket (not by a capture ahead of the driver's hooks).
	Delivered bool
	// Src is the source address that the receiver saw. It differs from Packet.Src after masquerading, and where a workload
	// reaches itself by a floating address. Invalid if
	// not delivered, and for ARP.
	Src netip.Addr
}
