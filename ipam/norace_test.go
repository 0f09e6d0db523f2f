//go:build !race

package ipam

const (
	fuzzSteps = 1_000_000
	// EtcdNodes is how many nodes there are on a real store.
	EtcdNodes = 1000
)
