package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
)

// standing is a group's place in one partition of the source.
type standing struct {
	group     string
	class     int64 // about how many records it is behind
	partition int32
	next      int64 // source offset, which is also the record's sequence number
}

// copied is one partition on the target: the sequence number of each record, by
// target offset.
type copied struct{ at, sequence []int64 }

// TestResume asks how many records groups read again when they go on at the
// offsets that were committed for them on the target.
//
//	BENCH=1 go test ./bench -run Resume -v -timeout 30m
//
// It compares sequence numbers of records read from the target, so what a mover
// says of itself does not count.
func TestResume(t *testing.T) {
	if os.Getenv("BENCH") == "" {
		t.Skip("a benchmark: set BENCH=1")
	}
	const partitions = 3
	records, groups := setting("BENCH_RECORDS", 3_900_000), setting("BENCH_GROUPS", 8)
	pair := kafkatest.StartPair(t, kafkatest.Config{FullJIT: true, Heap: "1g"}, kafkatest.Config{FullJIT: true, Heap: "1g"})
	src := []kgo.Opt{kgo.SeedBrokers(pair.Source.Bootstrap()...)}
	spec := workload.Spec{Topic: "bench", Kind: workload.Plain, Codec: workload.LZ4, Partitions: partitions, Records: records, ValueBytes: 100}
	if _, err := workload.Write(t.Context(), src, spec); err != nil {
		t.Fatal(err)
	}
	bin := built(t)
	libs, err := kafkatest.Libs(kafkatest.Kafka4, kafkatest.WithMirrorMaker)
	if err != nil {
		t.Fatal(err)
	}
	var all []standing
	// commits puts the groups where they are. Those of a class are a little
	// apart, because how much MirrorMaker repeats depends on the offset.
	commits := func() {
		all = nil
		end := int64(records / partitions)
		for _, lag := range []int64{0, 100, 10_000, 1_000_000} {
			for g := range groups {
				name := fmt.Sprintf("lag-%d-%d", lag, g)
				at := kadm.Offsets{}
				for p := range int32(partitions) {
					behind := lag + lag/5*int64(g*partitions+int(p))/int64(groups*partitions)
					all = append(all, standing{name, lag, p, end - behind})
					at.AddOffset("bench", p, end-behind, -1)
				}
				if err := pair.Source.Admin().CommitAllOffsets(t.Context(), name, at); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for i, lagMax := range []int{100, 0} {
		alias := fmt.Sprintf("theirs%d", i)
		began := time.Now()
		p := groupMirrorMaker(t, pair, libs, alias, lagMax)
		follow(t, pair, p.PID(), alias+".bench", int64(records))
		t.Logf("MirrorMaker 2, offset.lag.max=%d: copied after %v", lagMax, time.Since(began).Round(time.Second))
		if i == 0 {
			commits()
		}
		wait := settle(t, pair, alias+".bench", all, 20*time.Second)
		p.Kill()
		report(t, pair, fmt.Sprintf("MirrorMaker 2, offset.lag.max=%d, offsets on the target unchanged for 20 s after %v", lagMax, wait), alias+".bench", all)
	}
	d := startDaemon(t, pair, bin, "east", "ours", "interval: 1s")
	follow(t, pair, d.pid(), "ours", int64(records))
	wait := settle(t, pair, "ours", all, 5*time.Second)
	d.stop()
	report(t, pair, fmt.Sprintf("replicator, offsets on the target unchanged for 5 s after %v", wait), "ours", all)
}

// groupMirrorMaker runs MirrorMaker 2 as eager about groups as it can be told to
// be: everything a second after it is known instead of 1 to 10 minutes.
func groupMirrorMaker(t *testing.T, pair *kafkatest.ClusterPair, libs, alias string, lagMax int) *kafkatest.Process {
	t.Helper()
	dir := t.TempDir()
	var b bytes.Buffer
	fmt.Fprintf(&b, "clusters = %s, target\n%s.bootstrap.servers = %s\ntarget.bootstrap.servers = %s\n", alias, alias, strings.Join(pair.Source.Bootstrap(), ","), strings.Join(pair.Target.Bootstrap(), ","))
	fmt.Fprintf(&b, "%s->target.enabled = true\n%s->target.topics = bench\ntarget->%s.enabled = false\ntarget->%s.emit.heartbeats.enabled = false\n", alias, alias, alias, alias)
	for _, l := range []string{
		"tasks.max = 2", "replication.factor = 1", "offset-syncs.topic.replication.factor = 1", "checkpoints.topic.replication.factor = 1",
		"heartbeats.topic.replication.factor = 1", "offset.storage.replication.factor = 1", "status.storage.replication.factor = 1", "config.storage.replication.factor = 1",
		"target.producer.compression.type = lz4", "target.producer.batch.size = 262144", "target.producer.linger.ms = 20", alias + ".consumer.max.poll.records = 5000",
		"emit.checkpoints.interval.seconds = 1", "sync.group.offsets.enabled = true", "sync.group.offsets.interval.seconds = 1", "refresh.groups.interval.seconds = 1",
		"offset.flush.interval.ms = 5000", "offset.lag.max = " + strconv.Itoa(lagMax), "offset-syncs.topic.location = target", // of a name of its own
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
	t.Cleanup(p.Kill)
	return p
}

// placed is what the target's groups have committed in a topic.
func placed(t *testing.T, pair *kafkatest.ClusterPair, topic string, all []standing) map[standing]int64 {
	t.Helper()
	seen := map[string]bool{}
	var names []string
	for _, s := range all {
		if !seen[s.group] {
			seen[s.group] = true
			names = append(names, s.group)
		}
	}
	fetched := pair.Target.Admin().FetchManyOffsets(t.Context(), names...)
	out := map[standing]int64{}
	for _, s := range all {
		if o, ok := fetched[s.group].Fetched.Lookup(topic, s.partition); ok && o.At >= 0 {
			out[s] = o.At
		}
	}
	return out
}

// settle waits until groups have offsets on the target and nothing has changed
// for some time, and returns when the last change was.
func settle(t *testing.T, pair *kafkatest.ClusterPair, topic string, all []standing, quiet time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	changed, last := began, ""
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		have := placed(t, pair, topic, all)
		now := fmt.Sprint(have)
		if now != last {
			changed, last = time.Now(), now
		}
		if len(have) > 0 && time.Since(changed) > quiet || time.Since(began) > 3*time.Minute {
			return changed.Sub(began).Round(time.Second)
		}
	}
	return 0
}

// report reads the target topic and tells where the groups would go on.
func report(t *testing.T, pair *kafkatest.ClusterPair, who, topic string, all []standing) {
	t.Helper()
	logs := map[int32]*copied{}
	err := compare.Read(t.Context(), compare.Seeds(pair.Target.Bootstrap()...), topic, func(r *kgo.Record) error {
		l := logs[r.Partition]
		if l == nil {
			l = &copied{}
			logs[r.Partition] = l
		}
		sequence, err := strconv.ParseInt(string(r.Key[bytes.LastIndexByte(r.Key, '/')+1:]), 10, 64)
		l.at, l.sequence = append(l.at, r.Offset), append(l.sequence, sequence)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	have := placed(t, pair, topic, all)
	type row struct{ n, again, most, skipped, none, exact int64 }
	rows := map[int64]*row{}
	var classes []int64
	for _, s := range all {
		r := rows[s.class]
		if r == nil {
			r = &row{}
			rows[s.class] = r
			classes = append(classes, s.class)
		}
		at, ok := have[s]
		if !ok {
			r.none++
			continue
		}
		r.n++
		l := logs[s.partition]
		var resumed int64
		if i := sort.Search(len(l.at), func(i int) bool { return l.at[i] >= at }); i < len(l.at) {
			resumed = l.sequence[i]
		} else {
			resumed = l.sequence[len(l.at)-1] + 1
		}
		if d := s.next - resumed; d >= 0 {
			r.again += d
			r.most = max(r.most, d)
			if d == 0 {
				r.exact++
			}
		} else {
			r.skipped -= d
		}
	}
	t.Log(who)
	t.Log("| lag from | placed | exact | read again, mean | max | skipped | not placed |")
	for _, c := range classes {
		r := rows[c]
		t.Logf("| %d | %d | %d | %.0f | %d | %d | %d |", c, r.n, r.exact, float64(r.again)/float64(max(1, r.n)), r.most, r.skipped, r.none)
	}
}
