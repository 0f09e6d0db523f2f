// Package upgrade holds tests of a cluster that Tortie is put on, brought forward and back, and taken off again, as
// docs/install-kubernetes.md says: from the older release that the bed has built out of this repository's history to this
// tree, with the manifest and with Helm. `make e2e` runs them at the end of its first cluster; they are built with the tag
// e2e only.
//
//	bed_test.go      the two releases, images of nodes, how Tortie is put on a cluster
//	remove_test.go   how it is taken off, and what is left then
//	watch_test.go    how long nodes are without an agent
//	upgrade_test.go  forward, with an image that is slow to come, back, and forward again
//	helm_test.go     the chart
package upgrade
