// Package alive holds tests of a cluster with Tortie that something happens to: agents are killed, updated and doubled,
// the API server is away, a node is rebooted, a hundred pods come at once. `make e2e` runs them in the cluster that it has
// made; they are built with the tag e2e only.
//
//	agent_test.go    agents: killed, updated, doubled
//	server_test.go   the API server away, and back
//	reboot_test.go   a node that is made anew
//	pods_test.go     pods: many at once, static ones, host ports, addresses of a pool, names used again
package alive
