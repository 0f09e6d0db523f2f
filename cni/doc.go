// Package cni is the CNI plugin: a small program that asks the node's agent over its socket, and waits.
//
//	runtime ── ADD, DEL, CHECK, GC, STATUS ──► tortie-cni ── attach, detach, check, list, status ──► agent
//	                                               └── ADD, DEL, ... ──► an IPAM plugin, if the configuration names one
//
// It holds no credentials and asks no API server. The identity of an attachment is (container id, interface name).
//
//	plugin.go   Plugin: the verbs, and what they stand on
//	add.go      ADD: address, attach, result; what failed is taken back
//	del.go      DEL, and the note that is left when no agent listens
//	verify.go   CHECK, STATUS and GC
//	conf.go     the network configuration, read strictly
//	request.go  what the runtime says of a workload: CNI_ARGS, runtimeConfig, args
//	result.go   results
//	ipam.go     plugins that allocate addresses
//	wait.go     waiting for the agent
//	errors.go   error codes
//
// # Configuration
//
//	{
//	  "cniVersion": "1.0.0",
//	  "name": "tortie",
//	  "plugins": [
//	    {
//	      "type": "tortie-cni",
//	      "ipam": {"type": "tortie"},
//	      "capabilities": {"ips": true, "mac": true, "dns": true}
//	    },
//	    {"type": "portmap", "capabilities": {"portMappings": true}}
//	  ]
//	}
//
// Beside what every plugin knows (name, ipam, dns, capabilities, runtimeConfig, args), these keys count:
//
//	socket                 the agent's socket; /run/tortie/agent.sock unless it is said
//	notesDir               where a DEL that finds no agent leaves its note; /var/lib/tortie/notes
//	timeout                how long an ADD waits for the agent and for policy to be enforced; "60s"
//	mtu                    of the workload's interface, in bytes; 0 = the agent's
//	namespace              of workloads that are no Kubernetes pods; "default"
//	labels                 {"role": "web"}
//	profiles               ["base"]
//	ports                  [{"name": "http", "protocol": "TCP", "port": 80}]
//	allowedSourcePrefixes  ["192.0.2.0/24"], which the workload may send from beside its addresses
//
// Any other key is an error: a misspelt "labels" must not leave a workload without its policy. Keys for others may begin
// with "_" or "x-", or have a "/" in them. DEL and GC look at nothing but what they need, so that what was added can be
// deleted whatever became of the configuration.
//
// The ipam section of type "tortie" (or none) lets the agent allocate:
//
//	families  ["IPv4", "IPv6"]: one address of each; those that there are pools of unless it is said
//	pools     names or prefixes of pools, in order
//
// Any other type is a plugin that is run; its addresses are used with the full length (/32, /128), its routes are not: a
// workload's one next hop is its node.
//
// runtimeConfig may have ips, mac and dns. args.cni may have labels and ips, as the conventions of CNI have them. CNI_ARGS
// may have IP, MAC and K8S_POD_NAMESPACE, K8S_POD_NAME, K8S_POD_UID, K8S_POD_INFRA_CONTAINER_ID (which says nothing new);
// others are an error without IgnoreUnknown=1.
//
// A MAC belongs here, by the capability "mac", not into a chained tuning plugin: packets with another MAC than the agent
// knows are dropped.
package cni
