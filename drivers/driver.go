package drivers

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"sort"
	"strings"
	"time"
)

// Driver makes one kind of dataplane hold what a State says. All methods but Features are called by one goroutine.
type Driver interface {
	// Features reports what this driver enforces on this host: probed, not guessed. Constant after Open.
	Features() Features

	// Apply makes the dataplane match want. It is idempotent. ch says what changed since the last Apply that
	// returned nil; nil means unknown: read back, repair, and sweep what is ours and no longer wanted. The first
	// call has a nil ch, and nothing is written before it. want has been through Lower. An *ApplyError names the
	// objects that failed; everything else has been applied, and the next ch need not name it: see
	// Changes.AfterApplyError. Any other error means that nothing is known.
	Apply(ctx context.Context, want *State, ch *Changes) error

	// Close frees handles and leaves the dataplane as it is: a restart must not drop traffic.
	Close() error
}

// Options is what every driver's Open takes.
type Options struct {
	Log   *slog.Logger
	Clock func() time.Time
	// Kick says that something moved under the driver: the owner calls Apply with a nil Changes soon. Never blocks.
	Kick func()
	// Flows receives what the driver reports of flows. It never blocks; nil = not wanted.
	Flows func(Flow)
	// Metrics counts what the driver does, by name ("writes", "bisections"); nil = not wanted.
	Metrics func(name string, delta float64)
}

// Flow is one flow's verdict as a driver saw it.
type Flow struct {
	Packet  Packet
	Verdict Verdict
	Rule    RuleID
	At      time.Time
}

// ObjectRef names an object of a State in errors and losses. Kind says which field is meaningful.
type ObjectRef struct {
	Kind     ObjectKind
	Endpoint EndpointID
	Policy   PolicyID
	Set      SetID
	Route    netip.Prefix
	Peer     string
}

// ObjectKind is the kind of an object of a State.
type ObjectKind string

const (
	ObjNode       ObjectKind = "node"
	ObjEndpoint   ObjectKind = "endpoint"
	ObjPolicy     ObjectKind = "policy"
	ObjSet        ObjectKind = "set"
	ObjRoute      ObjectKind = "route"
	ObjPeer       ObjectKind = "peer"
	ObjMasquerade ObjectKind = "masquerade"
)

// String gives the kind and the name.
func (o ObjectRef) String() string {
	switch o.Kind {
	case ObjEndpoint:
		return fmt.Sprintf("endpoint %s/%s", o.Endpoint.Sandbox, o.Endpoint.Interface)
	case ObjPolicy:
		return "policy " + o.Policy.String()
	case ObjSet:
		return "set " + string(o.Set)
	case ObjRoute:
		return "route " + o.Route.String()
	case ObjPeer:
		return "peer " + o.Peer
	}
	return string(o.Kind)
}

// ApplyError names the objects that could not be applied. Endpoints that depend on a failed policy or set are on deny
// stand-ins; everything else has been applied.
type ApplyError struct {
	Failed map[ObjectRef]error
}

// Error lists the objects and their errors, in the order of their names.
func (e *ApplyError) Error() string {
	lines := make([]string, 0, len(e.Failed))
	for o, err := range e.Failed {
		lines = append(lines, fmt.Sprintf("%s: %v", o, err))
	}
	sort.Strings(lines)
	return "not applied: " + strings.Join(lines, "; ")
}

// ErrUnsupported is wrapped by errors about what a driver cannot do on this host.
var ErrUnsupported = errors.New("not supported by this driver on this host")

// Attachment is a request to plug a workload in, and a record of one that is plugged in.
type Attachment struct {
	ID        EndpointID
	Netns     string // path of the workload's network namespace; the descriptor that the caller passed, as /proc/self/fd/N
	HostIface string // name of the interface to make in the host's namespace
	MAC       MAC    // zero = the driver chooses
	Addrs     []netip.Addr
	MTU       int // bytes; 0 = Node.MTU
}

// Attached is what Attach made.
type Attached struct {
	HostIface string
	HostMAC   MAC // of HostIface; zero = it has none
	MAC       MAC
	MTU       int
	Gateways  []netip.Addr // next hop of the workload's default routes, one per family
	Made      bool         // HostIface was not there, or has been replaced: what led to an earlier one is gone with it
}

// Attacher plugs workloads in. Each method is idempotent, and safe to call while Apply runs.
type Attacher interface {
	// Attach makes the pair of interfaces, addresses and default routes of a workload; what is there already and
	// right is left as it is. The host's side passes no traffic before an Apply knows the endpoint.
	Attach(ctx context.Context, a Attachment) (Attached, error)
	// Detach removes the workload's interface. A missing one is no error.
	Detach(ctx context.Context, a Attachment) error
	// Check says what differs from what Attach would make; nil if nothing does.
	Check(ctx context.Context, a Attachment) error
}

// Finder finds workloads that somebody else has plugged in.
type Finder interface {
	// Find returns what there is: the host's side of the workload's interface, which may have any name, and the MAC. Of a
	// only ID, Netns and Addrs count. It is an error if policy could not see all that the interface passes.
	Find(ctx context.Context, a Attachment) (Attached, error)
}

// HostInterface is one interface of the host, as the driver sees it.
type HostIface struct {
	Name   string
	Index  int
	MAC    MAC
	MTU    int
	Up     bool
	Addrs  []netip.Prefix // sorted
	Parent string         // of a veth, vlan, bridge port...; "" = none or unknown
}

// Presence tells whether the dataplane holds what an earlier process has made.
type Presence interface {
	// Present reports whether it does, whole or stale: false is a host whose packets nobody judges, as after a reboot.
	// It only reads, and is called before the first Apply.
	Present(ctx context.Context) (bool, error)
}

// Inventory tells what interfaces and addresses the host has.
type Inventory interface {
	// WatchHost calls fn with the whole inventory, sorted by name: once at the start, and after each change
	// (coalesced), until ctx ends or the watch is lost for good.
	WatchHost(ctx context.Context, fn func([]HostIface)) error
}

// ForeignProblem is something on the host, not ours, that stops or may stop what policy allows.
type ForeignProblem struct {
	Where string // "table ip filter, chain FORWARD"
	What  string // "policy drop stops forwarded packets that policy allows"
	Mend  string // what an operator can do about it
}

// Inspector looks for foreign rules that get in the way. Read-only.
type Inspector interface {
	Inspect(ctx context.Context) ([]ForeignProblem, error)
}

// Count is packets and bytes that a rule has matched.
type Count struct{ Packets, Bytes uint64 }

// Counters reads the counters of rules.
type Counters interface {
	Counters(ctx context.Context) iter.Seq2[RuleID, Count]
}

// Cleaner removes all that is ours, also what an earlier process left. Idempotent.
type Cleaner interface {
	Clean(ctx context.Context) error
}

// FlowCutter forgets the flows of an address, so that its next owner meets none of them.
type FlowCutter interface {
	CutFlows(ctx context.Context, addrs []netip.Addr) error
}
