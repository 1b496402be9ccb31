package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
)

// alone gives a link a journal, a group and transactional ids that no other link
// of these tests has, and looks at the clusters every second.
func alone(t *testing.T, o mirror.Options) mirror.Options {
	t.Helper()
	o.From, o.To = "east", kafkatest.Topic(t, "west")
	o.RefreshInterval = time.Second
	o.JournalPartitions = 2
	return o
}

func journalOf(o mirror.Options) string { return "replicator." + o.From + "." + o.To + ".journal" }

// until polls the status until ok says so, for a minute at most.
func (l *link) until(what string, ok func(mirror.LinkStatus) bool) mirror.LinkStatus {
	l.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		s, answers := l.Status(l.t.Context())
		if !answers || s.State == mirror.LinkStopping {
			l.t.Fatalf("waiting for %s: the link has ended: %v", what, l.stop())
		}
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("not in time: %s\n%s", what, describe(s))
		}
		time.Sleep(30 * time.Millisecond) // between two polls
	}
}

// untilEvent waits for an event of a lane or topic and returns its detail.
func (l *link) untilEvent(kind, lane string) string {
	l.t.Helper()
	var found mirror.Event
	l.until("event "+kind+" of "+lane, func(s mirror.LinkStatus) bool {
		for _, e := range s.Events {
			if e.Kind == kind && (strings.HasPrefix(e.Lane, lane) || e.Lane == "" && strings.Contains(e.Detail, lane)) {
				found = e
				return true
			}
		}
		return false
	})
	return found.Detail
}

// untilLane waits until a lane is in a state and returns its reason.
func (l *link) untilLane(topic string, partition int32, state mirror.LaneState) string {
	l.t.Helper()
	reason := ""
	l.until(fmt.Sprintf("%s-%d %s", topic, partition, state), func(s mirror.LinkStatus) bool {
		ln, ok := laneOf(s, topic, partition)
		reason = ln.Reason
		return ok && ln.State == state
	})
	return reason
}

// untilAt waits until a lane is copying and has come to a source offset.
func (l *link) untilAt(topic string, partition int32, position int64) {
	l.t.Helper()
	l.until(fmt.Sprintf("%s-%d copied to source offset %d", topic, partition, position), func(s mirror.LinkStatus) bool {
		ln, ok := laneOf(s, topic, partition)
		return ok && ln.State == mirror.LaneCopying && ln.Position == position
	})
}

// ended waits until the link stops by itself and returns its error.
func (l *link) ended() error {
	l.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		if s, answers := l.Status(l.t.Context()); !answers || s.State == mirror.LinkStopping {
			return l.stop()
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("the link has not ended in time\n%s", describe(l.status()))
		}
		time.Sleep(30 * time.Millisecond) // between two polls
	}
}

func laneOf(s mirror.LinkStatus, topic string, partition int32) (mirror.LaneStatus, bool) {
	for _, ln := range s.Lanes {
		if ln.Topic == topic && ln.Partition == partition {
			return ln, true
		}
	}
	return mirror.LaneStatus{}, false
}

func describe(s mirror.LinkStatus) string {
	var b strings.Builder
	fmt.Fprintf(&b, "link %s %s\n", s.State, s.Reason)
	for _, ln := range s.Lanes {
		fmt.Fprintf(&b, "  %s-%d %s position %d of %d, target end %d, openings %d %s\n", ln.Topic, ln.Partition, ln.State, ln.Position, ln.SourceEnd, ln.TargetEnd, ln.Openings, ln.Reason)
	}
	for _, e := range s.Events {
		fmt.Fprintf(&b, "  event %s %s %s\n", e.Kind, e.Lane, e.Detail)
	}
	fmt.Fprintf(&b, "  errors %v", s.Errors)
	return b.String()
}

// put writes the records word-0 to word-n-1 to one partition, a batch for every ten.
func put(t *testing.T, c *kafkatest.Cluster, topic string, partition int32, word string, n int) {
	t.Helper()
	client, err := kgo.NewClient(append(opts(c), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.DefaultProduceTopic(topic), kgo.UnknownTopicRetries(20))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i := 0; i < n; i += 10 {
		var some []*kgo.Record
		for j := i; j < min(n, i+10); j++ {
			some = append(some, &kgo.Record{Partition: partition, Key: fmt.Append(nil, j), Value: fmt.Append(nil, word, "-", j)})
		}
		if err := client.ProduceSync(t.Context(), some...).FirstErr(); err != nil {
			t.Fatalf("write %s-%d: %v", topic, partition, err)
		}
	}
}

// values are the values of a partition's records in their order.
func values(t *testing.T, c *kafkatest.Cluster, topic string, partition int32) []string {
	t.Helper()
	var out []string
	err := compare.Read(t.Context(), compare.Seeds(c.Bootstrap()...), topic, func(r *kgo.Record) error {
		if r.Partition == partition {
			out = append(out, string(r.Value))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read %s: %v", topic, err)
	}
	return out
}

// words are the values put writes.
func words(word string, from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprint(word, "-", i))
	}
	return out
}

// wantValues fails if a partition does not hold exactly these values.
func wantValues(t *testing.T, c *kafkatest.Cluster, topic string, partition int32, want ...[]string) {
	t.Helper()
	got, all := values(t, c, topic, partition), slices.Concat(want...)
	if slices.Equal(got, all) {
		return
	}
	at := 0
	for at < min(len(got), len(all)) && got[at] == all[at] {
		at++
	}
	t.Errorf("%s-%d holds %d records, want %d; they differ from the %dth on: %v, want %v", topic, partition, len(got), len(all), at, got[at:min(len(got), at+3)], all[at:min(len(all), at+3)])
}

func wantContains(t *testing.T, what, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("%s is %q, want it to name %q", what, got, w)
		}
	}
}

// openJournal reads a link's journal as the link does.
func openJournal(t *testing.T, c *kafkatest.Cluster, topic string) *offsets.Journal {
	t.Helper()
	client := func(more ...kgo.Opt) (*kgo.Client, error) { return kgo.NewClient(append(opts(c), more...)...) }
	j, err := offsets.OpenJournal(t.Context(), offsets.JournalConfig{Client: client, Admin: c.Admin(), Topic: topic, Partitions: 2, ReplicationFactor: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

func deleteTopic(t *testing.T, c *kafkatest.Cluster, topic string) {
	t.Helper()
	if _, err := c.Admin().DeleteTopic(t.Context(), topic); err != nil {
		t.Fatalf("delete topic %s: %v", topic, err)
	}
}

// createAgain makes a topic of the name of one that was just deleted.
func createAgain(t *testing.T, c *kafkatest.Cluster, topic string, partitions int32) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		_, err := c.Admin().CreateTopic(t.Context(), partitions, -1, nil, topic)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("create topic %s again: %v", topic, err)
		}
		time.Sleep(50 * time.Millisecond) // until the deletion is through
	}
}

// placeTopic makes a topic of one partition for each list of brokers.
func placeTopic(t *testing.T, c *kafkatest.Cluster, topic string, settings map[string]string, replicas ...[]int32) {
	t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 15000
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, -1, -1
	for p, brokers := range replicas {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(p), brokers
		rt.ReplicaAssignment = append(rt.ReplicaAssignment, a)
	}
	for k, v := range settings {
		s := kmsg.NewCreateTopicsRequestTopicConfig()
		s.Name, s.Value = k, new(v)
		rt.Configs = append(rt.Configs, s)
	}
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), c.Client(t))
	if err != nil {
		t.Fatal(err)
	}
	if r := resp.Topics[0]; r.ErrorCode != 0 {
		t.Fatalf("create topic %s: code %d %v", topic, r.ErrorCode, r.ErrorMessage)
	}
	untilLeaders(t, c, topic, func(_ int32, p kadm.PartitionDetail) bool { return p.Leader == p.Replicas[0] })
}

// untilLeaders waits until every partition of a topic is as ok says.
func untilLeaders(t *testing.T, c *kafkatest.Cluster, topic string, ok func(int32, kadm.PartitionDetail) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		topics, err := c.Admin().ListTopics(t.Context(), topic)
		d := topics[topic]
		good := err == nil && d.Err == nil && len(d.Partitions) > 0
		for p, pd := range d.Partitions {
			good = good && ok(p, pd)
		}
		if good {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("topic %s is not as it should be in time: %+v %v", topic, d, err)
		}
		time.Sleep(50 * time.Millisecond) // between two polls
	}
}
