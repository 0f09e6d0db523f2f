// Package machine makes pretend machines of namespaces: a machine has its own mounts, processes, host name and network,
// and the file system of the real one below. Daemons that insist on their places (/run/containerd, /run/tortie) find them
// empty there, and nothing that they do is seen outside.
//
// A machine ends with the process that made it, however that ends: its first process reads a pipe that only the maker
// writes to, and the kernel ends all others with it.
package machine
