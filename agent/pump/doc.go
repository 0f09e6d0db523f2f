// Package pump owns a node's State and keeps the dataplane at it.
//
//	graph ─ Offer ─► pending ─ merge ─► View ─ Apply ─► driver
//	                (coalesced)           │
//	                                      └─► Read: status, explain, the file for reboots
//
// Offer never waits for the dataplane: what comes while an Apply runs is coalesced to one value for each object, so what
// waits is bounded by the size of the world. One goroutine (Run) merges and applies; readers see what was merged last,
// and which objects of it the dataplane does not have yet.
//
//	pump.go    Pump: what others call
//	run.go     the goroutine: when to Apply, with which hint, and what follows from its error
//	view.go    View: the State, and how much of it is in the dataplane
//	resync.go  the rolling resync
//	metrics.go what it counts
package pump
