// Package alive holds tests of a cluster with Tortie that something happens to: agents are killed, updated and doubled,
// the API server is away, a node is rebooted, a hundred pods come at once. `make e2e` runs them in the cluster that it has
// made; they are built with the tag e2e only.
//
//	agent_test.go    agents: killed, updated, doubled
//	server_test.go   the API server away, and back
//	away_test.go     the API server away for so long that revisions are gone
//	restore_test.go  etcd restored from a backup
//	token_test.go    tokens that are refused
//	disk_test.go     a full disk
//	memory_test.go   no memory
//	reboot_test.go   a node that is made anew
//	boot_test.go     a node whose boot has another id
//	controllers_test.go  controllers killed, a node deleted
//	things_test.go   what these tests do to the bed, and read of it
//	pods_test.go     pods: many at once, static ones, host ports, addresses of a pool, names used again
package alive
