// Package controllers does the work of the cluster that no node does: one process of the cluster leads, and follows the
// store.
//
//	                                        +-> addresses      takes back addresses, blocks and affinities that nobody has
//	datastore.Store --Watch--> world --kick-+-> host endpoints one of each node, if so configured
//	                                        +-> tiers          built-in ones; none goes while policies are in it   (Kubernetes)
//	                                        +-> events         about policies that can't be enforced as written    (Kubernetes)
//	API server --Nodes------------------------> boots          nodes that have booted: no network yet              (Kubernetes)
//
// Each part looks at the world as it is, and makes what it is about right: when something changed, and from time to time.
// All writes compare and swap, so that a second leader, or one that died in the middle, does no harm. Reads come from the
// watch, so that an idle cluster costs no requests; before an address is taken back, its owner is looked up by itself.
//
// The files:
//
//	controllers.go    Config, Run
//	lead.go           who leads: a Lease
//	runner.go         when a part takes a step, and what comes of its errors
//	world.go          what the watch told; cached.go reads it as ipam does
//	settings.go       KubeControllersConfiguration
//	addresses.go      collection; uses.go says which addresses are in use
//	hostendpoints.go  automatic host endpoints
//	tiers.go          tiers
//	events.go         Events on policies
//	boots.go          NetworkUnavailable
//	metrics.go        metrics
package controllers
