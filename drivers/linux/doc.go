// Package linux is the dataplane of Linux hosts: nftables for policy, the kernel's routes, veth pairs for workloads.
package linux
