// Package netns makes, opens and enters Linux network namespaces.
//
// A namespace is an open descriptor (Ns); it lives as long as somebody holds a descriptor of it, is inside it, or has it
// mounted under a name in /run/netns, where `ip netns` finds it too.
//
//	netns_linux.go  Ns, Open, Current, Anonymous, Create, Do
//	name.go         names that say which process made them, so that what a dead one left can be swept
//	netnstest/      namespaces for tests
package netns
