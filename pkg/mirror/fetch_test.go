package mirror

import (
	"encoding/binary"
	"math"
	"slices"
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
		{80 * time.Millisecond, 64 << 20, 16 << 20}, // 17 without the budget
		{80 * time.Millisecond, 1 << 20, 256 << 10},
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
		{1000, 0, 64 << 10},
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

// Of a batch larger than what was asked for only the beginning comes: it says how
// much to ask for.
func TestSizeOfBatchesIsLearnt(t *testing.T) {
	whole := make([]byte, 100<<10)
	binary.BigEndian.PutUint32(whole[8:], uint32(len(whole)-12))
	whole[16] = 2
	for _, tt := range []struct {
		name    string
		records []byte
		want    int
	}{
		{"nothing", nil, 0},
		{"less than a header", whole[:11], 0},
		{"the beginning", whole[:64<<10], 100 << 10},
		{"one", whole, 100 << 10},
		{"one and the beginning of another", append(slices.Clone(whole), whole[:50]...), 100 << 10},
	} {
		if _, _, got, bad := lastOffsets(tt.records); got != tt.want || bad {
			t.Errorf("%s: %d bytes, expected %d; damaged: %v", tt.name, got, tt.want, bad)
		}
	}
}
