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
	Name      string       `json:",omitempty"`
	Addresses []netip.Addr `json:",omitempty"` // the node's own addresses, as other nodes know them; at most one per family
	MTU       int          `json:",omitempty"` // of workload interfaces, in bytes; 0 = the driver's default (1500)

	// WorkloadPrefixes are the beginnings of the names of workload interfaces ("tort"). An interface whose name
	// begins so and which is no endpoint's is Unknown: its traffic is dropped.
	WorkloadPrefixes []string `json:",omitempty"`

	FailsafeIn, FailsafeOut []Failsafe     `json:",omitempty"`
	EndpointToHost          EndpointToHost `json:",omitempty"`
	ServiceNAT              ServiceNAT     `json:",omitempty"`
	CutEstablished          bool           `json:",omitempty"` // a changed policy cuts flows that it no longer allows
	VXLANPort               uint16         `json:",omitempty"` // 0 = 4789. Outer VXLAN packets are judged by step 2 of Evaluate
	AllowEncapFromWorkloads bool           `json:",omitempty"` // workloads may send IPIP and VXLAN of their own
}

// Failsafe is traffic between the host itself and a host interface which no policy may stop. In FailsafeIn, Net is the
// remote (source) prefix; in FailsafeOut the remote (destination) one. The zero Net means anywhere.
type Failsafe struct {
	Proto uint8        `json:",omitempty"` // IP protocol number
	Port  uint16       `json:",omitempty"`
	Net   netip.Prefix `json:",omitzero"`
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
	Kind      EndpointKind `json:",omitempty"`
	Sandbox   string       `json:",omitempty"` // workload: sandbox (container) id; host: name of the HostEndpoint resource
	Interface string       `json:",omitempty"` // workload: interface inside the sandbox (eth0); host: name of the host interface
}

// EndpointKind is workload or host.
type EndpointKind uint8

const (
	Workload EndpointKind = iota
	HostInterface
)

// Endpoint is one interface of this node that policy is enforced on.
type Endpoint struct {
	ID    EndpointID `json:",omitzero"`
	Name  string     `json:",omitempty"` // for people and traces: "namespace/name" of the workload, or the host endpoint's name
	Iface string     `json:",omitempty"` // name of the interface in the host's network namespace

	// Of workloads only.
	MAC            MAC            `json:",omitzero"`  // of the workload's side; zero = not checked
	Addrs          []netip.Addr   `json:",omitempty"` // sorted
	SourcePrefixes []netip.Prefix `json:",omitempty"` // further sources that it may use, sorted
	Floating       []Floating     `json:",omitempty"` // further addresses that it can be reached by, sorted by External

	Policy   EndpointPolicy `json:"-"`          // EncodeState keeps its lists interned
	Profiles []PolicyID     `json:",omitempty"` // of Kind KindProfile, in order; for workload stages and the Normal stage of hosts

	Generation uint64 `json:",omitempty"` // of the resources that this value was made from; status speaks of it
	Degraded   string `json:",omitempty"` // why the endpoint is on a deny stand-in; "" if it is not
}

// Floating is an address that stands for one of a workload's own. Whatever is sent to External, of any protocol, goes to
// Internal: it is translated before all policy but the untracked one of hosts, where packets come in and where the host
// sends its own, so that policy sees Internal as the destination and External as OrigDst. What the workload sends to itself
// by it comes from External; nothing else gets it as its source. No two endpoints of a State have the same External, which
// is no address of the node, and both are of one family.
type Floating struct{ External, Internal netip.Addr }

// String gives "external>internal".
func (f Floating) String() string { return f.External.String() + ">" + f.Internal.String() }

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
	Name     string     `json:",omitempty"`
	Default  Action     // of the end of the tier: Deny or Pass; counts only if an enforced policy is in Policies
	Order    float64    `json:"-"`          // for people; the position in the list is what counts
	Staged   bool       `json:",omitempty"` // true if every policy in Policies is staged
	Policies []PolicyID `json:",omitempty"` // in order
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
	Kind      PolicyKind `json:",omitempty"`
	Namespace string     `json:",omitempty"`
	Name      string     `json:",omitempty"`
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
	ID      PolicyID `json:",omitzero"`
	Tier    string   `json:",omitempty"`
	Staged  bool     `json:",omitempty"` // shown in traces, never rendered and never part of a verdict
	In, Out []Rule   `json:",omitempty"`
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
	ID     RuleID `json:",omitempty"`
	Action Action
	Match  Match  `json:",omitzero"`
	Name   string `json:",omitempty"` // from metadata annotations, for people; may be ""
}

// Match is the clauses of a rule; the zero Match matches every packet. Ports match only TCP, UDP and SCTP packets.
type Match struct {
	IPVersion     uint8    `json:",omitempty"` // 4, 6, or 0 for both
	Proto         *uint8   `json:",omitempty"`
	NotProto      *uint8   `json:",omitempty"`
	ICMP, NotICMP *ICMP    `json:",omitempty"` // of the family that Proto says (1 ICMP, 58 ICMPv6); a packet that is not ICMP: ICMP fails, NotICMP holds
	Src, Dst      Side     `json:",omitzero"`
	HTTP          *HTTP    `json:",omitempty"` // matches nothing until an L7 enforcer is attached
	Unsupported   []string `json:",omitempty"` // clauses that could not be read, by field path; Lower fails them closed
}

// ICMP matches an ICMP or ICMPv6 type, and a code if Code is set.
type ICMP struct {
	Type uint8
	Code *uint8 `json:",omitempty"`
}

// HTTP is an L7 clause: any of Methods, and any of Paths.
type HTTP struct {
	Methods []string   `json:",omitempty"`
	Paths   []HTTPPath `json:",omitempty"`
}

// HTTPPath is an exact path or a prefix; one of the two is "".
type HTTPPath struct {
	Exact, Prefix string `json:",omitempty"`
}

// Side is the clauses about one end of a packet. Nets, Sets, Ports...: an empty list is no clause.
type Side struct {
	Nets, NotNets []netip.Prefix `json:",omitempty"` // address in any of Nets; in none of NotNets
	Sets          []SetID        `json:",omitempty"` // kind SetNet: the address is in every one
	NotSets       []SetID        `json:",omitempty"` // kind SetNet: the address is in none

	// Ports match if the port is in any of Ports, or (address, protocol, port) is in any of PortSets.
	Ports    []PortRange `json:",omitempty"`
	PortSets []SetID     `json:",omitempty"` // kind SetPort: named ports
	// ... and in none of these.
	NotPorts    []PortRange `json:",omitempty"`
	NotPortSets []SetID     `json:",omitempty"`

	// Services are sets of kind SetPort: (address, protocol, port) must be in every one.
	Services []SetID `json:",omitempty"`
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
	Dst     netip.Prefix `json:",omitzero"` // masked
	Kind    RouteKind    `json:",omitempty"`
	Iface   string       `json:",omitempty"` // Local: the workload's interface; Remote: "" = whichever reaches NextHop
	NextHop netip.Addr   `json:",omitzero"`  // Remote: the other node's address, of Dst's family
	Encap   Encap        `json:",omitempty"`
	Peer    string       `json:",omitempty"` // Remote: the other node's name, a key of Peers
	Learned bool         `json:",omitempty"` // by BGP
}

// Peer is another node: its addresses, and what its tunnels need.
type Peer struct {
	Name         string       `json:",omitempty"`
	Addrs        []netip.Addr `json:",omitempty"` // at most one per family
	VTEPMAC      MAC          `json:",omitzero"`
	VTEPAddrs    []netip.Addr `json:",omitempty"` // of its VXLAN device
	WireGuardKey string       `json:",omitempty"` // base64 public key; "" = none
}

// Masquerade says which forwarded packets get this node's address as their source: from any of From, to none of Except,
// and leaving through an interface that is not a workload's.
type Masquerade struct {
	From   []netip.Prefix `json:",omitempty"` // pools with natOutgoing, sorted
	Except []netip.Prefix `json:",omitempty"` // all pools (and what the operator excludes), sorted
}
