// Package store is Tortie's embedded datastore: one etcd server in a process of its own (`tortie store`), so that the
// agent's upgrade or death does not take the store along.
//
//	tortie store -- Run -+- lock.go      one store for a data directory
//	                     +- etcd.go      the etcd server, tuned for one small member
//	                     +- network.go   who may use it: authority.go, registry.go (tokens, members), roles.go (etcd's
//	                     |               users and roles)
//	                     +- listen.go    a Unix socket (root only), or the network
//	                     +- serve.go     gRPC on those listeners, and a stop that waits for nobody
//	                     |    creds.go, conns.go          mutual TLS; connections that can be cut
//	                     |    joiner.go, limiter.go       hosts that join: package join has their side
//	                     |    guard.go, guard_block.go    what nodes may write
//	                     |    complaints.go               a log of who is refused, that stays short
//	                     |    admin.go                    what root asks for over the socket, and its client
//	                     +- keeper.go    defragmentation, a full quota healed
//	                     +- log.go       etcd's zap log as slog
//	status.go: what a running store says of itself; snapshot.go: saving and restoring
//
// On one machine it listens on a Unix socket and needs no configuration. On the network it speaks mutual TLS with
// certificates of its own authority; docs/store.md says who may do what. There is no peer port: a store has one member.
// The etcd cluster id is random for each data directory that is made, so that clients can tell a store that was
// restored or begun afresh from one that was restarted.
package store
