package verify_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/testlog"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
	"replicator/pkg/verify"
)

// fakeLink says that a lane stands where the test puts it.
type fakeLink struct {
	mu    sync.Mutex
	state offsets.LaneState
	lane  mirror.LaneStatus
	asked int
}

func (l *fakeLink) set(s offsets.LaneState, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, _ := s.Position()
	l.state, l.lane = s, mirror.LaneStatus{Topic: "orders", Position: p.Source, Ordinal: p.Ordinal, Bytes: bytes}
}

func (l *fakeLink) Status(context.Context) (mirror.LinkStatus, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return mirror.LinkStatus{Lanes: []mirror.LaneStatus{l.lane}}, true
}

func (l *fakeLink) Live(_ context.Context, lanes []offsets.Lane) (map[offsets.Lane]offsets.Live, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[offsets.Lane]offsets.Live{}
	for _, key := range lanes {
		out[key] = offsets.Live{State: l.state, TargetTopic: "orders"}
	}
	return out, nil
}

func (l *fakeLink) rounds() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

// follow runs a follower until the test ends.
func follow(t *testing.T, east, west *region, l *fakeLink, share float64) *verify.Follower {
	t.Helper()
	f := verify.NewFollower(verify.FollowConfig{
		Source: east.cluster, Target: west.cluster, Link: l, Share: share, ReadCommitted: true, Interval: 20 * time.Millisecond, Log: testlog.New(t),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return f
}

// until waits for a status.
func until(t *testing.T, f *verify.Follower, ok func(verify.FollowStatus) bool) verify.FollowStatus {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for {
		s, _, _ := f.Status()
		if ok(s) {
			return s
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("too late: %+v", s)
		}
	}
}

func untilRound(t *testing.T, f *verify.Follower, l *fakeLink) {
	t.Helper()
	seen := l.rounds()
	until(t, f, func(verify.FollowStatus) bool { return l.rounds() >= seen+3 })
}

func TestAFollowerComparesWhatComesAfterItsBegin(t *testing.T) {
	east, west := newRegion(t, "east"), newRegion(t, "west")
	all := records(100)
	east.write(all, 10)
	west.write(with(with(all, 20, func(r *kgo.Record) { r.Value = nil }), 80, func(r *kgo.Record) { r.Value = nil }), 10)
	l := &fakeLink{}
	l.set(state(50, 50, 50), 5000)
	f := follow(t, east, west, l, 1)
	untilRound(t, f, l)
	if s, _, _ := f.Status(); s.Records != 0 || s.Position == nil {
		t.Errorf("%+v before anything was copied", s)
	}
	l.set(state(70, 70, 70), 7000)
	until(t, f, func(s verify.FollowStatus) bool { return s.Records == 20 })
	l.set(state(100, 100, 100), 7000) // found by an opening: no bytes were counted
	s := until(t, f, func(s verify.FollowStatus) bool { return s.Records == 50 })
	if s.Differences != 1 || s.Failed != 0 || len(s.First) != 1 || s.First[0].Lane != "orders-0" || s.First[0].SourceOffset != 80 {
		t.Errorf("%+v", s)
	}
	_, events, counted := f.Status()
	if counted != 1 || len(events) != 1 || events[0].Kind != mirror.EventDifference || events[0].Lane != "orders-0" {
		t.Errorf("%d events: %v", counted, events)
	}
}

func TestAFollowerComparesItsShare(t *testing.T) {
	east, west := newRegion(t, "east"), newRegion(t, "west")
	all := records(4000)
	east.write(all, 100)
	west.write(all, 100)
	l := &fakeLink{}
	l.set(state(0, 0, 0), 0)
	f := follow(t, east, west, l, 0.25)
	untilRound(t, f, l)
	// Forty steps of a hundred records that count a MiB: a quarter of all.
	for n := int64(100); n <= 4000; n += 100 {
		l.set(state(n, n, n), n/100<<20)
		untilRound(t, f, l)
	}
	s, _, _ := f.Status()
	if s.Records < 800 || s.Records > 1200 || s.Differences != 0 || s.Failed != 0 {
		t.Errorf("compared %d of 4000 records: %+v", s.Records, s)
	}
}

func TestWhatAFollowerCannotCompareIsTriedAgain(t *testing.T) {
	east, west := newRegion(t, "east"), newRegion(t, "west")
	all := records(20)
	east.write(all, 10)
	west.write(all[:10], 10)
	l := &fakeLink{}
	l.set(state(0, 0, 0), 0)
	f := follow(t, east, west, l, 1)
	untilRound(t, f, l)
	l.set(state(20, 20, 20), 2000) // the target lacks ten
	s := until(t, f, func(s verify.FollowStatus) bool { return s.Error != "" })
	if s.Failed != 0 {
		t.Errorf("given up at once: %+v", s)
	}
	west.write(all[10:], 10)
	s = until(t, f, func(s verify.FollowStatus) bool { return s.Records >= 20 && s.Error == "" })
	if s.Differences != 0 || s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}
