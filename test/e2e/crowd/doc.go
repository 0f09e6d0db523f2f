// Package crowd measures what an agent holds in a large cluster: 10,000 pods and 1,000 policies in the API server, made
// without kubelets, and 100 pods on its own node. `make e2e E2E='-suite crowd'` runs it; it is built with the tag e2e only.
package crowd
