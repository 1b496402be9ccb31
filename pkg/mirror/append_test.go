package mirror

import (
	"testing"
	"time"
)

func TestFarTargetsGetMoreRequests(t *testing.T) {
	for _, tt := range []struct {
		roundTrip time.Duration
		want      int
	}{
		{0, 2},
		{200 * time.Microsecond, 3},
		{20 * time.Millisecond, 6},
		{80 * time.Millisecond, 18},
		{time.Hour, 2 + maxRequestParts},
	} {
		if got := requestWindow(tt.roundTrip); got != tt.want {
			t.Errorf("round trip %v: %d requests, expected %d", tt.roundTrip, got, tt.want)
		}
	}
}

// Small batches that wait are a crowd from ten on; large ones and those on their
// way are not.
func TestSmallBatchesThatWaitAreACrowd(t *testing.T) {
	for _, tt := range []struct {
		name            string
		batches, inSize int
		sent            int
		want            bool
	}{
		{"none", 0, 0, 0, false},
		{"as many as may be under way twice", 10, 100, 0, false},
		{"one more", 11, 100, 0, true},
		{"as many, half of them on their way", 11, 100, 5, false},
		{"many, and more on their way", 20, 100, 5, true},
		{"large ones", 20, 64 << 10, 5, false},
	} {
		ln := &lane{sent: tt.sent, queued: tt.batches * tt.inSize, inflight: tt.sent * tt.inSize}
		for range tt.batches {
			ln.chain.push(item{data: make([]byte, tt.inSize)})
		}
		if got := ln.crowded(); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
