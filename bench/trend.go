package main

import (
	"fmt"
	"math"
)

// trend is a straight line through samples that outliers do not bend: the
// median of the slopes between all pairs (Theil and Sen).
type trend struct {
	Slope float64 `json:"slope"` // units an hour
	Rise  float64 `json:"rise"`  // units, from the first sample to the last
	Noise float64 `json:"noise"` // units: median distance of samples from the line
	Level float64 `json:"level"` // median of the samples
	N     int     `json:"samples"`
}

// trendOf fits samples y at times x, in hours.
func trendOf(x, y []float64) trend {
	n := len(x)
	if n == 0 {
		return trend{}
	}
	t := trend{N: n, Level: median(y)}
	var slopes []float64
	for i := range n {
		for j := i + 1; j < n; j++ {
			if x[j] > x[i] {
				slopes = append(slopes, (y[j]-y[i])/(x[j]-x[i]))
			}
		}
	}
	if len(slopes) > 0 {
		t.Slope = median(slopes)
		t.Rise = t.Slope * (x[n-1] - x[0])
	}
	rest := make([]float64, n)
	for i := range n {
		rest[i] = y[i] - t.Slope*x[i]
	}
	base := median(rest)
	for i := range rest {
		rest[i] = math.Abs(rest[i] - base)
	}
	t.Noise = median(rest)
	return t
}

// flat tells whether what the samples rise is no more than twice their noise,
// or an amount that does not matter.
func (t trend) flat(allowed float64) bool { return t.Rise <= max(2*t.Noise, allowed) }

func (t trend) String() string {
	return fmt.Sprintf("level %.1f, slope %+.2f/h, rise %+.2f, noise %.2f, %d samples", t.Level, t.Slope, t.Rise, t.Noise, t.N)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	return spreadOf(v).Median
}
