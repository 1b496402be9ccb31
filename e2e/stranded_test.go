package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
	"replicator/pkg/stranded"
	"replicator/pkg/wire"
)

// The test binary is also the replay that is killed: TestMain becomes one when this variable names
// a file with what it is to do.
const replayVariable = "E2E_REPLAY"

// replayOrder is that file.
type replayOrder struct {
	East, West     []string // bootstrap servers
	Report         stranded.Report
	BytesPerSecond int64
}

func runReplay(file string) int {
	err := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var order replayOrder
		if err := json.Unmarshal(text, &order); err != nil {
			return err
		}
		east, err := openRegion(ctx, "east", order.East)
		if err != nil {
			return err
		}
		defer east.Close()
		west, err := openRegion(ctx, "west", order.West)
		if err != nil {
			return err
		}
		defer west.Close()
		result, err := stranded.Replay(ctx, east, west, order.Report, stranded.Options{
			Run: "e2e", BytesPerSecond: order.BytesPerSecond,
			Progress: func(p stranded.Progress) { fmt.Printf("progress %d of %d\n", p.Records, p.AllRecords) },
		})
		fmt.Printf("done: %d records, %d already\n", result.Records, result.Already)
		return err
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func openRegion(ctx context.Context, alias string, addrs []string) (*cluster.Cluster, error) {
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = addrs
	return cluster.Open(ctx, alias, cfg, cluster.Options{})
}

// A region that was given up has gone on taking records: in transactions, some of them aborted, and in
// a compacted topic. A replay to the other region, which is in use, is killed again and again.
func TestStrandedRecordsAreReplayedOnceHoweverOftenTheReplayIsKilled(t *testing.T) {
	t.Parallel()
	seed := uint64(setting("E2E_SEED", int(time.Now().UnixNano()&0xffffff)))
	t.Logf("E2E_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 5))
	pair := kafkatest.StartPair(t, kafkatest.Config{}, kafkatest.Config{})
	specs := []workload.Spec{
		{Topic: kafkatest.Topic(t, "plain"), Kind: workload.Headers, Records: 4000, ValueBytes: 500},
		{Topic: kafkatest.Topic(t, "ledger"), Kind: workload.Transactions, Records: 4000, ValueBytes: 500},
		{Topic: kafkatest.Topic(t, "state"), Kind: workload.Compacted, Records: 4000},
	}
	lanes := map[offsets.Lane]stranded.Since{}
	east, west := openCluster(t, "east", pair.Source.Bootstrap(), wire.NewPool(8<<20)), openCluster(t, "west", pair.Target.Bootstrap(), wire.NewPool(8<<20))
	want := map[offsets.Lane][]*kgo.Record{}
	for _, s := range specs {
		s.Seed, s.Partitions = seed, 3
		written, err := workload.Write(t.Context(), opts(pair.Source), s)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d records, %d of them aborted, %d holes of compaction", s.Kind, written.Written, written.Aborted, written.Holes)
		pair.Target.CreateTopic(t, s.Topic, 3)
		ends, err := pair.Source.Admin().ListEndOffsets(t.Context(), s.Topic)
		if err != nil {
			t.Fatal(err)
		}
		for p := range int32(3) {
			end, _ := ends.Lookup(s.Topic, p)
			lanes[offsets.Lane{Topic: s.Topic, Partition: p}] = stranded.Since{From: rnd.Int64N(end.Offset / 2), LeaderEpoch: 0}
		}
		if s.Kind == workload.Compacted {
			alter(pair.Source, "cleanup.policy", "delete")(t, s.Topic) // what was counted must be there when it is replayed
		}
		for _, rec := range committedRecords(t, pair.Source, s.Topic) {
			if lane := (offsets.Lane{Topic: s.Topic, Partition: rec.Partition}); rec.Offset >= lanes[lane].From {
				want[lane] = append(want[lane], rec)
			}
		}
	}
	report, err := stranded.Find(t.Context(), east, lanes)
	if err != nil {
		t.Fatal(err)
	}
	var all int64
	for _, r := range report.Ranges {
		if n := int64(len(want[r.Lane])); n != r.Records || r.Cut != "" || r.Removed != 0 || r.Open != 0 {
			t.Errorf("found %+v, an independent reader sees %d records from there on", r, n)
		}
		all += r.Records
	}
	t.Logf("%d records are stranded, %d bytes", all, report.Bytes)

	// The region they go to is in use.
	live, err := workload.StartLive(t.Context(), opts(pair.Target), workload.LiveConfig{
		Spec: workload.Spec{Topic: specs[0].Topic, Kind: workload.Plain, Partitions: 3, ValueBytes: 100, First: 1_000_000}, Rate: 500,
	})
	if err != nil {
		t.Fatal(err)
	}
	order := replayOrder{East: pair.Source.Bootstrap(), West: pair.Target.Bootstrap(), Report: report, BytesPerSecond: report.Bytes / 5}
	kills, progressed := 0, 0
	for range setting("E2E_KILLS", 8) {
		lines, killed := replayProcess(t, order, 400*time.Millisecond+time.Duration(rnd.Int64N(int64(1500*time.Millisecond))))
		if killed {
			kills++
		}
		progressed += lines
	}
	order.BytesPerSecond = 0
	if _, killed := replayProcess(t, order, 2*time.Minute); killed {
		t.Fatal("the last replay did not end")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := live.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d replays killed after %d transactions in all", kills, progressed)
	if kills < 3 || progressed == 0 {
		t.Error("the hard case was not met")
	}
	got := map[offsets.Lane][]*kgo.Record{}
	others := 0
	for _, s := range specs {
		for _, rec := range committedRecords(t, pair.Target, s.Topic) {
			if headerOf(rec, stranded.HeaderFrom) == "" {
				others++
				continue
			}
			lane := offsets.Lane{Topic: s.Topic, Partition: rec.Partition}
			got[lane] = append(got[lane], rec)
		}
	}
	if others == 0 {
		t.Error("nobody else wrote to the region")
	}
	for lane, records := range want {
		if len(got[lane]) != len(records) {
			t.Errorf("%v: %d records on the target, want %d", lane, len(got[lane]), len(records))
			continue
		}
		for i, w := range records {
			g := got[lane][i]
			if headerOf(g, stranded.HeaderOffset) != strconv.FormatInt(w.Offset, 10) || headerOf(g, stranded.HeaderRun) != "e2e" ||
				headerOf(g, stranded.HeaderPartition) != strconv.Itoa(int(w.Partition)) ||
				!bytes.Equal(g.Key, w.Key) || !bytes.Equal(g.Value, w.Value) || !g.Timestamp.Equal(w.Timestamp) || len(g.Headers) != len(w.Headers)+4 {
				t.Fatalf("%v: record %d is that of offset %s, want %d; or it was changed", lane, i, headerOf(g, stranded.HeaderOffset), w.Offset)
			}
		}
	}

	var file bytes.Buffer
	exported, err := stranded.ExportFile(t.Context(), east, report, &file, stranded.Options{Run: "e2e"})
	if err != nil || exported.Records != all || int64(bytes.Count(file.Bytes(), []byte("\n"))) != all {
		t.Errorf("export: %+v, %v", exported, err)
	}
	topic, err := stranded.ExportTopic(t.Context(), east, west, report, stranded.Options{Run: "e2e"})
	if err != nil || topic.Records != all || len(committedRecords(t, pair.Target, stranded.ExportTopicName("east"))) != int(all) {
		t.Errorf("export to a topic: %+v, %v", topic, err)
	}
}

// committedRecords is what an independent read_committed reader sees of a topic.
func committedRecords(t *testing.T, c *kafkatest.Cluster, topic string) []*kgo.Record {
	t.Helper()
	var all []*kgo.Record
	err := compare.Read(t.Context(), opts(c), topic, func(r *kgo.Record) error {
		all = append(all, r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func headerOf(r *kgo.Record, key string) string {
	for _, h := range slices.Backward(r.Headers) {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// replayProcess runs a replay in a process of its own and kills it after a time, if it still runs.
// It returns how many transactions it committed.
func replayProcess(t *testing.T, order replayOrder, within time.Duration) (transactions int, killed bool) {
	t.Helper()
	text, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "order.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), replayVariable+"="+file)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(within, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait()
	killed = !kill.Stop()
	if err != nil && !killed {
		t.Fatalf("replay: %v: %s", err, errs.String())
	}
	return bytes.Count(out.Bytes(), []byte("progress")), killed
}
