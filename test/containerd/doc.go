// Package containerd tests the CNI plugin under a real container runtime: containerd and runc as Debian ships them, told
// what a kubelet tells them, over CRI. Nothing of a containerd that the machine runs is touched: the tests' own one runs
// on a pretend machine, in the network namespace of a lab's node.
//
//	bed_test.go      the lab, the machine, containerd on it, its configuration
//	image_test.go    the image of sandboxes, made here: no registry
//	cri_test.go      what a kubelet says over CRI
//	sandbox_test.go  the tests
//	pause/           what runs in a sandbox: it answers TCP
package containerd
