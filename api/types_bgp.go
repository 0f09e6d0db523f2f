package api

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ASNumber is the number of an autonomous system. It is read as a number, as a number in a string, or in dotted notation
// ("1.10" = 65546), and written as a number.
type ASNumber uint32

// UnmarshalJSON reads all three forms.
func (n *ASNumber) UnmarshalJSON(b []byte) error {
	s, quoted, err := numOrString(b)
	if err != nil {
		return err
	}
	high, low, dotted := strings.Cut(s, ".")
	if dotted && !quoted { // 1.10 would be 1.1 by now
		return fmt.Errorf("AS number %s has a dot; put it in quotes", b)
	}
	if !dotted {
		high, low = "0", s
	}
	a, err1 := strconv.ParseUint(high, 10, 16)
	l, err2 := strconv.ParseUint(low, 10, 32)
	if err1 != nil || err2 != nil || dotted && l > math.MaxUint16 {
		return fmt.Errorf("AS number %s is neither a number from 0 to 4294967295 nor two of up to 65535 with a dot between", b)
	}
	*n = ASNumber(a<<16 + l)
	return nil
}

// MarshalJSON gives a number.
func (n ASNumber) MarshalJSON() ([]byte, error) { return json.Marshal(uint32(n)) }

// BGPConfiguration is how nodes speak BGP: the one named "default" is for all, "node.<name>" for one.
type BGPConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              BGPConfigurationSpec `json:"spec,omitempty"`
}

type BGPConfigurationSpec struct {
	LogSeverityScreen              string                `json:"logSeverityScreen,omitempty"`
	NodeToNodeMeshEnabled          *bool                 `json:"nodeToNodeMeshEnabled,omitempty"` // nil = true
	ASNumber                       *ASNumber             `json:"asNumber,omitempty"`              // nil = 64512
	ServiceLoadBalancerIPs         []ServiceIPBlock      `json:"serviceLoadBalancerIPs,omitempty"`
	ServiceExternalIPs             []ServiceIPBlock      `json:"serviceExternalIPs,omitempty"`
	ServiceClusterIPs              []ServiceIPBlock      `json:"serviceClusterIPs,omitempty"`
	ServiceLoadBalancerAggregation string                `json:"serviceLoadBalancerAggregation,omitempty"` // Enabled, Disabled
	Communities                    []Community           `json:"communities,omitempty"`
	PrefixAdvertisements           []PrefixAdvertisement `json:"prefixAdvertisements,omitempty"`
	ListenPort                     uint16                `json:"listenPort,omitempty"` // 0 = 179
	BindMode                       string                `json:"bindMode,omitempty"`   // None, NodeIP
	NodeMeshPassword               *BGPPassword          `json:"nodeMeshPassword,omitempty"`
	NodeMeshMaxRestartTime         *Duration             `json:"nodeMeshMaxRestartTime,omitempty"`
	IgnoredInterfaces              []string              `json:"ignoredInterfaces,omitempty"`
	LocalWorkloadPeeringIPV4       string                `json:"localWorkloadPeeringIPV4,omitempty"`
	LocalWorkloadPeeringIPV6       string                `json:"localWorkloadPeeringIPV6,omitempty"`
	ProgramClusterRoutes           string                `json:"programClusterRoutes,omitempty"`
}

// ServiceIPBlock is a range of service addresses that is advertised.
type ServiceIPBlock struct {
	CIDR string `json:"cidr,omitempty"`
}

// Community gives a BGP community a name.
type Community struct {
	Name  string `json:"name,omitempty"`
	Value string `json:"value,omitempty"` // 16:16 or 32:32:32 bits
}

type PrefixAdvertisement struct {
	CIDR        string   `json:"cidr,omitempty"`
	Communities []string `json:"communities,omitempty"` // values, or names of Communities
}

type BGPPassword struct {
	SecretKeyRef *SecretKeyRef `json:"secretKeyRef,omitempty"`
}

// SecretKeyRef is a key of a Kubernetes Secret.
type SecretKeyRef struct {
	Name     string `json:"name,omitempty"`
	Key      string `json:"key"`
	Optional *bool  `json:"optional,omitempty"`
}

// BGPPeer has nodes peer with a router, with other nodes, or with workloads of their own.
type BGPPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              BGPPeerSpec `json:"spec,omitempty"`
}

type BGPPeerSpec struct {
	Node                     string       `json:"node,omitempty"`
	NodeSelector             string       `json:"nodeSelector,omitempty"`
	PeerIP                   string       `json:"peerIP,omitempty"` // an address, "192.0.2.1:1179" or "[2001:db8::1]:1179"
	ASNumber                 *ASNumber    `json:"asNumber,omitempty"`
	LocalASNumber            *ASNumber    `json:"localASNumber,omitempty"`
	PeerSelector             string       `json:"peerSelector,omitempty"`
	LocalWorkloadSelector    string       `json:"localWorkloadSelector,omitempty"`
	KeepOriginalNextHop      bool         `json:"keepOriginalNextHop,omitempty"`
	NextHopMode              string       `json:"nextHopMode,omitempty"` // Auto, Self, Keep
	Password                 *BGPPassword `json:"password,omitempty"`
	SourceAddress            string       `json:"sourceAddress,omitempty"` // UseNodeIP, None
	MaxRestartTime           *Duration    `json:"maxRestartTime,omitempty"`
	KeepaliveTime            *Duration    `json:"keepaliveTime,omitempty"`
	NumAllowedLocalASNumbers *int32       `json:"numAllowedLocalASNumbers,omitempty"`
	TTLSecurity              *uint8       `json:"ttlSecurity,omitempty"`
	ReachableBy              string       `json:"reachableBy,omitempty"`
	Filters                  []string     `json:"filters,omitempty"`
	ReversePeering           string       `json:"reversePeering,omitempty"` // Auto, Manual
}

// BGPFilter says which routes peers that name it send and take.
type BGPFilter struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              BGPFilterSpec `json:"spec,omitempty"`
}

type BGPFilterSpec struct {
	ExportV4 []BGPFilterRule `json:"exportV4,omitempty"`
	ImportV4 []BGPFilterRule `json:"importV4,omitempty"`
	ExportV6 []BGPFilterRule `json:"exportV6,omitempty"`
	ImportV6 []BGPFilterRule `json:"importV6,omitempty"`
}

// BGPFilterRule is a rule of a BGPFilter. The first one that matches decides; without one a route is accepted.
type BGPFilterRule struct {
	CIDR          string               `json:"cidr,omitempty"`
	PrefixLength  *PrefixLengthRange   `json:"prefixLength,omitempty"`
	MatchOperator string               `json:"matchOperator,omitempty"` // Equal, NotEqual, In, NotIn
	Source        string               `json:"source,omitempty"`        // RemotePeers
	Interface     string               `json:"interface,omitempty"`     // "*" stands for any text
	PeerType      string               `json:"peerType,omitempty"`      // eBGP, iBGP
	Communities   *CommunityMatch      `json:"communities,omitempty"`
	ASPathPrefix  []ASNumber           `json:"asPathPrefix,omitempty"`
	Priority      *int32               `json:"priority,omitempty"`
	Action        string               `json:"action"` // Accept, Reject
	Operations    []BGPFilterOperation `json:"operations,omitempty"`

	// Unreadable holds, as "path: reason", what a lenient decode did not understand or is not valid. Such a rule has
	// become one that rejects everything.
	Unreadable []string `json:"-"`
}

// PrefixLengthRange bounds the lengths of prefixes; nil is no bound.
type PrefixLengthRange struct {
	Min *int32 `json:"min,omitempty"`
	Max *int32 `json:"max,omitempty"`
}

type CommunityMatch struct {
	Values []string `json:"values,omitempty"`
}

// BGPFilterOperation changes a route that is accepted. Exactly one field is given.
type BGPFilterOperation struct {
	AddCommunity  *AddCommunity  `json:"addCommunity,omitempty"`
	PrependASPath *PrependASPath `json:"prependASPath,omitempty"`
	SetPriority   *SetPriority   `json:"setPriority,omitempty"`
}

type AddCommunity struct {
	Value string `json:"value"`
}

type PrependASPath struct {
	Prefix []ASNumber `json:"prefix"`
}

type SetPriority struct {
	Value int32 `json:"value"`
}

func (*BGPConfiguration) GetKind() string { return "BGPConfiguration" }
func (*BGPPeer) GetKind() string          { return "BGPPeer" }
func (*BGPFilter) GetKind() string        { return "BGPFilter" }
