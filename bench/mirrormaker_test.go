// Package bench measures the replicator against its peer on real brokers.
//
//	BENCH=1 go test ./bench -run MirrorMaker -v -timeout 30m
//
// Both movers run as processes of their own between the same two brokers and
// copy the same topic, in turns. What counts is the ratio: the brokers run on
// the same cores.
package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/kafkatest"
	"replicator/internal/workload"
)

func TestMain(m *testing.M) { os.Exit(kafkatest.Main(m)) }

func setting(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

// reading is one run of one mover.
type reading struct {
	wall time.Duration // from the first record on the target to the last
	cpu  time.Duration // of the process in that time
	all  time.Duration // CPU of the process from its start
	peak int64         // bytes of resident memory
}

func TestAgainstMirrorMaker(t *testing.T) {
	if os.Getenv("BENCH") == "" {
		t.Skip("a benchmark: set BENCH=1")
	}
	records, rounds := setting("BENCH_RECORDS", 2_000_000), setting("BENCH_ROUNDS", 3)
	pair := kafkatest.StartPair(t, kafkatest.Config{FullJIT: true, Heap: "1g"}, kafkatest.Config{FullJIT: true, Heap: "1g"})
	src := []kgo.Opt{kgo.SeedBrokers(pair.Source.Bootstrap()...)}
	codec := workload.Codec(os.Getenv("BENCH_CODEC"))
	if codec == "" {
		codec = workload.LZ4
	}
	spec := workload.Spec{Topic: "bench", Kind: workload.Plain, Codec: codec, Partitions: 8, Records: records, ValueBytes: 1000, BatchBytes: setting("BENCH_BATCH", 200<<10)} // about 64 KiB once compressed
	r, err := workload.Write(t.Context(), src, spec)
	if err != nil {
		t.Fatal(err)
	}
	gb := float64(r.Bytes) / 1e9
	t.Logf("%d records, %.2f GB of keys and values, codec %s", r.Written, gb, codec)

	bin := built(t)
	libs, err := kafkatest.Libs(kafkatest.Kafka4, kafkatest.WithMirrorMaker)
	if err != nil {
		t.Fatal(err)
	}
	var ours, theirs []reading
	for i := range rounds {
		theirs = append(theirs, mirrorMaker(t, pair, libs, i, int64(records)))
		ours = append(ours, replicator(t, pair, bin, i, int64(records)))
		t.Logf("round %d: replicator %s | mirrormaker %s", i+1, ours[i].in(gb), theirs[i].in(gb))
	}
	median := func(rs []reading, of func(reading) float64) float64 {
		var v []float64
		for _, r := range rs {
			v = append(v, of(r))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	cpu := func(r reading) float64 { return r.cpu.Seconds() / gb }
	speed := func(r reading) float64 { return gb * 1000 / r.wall.Seconds() }
	peak := func(r reading) float64 { return float64(r.peak) / (1 << 20) }
	t.Logf("medians: CPU %.3f against %.3f s/GB: 1/%.1f; %.0f against %.0f MB/s: %.1fx; peak RSS %.0f against %.0f MiB: 1/%.1f",
		median(ours, cpu), median(theirs, cpu), median(theirs, cpu)/median(ours, cpu),
		median(ours, speed), median(theirs, speed), median(ours, speed)/median(theirs, speed),
		median(ours, peak), median(theirs, peak), median(theirs, peak)/median(ours, peak))
}

func (r reading) in(gb float64) string {
	return fmt.Sprintf("%.0f MB/s, %.3f CPU s/GB (%.1f s in all), %d MiB", gb*1000/r.wall.Seconds(), r.cpu.Seconds()/gb, r.all.Seconds(), r.peak>>20)
}

// replicator copies "bench" to a target topic of its own round.
func replicator(t *testing.T, pair *kafkatest.ClusterPair, bin string, round int, records int64) reading {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pair.yaml")
	target := fmt.Sprintf("ours-%d", round)
	from := fmt.Sprintf("east%d", round)
	config := fmt.Sprintf("clusters:\n  %s: {bootstrap_servers: [%s]}\n  west: {bootstrap_servers: [%s]}\nlinks:\n  - {from: %s, to: west, topics: [bench], naming: map, topic_map: {bench: %s}}\nhttp: {listen: ''}\nlog: {level: warn}\n",
		from, strings.Join(pair.Source.Bootstrap(), ","), strings.Join(pair.Target.Bootstrap(), ","), from, target)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "run", "-c", file)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "REPLICATOR_") })
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := follow(t, pair, cmd.Process.Pid, target, records)
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	return r
}

// mirrorMaker runs MirrorMaker 2 with the settings that make it fast.
func mirrorMaker(t *testing.T, pair *kafkatest.ClusterPair, libs string, round int, records int64) reading {
	t.Helper()
	dir := t.TempDir()
	alias := fmt.Sprintf("theirs%d", round)
	var b bytes.Buffer
	fmt.Fprintf(&b, "clusters = %s, target\n%s.bootstrap.servers = %s\ntarget.bootstrap.servers = %s\n", alias, alias, strings.Join(pair.Source.Bootstrap(), ","), strings.Join(pair.Target.Bootstrap(), ","))
	fmt.Fprintf(&b, "%s->target.enabled = true\n%s->target.topics = bench\ntarget->%s.enabled = false\ntarget->%s.emit.heartbeats.enabled = false\n", alias, alias, alias, alias)
	for _, l := range []string{
		"tasks.max = 2", "replication.factor = 1", "offset-syncs.topic.replication.factor = 1", "checkpoints.topic.replication.factor = 1",
		"heartbeats.topic.replication.factor = 1", "offset.storage.replication.factor = 1", "status.storage.replication.factor = 1", "config.storage.replication.factor = 1",
		"target.producer.compression.type = lz4", "target.producer.batch.size = 262144", "target.producer.linger.ms = 20",
		alias + ".consumer.max.poll.records = 5000", alias + ".consumer.fetch.max.bytes = 52428800", alias + ".consumer.max.partition.fetch.bytes = 8388608",
	} {
		fmt.Fprintln(&b, l)
	}
	file := filepath.Join(dir, "mm2.properties")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	j := kafkatest.Java{Libs: libs, Main: "org.apache.kafka.connect.mirror.MirrorMaker", Args: []string{file}, Heap: "2g", FullJIT: true, Dir: dir}
	p, err := j.Start(filepath.Join(dir, "mm2.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	return follow(t, pair, p.PID(), alias+".bench", records)
}

// follow waits until the target topic holds all records, and measures the
// process from the first one on.
func follow(t *testing.T, pair *kafkatest.ClusterPair, pid int, topic string, records int64) (r reading) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var began time.Time
	var first time.Duration
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s did not receive %d records in time", topic, records)
		}
		ends, err := pair.Target.Admin().ListEndOffsets(ctx, topic)
		if err != nil {
			continue
		}
		var n, markers int64
		ends.Each(func(o kadm.ListedOffset) {
			if o.Err == nil {
				n += o.Offset
				markers++
			}
		})
		if strings.HasPrefix(topic, "ours") {
			n -= markers // one control record a lane
		}
		cpu, peak := usage(t, pid)
		if n > 0 && began.IsZero() {
			began, first = time.Now(), cpu
		}
		if n >= records {
			return reading{wall: time.Since(began), cpu: cpu - first, all: cpu, peak: peak}
		}
	}
}

// usage reads what a process has used so far.
func usage(t *testing.T, pid int) (cpu time.Duration, peak int64) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatalf("the mover has ended: %v", err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	for _, f := range fields[11:13] { // user and system time, in hundredths of a second
		n, _ := strconv.ParseInt(f, 10, 64)
		cpu += time.Duration(n) * 10 * time.Millisecond
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kb); err == nil {
			peak = kb << 10
		}
	}
	return cpu, peak
}
