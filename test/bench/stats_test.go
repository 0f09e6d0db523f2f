package bench

import (
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want Spread
	}{
		{nil, Spread{}},
		{[]float64{7}, Spread{7, 7, 7, 1}},
		{[]float64{3, 1, 2}, Spread{2, 1, 3, 3}},
		{[]float64{4, 1, 3, 2}, Spread{2.5, 1, 4, 4}},
	} {
		if got := Summarize(c.in); got != c.want {
			t.Errorf("Summarize(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	var hundred []float64
	for i := 100; i > 0; i-- {
		hundred = append(hundred, float64(i))
	}
	for _, c := range []struct {
		in      []float64
		q, want float64
	}{
		{hundred, 0, 1}, {hundred, 0.5, 50}, {hundred, 0.99, 99}, {hundred, 0.991, 100}, {hundred, 1, 100},
		{[]float64{5}, 0.99, 5}, {[]float64{2, 1}, 0.5, 1}, {[]float64{2, 1}, 0.51, 2},
	} {
		if got := Quantile(c.in, c.q); got != c.want {
			t.Errorf("Quantile of %d samples, %v = %v, want %v", len(c.in), c.q, got, c.want)
		}
	}
	if hundred[0] != 100 {
		t.Error("Quantile has sorted what it was given")
	}
	if got := Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("Quantile of nothing = %v", got)
	}
}

func TestRatios(t *testing.T) {
	got := Ratios([]float64{2, 9, 5, 8}, []float64{1, 3, 0})
	if diff := cmp.Diff([]float64{2, 3}, got); diff != "" {
		t.Error(diff)
	}
}

func TestInterleave(t *testing.T) {
	var order []int
	got, err := Interleave(3, 3, func(arm int) (float64, error) {
		order = append(order, arm)
		return float64(10*arm + len(order)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{0, 1, 2, 1, 2, 0, 2, 0, 1}, order); diff != "" {
		t.Errorf("order of the arms: %s", diff)
	}
	if diff := cmp.Diff([][]float64{{1, 6, 8}, {12, 14, 19}, {23, 25, 27}}, got); diff != "" {
		t.Errorf("samples by arm: %s", diff)
	}
	broken := errors.New("broken")
	if _, err := Interleave(2, 2, func(arm int) (float64, error) { return 0, broken }); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}
