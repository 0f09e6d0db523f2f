// Package revkv makes a datastore.Store of any ordered key-value store with revisions (a Backend): resources as JSON
// values, compare-and-swap, and watches that survive what happens to the connection and to the history.
//
//	store.go   Get, List, Create, Update, Delete      -+
//	txn.go     several writes as one                  -+- what a resource is: meta.go, keys.go
//	watch.go   -> list.go, stream.go -> queue.go -> fn
//	           a goroutine reads the back end    coalesced by key    the caller's goroutine
//	           (revs.go: what it has sent)
//	backend.go what a back end must do
//
// # Keys
//
//	<prefix><Kind>/<namespace>/<name>      /tortie/v1/NetworkPolicy/default/allow-dns
//	<prefix><Kind>//<name>                 /tortie/v1/Tier//default
//
// The default prefix is "/tortie/v1/". The namespace of a kind of cluster scope is the empty segment; no namespace, kind
// or name is empty otherwise, and none holds a slash, so a key is read in one way only. All resources of a kind are the
// range of "<prefix><Kind>/", those of a namespace that of "<prefix><Kind>/<namespace>/". In the order of keys the
// namespace "a-b" comes before "a" ("-" sorts before "/"): List sorts what it returns.
//
// # Values
//
// A value is the resource as JSON, with metadata.uid, creationTimestamp and generation, and without resourceVersion,
// which is the revision of the last write of the key. Other prefixes below "/tortie/" are free for other uses.
package revkv
