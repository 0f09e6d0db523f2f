// Package lab is a small cluster on one machine: nodes as network namespaces on a fabric, a real agent process in each,
// one `tortie store`, workloads plugged in through the agents' sockets, and hosts outside.
//
//	           office  badguy            outside: 172.31.99.10, 172.31.99.66 (and fd31::99:10, fd31::99:66)
//	              │       │
//	──────────────┴───┬───┴──────┬──────────  fabric (a bridge in a namespace), 172.31.0.0/16, fd31::/64
//	              ┌───┴───┐  ┌───┴───┐
//	              │  n1   │  │  n2   │        172.31.0.1, .2; fd31::1, ::2; blocks 10.65.N.0/26 and fd65::N:0/122
//	              └┬──┬──┬┘  └┬──┬──┬┘
//	           web-1 api-1 db-1 ...  db-2     workloads: 10.65.N.1 ...
//
// Everything has a name of its own (the lab's id says which process made it), so that labs can run side by side, and a
// lab whose process died can be found and removed: Clean. Demos, whole-system tests and benchmarks stand on it.
//
//	lab.go       Lab: New, Down, Clean
//	fabric.go    namespaces and the wires between them
//	wire.go      the same for others: hosts beside the nodes, and a node that is booted anew
//	join.go      a store that nodes join over the network
//	process.go   the store's and the agents' processes
//	workload.go  workloads and outside hosts: attaching them, and the servers inside
//	probe.go     connections between them
//	matrix.go    the connectivity matrix, beside what the oracle says
//	traffic.go   traffic that runs on while something breaks
//	demo.go      the story that `make demo` tells
package lab
