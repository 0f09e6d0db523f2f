// Package store is Tortie's embedded datastore: one etcd server in a process of its own (`tortie store`), so that the
// agent's upgrade or death does not take the store along.
//
//	tortie store -- Run -+- lock.go    one store for a data directory
//	                     +- etcd.go    the etcd server, tuned for one small member
//	                     +- listen.go  a Unix socket (root only), or the network with mutual TLS
//	                     +- serve.go   gRPC on those listeners, and a stop that waits for nobody
//	                     +- keeper.go  defragmentation, a full quota healed
//	                     +- log.go     etcd's zap log as slog
//	status.go: what a running store says of itself
//
// On one machine it listens on a Unix socket and needs no configuration. There is no peer port: a store has one member.
// The etcd cluster id is random for each data directory that is made, so that clients can tell a store that was
// restored or begun afresh from one that was restarted.
package store
