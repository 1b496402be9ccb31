package main

import (
	"math"
	"math/rand/v2"
	"testing"
)

// growing makes an hour of samples that grow by a rate an hour, with noise and
// some outliers, as memory has them.
func growing(rate, noise float64) (all []sample) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 360 {
		at := float64(i) / 360
		v := 60 + rate*at + noise*r.NormFloat64()
		if i%20 == 0 {
			v += 40 // right after an event
		}
		all = append(all, sample{at, v})
	}
	return all
}

func TestTrendIsNotBentByOutliers(t *testing.T) {
	for _, rate := range []float64{-5, 0, 10, 100} {
		got := trendOf(growing(rate, 1))
		if math.Abs(got.Slope-rate) > 0.5 || got.Noise > 2 || got.N != 360 {
			t.Errorf("samples that grow by %v an hour: %v", rate, got)
		}
	}
}

func TestALeakIsNotFlat(t *testing.T) {
	for _, c := range []struct {
		rate, noise float64
		flat        bool
	}{{0, 1, true}, {0, 10, true}, {1, 0.1, true}, {-50, 1, true}, {5, 1, false}, {20, 3, false}} {
		if got := trendOf(growing(c.rate, c.noise)); got.flat(2) != c.flat {
			t.Errorf("%v an hour with noise %v: flat is %v (%v)", c.rate, c.noise, !c.flat, got)
		}
	}
}

func TestTrendOfFewSamples(t *testing.T) {
	if got := trendOf(nil); got != (trend{}) {
		t.Errorf("no samples: %v", got)
	}
	if got := trendOf([]sample{{1, 7}}); got.Level != 7 || got.Slope != 0 || got.N != 1 {
		t.Errorf("one sample: %v", got)
	}
}
