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

// sample is a value y at a time x, in hours.
type sample struct{ x, y float64 }

// trendOf fits samples.
func trendOf(all []sample) trend {
	if len(all) == 0 {
		return trend{}
	}
	t := trend{N: len(all)}
	var slopes, rest, values []float64
	first, last := all[0].x, all[0].x
	for i, b := range all {
		values = append(values, b.y)
		first, last = min(first, b.x), max(last, b.x)
		for _, a := range all[:i] {
			if b.x > a.x {
				slopes = append(slopes, (b.y-a.y)/(b.x-a.x))
			}
		}
	}
	if len(slopes) > 0 {
		t.Slope = median(slopes)
		t.Rise = t.Slope * (last - first)
	}
	t.Level = median(values)
	for _, a := range all {
		rest = append(rest, a.y-t.Slope*a.x)
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
