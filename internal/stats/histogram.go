// Package stats counts durations for the status and the metrics, and ranks them
// for measurements.
package stats

// Histogram is a cumulative-free histogram: Counts[i] are the observations
// <= Bounds[i] and above the bound before; the last count, past all bounds, is
// Count minus the sum of the others.
type Histogram struct {
	Bounds []float64 `json:"bounds"`
	Counts []uint64  `json:"counts"`
	Sum    float64   `json:"sum"`
	Count  uint64    `json:"count"`
}

// NewLatency makes a histogram of seconds, from a millisecond to a day.
func NewLatency() Histogram {
	b := []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400}
	return Histogram{Bounds: b, Counts: make([]uint64, len(b))}
}

// Observe counts one value.
func (h *Histogram) Observe(v float64) {
	h.Sum += v
	h.Count++
	for i, b := range h.Bounds {
		if v <= b {
			h.Counts[i]++
			return
		}
	}
}

// Clone is a copy that does not change any more.
func (h *Histogram) Clone() Histogram {
	c := *h
	c.Counts = append([]uint64(nil), h.Counts...)
	return c
}
