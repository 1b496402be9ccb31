package stats

import (
	"math"
	"time"
)

// Quantile is the smallest of sorted durations that at least this part of them is
// not above, 0 of none.
func Quantile(sorted []time.Duration, part float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	i := int(math.Ceil(part*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}
