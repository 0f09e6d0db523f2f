// Package ipam gives addresses to workloads, tunnels and load balancers, and takes them back: an algorithm over a store
// that compares and swaps.
//
//	          requests that come together share a write
//	Assign --> queue --> draft --> commit --> IPAMBlock: addresses, handles, owners
//	Release                |                  IPAMHandle: only of addresses in other nodes' blocks
//	                       v
//	                 claim, borrow ---------> BlockAffinity: which node has which block
//
// A pool is cut into blocks of 64 addresses, and a node takes blocks when it needs them. Everything about an address is
// in its block: who has it, by which handle, since which write. So an ADD is one write and a DEL is one, two families or
// what the caller brings along included, if the store can write several objects as one; if not (Config.OneByOne), they
// are ordered so that each step can be the last one. The handles of a node are found in its own blocks, which it keeps in
// memory.
//
// What a caller may rely on:
//
//   - An address that Assign returned is nobody else's until Release gives it back. It takes a token to tell two
//     allocations of an address to the same handle apart: a release that shows an old one does nothing.
//   - Assign for a handle that has fitting addresses returns those, with new tokens: an ADD can be repeated.
//   - After an error nothing of the request is allocated, but if the store could not be reached or the process died, that
//     is not known: Release by the handle alone makes sure.
//   - What nobody released is found by Audit, and by Collect once it has been nobody's for the grace. A context of Assign
//     has to end well before that.
//
// The files:
//
//	ipam.go      Config, requests and results
//	queue.go     who works for whom
//	gone.go      handles that have nothing any more, for certain
//	draft.go     one write in the making: where the addresses come from
//	commit.go    the write, and what to do if somebody was faster
//	claim.go     how a block comes to a node: the order of writes, and what to do about one that was interrupted
//	borrow.go    addresses in other nodes' blocks, and taking empty blocks
//	block.go     one block
//	prefix.go    addresses as numbers, the order in which nodes look for blocks
//	pools.go     which pools serve a request
//	settings.go  pools, reservations and configuration
//	audit.go     what is wrong, without changing it
//	collect.go   cleaning up
//	show.go      who uses how much; changing the configuration
package ipam
