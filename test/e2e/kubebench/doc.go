// Package kubebench measures Tortie in clusters of the testbed: how long a pod takes until a packet reaches it, how soon a
// block's write is a member of sets on every node while a thousand others watch, and what an idle cluster asks the API
// server for. `make kubebench` runs it, and writes docs/benchmarks.md.
//
//	podstart_linux.go  pods one after another, with Tortie and with bridge and host-local by turns
//	probe_linux.go     connections out of a pod until one is answered
//	plugin_linux.go    what the plugins in /opt/cni/bin take: timed/ stands in front of them
//	steps_linux.go     what the agent spends an ADD on
//	watchers_linux.go  pods that come and go while others watch
//	watch_linux.go     the others
//	members_linux.go   elements of sets, as the kernel tells of them
//	processors_linux.go  who uses the processors meanwhile
//	idle_linux.go      requests of a cluster in which nothing happens
//	audit.go           the API server's audit log
//	report.go          docs/benchmarks.md
package kubebench
