// Package bedtest is what tests of a cluster share: the bed's cluster, pods in it, and sending from inside of them. The tests
// run on the host, in the folder of their package, and reach into the machines.
//
//	cluster.go  the cluster, and its machines
//	pods.go     pods
//	traffic.go  connections out of a network namespace, and whether they come through
//	scene.go    a server with a client that policy allows and a stranger that it does not
//	flow.go     traffic of theirs that goes on while something happens
package bedtest
