// Package admission holds the tests of deploy/crds and deploy/policies on a real API server: etcd and kube-apiserver of the
// bed's programs (../build.sh), in a network namespace of their own, nothing else of a cluster.
//
//	go test -tags e2e ./test/e2e/admission
package admission
