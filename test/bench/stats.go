package bench

import (
	"math"
	"slices"
)

// Spread sums up samples.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// Summarize sums up samples, in any order; none give the zero Spread.
func Summarize(samples []float64) Spread {
	if len(samples) == 0 {
		return Spread{}
	}
	s := slices.Sorted(slices.Values(samples))
	m := s[len(s)/2]
	if len(s)%2 == 0 {
		m = (s[len(s)/2-1] + m) / 2
	}
	return Spread{Median: m, Min: s[0], Max: s[len(s)-1], N: len(s)}
}

// Quantile is the smallest sample that at least the share q of all samples does not exceed (the nearest rank); NaN of
// none.
func Quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(samples))
	rank := int(math.Ceil(q * float64(len(s))))
	return s[min(max(rank, 1), len(s))-1]
}

// Ratios divides sample by sample: what was measured in one round is compared with what was measured in the same.
func Ratios(num, den []float64) []float64 {
	out := make([]float64, 0, len(num))
	for i := range min(len(num), len(den)) {
		if den[i] != 0 {
			out = append(out, num[i]/den[i])
		}
	}
	return out
}

// Interleave measures each arm once in every round, beginning with another one each time, so that what goes on beside
// on the machine meets all of them alike. The samples are by arm, then by round.
func Interleave(rounds, arms int, measure func(arm int) (float64, error)) ([][]float64, error) {
	out := make([][]float64, arms)
	for r := range rounds {
		for i := range arms {
			arm := (r + i) % arms
			v, err := measure(arm)
			if err != nil {
				return nil, err
			}
			out[arm] = append(out[arm], v)
		}
	}
	return out, nil
}
