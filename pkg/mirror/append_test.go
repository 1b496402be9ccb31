package mirror

import (
	"testing"
	"time"

	"replicator/pkg/wire"
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

// Over a fast way the window comes to its width; where answers take long it does
// not, so that nothing lies before the connection until its leases run out.
func TestTheWindowFollowsTheAnswers(t *testing.T) {
	a := &appender{window: nearRequests, widest: 18}
	for range 100 {
		a.tookTime(80 * time.Millisecond)
	}
	if a.window != 18 {
		t.Errorf("window is %d after a hundred quick answers, expected 18", a.window)
	}
	for range 100 {
		a.tookTime(1600 * time.Millisecond)
	}
	if a.window != nearRequests {
		t.Errorf("window is %d after a hundred slow answers, expected %d", a.window, nearRequests)
	}
}

// A lane that was left out for its own sake is fetched again when it has nothing
// to send, however busy its neighbours are; one left out for its target broker
// waits until that has room.
func TestLanesAreFetchedAgain(t *testing.T) {
	const share = nearRequests*maxRequestBytes + nearFetchBytes
	for _, tt := range []struct {
		name   string
		queued int // bytes of all lanes
		unsent int // batches of this one
		size   int // of one
		want   bool
	}{
		{"nothing to send, neighbours busy", share, 0, 0, true},
		{"nothing to send, neighbours crowd", share + 1, 0, 0, false},
		{"a little to send, neighbours busy", share, 1, 100, false},
		{"a little to send, room", share / 2, window, 100, true},
		{"much to send, room", share / 2, window + 1, 100, false},
		{"too many bytes, room", share / 2, 1, 5 << 20, false},
	} {
		l := &Link{pool: wire.NewPool(64 << 20), appenders: map[int32]*appender{}}
		a := &appender{link: l, window: nearRequests, queued: tt.queued, paused: map[*lane]struct{}{}}
		l.appenders[0] = a
		f := &fetcher{link: l, wake: make(chan struct{}, 1)}
		ln := &lane{appender: a, fetcher: f, paused: true, queued: tt.unsent * tt.size}
		for range tt.unsent {
			ln.chain.push(item{data: make([]byte, tt.size)})
		}
		a.paused[ln] = struct{}{}
		l.resume(a)
		if got := len(f.commands) == 1 && f.commands[0].kind == fetchResume; got != tt.want || ln.paused == got {
			t.Errorf("%s: fetched again %v, paused %v", tt.name, got, ln.paused)
		}
	}
}
