package api

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Duration is written "90s" or "1h30m".
type Duration time.Duration

// UnmarshalJSON reads what time.ParseDuration does.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s is not a duration in quotes, like \"1m30s\"", b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration like 1m30s", s)
	}
	*d = Duration(v)
	return nil
}

// MarshalJSON gives the usual spelling.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

func (d Duration) String() string { return time.Duration(d).String() }

// DSCP is a code point of differentiated services: a number from 0 to 63 or a name like "AF11".
type DSCP string

// UnmarshalJSON reads a number or a string.
func (d *DSCP) UnmarshalJSON(b []byte) error {
	s, _, err := numOrString(b)
	if n, notNumber := strconv.ParseUint(s, 10, 8); notNumber == nil {
		s = strconv.FormatUint(n, 10) // "07" is 7
	}
	*d = DSCP(s)
	return err
}

// MarshalJSON gives a number where that is what it is.
func (d DSCP) MarshalJSON() ([]byte, error) {
	if n, err := strconv.ParseUint(string(d), 10, 8); err == nil {
		return json.Marshal(n)
	}
	return json.Marshal(string(d))
}

// FelixConfiguration is Calico's configuration of its agents: the one named "default" is for all nodes, "node.<name>" for
// one, and one with another name and a nodeSelector for the nodes that this selects.
type FelixConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              FelixConfigurationSpec `json:"spec,omitempty"`
}

// KubeControllersConfiguration is Calico's configuration of its controllers, and here of ours. There is one, named "default".
type KubeControllersConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              KubeControllersConfigurationSpec    `json:"spec,omitempty"`
	Status            *KubeControllersConfigurationStatus `json:"status,omitempty"`
}

type KubeControllersConfigurationSpec struct {
	LogSeverityScreen      string      `json:"logSeverityScreen,omitempty"`
	HealthChecks           string      `json:"healthChecks,omitempty"` // Enabled, Disabled
	EtcdV3CompactionPeriod *Duration   `json:"etcdV3CompactionPeriod,omitempty"`
	PrometheusMetricsPort  *uint16     `json:"prometheusMetricsPort,omitempty"` // 0 = none
	DebugProfilePort       *uint16     `json:"debugProfilePort,omitempty"`
	Controllers            Controllers `json:"controllers"`
}

// Controllers are those that run: nil = it does not.
type Controllers struct {
	Node             *NodeController            `json:"node,omitempty"`
	Policy           *ReconcilingController     `json:"policy,omitempty"`
	WorkloadEndpoint *ReconcilingController     `json:"workloadEndpoint,omitempty"`
	ServiceAccount   *ReconcilingController     `json:"serviceAccount,omitempty"`
	Namespace        *ReconcilingController     `json:"namespace,omitempty"`
	LoadBalancer     *LoadBalancerController    `json:"loadBalancer,omitempty"`
	PolicyMigration  *PolicyMigrationController `json:"policyMigration,omitempty"`
}

type ReconcilingController struct {
	ReconcilerPeriod *Duration `json:"reconcilerPeriod,omitempty"`
}

type NodeController struct {
	ReconcilerPeriod *Duration          `json:"reconcilerPeriod,omitempty"`
	SyncLabels       string             `json:"syncLabels,omitempty"` // Enabled, Disabled
	HostEndpoint     *AutoHostEndpoints `json:"hostEndpoint,omitempty"`
	LeakGracePeriod  *Duration          `json:"leakGracePeriod,omitempty"`
}

// AutoHostEndpoints says which host endpoints are made for each node.
type AutoHostEndpoints struct {
	AutoCreate                string                 `json:"autoCreate,omitempty"`                // Enabled, Disabled
	CreateDefaultHostEndpoint string                 `json:"createDefaultHostEndpoint,omitempty"` // Enabled, Disabled
	Templates                 []HostEndpointTemplate `json:"templates,omitempty"`
}

type HostEndpointTemplate struct {
	GenerateName     string            `json:"generateName,omitempty"`
	InterfaceCIDRs   []string          `json:"interfaceCIDRs,omitempty"`
	InterfacePattern string            `json:"interfacePattern,omitempty"` // a regular expression
	NodeSelector     string            `json:"nodeSelector,omitempty"`
	Labels           map[string]string `json:"labels,omitempty"`
}

type LoadBalancerController struct {
	AssignIPs string `json:"assignIPs,omitempty"` // AllServices, RequestedServicesOnly
}

type PolicyMigrationController struct {
	Enabled string `json:"enabled,omitempty"` // Enabled, Disabled
}

type KubeControllersConfigurationStatus struct {
	RunningConfig   *KubeControllersConfigurationSpec `json:"runningConfig,omitempty"`
	EnvironmentVars map[string]string                 `json:"environmentVars,omitempty"`
}

// ClusterInformation says what the cluster is. There is one, named "default".
type ClusterInformation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ClusterInformationSpec `json:"spec,omitempty"`
}

type ClusterInformationSpec struct {
	ClusterGUID    string `json:"clusterGUID,omitempty"`
	ClusterType    string `json:"clusterType,omitempty"` // "k8s,bgp"
	CalicoVersion  string `json:"calicoVersion,omitempty"`
	DatastoreReady *bool  `json:"datastoreReady,omitempty"`
	Variant        string `json:"variant,omitempty"`
}

// CalicoNodeStatus asks a node to write down how its BGP fares, in Status.
type CalicoNodeStatus struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              CalicoNodeStatusSpec    `json:"spec,omitempty"`
	Status            *CalicoNodeStatusStatus `json:"status,omitempty"`
}

type CalicoNodeStatusSpec struct {
	Node                string   `json:"node,omitempty"`
	Classes             []string `json:"classes,omitempty"` // Agent, BGP, Routes
	UpdatePeriodSeconds *uint32  `json:"updatePeriodSeconds,omitempty"`
}

type CalicoNodeStatusStatus struct {
	LastUpdated metav1.Time     `json:"lastUpdated,omitempty"`
	Agent       AgentStatus     `json:"agent,omitzero"`
	BGP         BGPStatus       `json:"bgp,omitzero"`
	Routes      BGPRoutesStatus `json:"routes,omitzero"`
}

type AgentStatus struct {
	BIRDV4 BGPDaemonStatus `json:"birdV4,omitzero"`
	BIRDV6 BGPDaemonStatus `json:"birdV6,omitzero"`
}

type BGPDaemonStatus struct {
	State                   string `json:"state,omitempty"` // Ready, NotReady
	Version                 string `json:"version,omitempty"`
	LastBootTime            string `json:"lastBootTime,omitempty"`
	LastReconfigurationTime string `json:"lastReconfigurationTime,omitempty"`
	RouterID                string `json:"routerID,omitempty"`
}

type BGPStatus struct {
	NumberEstablishedV4    int             `json:"numberEstablishedV4"`
	NumberEstablishedV6    int             `json:"numberEstablishedV6"`
	NumberNotEstablishedV4 int             `json:"numberNotEstablishedV4"`
	NumberNotEstablishedV6 int             `json:"numberNotEstablishedV6"`
	PeersV4                []BGPPeerStatus `json:"peersV4,omitempty"`
	PeersV6                []BGPPeerStatus `json:"peersV6,omitempty"`
}

type BGPPeerStatus struct {
	PeerIP string `json:"peerIP,omitempty"`
	Type   string `json:"type,omitempty"` // NodeMesh, NodePeer, GlobalPeer
	State  string `json:"state,omitempty"`
	Since  string `json:"since,omitempty"`
}

type BGPRoutesStatus struct {
	RoutesV4 []BGPRouteStatus `json:"routesV4,omitempty"`
	RoutesV6 []BGPRouteStatus `json:"routesV6,omitempty"`
}

type BGPRouteStatus struct {
	Type        string         `json:"type,omitempty"` // FIB, RIB
	Destination string         `json:"destination,omitempty"`
	Gateway     string         `json:"gateway,omitempty"`
	Interface   string         `json:"interface,omitempty"`
	LearnedFrom BGPRouteSource `json:"learnedFrom,omitzero"`
}

type BGPRouteSource struct {
	SourceType string `json:"sourceType,omitempty"` // Kernel, Static, Direct, NodeMesh, BGPPeer
	PeerIP     string `json:"peerIP,omitempty"`
}

func (*FelixConfiguration) GetKind() string           { return "FelixConfiguration" }
func (*KubeControllersConfiguration) GetKind() string { return "KubeControllersConfiguration" }
func (*ClusterInformation) GetKind() string           { return "ClusterInformation" }
func (*CalicoNodeStatus) GetKind() string             { return "CalicoNodeStatus" }
