package bench

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/kafkatest"
	"replicator/internal/workload"
)

// reread is what a mover's translation costs groups of one lag.
type reread struct {
	again    []int64 // records read again, by group and partition
	skipped  int64   // records not read at all
	unplaced int     // partitions without an offset on the target
}

func (r *reread) String() string {
	if len(r.again) == 0 {
		return fmt.Sprintf("none placed (%d)", r.unplaced)
	}
	sum := int64(0)
	for _, n := range r.again {
		sum += n
	}
	return fmt.Sprintf("mean %d, max %d, skipped %d, not placed %d (of %d)", sum/int64(len(r.again)), slices.Max(r.again), r.skipped, r.unplaced, r.unplaced+len(r.again))
}

// Groups that lag by some number of records: how many records each reads again
// when it resumes on the target where the replicator, and where MirrorMaker 2,
// has put it. Both copy the same topic between the same brokers in one run.
//
//	BENCH=1 go test ./bench -run Resume -v -timeout 30m
func TestRecordsReadAgainAfterAFailover(t *testing.T) {
	if os.Getenv("BENCH") == "" {
		t.Skip("a benchmark: set BENCH=1")
	}
	const partitions = 2
	records := setting("BENCH_RECORDS", 4_000_000)
	pair := kafkatest.StartPair(t, kafkatest.Config{FullJIT: true, Heap: "1g"}, kafkatest.Config{FullJIT: true, Heap: "1g"})
	spec := workload.Spec{Topic: "bench", Kind: workload.Plain, Codec: workload.LZ4, Partitions: partitions, Records: records, ValueBytes: 100, BatchBytes: 64 << 10}
	if _, err := workload.Write(t.Context(), opts(pair.Source), spec); err != nil {
		t.Fatal(err)
	}
	ours := startReplicator(t, pair, "ours")
	defer ours()
	theirs := startSyncingMirrorMaker(t, pair)
	defer theirs()
	for _, topic := range []string{"ours", "theirs.bench"} {
		waitRecords(t, pair.Target, topic, int64(records), partitions)
	}
	// A group commits where it is when the topic has been copied further: then
	// MirrorMaker 2 translates with the syncs it still has.
	lags := []int64{0, 100, 10_000, 1_000_000}
	groups := commitLagging(t, pair.Source, lags, partitions)
	waitStable(t, pair.Target, groups, "theirs.bench", "ours")
	client := pair.Target.Client(t)
	for _, topic := range []string{"ours", "theirs.bench"} {
		for _, lag := range lags {
			r := &reread{}
			for group, at := range groups {
				if !strings.HasPrefix(group, fmt.Sprintf("lag-%d-", lag)) {
					continue
				}
				fetched, err := pair.Target.Admin().FetchOffsets(t.Context(), group)
				if err != nil {
					t.Fatal(err)
				}
				for p, want := range at {
					o, ok := fetched.Lookup(topic, p)
					if !ok || o.At < 0 {
						r.unplaced++
						continue
					}
					got := sequenceAt(t, client, pair, topic, p, o.At, int64(records/partitions))
					r.again = append(r.again, max(0, want-got))
					r.skipped += max(0, got-want)
				}
			}
			t.Logf("%-12s lag %9d: %v", topic, lag, r)
		}
	}
}

func opts(c *kafkatest.Cluster) []kgo.Opt { return []kgo.Opt{kgo.SeedBrokers(c.Bootstrap()...)} }

// startReplicator copies "bench" to a topic and keeps its groups.
func startReplicator(t *testing.T, pair *kafkatest.ClusterPair, target string) (stop func()) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "replicator")
	if out, err := exec.Command("go", "build", "-o", bin, "replicator/cmd/replicator").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	file := filepath.Join(t.TempDir(), "pair.yaml")
	config := fmt.Sprintf("clusters:\n  east: {bootstrap_servers: [%s]}\n  west: {bootstrap_servers: [%s]}\nlinks:\n  - {from: east, to: west, topics: [bench], naming: map, topic_map: {bench: %s}, checkpoints: {interval: 1s}}\nhttp: {listen: ''}\nlog: {level: warn}\n",
		strings.Join(pair.Source.Bootstrap(), ","), strings.Join(pair.Target.Bootstrap(), ","), target)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "run", "-c", file)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "REPLICATOR_") })
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}
}

// startSyncingMirrorMaker runs MirrorMaker 2 with its groups synchronised every
// second, which it does not do unless it is told to.
func startSyncingMirrorMaker(t *testing.T, pair *kafkatest.ClusterPair) (stop func()) {
	t.Helper()
	libs, err := kafkatest.Libs(kafkatest.Kafka4, kafkatest.WithMirrorMaker)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var b bytes.Buffer
	fmt.Fprintf(&b, "clusters = theirs, target\ntheirs.bootstrap.servers = %s\ntarget.bootstrap.servers = %s\n", strings.Join(pair.Source.Bootstrap(), ","), strings.Join(pair.Target.Bootstrap(), ","))
	for _, l := range []string{
		"theirs->target.enabled = true", "theirs->target.topics = bench", "theirs->target.groups = lag-.*", "target->theirs.enabled = false", "target->theirs.emit.heartbeats.enabled = false",
		"replication.factor = 1", "offset-syncs.topic.replication.factor = 1", "checkpoints.topic.replication.factor = 1", "heartbeats.topic.replication.factor = 1",
		"offset.storage.replication.factor = 1", "status.storage.replication.factor = 1", "config.storage.replication.factor = 1",
		"tasks.max = 2", "emit.checkpoints.interval.seconds = 1", "refresh.groups.interval.seconds = 2", "sync.group.offsets.enabled = true", "sync.group.offsets.interval.seconds = 1",
		fmt.Sprintf("offset.lag.max = %d", setting("BENCH_LAG_MAX", 100)), "target.producer.compression.type = lz4", "target.producer.batch.size = 262144", "theirs.consumer.max.poll.records = 5000",
	} {
		fmt.Fprintln(&b, l)
	}
	file := filepath.Join(dir, "mm2.properties")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := kafkatest.Java{Libs: libs, Main: "org.apache.kafka.connect.mirror.MirrorMaker", Args: []string{file}, Heap: "2g", FullJIT: true, Dir: dir}.Start(filepath.Join(dir, "mm2.log"))
	if err != nil {
		t.Fatal(err)
	}
	return p.Kill
}

// waitRecords waits until a topic has as many records as that; control records of
// ours come on top, one a partition.
func waitRecords(t *testing.T, c *kafkatest.Cluster, topic string, records, partitions int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	if topic == "ours" {
		records += partitions
	}
	for {
		n := int64(0)
		ends, err := c.Admin().ListEndOffsets(ctx, topic)
		if err == nil {
			ends.Each(func(o kadm.ListedOffset) { n += max(0, o.Offset) })
		}
		if n >= records {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%s has %d records of %d", topic, n, records)
		}
		time.Sleep(200 * time.Millisecond) // between two looks, bounded by ctx
	}
}

// commitLagging commits for five groups a lag, near that lag. It returns the next
// sequence number of each, which is its source offset.
func commitLagging(t *testing.T, c *kafkatest.Cluster, lags []int64, partitions int32) map[string]map[int32]int64 {
	t.Helper()
	ends, err := c.Admin().ListEndOffsets(t.Context(), "bench")
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	groups := map[string]map[int32]int64{}
	for _, lag := range lags {
		for i := range 5 {
			group := fmt.Sprintf("lag-%d-%d", lag, i)
			groups[group] = map[int32]int64{}
			commits := kadm.Offsets{}
			for p := range partitions {
				end, _ := ends.Lookup("bench", p)
				at := end.Offset - lag
				if lag > 0 {
					at -= rnd.Int64N(lag/5+1) - lag/10
				}
				groups[group][p] = at
				commits.AddOffset("bench", p, at, -1)
			}
			if err := c.Admin().CommitAllOffsets(t.Context(), group, commits); err != nil {
				t.Fatal(err)
			}
		}
	}
	return groups
}

// waitStable waits until what groups have on the target has not changed for 20 s.
func waitStable(t *testing.T, c *kafkatest.Cluster, groups map[string]map[int32]int64, topics ...string) {
	t.Helper()
	began, last, since := time.Now(), "", time.Now()
	for time.Since(since) < 20*time.Second || last == "" {
		if time.Since(began) > 3*time.Minute {
			t.Fatal("the offsets of the target's groups do not come to rest")
		}
		var b strings.Builder
		for group := range groups {
			fetched, err := c.Admin().FetchOffsets(t.Context(), group)
			if err != nil {
				continue
			}
			for _, topic := range topics {
				for p, o := range fetched[topic] {
					fmt.Fprintf(&b, "%s %s %d %d\n", group, topic, p, o.At)
				}
			}
		}
		lines := strings.Split(b.String(), "\n")
		slices.Sort(lines)
		if now := strings.Join(lines, "\n"); now != last {
			last, since = now, time.Now()
		}
		time.Sleep(time.Second) // between two looks, bounded above
	}
	t.Logf("offsets came to rest %v after the groups had committed", since.Sub(began).Round(time.Second))
}

// sequenceAt is the sequence number of the record a consumer at that target offset
// reads first; at the end, the number of records.
func sequenceAt(t *testing.T, client *kgo.Client, pair *kafkatest.ClusterPair, topic string, partition int32, at, records int64) int64 {
	t.Helper()
	end, err := pair.Target.Admin().ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	if e, _ := end.Lookup(topic, partition); at >= e.Offset {
		return records
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(at)}})
	defer client.RemoveConsumePartitions(map[string][]int32{topic: {partition}})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		for _, r := range client.PollRecords(ctx, 1).Records() {
			if r.Topic != topic || r.Partition != partition || r.Offset < at {
				continue
			}
			id, err := workload.Parse(r.Key, r.Value)
			if err != nil {
				t.Fatal(err)
			}
			return id.Sequence
		}
	}
	t.Fatalf("nothing to read in %s-%d from offset %d on", topic, partition, at)
	return -1
}
