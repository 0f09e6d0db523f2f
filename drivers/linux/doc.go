// Package linux is the dataplane of Linux hosts: nftables for policy, the kernel's routes, veth pairs for workloads.
//
//	State + Changes ─► compiler ─► Program ─► plan ─► ops ─► nft ─► netlink transactions
//	                   units       rules as   what differs         ▲
//	                               data       from tables ─────────┴─ read back: after a start, a refusal, a kick
//
// Rules as data have no build tag and are tested on any system:
//
//	program.go   Program: chains, rules, sets; text.go writes it for people
//	compiler.go  State to Program, change by change; Render does it whole
//	lists.go     sets, policies, tiers, lists, profiles
//	match.go     a rule's clauses
//	merge.go     rules that do the same as elements of one set; mergeunits.go: which rules those are
//	endpoint.go  what an interface needs
//	floating.go  floating addresses of workloads
//	base.go      the base chains, and which step of drivers.Evaluate each one is
//	plan.go      the writes that lead from what the tables hold to a Program
//	stages.go    which of them go ahead of the others, for the sake of packets under way
//	kernel.go    the edge to the kernel
//	cut.go       which flows of the flow table a State denies
//
// On Linux:
//
//	linux.go     Driver: Open, Apply, Close
//	apply_*      one Apply: transaction, bisection of a refused one, quarantine
//	emit_*       rules and sets as netlink attributes; nft_* and socket_* send them, readback_* compares
//	monitor_*    hears who else touches our tables; counters_* what rules have matched, if that was asked for
//	cut_*        deletes the flows that a changed State denies; sever_* sees that they stay dead; conntrack_* the flow table
//	features_*   what this kernel takes; inspect_* foreign rules in the way; clean_* removal, and cutting flows
//	routes_*     routes and neighbours; attach_* plugs workloads in; inventory_* tells the host's interfaces
//
// An established packet meets, in each base chain, at most a handful of rules before it is accepted. A new one is led by
// verdict maps from its interface to the chain of its tier list. Endpoints with equal lists share that chain, policies
// are chains that lists jump to, or are merged with their neighbours, and equal sets are one set; so the program grows with
// policies, endpoints and distinct lists, and never with their product.
package linux
