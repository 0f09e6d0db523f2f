// Package agent wires one node together.
//
//	store watch ─┐                                      ┌─► driver (opened by cmd)
//	ledger ──────┼─► feed (graph) ─► pump (owns State) ─┼─► persist: the State for after a reboot
//	host ────────┘                        │             └─► status: what is enforced
//	                                      └─ socket: attach, detach, status, explain, state
//
//	agent.go    Run: what is opened in which order, and closed again
//	inputs.go   the store, the ledger and the host on their way to the graph
//	addresses.go this node's allocator of addresses
//	store.go    the connection to the store
//	node.go     this node's Node resource
//	handler.go  what the socket answers
//	report.go   status, readiness, problems
//	notify.go   systemd
//
//	config, lock, durable, ledger, persist, feed, pump, status, workload, socket, health: the parts
package agent
