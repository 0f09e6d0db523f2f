// Package load makes traffic and measures it: streams, connections that carry one request, connections alone, flows that
// must not lose anything, and datagrams that see a policy change. Client and server use plain blocking system calls on
// one thread each where latency is measured, so that it is the network's and not a runtime's.
//
//	serve_linux.go    servers: "crr" answers each request, "sink" counts what it gets, "echo" serves many at once
//	client_linux.go   Rate: connections one after the other; Stream: one long one
//	pin_linux.go      cores of their own for client and server
//	flows_linux.go    Flows: connections kept and connections made, at a rate, each of which is looked at for losses
//	prober_linux.go   Prober: a datagram of a new flow every few hundred microseconds, and which of them get through
package load
