// Package bench measures what `make bench` reports: real agents, a real store and real traffic in a lab of network
// namespaces, in interleaved rounds against a twin of the lab that is routed veth pairs and no rule at all.
//
// A row measures one thing and yields some figures. Rows that need the same nodes share a bed; a row that fails says why,
// takes its bed down, and leaves the others their turn.
//
//	stats.go      medians, quantiles, interleaving
//	report.go     the report: JSON, a page, a comparison of two
//	size.go       how much work: full, quick, tiny
//	run_linux.go  the rows, one after the other
//	bed_linux.go  what rows stand on: a lab, its store, processes that make traffic; world.go: the objects in it
//	row_*.go      the rows
//	load/         clients, servers and probes
//	tortie-bench/ the command
package bench
