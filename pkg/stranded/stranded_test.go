package stranded

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"replicator/internal/compare"
	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// region is a fake cluster and how the replicator reaches it.
type region struct {
	*cluster.Cluster
	fake *kfake.Cluster
}

func newRegion(t *testing.T, alias string, topics ...string) region {
	t.Helper()
	fake, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.ClusterID(alias+"-id"), kfake.SeedTopics(2, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return reach(t, alias, fake)
}

// reach opens a fake cluster, as each command does anew.
func reach(t *testing.T, alias string, fake *kfake.Cluster) region {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = fake.ListenAddrs()
	c, err := cluster.Open(t.Context(), alias, cfg, cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return region{c, fake}
}

func (r region) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := r.NewClient(append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// plain appends records outside of a transaction.
func (r region) plain(t *testing.T, partition int32, topic string, from, n int) {
	t.Helper()
	client := r.client(t)
	defer client.Close()
	for i := from; i < from+n; i++ {
		rec := &kgo.Record{Topic: topic, Partition: partition, Key: fmt.Append(nil, "k", i), Value: fmt.Append(nil, topic, "-", partition, "-", i),
			Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i)), Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte{byte(i), 0xff}}}}
		if err := client.ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// transaction appends n records in one transaction and ends it, or leaves it open.
func (r region) transaction(t *testing.T, id string, partition int32, topic string, n int, commit kgo.TransactionEndTry, leaveOpen bool) {
	t.Helper()
	client := r.client(t, kgo.TransactionalID(id))
	if err := client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: fmt.Append(nil, id, "-", i)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if !leaveOpen {
		if err := cluster.EndTransaction(t.Context(), client, commit, topic); err != nil {
			t.Fatal(err)
		}
	}
}

// fill makes two partitions that were copied up to offset 5 and have gone on since.
func fill(t *testing.T, old region) map[offsets.Lane]Since {
	t.Helper()
	for p := range int32(2) {
		old.plain(t, p, "orders", 0, 10)
		old.transaction(t, fmt.Sprint("committed", p), p, "orders", 7, kgo.TryCommit, false)
		old.transaction(t, fmt.Sprint("aborted", p), p, "orders", 6, kgo.TryAbort, false)
		old.plain(t, p, "orders", 100, 13)
	}
	return map[offsets.Lane]Since{
		{Topic: "orders", Partition: 0}: {From: 5, LeaderEpoch: -1},
		{Topic: "orders", Partition: 1}: {From: 8, LeaderEpoch: -1},
	}
}

func find(t *testing.T, old region, lanes map[offsets.Lane]Since) Report {
	t.Helper()
	report, err := Find(t.Context(), old.Cluster, lanes)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// content is what a topic holds for a read_committed consumer, by the comparer's reader.
func content(t *testing.T, r region, topic string) map[int32][]*kgo.Record {
	t.Helper()
	all := map[int32][]*kgo.Record{}
	err := compare.Read(t.Context(), compare.Seeds(r.fake.ListenAddrs()...), topic, func(rec *kgo.Record) error {
		all[rec.Partition] = append(all[rec.Partition], rec)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestStrandedRecordsAreThoseAConsumerWouldSee(t *testing.T) {
	old := newRegion(t, "east", "orders")
	lanes := fill(t, old)
	old.transaction(t, "open", 1, "orders", 4, kgo.TryCommit, true)
	old.plain(t, 1, "orders", 200, 3) // behind the open transaction
	report := find(t, old, lanes)
	for i, want := range []struct{ from, records, open int64 }{{5, 5 + 7 + 13, 0}, {8, 2 + 7 + 13, 7}} {
		r := report.Ranges[i]
		if r.From != want.from || r.Records != want.records || r.Open != want.open || r.Cut != "" || r.Removed != 0 || r.To != 38 {
			t.Errorf("partition %d: %+v", i, r)
		}
		if (len(r.Warnings()) > 0) != (want.open > 0) {
			t.Errorf("partition %d: %v", i, r.Warnings())
		}
	}
	if report.Records != 47 || report.From != "east" {
		t.Errorf("%+v", report)
	}
	if r := report.Ranges[0]; !r.First.Equal(time.UnixMilli(1_700_000_000_005)) || r.Last.Before(time.Now().Add(-time.Hour)) {
		t.Errorf("timestamps %v to %v", r.First, r.Last)
	}
}

func TestALogThatIsNotWhatItWasIsSaid(t *testing.T) {
	old := newRegion(t, "east", "orders")
	old.plain(t, 0, "orders", 0, 20)
	old.plain(t, 1, "orders", 0, 20)
	if _, err := old.Admin().DeleteRecords(t.Context(), kadm.Offsets{"orders": {1: {Topic: "orders", Partition: 1, At: 12}}}); err != nil {
		t.Fatal(err)
	}
	report := find(t, old, map[offsets.Lane]Since{
		{Topic: "orders", Partition: 0}: {From: 25, LeaderEpoch: -1},
		{Topic: "orders", Partition: 1}: {From: 10, LeaderEpoch: -1},
		{Topic: "orders", Partition: 7}: {From: 3, LeaderEpoch: -1},
		{Topic: "gone", Partition: 0}:   {From: 3, LeaderEpoch: -1},
	})
	for i, want := range []struct {
		from, to, records, removed int64
		cut                        bool
	}{{3, 3, 0, 0, true}, {20, 20, 0, 0, true}, {10, 20, 8, 2, false}, {3, 3, 0, 0, true}} {
		r := report.Ranges[i]
		if r.From != want.from || r.To != want.to || r.Records != want.records || r.Removed != want.removed || (r.Cut != "") != want.cut {
			t.Errorf("%v: %+v", r.Lane, r)
		}
		if len(r.Warnings()) == 0 {
			t.Errorf("%v: no warning", r.Lane)
		}
	}
}

func TestALogThatWasCutAndWrittenToIsSeenByItsLeaderEpochs(t *testing.T) {
	old := newRegion(t, "east", "orders")
	old.plain(t, 0, "orders", 0, 20)
	old.fake.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		old.fake.KeepControl()
		r := req.(*kmsg.OffsetForLeaderEpochRequest)
		resp := r.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
		rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
		rt.Topic = r.Topics[0].Topic
		rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
		rp.Partition, rp.LeaderEpoch, rp.EndOffset = r.Topics[0].Partitions[0].Partition, 3, 11
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
	r := find(t, old, map[offsets.Lane]Since{{Topic: "orders", Partition: 0}: {From: 15, LeaderEpoch: 3}}).Ranges[0]
	if r.From != 11 || r.Records != 9 || r.Cut == "" {
		t.Errorf("%+v", r)
	}
}

// replayed checks that each stranded record is there once, in order, as it was and with its headers.
func replayed(t *testing.T, old, west region, report Report, run string) {
	t.Helper()
	source, target := content(t, old, "orders"), content(t, west, "orders")
	for _, r := range report.Ranges {
		var want, got []*kgo.Record
		for _, rec := range source[r.Partition] {
			if rec.Offset >= r.From && rec.Offset < r.To {
				want = append(want, rec)
			}
		}
		for _, rec := range target[r.Partition] {
			if len(rec.Headers) > 0 && rec.Headers[len(rec.Headers)-1].Key == HeaderRun {
				got = append(got, rec)
			}
		}
		if len(want) != len(got) {
			t.Fatalf("%v: %d records, want %d", r.Lane, len(got), len(want))
		}
		for i, w := range want {
			g := got[i]
			w.Headers = append(w.Headers,
				kgo.RecordHeader{Key: HeaderFrom, Value: []byte("east")},
				kgo.RecordHeader{Key: HeaderPartition, Value: []byte(strconv.Itoa(int(w.Partition)))},
				kgo.RecordHeader{Key: HeaderOffset, Value: []byte(strconv.FormatInt(w.Offset, 10))},
				kgo.RecordHeader{Key: HeaderRun, Value: []byte(run)})
			if !bytes.Equal(w.Key, g.Key) || !bytes.Equal(w.Value, g.Value) || !w.Timestamp.Equal(g.Timestamp) || cmp.Diff(w.Headers, g.Headers) != "" {
				t.Fatalf("%v: record %d is %v, want %v", r.Lane, i, g, w)
			}
		}
	}
}

func TestAReplayPutsEveryRecordThereOnce(t *testing.T) {
	old, west := newRegion(t, "east", "orders"), newRegion(t, "west", "orders")
	report := find(t, old, fill(t, old))
	west.plain(t, 0, "orders", 500, 20)
	var last Progress
	o := Options{Run: "r1", Progress: func(p Progress) { last = p }}
	result, err := Replay(t.Context(), old.Cluster, west.Cluster, report, o)
	if err != nil {
		t.Fatal(err)
	}
	if result.Records != report.Records || result.Already != 0 || result.Bytes != report.Bytes || last.Records != report.Records || last.AllRecords != report.Records {
		t.Errorf("%+v, %+v", result, last)
	}
	replayed(t, old, west, report, "r1")
	again, err := Replay(t.Context(), old.Cluster, west.Cluster, report, Options{Run: "r2"})
	if err != nil {
		t.Fatal(err)
	}
	if again.Records != 0 || again.Already != report.Records {
		t.Errorf("again: %+v", again)
	}
	replayed(t, old, west, report, "r1")

	// What is stranded later goes behind it.
	old.plain(t, 0, "orders", 900, 4)
	report = find(t, old, map[offsets.Lane]Since{{Topic: "orders", Partition: 0}: {From: 5, LeaderEpoch: -1}})
	more, err := Replay(t.Context(), old.Cluster, west.Cluster, report, Options{Run: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	if more.Records != 4 || more.Already != report.Records-4 {
		t.Errorf("more: %+v", more)
	}
	replayed(t, old, west, report, "r1")
}

// A run that is killed at any of its commits, before or after the brokers took it, is gone on with.
func TestAReplayThatIsKilledGoesOn(t *testing.T) {
	for _, taken := range []bool{false, true} {
		t.Run(fmt.Sprint("commit taken ", taken), func(t *testing.T) {
			old, west := newRegion(t, "east", "orders"), newRegion(t, "west", "orders")
			report := find(t, old, fill(t, old))
			var kill atomic.Pointer[context.CancelFunc]
			west.fake.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
				west.fake.KeepControl()
				if stop := kill.Load(); stop != nil && req.(*kmsg.EndTxnRequest).Commit {
					(*stop)()
					if !taken {
						return nil, errors.New("the connection is gone"), true
					}
				}
				return nil, nil, false
			})
			for run := 0; ; run++ {
				if run == 40 {
					t.Fatal("never comes to an end")
				}
				ctx, cancel := context.WithCancel(t.Context())
				replay := newTransfer(old.Cluster, west.Cluster, report, Options{Run: "r1"}, verbReplay)
				replay.chunkRecords = 7
				if run%2 == 0 {
					kill.Store(&cancel)
				} else {
					kill.Store(nil)
					if run < 8 {
						// One commit goes through, the next does not.
						n := 0
						replay.options.Progress = func(Progress) {
							if n++; n == 2 {
								kill.Store(&cancel)
							}
						}
					}
				}
				_, err := replay.run(ctx)
				killed := ctx.Err() != nil
				cancel()
				if err == nil {
					break
				}
				if !killed {
					t.Fatal(err)
				}
			}
			replayed(t, old, west, report, "r1")
		})
	}
}

// Between two failbacks a partition may take more than can be read in the time of a command.
func TestALaterReplayIsCountedWhereItBegins(t *testing.T) {
	lane := offsets.Lane{Topic: "orders"}
	old, west := newRegion(t, "east", "orders"), newRegion(t, "west", "orders")
	old.plain(t, 0, "orders", 0, 10)
	january := find(t, old, map[offsets.Lane]Since{lane: {From: 5, LeaderEpoch: -1}})
	if _, err := Replay(t.Context(), old.Cluster, west.Cluster, january, Options{Run: "january"}); err != nil {
		t.Fatal(err)
	}
	west.plain(t, 0, "orders", 1000, 50)
	behind := int64(len(content(t, west, "orders")[0]))

	old.plain(t, 0, "orders", 100, 20)
	june := find(t, old, map[offsets.Lane]Since{lane: {From: 18, LeaderEpoch: -1}})
	ctx, kill := context.WithCancel(t.Context())
	cut := newTransfer(old.Cluster, west.Cluster, june, Options{Run: "june", Progress: func(Progress) { kill() }}, verbReplay)
	cut.chunkRecords = 5
	if _, err := cut.run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("killed behind its first commit: %v", err)
	}
	result, err := Replay(t.Context(), old.Cluster, west.Cluster, june, Options{Run: "june"})
	if err != nil {
		t.Fatal(err)
	}
	got := result.Lanes[0]
	if got.Already != 5 || got.Records != 7 || got.Counted != 12 {
		t.Errorf("appended %d to %d that were there, counted %d, want 7, 5 and 12", got.Records, got.Already, got.Counted)
	}
	if got.From < behind {
		t.Errorf("counted from offset %d on: what the partition held before ends at %d", got.From, behind)
	}
}

func TestARunFencesTheOneThatIsStillAlive(t *testing.T) {
	old, west := newRegion(t, "east", "orders"), newRegion(t, "west", "orders")
	report := find(t, old, fill(t, old))
	first := newTransfer(old.Cluster, west.Cluster, report, Options{Run: "r1"}, verbReplay)
	first.chunkRecords = 5
	second := false
	first.options.Progress = func(Progress) {
		if second {
			return
		}
		second = true
		if _, err := Replay(t.Context(), old.Cluster, west.Cluster, report, Options{Run: "r1"}); err != nil {
			t.Error(err)
		}
	}
	if _, err := first.run(t.Context()); !errors.Is(err, kerr.ProducerFenced) && !errors.Is(err, kerr.InvalidProducerEpoch) {
		t.Errorf("the first run: %v", err)
	}
	replayed(t, old, west, report, "r1")
}

func TestExportsHoldWhatWasThere(t *testing.T) {
	old, west := newRegion(t, "east", "orders"), newRegion(t, "west")
	report := find(t, old, fill(t, old))
	var file bytes.Buffer
	result, err := ExportFile(t.Context(), old.Cluster, report, &file, Options{Run: "r1"})
	if err != nil {
		t.Fatal(err)
	}
	if result.Records != report.Records || len(result.SHA256) != 64 {
		t.Errorf("%+v", result)
	}
	source := content(t, old, "orders")
	lines := bufio.NewScanner(&file)
	for _, r := range report.Ranges {
		for _, rec := range source[r.Partition] {
			if rec.Offset < r.From {
				continue
			}
			var l Line
			if !lines.Scan() {
				t.Fatalf("no line for %v", rec)
			}
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(lineOf(rec), l); diff != "" {
				t.Fatal(diff)
			}
		}
	}
	if lines.Scan() {
		t.Errorf("one line more: %s", lines.Text())
	}
	for range 2 {
		if _, err = ExportTopic(t.Context(), old.Cluster, west.Cluster, report, Options{Run: "r1"}); err != nil {
			t.Fatal(err)
		}
	}
	n := int64(0)
	for _, records := range content(t, west, ExportTopicName("east")) {
		n += int64(len(records))
	}
	if n != report.Records {
		t.Errorf("%d records in the topic, want %d", n, report.Records)
	}
}

func TestRecordsThatAreGoneSinceAreAnError(t *testing.T) {
	old, west := newRegion(t, "east", "orders"), newRegion(t, "west", "orders")
	report := find(t, old, fill(t, old))
	report.Ranges[0].Records++ // as if one had been there when they were counted
	_, err := Replay(t.Context(), old.Cluster, west.Cluster, report, Options{Run: "r1"})
	if count := new(CountError); !errors.As(err, &count) || count.Found != count.Have+1 {
		t.Errorf("replay: %v", err)
	}
	_, err = ExportFile(t.Context(), old.Cluster, report, new(bytes.Buffer), Options{})
	if count := new(CountError); !errors.As(err, &count) {
		t.Errorf("export: %v", err)
	}
}

func TestAReplayIntoARegionWithoutTheTopicSaysWhatToDo(t *testing.T) {
	old, west := newRegion(t, "east", "orders"), newRegion(t, "west")
	report := find(t, old, fill(t, old))
	_, err := Replay(t.Context(), old.Cluster, west.Cluster, report, Options{Run: "r1"})
	const want = "replay stranded records: topic orders of cluster east has stranded records and cluster west has no such topic: " +
		"create it there with 2 partitions and run it again, or choose export or discard"
	if err == nil || err.Error() != want {
		t.Fatalf("got  %v\nwant %s", err, want)
	}
	if _, err := west.Admin().CreateTopic(t.Context(), 2, -1, nil, "orders"); err != nil {
		t.Fatal(err)
	}
	west = reach(t, "west", west.fake)
	if _, err := Replay(t.Context(), old.Cluster, west.Cluster, report, Options{Run: "r1"}); err != nil {
		t.Fatal(err)
	}
	replayed(t, old, west, report, "r1")
}

func TestAProgressTopicThatForgetsIsRefused(t *testing.T) {
	old, west := newRegion(t, "east", "orders"), newRegion(t, "west", "orders")
	report := find(t, old, fill(t, old))
	policy := "delete"
	if _, err := west.Admin().CreateTopic(t.Context(), 1, -1, map[string]*string{"cleanup.policy": &policy}, ProgressTopic); err != nil {
		t.Fatal(err)
	}
	if _, err := Replay(t.Context(), old.Cluster, west.Cluster, report, Options{Run: "r1"}); err == nil {
		t.Error("believed")
	}
	if n := len(content(t, west, "orders")); n > 0 {
		t.Errorf("%d partitions were written to", n)
	}
}

func TestALimitHoldsFromTheFirstByteOn(t *testing.T) {
	begun := time.Now()
	l := newLimiter(100_000)
	for range 4 {
		if err := l.spend(t.Context(), 5_000); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begun); took < 190*time.Millisecond {
		t.Errorf("20,000 bytes at 100,000 a second took %v", took)
	}
}
