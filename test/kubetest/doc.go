// Package kubetest runs a real Kubernetes API server with its etcd, for tests: in a network namespace of its own, reached
// over a wire that can be cut. There are no controllers and no kubelets: what is in the cluster is what a test puts there.
package kubetest
