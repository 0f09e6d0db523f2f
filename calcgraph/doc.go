// Package calcgraph turns what the agent is told into what the dataplane must hold: updates in, a drivers.Update out. It
// is pure: one goroutine owns a Graph, and no part of it has a lock, a clock, a goroutine or does I/O.
//
//	Profile ---> groups -+ labels                      +---------- services <-- EndpointSlice
//	NetworkSet -------+  v                             v
//	WorkloadEndpoint -+> things -> index (of all) -> sets -------------------------------> Sets
//	HostEndpoint -----+    |        Node -> index --->-^ selectors, ports, services of rules
//	                       | local                     |
//	                       v                           |
//	policies -----> index (of locals) -> policies -> rules ------------------------------> Policies
//	Tier ---> tiers -------+ active ones | in order
//	                       ^             v
//	ledger -> endpoints ---+-- hosts -> locals -> lists ---------------------------------> Endpoints
//	              |             ^
//	              v             +---- inventory of the host
//	Node, IPPool, BlockAffinity, learned routes -> routes ---> Routes, Peers, Masquerade, Node
//
// Input may be reordered, coalesced or stale, and may hold duplicates and deletes of what was never there: a part asks
// whether there is a value and compares it with what it holds. Nothing is held back because something it refers to is
// missing; the missing part is stood in for by something that denies or is empty. Changes of labels and addresses reach
// the counted members of sets at once; everything else is settled by Flush, in the order of the drawing.
//
// Memory and time: labels are interned, things have dense numbers, an endpoint evaluates only the selectors that its old
// and new labels can concern (index.go), the members of a set are kept once (set.go).
//
//	config.go      Config, and the settings of the node
//	graph.go       Graph: its inputs and Flush
//	inputs.go      resources that have labels and addresses, read into things
//	problem.go     Problem: objects that are ignored or degraded
//	labels.go      interned labels; merging and comparing lists of them
//	groups.go      labels inherited from profiles
//	things.go      everything that has labels and addresses
//	expr.go        selectors over interned labels
//	index.go       which selectors select which things
//	posting.go     sets of things' numbers
//	member.go      members of sets, packed
//	sorted.go      sorted lists in chunks
//	set.go         one set: members counted by contributor, no overlaps
//	sets.go        the sets that active rules refer to
//	services.go    sets made from EndpointSlices
//	rules.go       rules in the words of the boundary
//	policyspec.go  what policies of each kind say
//	policies.go    which policies are active, and their order
//	profiles.go    the rules of profiles
//	tiers.go       tiers, built-in ones and missing ones
//	locals.go      endpoints of this node, and who needs new tier lists
//	lists.go       interned tier lists
//	endpoints.go   workloads: ledger entries joined with WorkloadEndpoints
//	floating.go    who has which floating address
//	hosts.go       HostEndpoints resolved to interfaces
//	nodes.go       nodes and their addresses
//	pools.go       address pools and masquerade
//	blocks.go      blocks of addresses
//	routes.go      routes and peers
//	names.go       numbers for names
//	emitted.go     what has been said, and what is new
package calcgraph
