// Package join is how a host comes to a store on the network: what a join token holds, what is said on the wire, and
// what stays on the host. The store's side is in package store; this one is small, for agents without a store in them.
//
//	tortie store token  ->  Token  ->  tortie join
//	                                     key made here, never leaves       files.go
//	                                     TLS to the store, whose authority
//	                                     must be the token's; then the
//	                                     secret and a signing request      client.go, wire.go
//	                                  <- a certificate for this name
//	                                     certificate, authority, settings  files.go, settings.go
//
// The wire is one TLS connection on the store's own port with a protocol (ALPN) of its own: a frame with a question, a
// frame with the answer.
package join
