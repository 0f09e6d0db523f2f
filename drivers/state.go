package drivers

import (
	"net/netip"
)

// State is everything that this node's dataplane must hold, in the dataplane's own words. Every reference in it resolves
// inside it: a PolicyID in a tier list is a key of Policies, a SetID in a rule is a key of Sets. It is a function of the
// content of the agent's inputs and never of the order in which they came.
//
// The maps belong to the State's one owner (the agent's pump); the values in them are immutable once they are there, and
// may be kept and compared by pointer. A driver reads a State only during Apply, and may keep values but not maps.
type State struct {
	Node       Node
	Endpoints  map[EndpointID]*Endpoint
	Policies   map[PolicyID]*Policy
	Sets       map[SetID]*Set
	Routes     map[netip.Prefix]*Route // keyed by Route.Dst, masked
	Peers      map[string]*Peer        // keyed by node name
	Masquerade Masquerade
}

// NewState returns a State with empty maps and the zero Node.
func NewState() *State {
	return &State{
		Endpoints: map[EndpointID]*Endpoint{},
		Policies:  map[PolicyID]*Policy{},
		Sets:      map[SetID]*Set{},
		Routes:    map[netip.Prefix]*Route{},
		Peers:     map[string]*Peer{},
	}
}

// Clone returns a State with maps of its own that share the immutable values.
func (s *State) Clone() *State {
	c := NewState()
	c.Node, c.Masquerade = s.Node, s.Masquerade
	copyMap(c.Endpoints, s.Endpoints)
	copyMap(c.Policies, s.Policies)
	copyMap(c.Sets, s.Sets)
	copyMap(c.Routes, s.Routes)
	copyMap(c.Peers, s.Peers)
	return c
}

func copyMap[K comparable, V any](dst, src map[K]V) {
	for k, v := range src {
		dst[k] = v
	}
}

// Node is what holds for the node as a whole.
type Node struct {
	Name      string
	Addresses []netip.Addr // the node's own addresses, as other nodes know them; at most one per family
	MTU       int          // of workload interfaces, in bytes; 0 = the driver's default (1500)

	// WorkloadPrefixes are the beginnings of the names of workload interfaces ("tort"). An interface whose name
	// begins so and which is no endpoint's is Unknown: its traffic is dropped.
	WorkloadPrefixes []string

	FailsafeIn, FailsafeOut []Failsafe
	EndpointToHost          EndpointToHost
	ServiceNAT              ServiceNAT
	CutEstablished          bool   // a changed policy cuts flows that it no longer allows
	VXLANPort               uint16 // 0 = 4789. Outer VXLAN packets are judged by step 2 of Evaluate
	AllowEncapFromWorkloads bool   // workloads may send IPIP and VXLAN of their own
}

// Failsafe is traffic between the host itself and a host interface which no policy may stop. In FailsafeIn, Net is the
// remote (source) prefix; in FailsafeOut the remote (destination) one. The zero Net means anywhere.
type Failsafe struct {
	Proto uint8 // IP protocol number
	Port  uint16
	Net   netip.Prefix
}

// EndpointToHost says what happens to a packet from a workload to its own host after the workload's egress policy.
type EndpointToHost uint8

const (
	ToHostDrop   EndpointToHost = iota // deny (the default)
	ToHostAccept                       // allow
	ToHostReturn                       // the host endpoint's Normal In stage decides
)

// ServiceNAT says who translates service addresses.
type ServiceNAT uint8

const (
	ServiceNATForeign ServiceNAT = iota // kube-proxy or none
	ServiceNATOwn                       // the driver
)

// EndpointID names an endpoint on this node: for a workload the sandbox and the interface inside it, for a host
// endpoint its resource's name and the host interface that it was resolved to.
type EndpointID struct {
	Kind      EndpointKind
	Sandbox   string // workload: sandbox (container) id; host: name of the HostEndpoint resource
	Interface string // workload: interface inside the sandbox (eth0); host: name of the host interface
}

// EndpointKind is workload or host.
type EndpointKind uint8

const (
	Workload EndpointKind = iota
	HostInterface
)

// Endpoint is one interface of this node that policy is enforced on.
type Endpoint struct {
	ID    EndpointID
	Name  string // for people and traces: "namespace/name" of the workload, or the host endpoint's name
	Iface string // name of the interface in the host's network namespace

	// Of workloads only.
	MAC            MAC            // of the workload's side; zero = not checked
	Addrs          []netip.Addr   // sorted
	SourcePrefixes []netip.Prefix // further sources that it may use, sorted

	Policy   EndpointPolicy
	Profiles []PolicyID // of Kind KindProfile, in order; for workload stages and the Normal stage of hosts

	Generation uint64 // of the resources that this value was made from; status speaks of it
	Degraded   string // why the endpoint is on a deny stand-in; "" if it is not
}

// MAC is an Ethernet address.
type MAC [6]byte

// EndpointPolicy holds the tier lists of an endpoint. A workload has Normal only. A nil list is an empty one.
type EndpointPolicy struct {
	Normal    Directions
	Forward   Directions
	PreDNAT   Directions // In only
	Untracked Directions
}

// Directions is a pair of tier lists: In is towards the endpoint (ingress; for hosts into the node), Out is from it.
type Directions struct {
	In, Out *TierList
}

// TierList is an ordered list of tiers. Lists are interned: endpoints with equal lists share one pointer.
type TierList struct {
	Tiers []TierPolicies
}

// TierPolicies is one tier as one endpoint sees it, in one direction.
type TierPolicies struct {
	Name     string
	Default  Action     // of the end of the tier: Deny or Pass; counts only if an enforced policy is in Policies
	Order    float64    // for people; the position in the list is what counts
	Staged   bool       // true if every policy in Policies is staged
	Policies []PolicyID // in order
}

// PolicyKind says what a Policy was made from, in the words of the API.
type PolicyKind string

const (
	KindNetworkPolicy             PolicyKind = "NetworkPolicy"
	KindGlobalNetworkPolicy       PolicyKind = "GlobalNetworkPolicy"
	KindStagedNetworkPolicy       PolicyKind = "StagedNetworkPolicy"
	KindStagedGlobalNetworkPolicy PolicyKind = "StagedGlobalNetworkPolicy"
	KindStagedKubernetesPolicy    PolicyKind = "StagedKubernetesNetworkPolicy"
	KindKubernetesNetworkPolicy   PolicyKind = "KubernetesNetworkPolicy"
	KindClusterNetworkPolicy      PolicyKind = "ClusterNetworkPolicy"
	KindProfile                   PolicyKind = "Profile"
)

// PolicyID names a policy or a profile.
type PolicyID struct {
	Kind      PolicyKind
	Namespace string
	Name      string
}

// String gives "kind/namespace/name", or "kind/name" for what has no namespace.
func (p PolicyID) String() string {
	if p.Namespace == "" {
		return string(p.Kind) + "/" + p.Name
	}
	return string(p.Kind) + "/" + p.Namespace + "/" + p.Name
}

// Policy is an ordered list of rules for each direction.
type Policy struct {
	ID      PolicyID
	Tier    string
	Staged  bool // shown in traces, never rendered and never part of a verdict
	In, Out []Rule
}

// Action is what a matching rule does, or a tier's default.
type Action uint8

const (
	Deny Action = iota // the zero value, on purpose
	Allow
	Pass
	Log
)

// RuleID is a stable id of a rule: a hash of its policy, direction, index and content. 0 is no rule.
type RuleID uint64

// Rule matches a packet if every clause that is set matches.
type Rule struct {
	ID     RuleID
	Action Action
	Match  Match
	Name   string // from metadata annotations, for people; may be ""
}

// Match is the clauses of a rule; the zero Match matches every packet. Ports match only TCP, UDP and SCTP packets.
type Match struct {
	IPVersion     uint8 // 4, 6, or 0 for both
	Proto         *uint8
	NotProto      *uint8
	ICMP, NotICMP *ICMP // of the family that Proto says (1 ICMP, 58 ICMPv6); a packet that is not ICMP: ICMP fails, NotICMP holds
	Src, Dst      Side
	HTTP          *HTTP    // matches nothing until an L7 enforcer is attached
	Unsupported   []string // clauses that could not be read, by field path; Lower fails them closed
}

// ICMP matches an ICMP or ICMPv6 type, and a code if Code is set.
type ICMP struct {
	Type uint8
	Code *uint8
}

// HTTP is an L7 clause: any of Methods, and any of Paths.
type HTTP struct {
	Methods []string
	Paths   []HTTPPath
}

// HTTPPath is an exact path or a prefix; one of the two is "".
type HTTPPath struct{ Exact, Prefix string }

// Side is the clauses about one end of a packet. Nets, Sets, Ports...: an empty list is no clause.
type Side struct {
	Nets, NotNets []netip.Prefix // address in any of Nets; in none of NotNets
	Sets          []SetID        // kind SetNet: the address is in every one
	NotSets       []SetID        // kind SetNet: the address is in none

	// Ports match if the port is in any of Ports, or (address, protocol, port) is in any of PortSets.
	Ports    []PortRange
	PortSets []SetID // kind SetPort: named ports
	// ... and in none of these.
	NotPorts    []PortRange
	NotPortSets []SetID

	// Services are sets of kind SetPort: (address, protocol, port) must be in every one.
	Services []SetID
}

// PortRange is First to Last, both included.
type PortRange struct{ First, Last uint16 }

// SetID names a set. Equal contents may have different ids; equal selectors have the same id.
type SetID string

// RouteKind is what a route is for.
type RouteKind uint8

const (
	RouteLocal     RouteKind = iota // to a local workload, through Iface
	RouteRemote                     // to a block of another node
	RouteBlackhole                  // a block of this node, so that addresses not in use go nowhere
)

// Encap is how a packet reaches another node.
type Encap uint8

const (
	EncapNone Encap = iota
	EncapIPIP
	EncapVXLAN
	EncapWireGuard
)

// Route is one route of this node's dataplane.
type Route struct {
	Dst     netip.Prefix // masked
	Kind    RouteKind
	Iface   string     // Local: the workload's interface; Remote: "" = whichever reaches NextHop
	NextHop netip.Addr // Remote: the other node's address, of Dst's family
	Encap   Encap
	Peer    string // Remote: the other node's name, a key of Peers
	Learned bool   // by BGP
}

// Peer is another node: its addresses, and what its tunnels need.
type Peer struct {
	Name         string
	Addrs        []netip.Addr // at most one per family
	VTEPMAC      MAC
	VTEPAddrs    []netip.Addr // of its VXLAN device
	WireGuardKey string       // base64 public key; "" = none
}

// Masquerade says which forwarded packets get this node's address as their source: from any of From, to none of Except,
// and leaving through an interface that is not a workload's.
type Masquerade struct {
	From   []netip.Prefix // pools with natOutgoing, sorted
	Except []netip.Prefix // all pools (and what the operator excludes), sorted
}
