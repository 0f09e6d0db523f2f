package agentapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
)

const (
	// Version is the protocol that this package speaks.
	Version = 1
	// OldestVersion is the oldest that an agent still answers.
	OldestVersion = 1
)

// Verb is what a client asks for.
type Verb string

const (
	VerbAttach  Verb = "attach"  // AttachRequest, with the descriptor of the network namespace → AttachResponse
	VerbDetach  Verb = "detach"  // DetachRequest → nothing
	VerbCheck   Verb = "check"   // CheckRequest, with the descriptor of the network namespace → nothing
	VerbList    Verb = "list"    // ListRequest → ListResponse
	VerbStatus  Verb = "status"  // StatusRequest → Status
	VerbExplain Verb = "explain" // ExplainRequest → ExplainResponse
	VerbState   Verb = "state"   // nothing → the State that was applied last, as drivers.EncodeState writes it
)

// Request is what a client sends.
type Request struct {
	Version int             `json:"version"`
	Verb    Verb            `json:"verb"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// Response is the answer to one Request.
type Response struct {
	Version int             `json:"version"` // newest that the agent speaks
	Error   *Error          `json:"error,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// Code says what kind of error a request met.
type Code string

const (
	CodeBadRequest  Code = "bad-request"  // the request makes no sense; asking again won't help
	CodeVersion     Code = "version"      // the agent doesn't speak this version of the protocol
	CodeForbidden   Code = "forbidden"    // this user may not ask that
	CodeConflict    Code = "conflict"     // another workload, or an older form of this one, is in the way
	CodeUnavailable Code = "unavailable"  // the store or the agent isn't ready: nothing was done, try again
	CodeNotEnforced Code = "not-enforced" // the workload is plugged in, but its policy wasn't enforced in time: ask again
	CodeUnsupported Code = "unsupported"  // this driver can't do that
	CodeNoAddress   Code = "no-address"   // there is no address to give: no pool, or none that is not used up
	CodeNotFound    Code = "not-found"    // there is no such attachment
	CodeUnknownPod  Code = "unknown-pod"  // the agent has waited, and the API server has not told it of that pod: nothing was done
	CodeDiffers     Code = "differs"      // the attachment isn't what attach has made
	CodeInternal    Code = "internal"
)

// Error is an error that the agent answered.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error gives the message.
func (e *Error) Error() string { return e.Message }

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf returns the code of an error that the agent answered; "" if err is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// Retry reports whether err is one that goes away by itself.
func Retry(err error) bool {
	c := CodeOf(err)
	return c == CodeUnavailable || c == CodeNotEnforced
}

// AttachRequest plugs a workload in. Its identity is (Sandbox, Interface): asking again for the same is answered with
// the same. The network namespace comes as a descriptor.
type AttachRequest struct {
	Sandbox   string       `json:"sandbox"`
	Interface string       `json:"interface"`           // inside the namespace: "eth0"
	Addresses []netip.Addr `json:"addresses,omitempty"` // that somebody else has allocated; none: see Allocate
	Allocate  *Allocate    `json:"allocate,omitempty"`
	// Chained: another plugin has made the interface, with Addresses, and routes to it; the agent has policy enforced there.
	Chained  bool     `json:"chained,omitempty"`
	MAC      string   `json:"mac,omitempty"`
	MTU      int      `json:"mtu,omitempty"` // 0 = the agent's
	Workload Workload `json:"workload"`
	// Network is the CNI network that this is an attachment to; "" = none. Garbage is collected by network.
	Network string `json:"network,omitempty"`
	// TimeoutMS bounds the whole request in milliseconds; 0 = 30 s.
	TimeoutMS int64 `json:"timeoutMS,omitempty"`
}

// Allocate says what addresses the agent is to allocate: Addresses, or else one of each family that is wanted; of those
// that there are pools of, if none is named.
type Allocate struct {
	V4        bool         `json:"v4,omitempty"`
	V6        bool         `json:"v6,omitempty"`
	Pools     []string     `json:"pools,omitempty"`     // names or prefixes; none = as the pools themselves say
	Addresses []netip.Addr `json:"addresses,omitempty"` // exactly these
}

// Workload says who is behind an interface. It becomes a WorkloadEndpoint in the store.
type Workload struct {
	Orchestrator   string            `json:"orchestrator,omitempty"` // "k8s"; "" = "cni"
	Namespace      string            `json:"namespace,omitempty"`    // "" = "default"
	Name           string            `json:"name,omitempty"`         // "" = the sandbox
	UID            string            `json:"uid,omitempty"`          // of the pod
	Labels         map[string]string `json:"labels,omitempty"`
	Profiles       []string          `json:"profiles,omitempty"`
	Ports          []Port            `json:"ports,omitempty"`
	ServiceAccount string            `json:"serviceAccount,omitempty"`
	// SourcePrefixes are further sources that the workload may send from.
	SourcePrefixes []netip.Prefix `json:"sourcePrefixes,omitempty"`
}

// Port is a named port of a workload.
type Port struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"` // "TCP", "UDP", "SCTP"
	Port     uint16 `json:"port"`
}

// AttachResponse is what became of an AttachRequest. The workload's policy is enforced.
type AttachResponse struct {
	HostIface string       `json:"hostIface"`
	HostMAC   string       `json:"hostMAC,omitempty"`
	MAC       string       `json:"mac"` // of the workload's side
	MTU       int          `json:"mtu"`
	Addresses []netip.Addr `json:"addresses"`
	Gateways  []netip.Addr `json:"gateways"`
	Endpoint  string       `json:"endpoint"` // namespace/name of its WorkloadEndpoint
}

// DetachRequest unplugs a workload. One that isn't there is no error.
type DetachRequest struct {
	Sandbox   string `json:"sandbox"`
	Interface string `json:"interface"`
	TimeoutMS int64  `json:"timeoutMS,omitempty"` // 0 = 30 s
}

// CheckRequest asks whether an attachment is as attach has made it, and its policy enforced. What isn't is an error.
type CheckRequest struct {
	Sandbox   string       `json:"sandbox"`
	Interface string       `json:"interface"`
	Addresses []netip.Addr `json:"addresses,omitempty"` // that it should have; none = don't compare
	TimeoutMS int64        `json:"timeoutMS,omitempty"` // 0 = 30 s
}

// ListRequest asks for attachments: those for which all fields that are set hold.
type ListRequest struct {
	Sandbox   string `json:"sandbox,omitempty"`
	Interface string `json:"interface,omitempty"`
	Network   string `json:"network,omitempty"`
}

// ListResponse is the attachments that the ledger has, and whether the agent is ready to attach others.
type ListResponse struct {
	NotReady    []string     `json:"notReady,omitempty"` // what is missing; nothing = ready
	Attachments []Attachment `json:"attachments,omitempty"`
}

// Attachment is an interface that is plugged in.
type Attachment struct {
	Sandbox   string       `json:"sandbox"`
	Interface string       `json:"interface"`
	Network   string       `json:"network,omitempty"`
	HostIface string       `json:"hostIface"`
	Addresses []netip.Addr `json:"addresses"`
	Endpoint  string       `json:"endpoint"`            // namespace/name of its WorkloadEndpoint
	Detaching bool         `json:"detaching,omitempty"` // a detach has begun
}

// ExplainRequest asks what happens to a packet on this node, either a flow between addresses (the agent finds out where
// each end is) or a drivers.Packet as it stands.
type ExplainRequest struct {
	Flow   *Flow           `json:"flow,omitempty"`
	Packet json.RawMessage `json:"packet,omitempty"`
}

// Flow is the first packet of a connection.
type Flow struct {
	Src      netip.Addr `json:"src"`
	Dst      netip.Addr `json:"dst"`
	Proto    uint8      `json:"proto"` // IP protocol number
	SrcPort  uint16     `json:"srcPort,omitempty"`
	DstPort  uint16     `json:"dstPort,omitempty"`
	ICMPType uint8      `json:"icmpType,omitempty"`
	ICMPCode uint8      `json:"icmpCode,omitempty"`
}

// ExplainResponse is a verdict and the way to it.
type ExplainResponse struct {
	Allowed bool            `json:"allowed"`
	Packet  json.RawMessage `json:"packet"` // drivers.Packet
	Trace   json.RawMessage `json:"trace"`  // drivers.Trace
	// Pending says that changes are on their way to the dataplane, and the answer may be another one soon.
	Pending bool `json:"pending,omitempty"`
	// Losses are what the driver can't express at the endpoints of this packet.
	Losses []string `json:"losses,omitempty"`
}
