package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
)

// Retention passes the position while nobody copies. The gap is told with its
// exact size and journalled; copying goes on behind it, or the lane halts where
// that was asked for, and its neighbour goes on.
func TestGapOfTheSourceIsTold(t *testing.T) {
	pair := kafkatest.Pair(t)
	topic := kafkatest.Topic(t, "orders")
	pair.Source.CreateTopic(t, topic, 2)
	for p := range int32(2) {
		put(t, pair.Source, topic, p, "first", 100)
	}
	goOn := alone(t, mirror.Options{Topics: []string{topic}})
	halt := alone(t, mirror.Options{Topics: []string{topic}, OnGap: mirror.Halt, Rename: func(s string) string { return s + ".halts" }})
	links := []*link{startLink(t, pair, goOn), startLink(t, pair, halt)}
	for _, l := range links {
		l.untilAt(topic, 0, 100)
		l.untilAt(topic, 1, 100)
		if err := l.stop(); err != nil {
			t.Fatal(err)
		}
	}

	for p := range int32(2) {
		put(t, pair.Source, topic, p, "second", 100)
	}
	var remove kadm.Offsets
	remove.AddOffset(topic, 0, 150, -1)
	if _, err := pair.Source.Admin().DeleteRecords(t.Context(), remove); err != nil {
		t.Fatal(err)
	}

	lane := fmt.Sprintf("%s-0", topic)
	l := startLink(t, pair, goOn)
	wantContains(t, "gap", l.untilEvent(mirror.EventGap, lane), "offsets 100 to 149 (50)")
	l.untilAt(topic, 0, 200)
	put(t, pair.Source, topic, 0, "third", 20)
	l.untilAt(topic, 0, 220)
	l.untilAt(topic, 1, 200)
	wantValues(t, pair.Target, topic, 0, words("first", 0, 100), words("second", 50, 100), words("third", 0, 20))
	wantValues(t, pair.Target, topic, 1, words("first", 0, 100), words("second", 0, 100))
	s := l.status()
	if n := s.EventCounts[mirror.EventGap]; n != 1 {
		t.Errorf("%d gap events, want 1", n)
	}
	var skipped int64
	for _, r := range s.Routes {
		if r.Route == "skip" && r.Reason == "gap" {
			skipped += r.Records
		}
	}
	if skipped != 50 {
		t.Errorf("routes count %d records of gaps, want 50: %+v", skipped, s.Routes)
	}
	gaps := openJournal(t, pair.Target, journalOf(goOn)).State(offsets.Lane{Topic: topic, Partition: 0}).Gaps()
	if len(gaps) != 1 || gaps[0].From != 100 || gaps[0].To != 150 {
		t.Errorf("journal holds gaps %+v, want one of [100,150)", gaps)
	}

	h := startLink(t, pair, halt)
	wantContains(t, "reason", h.untilLane(topic, 0, mirror.LaneHalted), "offsets 100 to 149 (50)", "on_gap")
	h.untilAt(topic, 1, 200)
	put(t, pair.Source, topic, 1, "third", 20)
	h.untilAt(topic, 1, 220)
	wantValues(t, pair.Target, topic+".halts", 0, words("first", 0, 100))
	wantValues(t, pair.Target, topic+".halts", 1, words("first", 0, 100), words("second", 0, 100), words("third", 0, 20))
	if s := h.status(); s.EventCounts[mirror.EventHalted] != 1 || s.Ready {
		t.Errorf("%d halted events, ready %v: want 1, false", s.EventCounts[mirror.EventHalted], s.Ready)
	}
}

// Topics of the source are deleted, made again and grown while they are copied.
func TestTopicsOfTheSourceChange(t *testing.T) {
	pair := kafkatest.Pair(t)
	prefix := kafkatest.Topic(t, "t")
	again, gone, grown, calm := prefix+".again", prefix+".gone", prefix+".grown", prefix+".calm"
	for _, topic := range []string{again, gone, grown, calm} {
		pair.Source.CreateTopic(t, topic, 1)
		put(t, pair.Source, topic, 0, "old", 100)
	}
	l := startLink(t, pair, alone(t, mirror.Options{Topics: []string{prefix + `\..*`}}))
	// A link that follows, and one that began at the end of the source.
	follow := startLink(t, pair, alone(t, mirror.Options{Topics: []string{again}, OnRecreate: mirror.Continue, Rename: func(s string) string { return s + ".follows" }}))
	latest := startLink(t, pair, alone(t, mirror.Options{Topics: []string{again}, OnRecreate: mirror.Continue, StartLatest: true, Rename: func(s string) string { return s + ".latest" }}))
	for _, topic := range []string{again, gone, grown, calm} {
		l.untilAt(topic, 0, 100)
	}
	follow.untilAt(again, 0, 100)
	latest.untilAt(again, 0, 100)

	deleteTopic(t, pair.Source, gone)
	deleteTopic(t, pair.Source, again)
	createAgain(t, pair.Source, again, 1)
	put(t, pair.Source, again, 0, "new", 150) // beyond the old position
	if _, err := pair.Source.Admin().UpdatePartitions(t.Context(), 3, grown); err != nil {
		t.Fatal(err)
	}
	for p := range int32(3) {
		put(t, pair.Source, grown, p, "new", 50)
	}

	// Made again: halted, with its reason; the other links follow.
	wantContains(t, "reason", l.untilLane(again, 0, mirror.LaneHalted), "deleted and created again", "on_recreate")
	l.untilEvent(mirror.EventRecreated, again)
	wantValues(t, pair.Target, again, 0, words("old", 0, 100))
	follow.untilEvent(mirror.EventRecreated, again)
	follow.untilAt(again, 0, 150)
	wantValues(t, pair.Target, again+".follows", 0, words("old", 0, 100), words("new", 0, 150))
	latest.untilAt(again, 0, 150)
	wantValues(t, pair.Target, again+".latest", 0, words("new", 0, 150))

	// Gone: its lane ends, its copy stays.
	wantContains(t, "event", l.untilEvent(mirror.EventDeleted, gone), "its copy "+gone+" stays")
	l.until("lane of the deleted topic ends", func(s mirror.LinkStatus) bool { _, ok := laneOf(s, gone, 0); return !ok })
	wantValues(t, pair.Target, gone, 0, words("old", 0, 100))

	// Grown: the target too, and nothing written before that was seen is missed.
	l.untilEvent(mirror.EventGrown, "target topic "+grown)
	l.untilAt(grown, 0, 150)
	for p := range int32(3) {
		want := words("new", 0, 50)
		if p > 0 {
			l.untilAt(grown, p, 50)
			wantValues(t, pair.Target, grown, p, want)
		}
	}
	if _, err := compare.WaitEqual(t.Context(), opts(pair.Source), opts(pair.Target), compare.Same(grown), compare.Options{}); err != nil {
		t.Error(err)
	}

	// And through all of it the neighbour was copied.
	put(t, pair.Source, calm, 0, "late", 50)
	l.untilAt(calm, 0, 150)
	wantValues(t, pair.Target, calm, 0, words("old", 0, 100), words("late", 0, 50))
	s := l.status()
	if s.EventCounts[mirror.EventDeleted] < 1 || !strings.Contains(s.Reason, "lanes are not copying") {
		t.Errorf("status: %s", describe(s))
	}
}
