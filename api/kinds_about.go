package api

// about says in a few words what each kind is for. The table is never written to.
var about = map[string]string{
	"Tier":                          "an ordered group of policies; the first group that decides wins",
	"NetworkPolicy":                 "who may talk to the endpoints of a namespace, and whom they may talk to",
	"GlobalNetworkPolicy":           "the same for endpoints of all namespaces, and for the hosts themselves",
	"StagedNetworkPolicy":           "a NetworkPolicy that is shown and not enforced",
	"StagedGlobalNetworkPolicy":     "a GlobalNetworkPolicy that is shown and not enforced",
	"StagedKubernetesNetworkPolicy": "a Kubernetes NetworkPolicy that is shown and not enforced",
	"Profile":                       "rules and labels of the endpoints that name it; its rules come after all tiers",
	"NetworkSet":                    "addresses with labels, for the rules of a namespace's policies to select",
	"GlobalNetworkSet":              "addresses with labels, for rules of all policies to select",
	"HostEndpoint":                  "an interface of a host, for policies to select",
	"WorkloadEndpoint":              "an interface of a workload: its labels, profiles, addresses and named ports",
	"Node":                          "a host of the cluster and its addresses",
	"IPPool":                        "a range that the addresses of workloads come from, and how they are routed",
	"BlockAffinity":                 "which node a block of addresses belongs to; written by address management",
	"IPReservation":                 "addresses that are not given to workloads",
	"IPAMConfiguration":             "how addresses are managed; there is one, \"default\"",
	"IPAMBlock":                     "a block of addresses and who has them; written by address management",
	"IPAMHandle":                    "in which blocks a workload has addresses; written by address management",
	"EndpointSlice":                 "the addresses behind a Kubernetes Service, for rules that name services",
	"BGPConfiguration":              "how nodes speak BGP: \"default\" for all, \"node.<name>\" for one",
	"BGPPeer":                       "whom nodes peer with",
	"BGPFilter":                     "which routes peers send and take",
	"FelixConfiguration":            "settings of the agents: \"default\" for all nodes, \"node.<name>\" for one, others by nodeSelector",
	"KubeControllersConfiguration":  "settings of Tortie's controllers; there is one, \"default\"",
	"ClusterInformation":            "what the cluster is; there is one, \"default\"",
	"CalicoNodeStatus":              "asks a node to report how its BGP fares",
}

// About says in a few words what the kind is for.
func (k KindInfo) About() string { return about[k.Kind] }
