package e2e

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/pkg/cluster"
	"replicator/pkg/mirrormaker"
)

// What reads the topics of MirrorMaker 2 reads ours: its own client gets true
// answers off a target of ours, and its own records are read by us, byte for byte.
func TestMirrorMakersReadersAndRecords(t *testing.T) {
	t.Parallel()
	libs := kafkatest.NeedProgram(t, kafkatest.Kafka4, kafkatest.WithMirrorMaker)
	pair := kafkatest.StartPair(t, kafkatest.Config{}, kafkatest.Config{})
	// Offsets where a commit can lie: at the start, on a record, on a marker, on an
	// aborted record, at the last record, at the end.
	commits := map[string]int64{"begins": 0, "reads": 7, "at-marker": 10, "at-aborted": 25, "at-last": 46, "done": 48}
	for _, topic := range []string{"orders", "payments"} {
		pair.Source.CreateTopic(t, topic, 1)
		transactions(t, pair.Source, topic)
	}
	commitAll(t, pair.Source, commits, "orders", "payments")
	t.Run("client", func(t *testing.T) { clientReadsOurs(t, pair, libs, commits) })
	t.Run("records", func(t *testing.T) { weReadTheirs(t, pair, libs) })
}

// transactions writes three of ten records, the second of them aborted, and then
// fourteen in one: offsets 0-9, marker 10, 11-20 aborted, marker 21, 22-31, marker
// 32, 33-46, marker 47.
func transactions(t *testing.T, c *kafkatest.Cluster, topic string) {
	t.Helper()
	client, err := kgo.NewClient(append(opts(c), kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic))...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i, n := range []int{10, 10, 10, 14} {
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for j := range n {
			if err := client.ProduceSync(t.Context(), kgo.StringRecord(fmt.Sprint(topic, "-", i, "-", j))).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := cluster.EndTransaction(t.Context(), client, kgo.TransactionEndTry(i != 1), topic); err != nil {
			t.Fatal(err)
		}
	}
}

// commitAll has a group for each offset, which has it in every topic.
func commitAll(t *testing.T, c *kafkatest.Cluster, commits map[string]int64, topics ...string) {
	t.Helper()
	for group, at := range commits {
		var o kadm.Offsets
		for _, topic := range topics {
			o.Add(kadm.Offset{Topic: topic, At: at, LeaderEpoch: -1, Metadata: "of " + group})
		}
		if err := c.Admin().CommitAllOffsets(t.Context(), group, o); err != nil {
			t.Fatalf("commit for %s: %v", group, err)
		}
	}
}

// clientReadsOurs runs a daemon with two links: east with prefixes, as
// DefaultReplicationPolicy expects, north with the same names, as
// IdentityReplicationPolicy does.
func clientReadsOurs(t *testing.T, pair *kafkatest.ClusterPair, libs string, commits map[string]int64) {
	source, target := strings.Join(pair.Source.Bootstrap(), ","), strings.Join(pair.Target.Bootstrap(), ",")
	file := filepath.Join(t.TempDir(), "links.yaml")
	text := fmt.Sprintf(`clusters:
  east: {bootstrap_servers: [%[1]s]}
  north: {bootstrap_servers: [%[1]s]}
  west: {bootstrap_servers: [%[2]s]}
links:
  - {from: east, to: west, topics: [orders], naming: prefix, topic_prefix: east., refresh_interval: 1s, heartbeats: {enabled: true}}
  - {from: north, to: west, topics: [payments], refresh_interval: 1s, heartbeats: {enabled: true}}
http: {listen: ''}
`, source, target)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	startProcess(t, file, "daemon", "")

	for _, c := range []struct{ alias, topic, copy, policy string }{
		{"east", "orders", "east.orders", "DefaultReplicationPolicy"},
		{"north", "payments", "payments", "IdentityReplicationPolicy"},
	} {
		eventually(t, "heartbeats and checkpoints of "+c.alias, func() bool {
			return len(records(pair.Target, mirrormaker.RemoteHeartbeats(c.alias))) > 0 &&
				len(records(pair.Target, mirrormaker.CheckpointsTopic(c.alias))) >= len(commits)
		})
		j := kafkatest.Java{Libs: libs, Main: "testdata/MirrorProbe.java", Args: append([]string{target, c.policy, c.alias}, slices.Sorted(maps.Keys(commits))...)}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		out, err := j.Run(ctx, nil)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		want := "upstreamClusters: east north\nreplicationHops: 1\nreplicationHops nowhere: -1\nheartbeatTopics: east.heartbeats north.heartbeats\n" +
			"checkpointTopics: east.checkpoints.internal north.checkpoints.internal\n"
		if c.policy == "DefaultReplicationPolicy" {
			want += "remoteTopics: east.heartbeats east.orders\n"
		} else { // whatever is no copy of heartbeats and not internal, is of its one source
			want += "remoteTopics: east.orders north.heartbeats payments " + strings.Join(ours(), " ") + "\n"
		}
		next := trueNext(t, pair, c.topic, c.copy)
		for _, group := range slices.Sorted(maps.Keys(commits)) {
			want += fmt.Sprintf("translateOffsets %s %s-0: %d\n", group, c.copy, next(commits[group]))
		}
		if d := cmp.Diff(want, string(out)); d != "" {
			t.Errorf("%s reads of %s (-want +got)\n%s", c.policy, c.alias, d)
		}
	}
	for _, alias := range []string{"east", "north"} {
		same(t, pair.Target, mirrormaker.CheckpointsTopic(alias))
		same(t, pair.Target, mirrormaker.RemoteHeartbeats(alias))
	}
}

// ours are the topics that the links keep for themselves.
func ours() []string {
	return []string{"replicator.east.west.checkpoints", "replicator.east.west.journal", "replicator.north.west.checkpoints", "replicator.north.west.journal"}
}

// trueNext finds by content where a next source offset is on the target: at the
// first record that was not read yet, or behind the last one.
func trueNext(t *testing.T, pair *kafkatest.ClusterPair, topic, mirror string) func(int64) int64 {
	t.Helper()
	at := map[string]int64{}
	end := int64(0)
	for _, r := range copyable(t, pair.Target, mirror) {
		at[string(r.Value)], end = r.Offset, r.Offset+1
	}
	from := copyable(t, pair.Source, topic)
	if len(from) != 34 || len(at) != len(from) {
		t.Fatalf("%s has %d records and %s %d, want 34 each", topic, len(from), mirror, len(at))
	}
	return func(source int64) int64 {
		for _, r := range from {
			if r.Offset < source {
				continue
			}
			target, ok := at[string(r.Value)]
			if !ok {
				t.Errorf("record %q of %s is not in %s", r.Value, topic, mirror)
			}
			return target
		}
		return end
	}
}

// copyable are a topic's records without those of aborted transactions.
func copyable(t *testing.T, c *kafkatest.Cluster, topic string) (all []*kgo.Record) {
	t.Helper()
	err := compare.Read(t.Context(), compare.Seeds(c.Bootstrap()...), topic, func(r *kgo.Record) error {
		all = append(all, r)
		return nil
	})
	if err != nil {
		t.Fatalf("read %s: %v", topic, err)
	}
	return all
}

// records are those of a topic that may not be there yet.
func records(c *kafkatest.Cluster, topic string) (all []*kgo.Record) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if topics, err := c.Admin().ListTopicsWithInternal(ctx, topic); err != nil || topics[topic].Err != nil {
		return nil
	}
	_ = compare.Read(ctx, compare.Seeds(c.Bootstrap()...), topic, func(r *kgo.Record) error {
		all = append(all, r)
		return nil
	})
	return all
}

// weReadTheirs runs MirrorMaker 2 and reads what it writes.
func weReadTheirs(t *testing.T, pair *kafkatest.ClusterPair, libs string) {
	dir := t.TempDir()
	file := filepath.Join(dir, "mm2.properties")
	text := fmt.Sprintf(`clusters = up, down
up.bootstrap.servers = %s
down.bootstrap.servers = %s
up->down.enabled = true
up->down.topics = orders
up->down.groups = reads, done
offset.lag.max = 0
emit.checkpoints.interval.seconds = 1
refresh.topics.interval.seconds = 1
refresh.groups.interval.seconds = 1
replication.factor = 1
`, strings.Join(pair.Source.Bootstrap(), ","), strings.Join(pair.Target.Bootstrap(), ","))
	for _, topic := range []string{"offset-syncs.topic", "checkpoints.topic", "heartbeats.topic", "offset.storage", "status.storage", "config.storage"} {
		text += topic + ".replication.factor = 1\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "mm2.log")
	j := kafkatest.Java{Libs: libs, Main: "org.apache.kafka.connect.mirror.MirrorMaker", Args: []string{file}, Heap: "512m", Dir: dir}
	p, err := j.Start(log)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	t.Cleanup(func() {
		if b, _ := os.ReadFile(log); t.Failed() {
			t.Logf("end of %s:\n%s", log, b[max(0, len(b)-4000):])
		}
	})
	checkpoints, beats := mirrormaker.CheckpointsTopic("up"), mirrormaker.RemoteHeartbeats("up")
	eventually(t, "MirrorMaker 2's checkpoints and heartbeats", func() bool {
		return len(records(pair.Target, checkpoints)) > 0 && len(records(pair.Target, beats)) > 0
	})
	p.Kill()
	syncs := mirrormaker.OffsetSyncsTopic("down")
	same(t, pair.Target, checkpoints)
	same(t, pair.Target, beats)
	same(t, pair.Source, mirrormaker.HeartbeatsTopic)
	same(t, pair.Source, syncs)
	for _, r := range records(pair.Target, checkpoints) {
		c, err := mirrormaker.DecodeCheckpoint(r.Key, r.Value)
		if err == nil && (c.Topic != "up.orders" || c.Metadata != "of "+c.Group || c.Upstream < 7 || c.Upstream > 48 || c.Downstream > c.Upstream+1) {
			t.Errorf("checkpoint %+v", c)
		}
	}
	// See package heartbeat: of the link's two aliases it is the target that stands
	// first in a copied heartbeat.
	r := records(pair.Target, beats)
	h, err := mirrormaker.DecodeHeartbeat(r[len(r)-1].Key, r[len(r)-1].Value)
	if err != nil || h.Source != "down" || h.Target != "up" {
		t.Errorf("MirrorMaker 2's newest heartbeat in %s is %+v, %v; want source down and target up", beats, h, err)
	}
}

// same fails unless every record of a topic can be read, and is made of the same
// bytes when it is written again.
func same(t *testing.T, c *kafkatest.Cluster, topic string) {
	t.Helper()
	all := records(c, topic)
	if len(all) == 0 {
		t.Errorf("%s has no record", topic)
	}
	for _, r := range all {
		key, value, err := again(topic, r)
		if err != nil || !bytes.Equal(key, r.Key) || !bytes.Equal(value, r.Value) {
			t.Errorf("%s offset %d: %x %x is written again as %x %x, %v", topic, r.Offset, r.Key, r.Value, key, value, err)
		}
	}
}

func again(topic string, r *kgo.Record) (key, value []byte, err error) {
	switch {
	case strings.HasSuffix(topic, ".checkpoints.internal"):
		c, err := mirrormaker.DecodeCheckpoint(r.Key, r.Value)
		if err != nil {
			return nil, nil, err
		}
		return c.Encode()
	case strings.HasPrefix(topic, "mm2-offset-syncs."):
		s, err := mirrormaker.DecodeOffsetSync(r.Key, r.Value)
		if err != nil {
			return nil, nil, err
		}
		return s.Encode()
	}
	h, err := mirrormaker.DecodeHeartbeat(r.Key, r.Value)
	if err != nil {
		return nil, nil, err
	}
	return h.Encode()
}
