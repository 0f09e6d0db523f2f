package api

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// EndpointSliceVersion is the apiVersion of EndpointSlice, which is a kind of Kubernetes' own.
const EndpointSliceVersion = "discovery.k8s.io/v1"

// KindInfo describes a kind.
type KindInfo struct {
	Kind       string   // "NetworkPolicy"
	Singular   string   // "networkpolicy"
	Plural     string   // "networkpolicies"
	Short      []string // other names that users may write: "np", "cnp"
	Namespaced bool
	APIVersion string
	New        func() Object // an empty object that says its kind and apiVersion
}

const (
	namespaced = true
	cluster    = false
)

// The table of kinds and the index of their names are never written to.
var (
	kinds = []KindInfo{
		kind(func() Object { return &Tier{} }, cluster, "tiers"),
		kind(func() Object { return &NetworkPolicy{} }, namespaced, "networkpolicies",
			"np", "cnp", "caliconetworkpolicy", "caliconetworkpolicies"),
		kind(func() Object { return &GlobalNetworkPolicy{} }, cluster, "globalnetworkpolicies",
			"gnp", "cgnp", "calicoglobalnetworkpolicy", "calicoglobalnetworkpolicies"),
		kind(func() Object { return &StagedNetworkPolicy{} }, namespaced, "stagednetworkpolicies", "snp", "scnp"),
		kind(func() Object { return &StagedGlobalNetworkPolicy{} }, cluster, "stagedglobalnetworkpolicies", "sgnp"),
		kind(func() Object { return &StagedKubernetesNetworkPolicy{} }, namespaced, "stagedkubernetesnetworkpolicies", "sknp"),
		kind(func() Object { return &Profile{} }, cluster, "profiles", "pro"),
		kind(func() Object { return &NetworkSet{} }, namespaced, "networksets", "netset", "netsets"),
		kind(func() Object { return &GlobalNetworkSet{} }, cluster, "globalnetworksets", "gns", "globalnetset", "globalnetsets"),
		kind(func() Object { return &HostEndpoint{} }, cluster, "hostendpoints", "hep", "heps"),
		kind(func() Object { return &WorkloadEndpoint{} }, namespaced, "workloadendpoints", "wep", "weps"),
		kind(func() Object { return &Node{} }, cluster, "nodes", "no"),
		kind(func() Object { return &IPPool{} }, cluster, "ippools", "ipp", "ipps", "pool", "pools"),
		kind(func() Object { return &BlockAffinity{} }, cluster, "blockaffinities", "affinity", "affinities"),
		kind(func() Object { return &IPReservation{} }, cluster, "ipreservations"),
		kind(func() Object { return &IPAMConfiguration{} }, cluster, "ipamconfigurations", "ipamconfig", "ipamconfigs"),
		kind(func() Object { return &IPAMBlock{} }, cluster, "ipamblocks"),
		kind(func() Object { return &IPAMHandle{} }, cluster, "ipamhandles"),
		kind(func() Object { return &EndpointSlice{} }, namespaced, "endpointslices", "eps"),
		kind(func() Object { return &BGPConfiguration{} }, cluster, "bgpconfigurations", "bgpconfig", "bgpconfigs"),
		kind(func() Object { return &BGPPeer{} }, cluster, "bgppeers", "bgpp", "bgpps"),
		kind(func() Object { return &BGPFilter{} }, cluster, "bgpfilters"),
		kind(func() Object { return &FelixConfiguration{} }, cluster, "felixconfigurations", "felixconfig", "felixconfigs"),
		kind(func() Object { return &KubeControllersConfiguration{} }, cluster, "kubecontrollersconfigurations",
			"kcc", "kubecontrollersconfig", "kubecontrollersconfigs"),
		kind(func() Object { return &ClusterInformation{} }, cluster, "clusterinformations", "clusterinfo", "clusterinfos"),
		kind(func() Object { return &CalicoNodeStatus{} }, cluster, "caliconodestatuses"),
	}
	kindIndex = indexKinds(kinds)
)

func kind(empty func() Object, namespaced bool, plural string, short ...string) KindInfo {
	k := KindInfo{Kind: empty().GetKind(), Plural: plural, Short: short, Namespaced: namespaced, APIVersion: GroupVersion}
	k.Singular = strings.ToLower(k.Kind)
	if k.Kind == "EndpointSlice" {
		k.APIVersion = EndpointSliceVersion
	}
	k.New = func() Object {
		o := empty()
		setType(o, k.APIVersion, k.Kind)
		return o
	}
	return k
}

func setType(o Object, apiVersion, kind string) {
	if t, ok := o.(interface{ GetObjectKind() schema.ObjectKind }); ok {
		t.GetObjectKind().SetGroupVersionKind(schema.FromAPIVersionAndKind(apiVersion, kind))
	}
}

func indexKinds(kinds []KindInfo) map[string]int {
	index := map[string]int{}
	for i, k := range kinds {
		for _, name := range append([]string{k.Singular, k.Plural}, k.Short...) {
			index[name] = i
		}
	}
	return index
}

// Kinds returns all kinds, in an order in which they can be shown and applied.
func Kinds() []KindInfo { return slices.Clone(kinds) }

// KindByName finds a kind by its name, its plural or a short name, in any case.
func KindByName(name string) (k KindInfo, ok bool) {
	i, ok := kindIndex[strings.ToLower(name)]
	if !ok {
		return KindInfo{}, false
	}
	return kinds[i], true
}
