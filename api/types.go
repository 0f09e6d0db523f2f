package api

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// GroupVersion is the apiVersion of Tortie's (and Calico's) own kinds.
const GroupVersion = "projectcalico.org/v3"

// Object is a resource of any kind.
type Object interface {
	metav1.Object
	GetKind() string // "NetworkPolicy"
}

// Key names a resource. Namespace is "" for kinds of cluster scope.
type Key struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// KeyOf returns the key of o.
func KeyOf(o Object) Key {
	return Key{Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
}

// String gives "Kind/namespace/name", or "Kind/name" for kinds of cluster scope.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + "/" + k.Name
	}
	return k.Kind + "/" + k.Namespace + "/" + k.Name
}

// Action of a policy rule.
type Action string

const (
	Allow Action = "Allow"
	Deny  Action = "Deny"
	Pass  Action = "Pass"
	Log   Action = "Log"
)

// PolicyType is a direction that a policy applies to.
type PolicyType string

const (
	Ingress PolicyType = "Ingress"
	Egress  PolicyType = "Egress"
)

// StagedAction is what a staged policy would do to its namesake.
type StagedAction string

const (
	StagedSet    StagedAction = "Set"
	StagedDelete StagedAction = "Delete"
	StagedLearn  StagedAction = "Learn"
	StagedIgnore StagedAction = "Ignore"
)

// Tier is an ordered group of policies.
type Tier struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              TierSpec          `json:"spec,omitempty"`
	Status            *ConditionsStatus `json:"status,omitempty"`
}

type TierSpec struct {
	Order         *float64 `json:"order,omitempty"`         // lower first; nil last
	DefaultAction *Action  `json:"defaultAction,omitempty"` // Deny or Pass, at the end of the tier
}

// NetworkPolicy applies to endpoints of its namespace.
type NetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              NetworkPolicySpec `json:"spec,omitempty"`
}

type NetworkPolicySpec struct {
	Tier                   string       `json:"tier,omitempty"`
	Order                  *float64     `json:"order,omitempty"`
	Ingress                []Rule       `json:"ingress,omitempty"`
	Egress                 []Rule       `json:"egress,omitempty"`
	Selector               string       `json:"selector,omitempty"`
	Types                  []PolicyType `json:"types,omitempty"`
	ServiceAccountSelector string       `json:"serviceAccountSelector,omitempty"`
	PerformanceHints       []string     `json:"performanceHints,omitempty"`
}

// GlobalNetworkPolicy applies to workloads of all namespaces and to host endpoints.
type GlobalNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              GlobalNetworkPolicySpec `json:"spec,omitempty"`
}

type GlobalNetworkPolicySpec struct {
	Tier                   string       `json:"tier,omitempty"`
	Order                  *float64     `json:"order,omitempty"`
	Ingress                []Rule       `json:"ingress,omitempty"`
	Egress                 []Rule       `json:"egress,omitempty"`
	Selector               string       `json:"selector,omitempty"`
	Types                  []PolicyType `json:"types,omitempty"`
	DoNotTrack             bool         `json:"doNotTrack,omitempty"`
	PreDNAT                bool         `json:"preDNAT,omitempty"`
	ApplyOnForward         bool         `json:"applyOnForward,omitempty"`
	ServiceAccountSelector string       `json:"serviceAccountSelector,omitempty"`
	NamespaceSelector      string       `json:"namespaceSelector,omitempty"`
	PerformanceHints       []string     `json:"performanceHints,omitempty"`
}

// StagedNetworkPolicy is a NetworkPolicy that is only watched.
type StagedNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              StagedNetworkPolicySpec `json:"spec,omitempty"`
}

type StagedNetworkPolicySpec struct {
	StagedAction      StagedAction `json:"stagedAction,omitempty"`
	NetworkPolicySpec `json:",inline"`
}

// StagedGlobalNetworkPolicy is a GlobalNetworkPolicy that is only watched.
type StagedGlobalNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              StagedGlobalNetworkPolicySpec `json:"spec,omitempty"`
}

type StagedGlobalNetworkPolicySpec struct {
	StagedAction            StagedAction `json:"stagedAction,omitempty"`
	GlobalNetworkPolicySpec `json:",inline"`
}

// StagedKubernetesNetworkPolicy is a Kubernetes NetworkPolicy that is only watched.
type StagedKubernetesNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              StagedKubernetesNetworkPolicySpec `json:"spec,omitempty"`
}

// StagedKubernetesNetworkPolicySpec has the fields of a networking.k8s.io/v1 NetworkPolicy's spec beside StagedAction.
type StagedKubernetesNetworkPolicySpec struct {
	StagedAction StagedAction            `json:"stagedAction,omitempty"`
	PodSelector  metav1.LabelSelector    `json:"podSelector,omitempty"`
	Ingress      []KubernetesIngressRule `json:"ingress,omitempty"`
	Egress       []KubernetesEgressRule  `json:"egress,omitempty"`
	PolicyTypes  []PolicyType            `json:"policyTypes,omitempty"`
}

type KubernetesIngressRule struct {
	Ports []KubernetesPort `json:"ports,omitempty"`
	From  []KubernetesPeer `json:"from,omitempty"`

	Unreadable []string `json:"-"` // as in Rule
}

type KubernetesEgressRule struct {
	Ports []KubernetesPort `json:"ports,omitempty"`
	To    []KubernetesPeer `json:"to,omitempty"`

	Unreadable []string `json:"-"` // as in Rule
}

type KubernetesPort struct {
	Protocol *Protocol `json:"protocol,omitempty"` // nil = TCP
	Port     *Port     `json:"port,omitempty"`     // a number or a name
	EndPort  *uint16   `json:"endPort,omitempty"`
}

type KubernetesPeer struct {
	PodSelector       *metav1.LabelSelector `json:"podSelector,omitempty"`
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	IPBlock           *KubernetesIPBlock    `json:"ipBlock,omitempty"`
}

type KubernetesIPBlock struct {
	CIDR   string   `json:"cidr"`
	Except []string `json:"except,omitempty"`
}

// Rule is one rule of a policy or a profile.
type Rule struct {
	Action      Action        `json:"action"`
	IPVersion   *int          `json:"ipVersion,omitempty"`
	Protocol    *Protocol     `json:"protocol,omitempty"`
	NotProtocol *Protocol     `json:"notProtocol,omitempty"`
	ICMP        *ICMPFields   `json:"icmp,omitempty"`
	NotICMP     *ICMPFields   `json:"notICMP,omitempty"`
	Source      EntityRule    `json:"source,omitzero"`
	Destination EntityRule    `json:"destination,omitzero"`
	HTTP        *HTTPMatch    `json:"http,omitempty"`
	Metadata    *RuleMetadata `json:"metadata,omitempty"`

	// Unreadable holds, as "path: reason", what a lenient decode did not understand or is not valid. The rule is
	// lowered: an Allow or Log matches nothing, a Deny or Pass denies what the readable clauses match.
	Unreadable []string `json:"-"`
}

type RuleMetadata struct {
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ICMPFields is an ICMP or ICMPv6 type, and a code.
type ICMPFields struct {
	Type *int `json:"type,omitempty"`
	Code *int `json:"code,omitempty"`
}

type HTTPMatch struct {
	Methods []string   `json:"methods,omitempty"`
	Paths   []HTTPPath `json:"paths,omitempty"`
}

// HTTPPath is an exact path or a prefix.
type HTTPPath struct {
	Exact  string `json:"exact,omitempty"`
	Prefix string `json:"prefix,omitempty"`
}

// EntityRule is what a rule says about one end of a flow.
type EntityRule struct {
	Nets              []string             `json:"nets,omitempty"`
	NotNets           []string             `json:"notNets,omitempty"`
	Selector          string               `json:"selector,omitempty"`
	NotSelector       string               `json:"notSelector,omitempty"`
	NamespaceSelector string               `json:"namespaceSelector,omitempty"`
	Ports             []Port               `json:"ports,omitempty"`
	NotPorts          []Port               `json:"notPorts,omitempty"`
	ServiceAccounts   *ServiceAccountMatch `json:"serviceAccounts,omitempty"`
	Services          *ServiceMatch        `json:"services,omitempty"`

	// NodeSelector means the addresses of the nodes that it selects. Rules that are made from a ClusterNetworkPolicy have
	// it, nobody can write it: no other selector ever selects a node.
	NodeSelector string `json:"-"`
}

type ServiceAccountMatch struct {
	Names    []string `json:"names,omitempty"`
	Selector string   `json:"selector,omitempty"`
}

type ServiceMatch struct {
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
}

// Profile gives rules and labels to the endpoints that name it.
type Profile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ProfileSpec `json:"spec,omitempty"`
}

type ProfileSpec struct {
	Ingress       []Rule            `json:"ingress,omitempty"`
	Egress        []Rule            `json:"egress,omitempty"`
	LabelsToApply map[string]string `json:"labelsToApply,omitempty"`
}

// NetworkSet is labelled prefixes in a namespace.
type NetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              NetworkSetSpec `json:"spec,omitempty"`
}

// GlobalNetworkSet is labelled prefixes of the whole cluster.
type GlobalNetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              NetworkSetSpec `json:"spec,omitempty"`
}

type NetworkSetSpec struct {
	Nets []string `json:"nets,omitempty"` // prefixes or addresses
	// Partial holds, as "path: reason", what a lenient decode could not read of the addresses: there may be more of them.
	Partial []string `json:"-"`
}

// HostEndpoint is an interface of a host.
type HostEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              HostEndpointSpec `json:"spec,omitempty"`
}

type HostEndpointSpec struct {
	Node          string         `json:"node,omitempty"`
	InterfaceName string         `json:"interfaceName,omitempty"` // or "*"
	ExpectedIPs   []string       `json:"expectedIPs,omitempty"`
	Profiles      []string       `json:"profiles,omitempty"`
	Ports         []EndpointPort `json:"ports,omitempty"`
	Partial       []string       `json:"-"` // as in NetworkSetSpec
}

// EndpointPort is a named port of a host endpoint or workload.
type EndpointPort struct {
	Name     string   `json:"name"`
	Protocol Protocol `json:"protocol"`
	Port     uint16   `json:"port"`
	HostPort uint16   `json:"hostPort,omitempty"`
	HostIP   string   `json:"hostIP,omitempty"`
}

// WorkloadEndpoint is one interface of a workload.
type WorkloadEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              WorkloadEndpointSpec `json:"spec,omitempty"`
}

type WorkloadEndpointSpec struct {
	Orchestrator               string         `json:"orchestrator,omitempty"`
	Workload                   string         `json:"workload,omitempty"`
	Node                       string         `json:"node,omitempty"`
	ContainerID                string         `json:"containerID,omitempty"`
	Pod                        string         `json:"pod,omitempty"`
	Endpoint                   string         `json:"endpoint,omitempty"` // interface inside the workload: "eth0"
	ServiceAccountName         string         `json:"serviceAccountName,omitempty"`
	IPNetworks                 []string       `json:"ipNetworks,omitempty"` // addresses with /32 and /128
	IPv4Gateway                string         `json:"ipv4Gateway,omitempty"`
	IPv6Gateway                string         `json:"ipv6Gateway,omitempty"`
	Profiles                   []string       `json:"profiles,omitempty"`
	InterfaceName              string         `json:"interfaceName,omitempty"` // on the host
	MAC                        string         `json:"mac,omitempty"`
	Ports                      []EndpointPort `json:"ports,omitempty"`
	AllowSpoofedSourcePrefixes []string       `json:"allowSpoofedSourcePrefixes,omitempty"`
	IPNATs                     []IPNAT        `json:"ipNATs,omitempty"`
	QoSControls                *QoSControls   `json:"qosControls,omitempty"`
	Partial                    []string       `json:"-"` // as in NetworkSetSpec
	Foreign                    []string       `json:"-"` // of IPNetworks: in a pool that did not give them; somebody else routes them
}

// IPNAT is a floating address: what is sent to ExternalIP arrives at InternalIP. Of a pod InternalIP is empty: it is the pod's
// address of the same family.
type IPNAT struct {
	InternalIP string `json:"internalIP"`
	ExternalIP string `json:"externalIP"`
}

// QoSControls limit an endpoint, in bits, packets and connections (0 = no limit), and mark what leaves the cluster.
type QoSControls struct {
	IngressBandwidth      int64 `json:"ingressBandwidth,omitempty"`
	EgressBandwidth       int64 `json:"egressBandwidth,omitempty"`
	IngressBurst          int64 `json:"ingressBurst,omitempty"`
	EgressBurst           int64 `json:"egressBurst,omitempty"`
	IngressPeakrate       int64 `json:"ingressPeakrate,omitempty"`
	EgressPeakrate        int64 `json:"egressPeakrate,omitempty"`
	IngressMinburst       int64 `json:"ingressMinburst,omitempty"`
	EgressMinburst        int64 `json:"egressMinburst,omitempty"`
	IngressPacketRate     int64 `json:"ingressPacketRate,omitempty"`
	EgressPacketRate      int64 `json:"egressPacketRate,omitempty"`
	IngressPacketBurst    int64 `json:"ingressPacketBurst,omitempty"`
	EgressPacketBurst     int64 `json:"egressPacketBurst,omitempty"`
	IngressMaxConnections int64 `json:"ingressMaxConnections,omitempty"`
	EgressMaxConnections  int64 `json:"egressMaxConnections,omitempty"`
	DSCP                  *DSCP `json:"dscp,omitempty"`
}

// Node is one host of the cluster.
type Node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              NodeSpec   `json:"spec,omitempty"`
	Status            NodeStatus `json:"status,omitzero"`
}

type NodeSpec struct {
	BGP                  *NodeBGPSpec       `json:"bgp,omitempty"`
	IPv4VXLANTunnelAddr  string             `json:"ipv4VXLANTunnelAddr,omitempty"`
	VXLANTunnelMACAddr   string             `json:"vxlanTunnelMACAddr,omitempty"`
	IPv6VXLANTunnelAddr  string             `json:"ipv6VXLANTunnelAddr,omitempty"`
	VXLANTunnelMACAddrV6 string             `json:"vxlanTunnelMACAddrV6,omitempty"`
	Wireguard            *NodeWireguardSpec `json:"wireguard,omitempty"`
	OrchRefs             []OrchRef          `json:"orchRefs,omitempty"`
	Addresses            []NodeAddress      `json:"addresses,omitempty"`
	Interfaces           []NodeInterface    `json:"interfaces,omitempty"`
}

// OrchRef is what an orchestrator calls the node.
type OrchRef struct {
	NodeName     string `json:"nodeName,omitempty"`
	Orchestrator string `json:"orchestrator"` // "k8s"
}

type NodeInterface struct {
	Name      string   `json:"name,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

// NodeStatus is what the agent of the node says.
type NodeStatus struct {
	WireguardPublicKey   string   `json:"wireguardPublicKey,omitempty"`
	WireguardPublicKeyV6 string   `json:"wireguardPublicKeyV6,omitempty"`
	PodCIDRs             []string `json:"podCIDRs,omitempty"`
}

// NodeBGPSpec holds the node's addresses with the prefix length of their networks ("192.0.2.1/24"), used for routing
// also without BGP.
type NodeBGPSpec struct {
	ASNumber                *ASNumber `json:"asNumber,omitempty"`
	IPv4Address             string    `json:"ipv4Address,omitempty"`
	IPv6Address             string    `json:"ipv6Address,omitempty"`
	IPv4IPIPTunnelAddr      string    `json:"ipv4IPIPTunnelAddr,omitempty"`
	RouteReflectorClusterID string    `json:"routeReflectorClusterID,omitempty"`
}

type NodeWireguardSpec struct {
	InterfaceIPv4Address string `json:"interfaceIPv4Address,omitempty"`
	InterfaceIPv6Address string `json:"interfaceIPv6Address,omitempty"`
}

type NodeAddress struct {
	Address string `json:"address"`
	Type    string `json:"type,omitempty"`
}

// IPPool is a range that workloads' addresses come from.
type IPPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              IPPoolSpec        `json:"spec,omitempty"`
	Status            *ConditionsStatus `json:"status,omitempty"`
}

// ConditionsStatus is the status of a kind that has nothing but conditions.
type ConditionsStatus struct {
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

type IPPoolSpec struct {
	CIDR              string   `json:"cidr"`
	VXLANMode         string   `json:"vxlanMode,omitempty"` // Never, Always, CrossSubnet
	IPIPMode          string   `json:"ipipMode,omitempty"`
	NATOutgoing       bool     `json:"natOutgoing,omitempty"`
	Disabled          bool     `json:"disabled,omitempty"`
	DisableBGPExport  bool     `json:"disableBGPExport,omitempty"`
	BlockSize         int      `json:"blockSize,omitempty"`
	NodeSelector      string   `json:"nodeSelector,omitempty"`
	NamespaceSelector string   `json:"namespaceSelector,omitempty"`
	AllowedUses       []string `json:"allowedUses,omitempty"`
	AssignmentMode    string   `json:"assignmentMode,omitempty"`
}

// OnlyTunnels reports whether a pool gives addresses to tunnels alone, and none to workloads or services: those of
// workloads in it are another program's to give and to route.
func (s *IPPoolSpec) OnlyTunnels() bool {
	return len(s.AllowedUses) > 0 && !slices.ContainsFunc(s.AllowedUses, func(use string) bool { return use != "Tunnel" })
}

// BlockAffinity says that a block of addresses belongs to a node.
type BlockAffinity struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              BlockAffinitySpec `json:"spec,omitempty"`
}

type BlockAffinitySpec struct {
	State   string `json:"state"` // pending, confirmed, pendingDeletion
	Node    string `json:"node"`
	Type    string `json:"type,omitempty"` // host (default) or virtual
	CIDR    string `json:"cidr"`
	Deleted string `json:"deleted,omitempty"` // "true" or "false"
}

// EndpointSlice is the part of discovery.k8s.io/v1 EndpointSlice that service matches need.
type EndpointSlice struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"` // label kubernetes.io/service-name names the service
	AddressType       string                      `json:"addressType,omitempty"`
	Endpoints         []SliceEndpoint             `json:"endpoints,omitempty"`
	Ports             []SlicePort                 `json:"ports,omitempty"`
	Partial           []string                    `json:"-"` // as in NetworkSetSpec, of addresses and ports
}

type SliceEndpoint struct {
	Addresses  []string         `json:"addresses,omitempty"`
	Conditions *SliceConditions `json:"conditions,omitempty"`
}

type SliceConditions struct {
	Ready       *bool `json:"ready,omitempty"`
	Serving     *bool `json:"serving,omitempty"`
	Terminating *bool `json:"terminating,omitempty"`
}

type SlicePort struct {
	Name     string    `json:"name,omitempty"`
	Protocol *Protocol `json:"protocol,omitempty"` // nil = TCP
	Port     *uint16   `json:"port,omitempty"`     // nil = all
}

func (*Tier) GetKind() string                          { return "Tier" }
func (*NetworkPolicy) GetKind() string                 { return "NetworkPolicy" }
func (*GlobalNetworkPolicy) GetKind() string           { return "GlobalNetworkPolicy" }
func (*StagedNetworkPolicy) GetKind() string           { return "StagedNetworkPolicy" }
func (*StagedGlobalNetworkPolicy) GetKind() string     { return "StagedGlobalNetworkPolicy" }
func (*StagedKubernetesNetworkPolicy) GetKind() string { return "StagedKubernetesNetworkPolicy" }
func (*Profile) GetKind() string                       { return "Profile" }
func (*NetworkSet) GetKind() string                    { return "NetworkSet" }
func (*GlobalNetworkSet) GetKind() string              { return "GlobalNetworkSet" }
func (*HostEndpoint) GetKind() string                  { return "HostEndpoint" }
func (*WorkloadEndpoint) GetKind() string              { return "WorkloadEndpoint" }
func (*Node) GetKind() string                          { return "Node" }
func (*IPPool) GetKind() string                        { return "IPPool" }
func (*BlockAffinity) GetKind() string                 { return "BlockAffinity" }
func (*EndpointSlice) GetKind() string                 { return "EndpointSlice" }
