// Package drivers is the boundary between what Tortie wants and the dataplanes that do it.
//
//	datastore ───────┐                                                 ┌─ drivers/linux    nftables
//	attach ledger ───┼─► calcgraph ─► State + Changes ─► Lower ─► pump ┼─ ...
//	host inventory ──┤                  │                              └─ drivers/fake     in memory
//	learned routes ──┘                  └─► Evaluate(State, Packet) → Trace
//
// A State says everything that the node's dataplane must hold. A Driver has one verb, Apply(want, changes). Evaluate is
// the meaning of policy: every driver must agree with it, packet by packet (package drivertest proves it), and `tortie
// explain` answers with it.
//
//	state.go     State and the values in it
//	changes.go   Changes (the hint of an Apply), Update (what the graph hands over), Merge
//	set.go       Set: immutable, packed, shared between versions; keys.go is its inside
//	driver.go    Driver, ApplyError, and the optional interfaces of drivers
//	features.go  Features: what a driver enforces
//	packet.go    Packet and Trace
//	evaluate.go  Evaluate: what happens to a packet, and why; _match (clauses), _tiers (stages), _standin (deny stand-ins)
//	lower.go     Lower: a State rewritten for a driver that lacks something, never allowing more; lower_rule.go its rules
//	path.go      Path: a flow over two nodes; Translate, Locate
//	ruleid.go    MakeRuleID: the ids that traces, counters, flows and logs share
//	dump.go      Dump: a State as text for people; dump_words.go has the words
//	encode.go    EncodeState, DecodeState: a State that survives a reboot
//
// The package imports the standard library only.
package drivers
