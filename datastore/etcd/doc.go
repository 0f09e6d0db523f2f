// Package etcd is a datastore in etcd: a remote cluster, or `tortie store` on its socket. It is the back end of what
// package revkv (which describes keys and values) makes of it.
//
//	config.go  endpoints, TLS, user
//	etcd.go    reads and writes
//	watch.go   one watch stream
//	auth.go    tokens for user and password
//	tls.go     certificates, read again for each connection
//	errors.go  etcd's errors as those of package datastore
//
// The server must be etcd 3.5.8 or newer: before that, the answer to a progress request could overtake changes.
// A user needs a role with access to the whole prefix: a watch is one stream over all of its kinds, which keeps the
// order of revisions between them. What a user may write is the server's affair: on the network `tortie store` lets each
// node write what is its own, whatever the prefix (docs/store.md).
//
// A store that is restored from a backup has revisions that clients have seen with another content. Clients notice when
// the cluster id differs or when term or revision went back, and compare everything. Where a restore keeps the cluster
// id, restore with a bumped revision (etcdutl snapshot restore --bump-revision --mark-compacted), or clients that come
// back late may miss it.
package etcd
