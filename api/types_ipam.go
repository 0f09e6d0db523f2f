package api

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"net/netip"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// IPAMBlock is a range of addresses and who has them. It is what address management compares and swaps.
type IPAMBlock struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              IPAMBlockSpec `json:"spec,omitempty"`
}

// IPAMBlockSpec speaks of addresses by their ordinals: 0 is the first of CIDR.
type IPAMBlockSpec struct {
	CIDR              string                `json:"cidr"`
	Affinity          string                `json:"affinity,omitempty"` // "host:<node>" or "virtual:<name>"
	AffinityClaimTime *metav1.Time          `json:"affinityClaimTime,omitempty"`
	StrictAffinity    bool                  `json:"strictAffinity"` // of older releases, without meaning
	Allocations       Allocations           `json:"allocations"`
	Unallocated       []int                 `json:"unallocated"` // free ordinals, the next to give first
	Attributes        []AllocationAttribute `json:"attributes"`
	// SequenceNumber counts the writes; SequenceNumberForAllocation has, by ordinal, that of the write that allocated
	// it. With metadata.uid it names one allocation of an address.
	SequenceNumber              uint64            `json:"sequenceNumber"`
	SequenceNumberForAllocation map[string]uint64 `json:"sequenceNumberForAllocation,omitempty"`
	Deleted                     bool              `json:"deleted,omitempty"`
}

// Allocations has for each ordinal an index of attributes, or Free, which is null in JSON.
type Allocations []int

// Free is the value of an ordinal that nobody has.
const Free = -1

// MarshalJSON implements json.Marshaler.
func (a Allocations) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 2+5*len(a))
	b = append(b, '[')
	for i, n := range a {
		if i > 0 {
			b = append(b, ',')
		}
		if n == Free {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendInt(b, int64(n), 10)
		}
	}
	return append(b, ']'), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (a *Allocations) UnmarshalJSON(data []byte) error {
	var items []*int
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&items); err != nil {
		return fmt.Errorf("must be a list of whole numbers and nulls: %w", err)
	}
	*a = make(Allocations, len(items))
	for i, n := range items {
		switch {
		case n == nil:
			(*a)[i] = Free
		case *n < 0:
			return fmt.Errorf("%d is no index of attributes", *n)
		default:
			(*a)[i] = *n
		}
	}
	return nil
}

// AllocationAttribute says whose an address is, or, with ReleasedAt alone, that nobody may have it for a while.
type AllocationAttribute struct {
	HandleID   string            `json:"handle_id,omitempty"`
	Secondary  map[string]string `json:"secondary,omitempty"` // see Owner
	Alternate  map[string]string `json:"alternate,omitempty"` // of a virtual machine that moves: the other owner
	ReleasedAt *metav1.Time      `json:"releasedAt,omitempty"`
}

// Owner is what AllocationAttribute.Secondary says.
type Owner struct {
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	UID       string `json:"uid,omitempty"`  // of the pod: what its labels are found by
	Node      string `json:"node,omitempty"` // that the address is used on
	Type      string `json:"type,omitempty"` // "" for workloads: "vxlanTunnelAddress", ...
}

// Keys of AllocationAttribute.Secondary. A UUID is kept in 22 characters instead of 36.
const (
	attrNamespace = "namespace"
	attrPod       = "pod"
	attrNode      = "node"
	attrType      = "type"
	attrUID       = "uid"
	attrShortUID  = "u"
)

// Attributes gives o as it is kept in a block with that affinity, whose node needs no mention.
func (o Owner) Attributes(affinity string) map[string]string {
	m := map[string]string{}
	set := func(key, value string) {
		if value != "" {
			m[key] = value
		}
	}
	set(attrNamespace, o.Namespace)
	set(attrPod, o.Pod)
	set(attrType, o.Type)
	if affinity != "host:"+o.Node {
		set(attrNode, o.Node)
	}
	if raw, err := hex.DecodeString(strings.ReplaceAll(o.UID, "-", "")); err == nil && len(raw) == 16 && dashed(raw) == o.UID {
		set(attrShortUID, base64.RawURLEncoding.EncodeToString(raw))
	} else {
		set(attrUID, o.UID)
	}
	return m
}

func dashed(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// OwnerOf reads the attributes of an allocation in a block with that affinity.
func OwnerOf(attributes map[string]string, affinity string) Owner {
	o := Owner{Namespace: attributes[attrNamespace], Pod: attributes[attrPod], Type: attributes[attrType],
		UID: attributes[attrUID], Node: attributes[attrNode]}
	if node, ok := strings.CutPrefix(affinity, "host:"); ok && o.Node == "" {
		o.Node = node
	}
	if raw, err := base64.RawURLEncoding.DecodeString(attributes[attrShortUID]); err == nil && len(raw) == 16 {
		o.UID = dashed(raw)
	}
	return o
}

// Owners gives the addresses of a block that are somebody's.
func (b *IPAMBlock) Owners() iter.Seq2[netip.Addr, Owner] {
	return func(yield func(netip.Addr, Owner) bool) {
		p, err := parsePrefix(b.Spec.CIDR)
		if err != nil {
			return
		}
		a := p.Addr()
		for _, at := range b.Spec.Allocations {
			if at >= 0 && at < len(b.Spec.Attributes) && b.Spec.Attributes[at].ReleasedAt == nil {
				if !yield(a, OwnerOf(b.Spec.Attributes[at].Secondary, b.Spec.Affinity)) {
					return
				}
			}
			a = a.Next()
		}
	}
}

// IPAMHandle says in which blocks a handle has addresses. Only those outside of the blocks of a node have one: all
// others are found in the blocks themselves.
type IPAMHandle struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              IPAMHandleSpec `json:"spec,omitempty"`
}

type IPAMHandleSpec struct {
	HandleID string         `json:"handleID"`
	Block    map[string]int `json:"block"` // number of addresses by the CIDR of the block
	Deleted  bool           `json:"deleted,omitempty"`
}

// IPAMConfiguration is how addresses are managed; there is one, "default".
type IPAMConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              IPAMConfigurationSpec `json:"spec,omitempty"`
}

type IPAMConfigurationSpec struct {
	StrictAffinity     bool  `json:"strictAffinity"`               // no addresses of blocks of other nodes
	AutoAllocateBlocks *bool `json:"autoAllocateBlocks,omitempty"` // nodes take blocks when they need them; true
	MaxBlocksPerHost   int   `json:"maxBlocksPerHost,omitempty"`   // 0 = 20
	IPCooldownSeconds  int   `json:"ipCooldownSeconds,omitempty"`  // before a released address is given again
	// KubeVirtVMAddressPersistence is Enabled or Disabled.
	KubeVirtVMAddressPersistence string `json:"kubeVirtVMAddressPersistence,omitempty"`
}

// IPReservation keeps addresses from being given, unless somebody asks for one of them.
type IPReservation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              IPReservationSpec `json:"spec,omitempty"`
}

type IPReservationSpec struct {
	ReservedCIDRs []string `json:"reservedCIDRs,omitempty"` // prefixes or addresses
}

func (*IPAMBlock) GetKind() string         { return "IPAMBlock" }
func (*IPAMHandle) GetKind() string        { return "IPAMHandle" }
func (*IPAMConfiguration) GetKind() string { return "IPAMConfiguration" }
func (*IPReservation) GetKind() string     { return "IPReservation" }
