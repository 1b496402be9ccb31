package mirror

import (
	"math"
	"testing"
	"time"
)

// The farther a broker, the more is asked for at once, and never more than a
// quarter of the budget.
func TestFarBrokersAreAskedForMore(t *testing.T) {
	for _, tt := range []struct {
		roundTrip time.Duration
		budget    int64
		want      int32
	}{
		{0, 64 << 20, 1 << 20},
		{20 * time.Millisecond, 64 << 20, 5 << 20},
		{80 * time.Millisecond, 64 << 20, 15 << 20}, // 17 without the budget
		{80 * time.Millisecond, 1 << 20, 240 << 10},
		{80 * time.Millisecond, 0, 64 << 10},
		{time.Hour, 1 << 40, math.MaxInt32},
	} {
		if got := fetchSize(tt.roundTrip, tt.budget); got != tt.want {
			t.Errorf("round trip %v, budget %d: %d bytes, expected %d", tt.roundTrip, tt.budget, got, tt.want)
		}
	}
}

// Lanes share an answer, but for one that is alone; large batches get room for
// several.
func TestLanesShareAnAnswer(t *testing.T) {
	const all = 1 << 20
	for _, tt := range []struct {
		lanes, batch int
		want         int32
	}{
		{1, 0, all},
		{2, 4 << 10, all / 2},
		{1000, 0, all}, // unknown
		{1000, 4 << 10, 64 << 10},
		{1000, 20 << 10, 160 << 10},
		{1000, 64 << 10, 512 << 10},
		{1000, 10 << 20, all},
		{0, math.MaxInt32, all},
	} {
		if got := partitionSize(all, tt.lanes, tt.batch); got != tt.want {
			t.Errorf("%d lanes, batches of %d bytes: %d bytes, expected %d", tt.lanes, tt.batch, got, tt.want)
		}
	}
}
