//go:build race

package ipam

// Everything is many times slower with the race detector.
const (
	fuzzSteps = 200_000
	EtcdNodes = 150
)
