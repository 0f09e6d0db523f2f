// Package linuxnet programs the kernel networking of one namespace: links, addresses, routes, neighbours, sysctls.
//
// It is a thin layer over netlink that speaks netip, takes IPv4 and IPv6 the same way, repeats dumps that the kernel
// reports as interrupted, and finds nothing wrong in adding what is there or deleting what is not.
//
//	conn_linux.go    Conn: the handles of a namespace
//	link_linux.go    links and veth pairs
//	addr_linux.go    addresses
//	route_linux.go   routes
//	neigh_linux.go   neighbours
//	sysctl_linux.go  sysctls
//	watch_linux.go   notifications
package linuxnet
