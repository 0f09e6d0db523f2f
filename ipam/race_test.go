//go:build race

package ipam

const fuzzSteps = 60_000 // each is many times slower
