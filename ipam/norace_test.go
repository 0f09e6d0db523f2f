//go:build !race

package ipam

const fuzzSteps = 1_000_000
