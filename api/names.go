package api

import "strings"

// WorkloadEndpointName is the name of a workload's WorkloadEndpoint: node, orchestrator ("k8s", "cni" ...), workload and
// interface, each with its dashes doubled so that no two workloads share one.
func WorkloadEndpointName(node, orchestrator, workload, iface string) string {
	parts := []string{node, orchestrator, workload, iface}
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(p, "-", "--")
	}
	return strings.Join(parts, "-")
}
