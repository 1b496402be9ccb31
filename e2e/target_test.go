package e2e

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
)

// The target topic is deleted while it is written to: its lanes halt, nothing is
// made anew behind the operator's back, the neighbour is copied on. After a
// restart the topic is there again and empty, and the lanes still halt: the
// journal knows that it is not the one that was written.
func TestTargetTopicIsDeleted(t *testing.T) {
	pair := kafkatest.Pair(t)
	prefix := kafkatest.Topic(t, "t")
	gone, calm := prefix+".gone", prefix+".calm"
	for _, topic := range []string{gone, calm} {
		pair.Source.CreateTopic(t, topic, 2)
		for p := range int32(2) {
			put(t, pair.Source, topic, p, "first", 50)
		}
	}
	o := alone(t, mirror.Options{Topics: []string{prefix + `\..*`}})
	l := startLink(t, pair, o)
	for p := range int32(2) {
		l.untilAt(gone, p, 50)
		l.untilAt(calm, p, 50)
	}
	deleteTopic(t, pair.Target, gone)
	put(t, pair.Source, gone, 0, "second", 50) // partition 1 stays idle
	for p := range int32(2) {
		wantContains(t, "reason", l.untilLane(gone, p, mirror.LaneHalted), gone, "deleted under us")
		put(t, pair.Source, calm, p, "second", 50)
		l.untilAt(calm, p, 100)
		wantValues(t, pair.Target, calm, p, words("first", 0, 50), words("second", 0, 50))
	}
	l.untilEvent(mirror.EventTargetTopic, gone)
	// Two refreshes later it is still not there: the calm topic grows to tell time.
	for n := 3; n <= 4; n++ {
		if _, err := pair.Source.Admin().UpdatePartitions(t.Context(), n, calm); err != nil {
			t.Fatal(err)
		}
		l.untilAt(calm, int32(n-1), 0)
	}
	topics, err := pair.Target.Admin().ListTopics(t.Context())
	if err != nil || topics.Has(gone) {
		t.Errorf("topic %s on the target: there %v, %v", gone, topics.Has(gone), err)
	}
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	l = startLink(t, pair, o)
	for p := range int32(2) {
		wantContains(t, "reason", l.untilLane(gone, p, mirror.LaneHalted), gone, "deleted and created again")
		l.untilAt(calm, p, 100)
	}
	wantValues(t, pair.Target, gone, 0)
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}

	o.OnRecreate = mirror.Continue
	l = startLink(t, pair, o)
	for p, n := range []int64{100, 50} {
		l.untilAt(gone, int32(p), n)
	}
	l.untilEvent(mirror.EventRecreated, gone)
	wantValues(t, pair.Target, gone, 0, words("first", 0, 50), words("second", 0, 50))
	wantValues(t, pair.Target, gone, 1, words("first", 0, 50))
}

// A target topic with more partitions than its source is refused by name; keys
// would lie elsewhere.
func TestTargetTopicWithMorePartitionsIsRefused(t *testing.T) {
	pair := kafkatest.Pair(t)
	prefix := kafkatest.Topic(t, "t")
	wide, calm := prefix+".wide", prefix+".calm"
	for _, topic := range []string{wide, calm} {
		pair.Source.CreateTopic(t, topic, 1)
		put(t, pair.Source, topic, 0, "first", 20)
	}
	pair.Target.CreateTopic(t, wide, 3)
	l := startLink(t, pair, alone(t, mirror.Options{Topics: []string{prefix + `\..*`}}))
	wantContains(t, "event", l.untilEvent(mirror.EventTargetTopic, wide), "target topic "+wide+" has 3 partitions", "has 1")
	l.untilAt(calm, 0, 20)
	wantContains(t, "reason", l.untilLane(wide, 0, mirror.LaneWaiting), "has 3 partitions")
	wantValues(t, pair.Target, wide, 0)
}

// Somebody else writes to the target partition, while the lane is idle and while
// it is at work. That is told; the map shifts; every record of the source still
// arrives once, in order.
func TestForeignWriterIsTold(t *testing.T) {
	pair := kafkatest.Pair(t)
	topic := kafkatest.Topic(t, "orders")
	pair.Source.CreateTopic(t, topic, 1)
	o := alone(t, mirror.Options{Topics: []string{topic}})
	l := startLink(t, pair, o)
	put(t, pair.Source, topic, 0, "first", 50)
	l.untilAt(topic, 0, 50)
	put(t, pair.Target, topic, 0, "foreign-a", 7)
	put(t, pair.Source, topic, 0, "second", 50)
	l.untilEvent(mirror.EventForeignWriter, topic)
	l.untilAt(topic, 0, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		put(t, pair.Target, topic, 0, "foreign-b", 30)
	}()
	put(t, pair.Source, topic, 0, "third", 300)
	<-done
	l.untilAt(topic, 0, 400)

	var ours, foreign []string
	at := map[int64]string{} // by target offset
	err := compare.Read(t.Context(), opts(pair.Target), topic, func(r *kgo.Record) error {
		if v := string(r.Value); len(v) > 7 && v[:7] == "foreign" {
			foreign = append(foreign, v)
		} else {
			ours = append(ours, v)
			at[r.Offset] = v
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := append(append(words("first", 0, 50), words("second", 0, 50)...), words("third", 0, 300)...)
	if len(foreign) != 37 || fmt.Sprint(ours) != fmt.Sprint(want) {
		t.Errorf("target holds %d foreign records, want 37, and %d of ours, want %d in order", len(foreign), len(ours), len(want))
	}
	if s := l.status(); s.EventCounts[mirror.EventHalted] != 0 {
		t.Error(describe(s))
	}
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	// The journal still says of every record where its source stands.
	state := openJournal(t, pair.Target, journalOf(o)).State(offsets.Lane{Topic: topic, Partition: 0})
	for offset, value := range at {
		p, ok := state.SourceOf(offset)
		if !ok || p.Target != offset || want[p.Source] != value {
			t.Fatalf("target offset %d holds %s; the journal says %+v %v", offset, value, p, ok)
		}
	}
}

// A target topic that holds records the journal does not know is left alone
// until somebody says that they may stay.
func TestTargetAlreadyHoldsRecords(t *testing.T) {
	pair := kafkatest.Pair(t)
	topic := kafkatest.Topic(t, "orders")
	pair.Source.CreateTopic(t, topic, 2)
	pair.Target.CreateTopic(t, topic, 2)
	for p := range int32(2) {
		put(t, pair.Source, topic, p, "ours", 50)
	}
	put(t, pair.Target, topic, 0, "theirs", 30)
	o := alone(t, mirror.Options{Topics: []string{topic}})
	l := startLink(t, pair, o)
	wantContains(t, "reason", l.untilLane(topic, 0, mirror.LaneHalted), topic+"-0", "does not know", "append_to_existing")
	l.untilAt(topic, 1, 50)
	wantValues(t, pair.Target, topic, 0, words("theirs", 0, 30))
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	o.AppendToExisting = true
	l = startLink(t, pair, o)
	l.untilAt(topic, 0, 50)
	wantValues(t, pair.Target, topic, 0, words("theirs", 0, 30), words("ours", 0, 50))
	wantValues(t, pair.Target, topic, 1, words("ours", 0, 50))
	if err := l.stop(); err != nil {
		t.Fatal(err)
	}
	// From then on the lane is known and needs no permission.
	o.AppendToExisting = false
	l = startLink(t, pair, o)
	put(t, pair.Source, topic, 0, "more", 10)
	l.untilAt(topic, 0, 60)
	wantValues(t, pair.Target, topic, 0, words("theirs", 0, 30), words("ours", 0, 50), words("more", 0, 10))
}

// Without its journal a link does not know what the target holds. It stops, or
// its lanes halt; nothing is guessed and nothing is copied a second time.
func TestJournalIsDeleted(t *testing.T) {
	pair := kafkatest.Pair(t)
	topic := kafkatest.Topic(t, "orders")
	pair.Source.CreateTopic(t, topic, 2)
	for p := range int32(2) {
		put(t, pair.Source, topic, p, "first", 50)
	}
	o := alone(t, mirror.Options{Topics: []string{topic}})
	l := startLink(t, pair, o)
	for p := range int32(2) {
		l.untilAt(topic, p, 50)
	}
	deleteTopic(t, pair.Target, journalOf(o))
	put(t, pair.Source, topic, 0, "second", 50)
	err := l.ended()
	if err == nil {
		t.Fatal("the link ended without an error")
	}
	wantContains(t, "error of the link", err.Error(), "journal")
	var held [][]string
	for p := range int32(2) {
		held = append(held, values(t, pair.Target, topic, p))
	}
	if want := append(words("first", 0, 50), words("second", 0, 50)...); len(held[0]) > 100 || fmt.Sprint(held[0]) != fmt.Sprint(want[:len(held[0])]) {
		t.Errorf("target holds %d records of partition 0: %v", len(held[0]), held[0])
	}

	l = startLink(t, pair, o)
	for p := range int32(2) {
		wantContains(t, "reason", l.untilLane(topic, p, mirror.LaneHalted), "does not know", journalOf(o), "append_to_existing")
		wantValues(t, pair.Target, topic, p, held[p])
	}
}
