package load

import "slices"

// quantiles sorts samples, of which there are some, and returns p50 and p99.
func quantiles(samples []float64) (p50, p99 float64) {
	slices.Sort(samples)
	return samples[len(samples)/2], samples[min(len(samples)-1, len(samples)*99/100)]
}
