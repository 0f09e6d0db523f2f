// Package cni is the test of the real CNI plugin beside a real agent on the real kernel: driven by the CNI project's own
// cnitool or run as a runtime runs it, chained with the plugins of the distribution, on a node of a lab.
//
//	main_test.go     the binaries, and the node that all tests share
//	bench_test.go    the bed: containers, running the plugin; how long an ADD takes
//	testipam/        an IPAM plugin that knows CNI 1.1 and writes down what it is asked
//	ipam_test.go     what it has written
//	pools_test.go    addresses that the agent allocates
//	chain_test.go    cnitool: the life of a container, chained plugins, tampering, several interfaces
//	verbs_test.go    single verbs: repeated, unknown, refused, GC, STATUS, versions
//	restart_test.go  an agent that is away, killed, upgraded, or comes back
//	kill_test.go     agent and plugin killed at every step, and kill_host_test.go what may be left: nothing
//	owner_test.go    a pod that comes again under its name, elsewhere
//	reuse_test.go    an address with another owner, and the flows of the last one
package cni
