// Package e2e runs Tortie on a real Kubernetes cluster, which ./testbed makes of this machine's namespaces, and has the
// upstream suites judge it: `make e2e`. README.md says what the cluster is.
//
//	tortie-e2e ──► bed.go       ./testbed: up, import, kubectl, down
//	           ├─► install.go   what users do: the manifest, a pool, until all is ready
//	           ├─► suite.go     which specs of which suite, and why some are skipped
//	           │     ├─ ginkgo.go   the suite of Kubernetes (e2e.test)
//	           │     └─ gotest.go   suites that are Go tests: ClusterNetworkPolicy's, and ./alive
//	           ├─► logs.go      what is kept when a spec fails
//	           └─► report.go    the results, as JSON and as a section of docs/e2e.md
package e2e
