// Package kube is a datastore in a Kubernetes API server: our own kinds as CustomResourceDefinitions of
// projectcalico.org/v3, and Kubernetes' own objects as what they mean to us (package convert).
//
//	               a goroutine for each resource              one lock              the caller's goroutine
//	API server --> feed (client-go's Reflector) --> item --> hub --> joiner --> queue --> fn
//	                retries, what is not served     converted  |     pods with             coalesced by key
//	                                                 at once   |     their addresses
//	                                                 status, names that meet
//
//	config.go    where the server is; failover.go: several addresses of it
//	kube.go      Open, the clients; check.go: whose API server it is
//	source.go    the resources, and what their objects become; raw.go: JSON as it comes
//	read.go      Get, List
//	write.go     Create, Update, Delete; node.go: annotations and conditions of nodes
//	watch.go     Watch; feed.go, absent.go: one resource; hub.go: all of them; status.go: how it goes
//	join.go      pods and the addresses that IPAM blocks hold for them
//	queue.go     what the consumer has yet to be told
//	errors.go    the server's errors as those of package datastore
//
// # What is where
//
// The revision of an object is its resourceVersion, for those that are made of Kubernetes' objects too. A
// WorkloadEndpoint changes with blocks as well: its revision is the pod's. What is made of Kubernetes' objects is read-only,
// but for nodes, whose annotations are written. There are no transactions. Kinds have streams of their own, so that nothing
// is said about the order of changes of two kinds; a pod is told of after its namespace, an address after its block.
//
// A stored policy that has the name that a policy of Kubernetes' own gets here ("knp.default.x", "kcnp.admin.x") does not
// count, and is a Problem of that one.
package kube
