package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
)

// Clusters of three brokers whose leaders move and whose logs lose their tails.
func TestBrokersComeAndGo(t *testing.T) {
	t.Parallel()
	pair := kafkatest.StartPair(t, kafkatest.Config{Brokers: 3, Heap: "320m"}, kafkatest.Config{Brokers: 3, Heap: "320m"})
	t.Run("leaders move under load", func(t *testing.T) { leadersMove(t, pair) })
	t.Run("source is truncated", func(t *testing.T) { sourceIsTruncated(t, pair) })
	t.Run("target loses its tail", func(t *testing.T) { targetLosesItsTail(t, pair) })
}

// Two brokers of both clusters are stopped in turn, one of them killed, and the
// leaders are moved back, while records come in: nothing lost, nothing doubled.
func leadersMove(t *testing.T, pair *kafkatest.ClusterPair) {
	topic := kafkatest.Topic(t, "live")
	live, err := workload.StartLive(t.Context(), opts(pair.Source), workload.LiveConfig{
		Spec: workload.Spec{Topic: topic, Kind: workload.Plain, Codec: workload.LZ4, Partitions: 6, ValueBytes: 200}, Rate: 1500,
	})
	if err != nil {
		t.Fatal(err)
	}
	l := startLink(t, pair, alone(t, mirror.Options{Topics: []string{topic}}))
	l.until("all lanes copy", func(s mirror.LinkStatus) bool { return s.LaneStates[mirror.LaneCopying] == 6 })
	moved := map[string]bool{}
	for id := 1; id <= 2; id++ {
		for _, c := range []*kafkatest.Cluster{pair.Source, pair.Target} {
			b := c.Broker(id)
			if c == pair.Target && id == 2 {
				b.Kill()
			} else if err := b.Stop(); err != nil {
				t.Fatal(err)
			}
			untilLeaders(t, c, topic, func(_ int32, p kadm.PartitionDetail) bool { return p.Leader >= 0 && p.Leader != int32(id) })
			for _, ln := range l.status().Lanes {
				moved[fmt.Sprint(ln.Topic, ln.Partition, " from ", ln.SourceBroker, " to ", ln.TargetBroker)] = true
			}
			if err := b.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			untilLeaders(t, c, topic, func(_ int32, p kadm.PartitionDetail) bool { return len(p.ISR) == 3 })
			if _, err := c.Admin().ElectLeaders(t.Context(), kadm.ElectPreferredReplica, kadm.TopicsSet{topic: {0: {}, 1: {}, 2: {}, 3: {}, 4: {}, 5: {}}}); err != nil {
				t.Logf("elect preferred leaders: %v", err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	written, err := live.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	report, err := compare.WaitEqual(ctx, opts(pair.Source), opts(pair.Target), compare.Same(topic), compare.Options{})
	if err != nil {
		t.Fatalf("%v\n%v\n%s", err, report, describe(l.status()))
	}
	audit, err := written.Audit(ctx, opts(pair.Target), topic)
	if err == nil {
		err = audit.Err()
	}
	if err != nil {
		t.Error(err)
	}
	s := l.status()
	t.Logf("%v; %d openings, %d ways of lanes, errors %v", report, s.Openings, len(moved), s.Errors)
	if s.Openings <= 6 || len(moved) <= 6 {
		t.Errorf("leaders did not move: %d openings, lanes went %v", s.Openings, moved)
	}
	if n := s.EventCounts[mirror.EventHalted] + s.EventCounts[mirror.EventGap] + s.EventCounts[mirror.EventTruncation] + s.EventCounts[mirror.EventDeleted]; n > 0 {
		t.Errorf("moving leaders is no event of the data: %s", describe(s))
	}
}

// loseTail has broker 1 of a cluster take records that broker 2, which was its
// only follower, will never see, and makes broker 2 the leader.
func loseTail(t *testing.T, c *kafkatest.Cluster, topics []string, lost func()) {
	t.Helper()
	if err := c.Broker(2).Stop(); err != nil {
		t.Fatal(err)
	}
	led := func(by int32) func(int32, kadm.PartitionDetail) bool {
		return func(_ int32, p kadm.PartitionDetail) bool {
			return p.Replicas[0] != 1 || p.Leader == by && len(p.ISR) == 1
		}
	}
	for _, topic := range topics {
		untilLeaders(t, c, topic, led(1))
	}
	lost()
	c.Broker(1).Kill()
	if err := c.Broker(2).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, topic := range topics {
		untilLeaders(t, c, topic, led(2))
	}
}

var unclean = map[string]string{"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}

// The source loses records that were copied, and goes on with others: below the
// position, and beyond it. The lane halts with the exact range, or follows where
// that was asked for, also when it was not running at the time.
func sourceIsTruncated(t *testing.T, pair *kafkatest.ClusterPair) {
	prefix := kafkatest.Topic(t, "t")
	cut, regrown := prefix+".cut", prefix+".regrown"
	topics := []string{cut, regrown}
	for _, topic := range topics {
		placeTopic(t, pair.Source, topic, unclean, []int32{1, 2}, []int32{3, 2})
		put(t, pair.Source, topic, 0, "first", 100)
		put(t, pair.Source, topic, 1, "first", 100)
	}
	l := startLink(t, pair, alone(t, mirror.Options{Topics: []string{prefix + `\..*`}}))
	following := alone(t, mirror.Options{Topics: []string{prefix + `\..*`}, OnTruncation: mirror.Continue, Rename: func(s string) string { return s + ".follows" }})
	follow := startLink(t, pair, following)
	for _, topic := range topics {
		l.untilAt(topic, 0, 100)
		follow.untilAt(topic, 0, 100)
	}
	loseTail(t, pair.Source, topics, func() {
		for _, topic := range topics {
			put(t, pair.Source, topic, 0, "lost", 60)
			l.untilAt(topic, 0, 160)
			follow.untilAt(topic, 0, 160)
		}
		if err := follow.stop(); err != nil {
			t.Fatal(err)
		}
	})
	put(t, pair.Source, cut, 0, "other", 30)
	put(t, pair.Source, regrown, 0, "other", 200)

	for _, topic := range topics {
		wantContains(t, "reason", l.untilLane(topic, 0, mirror.LaneHalted), "truncated to offset 100", "up to offset 159", "60 offsets", "on_truncation")
		l.untilEvent(mirror.EventTruncation, topic)
		wantValues(t, pair.Target, topic, 0, words("first", 0, 100), words("lost", 0, 60))
		put(t, pair.Source, topic, 1, "late", 50)
		l.untilAt(topic, 1, 150)
		wantValues(t, pair.Target, topic, 1, words("first", 0, 100), words("late", 0, 50))
	}
	if s := l.status(); s.EventCounts[mirror.EventTruncation] != 2 || s.EventCounts[mirror.EventHalted] != 2 {
		t.Errorf("events of two truncated lanes: %s", describe(s))
	}

	follow = startLink(t, pair, following)
	follow.untilAt(cut, 0, 130)
	follow.untilAt(regrown, 0, 300)
	for topic, n := range map[string]int{cut: 30, regrown: 200} {
		follow.untilEvent(mirror.EventTruncation, topic)
		wantValues(t, pair.Target, topic+".follows", 0, words("first", 0, 100), words("lost", 0, 60), words("other", 0, n))
		follow.untilAt(topic, 1, 150)
		wantValues(t, pair.Target, topic+".follows", 1, words("first", 0, 100), words("late", 0, 50))
	}
	// It goes on as if nothing had been, also after another start.
	if err := follow.stop(); err != nil {
		t.Fatal(err)
	}
	follow = startLink(t, pair, following)
	put(t, pair.Source, cut, 0, "more", 20)
	follow.untilAt(cut, 0, 150)
	follow.untilAt(regrown, 0, 300)
	wantValues(t, pair.Target, cut+".follows", 0, words("first", 0, 100), words("lost", 0, 60), words("other", 0, 30), words("more", 0, 20))
	if s := follow.status(); s.EventCounts[mirror.EventTruncation] != 0 {
		t.Errorf("a truncation that was followed is told again: %s", describe(s))
	}
	if err := pair.Source.Broker(1).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The target loses records it had acknowledged. They are sent again, each lane
// from where its log ends now, however few were lost.
func targetLosesItsTail(t *testing.T, pair *kafkatest.ClusterPair) {
	topic := kafkatest.Topic(t, "orders")
	pair.Source.CreateTopic(t, topic, 5)
	placeTopic(t, pair.Target, topic, unclean, []int32{1, 2}, []int32{3, 2}, []int32{1, 2}, []int32{1, 2}, []int32{1, 2})
	for p := range int32(5) {
		put(t, pair.Source, topic, p, "first", 100)
	}
	o := alone(t, mirror.Options{Topics: []string{topic}})
	l := startLink(t, pair, o)
	for p := range int32(5) {
		l.untilAt(topic, p, 100)
	}
	lose := []int{60, 60, 1, 2, 5}
	loseTail(t, pair.Target, []string{topic}, func() {
		for p, n := range lose {
			put(t, pair.Source, topic, int32(p), "second", n)
			l.untilAt(topic, int32(p), int64(100+n))
		}
		// Positions go to the journal every second. What it does not know of yet is
		// sent again too, but without an event.
		j := openJournal(t, pair.Target, journalOf(o))
		for p, n := range lose {
			eventually(t, fmt.Sprintf("the journal knows what partition %d has", p), func() bool {
				at, _ := j.State(offsets.Lane{Topic: topic, Partition: int32(p)}).Position()
				return at.Source == int64(100+n)
			})
		}
	})
	for p := range int32(5) {
		put(t, pair.Source, topic, p, "third", 30)
	}
	for p, n := range lose {
		l.untilAt(topic, int32(p), int64(130+n))
		wantValues(t, pair.Target, topic, int32(p), words("first", 0, 100), words("second", 0, n), words("third", 0, 30))
		if p != 1 {
			wantContains(t, "event", l.untilEvent(mirror.EventCut, fmt.Sprintf("%s-%d", topic, p)), "sent again from source offset 100 on")
		}
	}
	s := l.status()
	if s.EventCounts[mirror.EventCut] != 4 || s.EventCounts[mirror.EventHalted] != 0 {
		t.Errorf("four lanes lost their tails: %s", describe(s))
	}
	if _, err := compare.WaitEqual(t.Context(), opts(pair.Source), opts(pair.Target), compare.Same(topic), compare.Options{}); err != nil {
		t.Error(err)
	}
	if err := pair.Target.Broker(1).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}
