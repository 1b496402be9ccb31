package mirror

import (
	"testing"
	"time"

	"replicator/pkg/offsets"
)

// A lane that follows closely a source that never rests is a moment behind, not
// the time since it last had nothing to do.
func TestLagOfASourceThatNeverRests(t *testing.T) {
	ln := newLane(offsets.Lane{Topic: "orders"})
	now := time.Now()
	ln.position = 0
	see := func(end int64) {
		ln.sourceEnd = end
		ln.noteLag(end, now)
	}
	behind := func() time.Duration {
		_, s := ln.lag(now)
		if s == nil {
			t.Fatal("lag is unknown")
		}
		return time.Duration(*s * float64(time.Second)).Round(time.Millisecond)
	}
	// Ends of open transactions: the position is always ten offsets below the end.
	for end := int64(10); end < 1000; end += 10 {
		now = now.Add(100 * time.Millisecond)
		see(end)
		ln.position = end - 10
	}
	if got := behind(); got > 300*time.Millisecond {
		t.Errorf("lane follows within 100 ms and is %v behind", got)
	}
	// One transaction stays open: the position stands still.
	for end := int64(1000); end < 1100; end += 10 {
		now = now.Add(time.Second)
		see(end)
	}
	if got := behind(); got < 10*time.Second || got > 11*time.Second {
		t.Errorf("lane stands still for 10 s and is %v behind", got)
	}
	// It ends, but what came meanwhile is not copied yet: no record of now may be
	// called the oldest that is missing.
	ln.position = 1010
	now = now.Add(time.Second)
	see(1100)
	if got := behind(); got < 8*time.Second {
		t.Errorf("records of 9 s ago are missing and the lane is %v behind", got)
	}
	ln.position = 1100
	see(1100)
	if got := behind(); got != 0 {
		t.Errorf("all is copied and the lane is %v behind", got)
	}
	now = now.Add(time.Minute)
	see(1100)
	see(1101)
	if got := behind(); got != 0 {
		t.Errorf("a record came just now and the lane is %v behind", got)
	}
	// The source is made again, and written to all the time.
	ln.position = 0
	for end := int64(10); end < 500; end += 10 {
		now = now.Add(100 * time.Millisecond)
		see(end)
		ln.position = end - 10
	}
	if got := behind(); got > 300*time.Millisecond {
		t.Errorf("lane follows a source that was made again within 100 ms and is %v behind", got)
	}
}
