package verify_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/pause"
	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
	"replicator/pkg/verify"
)

// region is one cluster with one partition of orders.
type region struct {
	t       *testing.T
	fake    *kfake.Cluster
	addrs   []string
	cluster *cluster.Cluster
	admin   *kadm.Client
}

func newRegion(t *testing.T, alias string) *region {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	cfg := cluster.DefaultConfig()
	cfg.BootstrapServers = k.ListenAddrs()
	c, err := cluster.Open(t.Context(), alias, cfg, cluster.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &region{t, k, k.ListenAddrs(), c, c.Admin()}
}

// write produces records in batches of so many.
func (r *region) write(records []*kgo.Record, batch int, opts ...kgo.Opt) {
	r.t.Helper()
	p := r.client(opts...)
	defer p.Close()
	for chunk := range slices.Chunk(records, batch) {
		r.send(p, chunk)
	}
}

func (r *region) client(opts ...kgo.Opt) *kgo.Client {
	r.t.Helper()
	p, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(r.addrs...), kgo.ManualFlushing(), kgo.ProducerBatchCompression(kgo.Lz4Compression())}, opts...)...)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *region) send(p *kgo.Client, records []*kgo.Record) {
	r.t.Helper()
	for _, rec := range records {
		c := *rec
		c.Topic = "orders"
		p.Produce(r.t.Context(), &c, func(_ *kgo.Record, err error) {
			if err != nil {
				r.t.Errorf("produce: %v", err)
			}
		})
	}
	// What waited for the topic to become known is flushed one by one.
	for {
		leader, _, err := p.PartitionLeader("orders", 0)
		if err != nil || len(records) == 0 || leader >= 0 {
			break
		}
		if err := pause.For(r.t.Context(), time.Millisecond); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := p.Flush(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// transaction writes records and ends it: with none of them, only the control record takes an offset.
func (r *region) transaction(commit bool, records ...*kgo.Record) {
	r.t.Helper()
	p := r.client(kgo.TransactionalID("tx"))
	defer p.Close()
	if err := p.BeginTransaction(); err != nil {
		r.t.Fatal(err)
	}
	r.send(p, records)
	if err := cluster.EndTransaction(r.t.Context(), p, kgo.TransactionEndTry(commit), "orders"); err != nil {
		r.t.Fatal(err)
	}
}

var day = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func records(n int) []*kgo.Record {
	out := make([]*kgo.Record, n)
	for i := range out {
		out[i] = &kgo.Record{
			Key: fmt.Append(nil, "key-", i), Value: fmt.Append(nil, "value-", i), Timestamp: day.Add(time.Duration(i) * time.Second),
			Headers: []kgo.RecordHeader{{Key: "n", Value: fmt.Append(nil, i)}},
		}
	}
	return out
}

// with returns a copy in which record i is changed.
func with(all []*kgo.Record, i int, change func(*kgo.Record)) []*kgo.Record {
	out := slices.Clone(all)
	c := *out[i]
	change(&c)
	out[i] = &c
	return out
}

var (
	lane   = offsets.Lane{Topic: "orders"}
	writer = offsets.Writer{ProducerID: 4711, Epoch: 3}
)

// state is a lane that has copied up to the source and target offsets (next), n records in all.
func state(n, source, target int64, more ...offsets.Entry) offsets.LaneState {
	return offsets.StateOf(append(more,
		offsets.EpochRecord{Lane: lane, Writer: writer},
		offsets.Position{Lane: lane, Writer: writer, Ordinal: n, Source: source, Target: target})...)
}

func compare(t *testing.T, east, west *region, s offsets.LaneState, from, to int64, o verify.Options) verify.LaneReport {
	t.Helper()
	o.ReadCommitted = true
	r, err := verify.Run(t.Context(), east.cluster, west.cluster, []verify.Range{{Lane: lane, TargetTopic: "orders", State: s, From: from, To: to}}, o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Total != r.Lanes[0].Counts {
		t.Errorf("total %+v, lane %+v", r.Total, r.Lanes[0].Counts)
	}
	return r.Lanes[0]
}

// want checks counts, bytes aside, and that one difference is as the words say.
func want(t *testing.T, got verify.LaneReport, counts verify.Counts, differences ...string) {
	t.Helper()
	if got.Error != "" {
		t.Fatal(got.Error)
	}
	if counts.Bytes = got.Bytes; got.Counts != counts {
		t.Errorf("counted %+v, want %+v", got.Counts, counts)
	}
	if len(got.First) != len(differences) {
		t.Fatalf("differences %v, want %d", got.First, len(differences))
	}
	for i, d := range differences {
		if !strings.Contains(got.First[i].String(), d) {
			t.Errorf("difference %q, want %q", got.First[i], d)
		}
	}
}

func TestTheSameBatchesAreNotOpened(t *testing.T) {
	east, west := newRegion(t, "east"), newRegion(t, "west")
	all := records(100)
	east.write(all, 10)
	west.write(all, 10)
	got := compare(t, east, west, state(100, 100, 100), 0, 100, verify.Options{})
	want(t, got, verify.Counts{Equal: 100, Closed: 100})
	// Part of a batch is opened, the others are not.
	got = compare(t, east, west, state(100, 100, 100), 25, 95, verify.Options{})
	want(t, got, verify.Counts{Equal: 70, Closed: 60})
}

func TestOtherBatchesAndCodecsAreEqual(t *testing.T) {
	all := records(100)
	for _, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		east, west := newRegion(t, "east"), newRegion(t, "west")
		east.write(all, 10, kgo.ProducerBatchCompression(codec))
		west.write(all, 7)
		want(t, compare(t, east, west, state(100, 100, 100), 0, 100, verify.Options{}), verify.Counts{Equal: 100})
	}
}

func TestEveryPartOfARecordIsCompared(t *testing.T) {
	all := records(30)
	for _, c := range []struct {
		name   string
		change func(*kgo.Record)
	}{
		{"key", func(r *kgo.Record) { r.Key = []byte("other") }},
		{"value", func(r *kgo.Record) { r.Value = []byte("other") }},
		{"value", func(r *kgo.Record) { r.Value = nil }},
		{"headers", func(r *kgo.Record) { r.Headers = nil }},
		{"timestamp", func(r *kgo.Record) { r.Timestamp = r.Timestamp.Add(time.Millisecond) }},
	} {
		east, west := newRegion(t, "east"), newRegion(t, "west")
		east.write(all, 10)
		west.write(with(all, 13, c.change), 10)
		want(t, compare(t, east, west, state(30, 30, 30), 0, 30, verify.Options{}), verify.Counts{Equal: 29, Closed: 20, Changed: 1},
			"changed: source offset 13, target offset 13: "+c.name)
	}
}

func TestAnEmptyValueIsNotNone(t *testing.T) {
	east, west := newRegion(t, "east"), newRegion(t, "west")
	all := records(3)
	east.write(with(all, 1, func(r *kgo.Record) { r.Value = []byte{} }), 3)
	west.write(with(all, 1, func(r *kgo.Record) { r.Value = nil }), 3)
	want(t, compare(t, east, west, state(3, 3, 3), 0, 3, verify.Options{}), verify.Counts{Equal: 2, Changed: 1}, "value differ")
}

func TestSwappedRecordsAreReordered(t *testing.T) {
	east, west := newRegion(t, "east"), newRegion(t, "west")
	all := records(20)
	east.write(all, 20)
	swapped := slices.Clone(all)
	swapped[4], swapped[5] = swapped[5], swapped[4]
	west.write(swapped, 20)
	want(t, compare(t, east, west, state(20, 20, 20), 0, 20, verify.Options{}), verify.Counts{Equal: 18, Reordered: 2},
		"reordered: source offset 4, target offset 4", "reordered: source offset 5, target offset 5")
}

func TestAMissingRecordIsNamed(t *testing.T) {
	all := records(10)
	// A control record stands where the map has record 5.
	east, west := newRegion(t, "east"), newRegion(t, "west")
	east.write(all, 10)
	west.write(all[:5], 5)
	west.transaction(false, all[0]) // takes two offsets, 5 and 6
	west.write(all[7:], 3)
	want(t, compare(t, east, west, state(10, 10, 10), 0, 10, verify.Options{}), verify.Counts{Equal: 8, Missing: 1, Changed: 1},
		"changed: source offset 5", "missing: source offset 6, target offset 6")
	// The map goes past record 5 without saying that it is a gap.
	east, west = newRegion(t, "east"), newRegion(t, "west")
	east.write(all, 10)
	west.write(slices.Delete(slices.Clone(all), 5, 6), 9)
	hole := offsets.Spans{Lane: lane, Writer: writer, Runs: []offsets.Span{{Ordinal: 5, Source: 6}}}
	want(t, compare(t, east, west, state(9, 10, 9, hole), 0, 10, verify.Options{}), verify.Counts{Equal: 9, Missing: 1},
		"missing: source offset 5, target offset none")
	gap := offsets.Gap{Lane: lane, Writer: writer, From: 5, To: 6}
	want(t, compare(t, east, west, state(9, 10, 9, hole, gap), 0, 10, verify.Options{}), verify.Counts{Equal: 9, InGap: 1})
}

func TestAForeignRecordIsExtraWithItsProducer(t *testing.T) {
	all := records(10)
	east, west := newRegion(t, "east"), newRegion(t, "west")
	east.write(all, 10)
	west.write(all[:5], 5)
	west.write(records(1), 1, kgo.DisableIdempotentWrite())
	west.write(all[5:], 5)
	west.write(records(2), 2) // behind all that was copied
	s := state(10, 10, 11, offsets.Shift{Lane: lane, Writer: writer, Ordinal: 5, Target: 6})
	want(t, compare(t, east, west, s, 0, 10, verify.Options{}), verify.Counts{Equal: 10, Extra: 1},
		"extra: source offset none, target offset 5: the map has no such record; written without a producer id")
	// Of neighbouring ranges one has it.
	want(t, compare(t, east, west, s, 0, 5, verify.Options{}), verify.Counts{Equal: 5, Closed: 0})
	want(t, compare(t, east, west, s, 5, 10, verify.Options{}), verify.Counts{Equal: 5, Extra: 1}, "target offset 5")
	r, err := verify.Run(t.Context(), east.cluster, west.cluster,
		[]verify.Range{{Lane: lane, TargetTopic: "orders", State: s, From: 8, To: 10, TargetEnd: 13}}, verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want(t, r.Lanes[0], verify.Counts{Equal: 2, Extra: 2}, "target offset 11: the map has no such record; written by producer", "target offset 12")
	if r.Equal() || !r.Different() {
		t.Error("equal with extra records")
	}
}

// What the target took as the source, and nobody copied before it was given up, is its
// own: the journal of the other direction says so, and of nothing else.
func TestStrandedRecordsAreCountedApart(t *testing.T) {
	all := records(10)
	east, west := newRegion(t, "east"), newRegion(t, "west")
	east.write(all, 10)
	west.write(all[:5], 5)
	west.write(records(3), 3)
	west.write(all[5:], 5)
	s := state(10, 10, 13, offsets.Shift{Lane: lane, Writer: writer, Ordinal: 5, Target: 8})
	entries, err := state(5, 5, 5).Strand(7, "replayed", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := verify.Range{Lane: lane, TargetTopic: "orders", State: s, From: 0, To: 10}
	r.Keep(state(5, 5, 5, entries[0]))
	report, err := verify.Run(t.Context(), east.cluster, west.cluster, []verify.Range{r}, verify.Options{ReadCommitted: true})
	if err != nil {
		t.Fatal(err)
	}
	want(t, report.Lanes[0], verify.Counts{Equal: 10, Stranded: 2, Extra: 1}, "target offset 7: the map has no such record")
	gap := offsets.Gap{Lane: lane, Writer: writer, From: 5, To: 8, Reason: "retention"}
	r.Own = nil
	if r.Keep(state(5, 5, 8, gap)); len(r.Own) != 0 {
		t.Errorf("a gap that is not of stranded records is one: %v", r.Own)
	}
}

func TestARecordTheSourceNeverHadIsExtra(t *testing.T) {
	all := records(10)
	east, west := newRegion(t, "east"), newRegion(t, "west")
	east.write(all[:5], 5)
	east.transaction(false, all[5]) // offsets 5 and 6, no record for a reader
	east.write(all[7:], 3)
	west.write(all, 10)
	want(t, compare(t, east, west, state(10, 10, 10), 0, 10, verify.Options{}), verify.Counts{Equal: 8, Extra: 2},
		"extra: source offset 5, target offset 5: the source has no record there", "source offset 6")
}

func TestAbortedTransactionsAreNotExpected(t *testing.T) {
	all := records(12)
	east, west := newRegion(t, "east"), newRegion(t, "west")
	east.write(all[:4], 4)
	east.transaction(false, all[4:8]...) // 4 to 7, the control record is 8
	east.transaction(true, all[8:]...)   // 9 to 12, 13
	west.write(all[:4], 4)
	west.write(all[8:], 3)
	s := state(8, 14, 8, offsets.Spans{Lane: lane, Writer: writer, Runs: []offsets.Span{{Ordinal: 4, Source: 9}}})
	want(t, compare(t, east, west, s, 0, 14, verify.Options{}), verify.Counts{Equal: 8, Closed: 4})
}

// A target that was the source before has transactions of its own between the records
// of the link: what was aborted there is nobody's.
func TestAbortedTransactionsOfTheTargetAreItsOwn(t *testing.T) {
	all := records(8)
	east, west := newRegion(t, "east"), newRegion(t, "west")
	east.write(all, 4)
	west.write(all[:4], 4)
	west.transaction(false, records(3)...) // 4 to 6, the control record is 7
	west.write(all[4:], 4)
	s := state(8, 8, 12, offsets.Shift{Lane: lane, Writer: writer, Ordinal: 4, Target: 8})
	want(t, compare(t, east, west, s, 0, 8, verify.Options{}), verify.Counts{Equal: 8, Closed: 4})
	west.transaction(true, records(1)...)
	r, err := verify.Run(t.Context(), east.cluster, west.cluster,
		[]verify.Range{{Lane: lane, TargetTopic: "orders", State: s, From: 0, To: 8, TargetEnd: 14}}, verify.Options{ReadCommitted: true})
	if err != nil {
		t.Fatal(err)
	}
	want(t, r.Lanes[0], verify.Counts{Equal: 8, Closed: 4, Extra: 1}, "target offset 12: the map has no such record")
}

func TestWhatRetentionRemovedIsNoDifference(t *testing.T) {
	all := records(40)
	for _, c := range []struct {
		name         string
		east, west   int64
		equal, shown int64
	}{{"source", 15, 0, 25, 15}, {"target", 0, 15, 25, 15}, {"both", 15, 20, 20, 5}} {
		east, west := newRegion(t, "east"), newRegion(t, "west")
		east.write(all, 10)
		west.write(all, 10)
		for r, start := range map[*region]int64{east: c.east, west: c.west} {
			if start > 0 {
				if _, err := r.admin.DeleteRecords(t.Context(), kadm.OffsetsList{{Topic: "orders", At: start}}.Offsets()); err != nil {
					t.Fatal(err)
				}
			}
		}
		got := compare(t, east, west, state(40, 40, 40), 0, 40, verify.Options{})
		if got.Equal != c.equal || got.Retained != c.shown || got.Differences() > 0 || got.Error != "" {
			t.Errorf("%s: %+v %v %s", c.name, got.Counts, got.First, got.Error)
		}
	}
}

func TestCompactionIsProvedByTheKey(t *testing.T) {
	all := records(10)
	for i := range all {
		all[i].Key = fmt.Append(nil, "key-", i%7) // 7 is 0 again, 8 is 1, 9 is 2
	}
	east, west := newRegion(t, "east"), newRegion(t, "west")
	if _, err := west.admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "cleanup.policy", Value: new("compact")}}, "orders"); err != nil {
		t.Fatal(err)
	}
	east.write(all, 10)
	// Control records of empty places: 1 and 2 are gone with reason, 5 without.
	west.write(all[:1], 1)
	west.transaction(false, all[1]) // 1 is there although aborted, 2 is the control record
	west.write(all[3:4], 1)
	west.transaction(false, all[4]) // 4, and 5 is the control record
	west.write(all[6:], 4)
	got := compare(t, east, west, state(10, 10, 10), 0, 10, verify.Options{})
	want(t, got, verify.Counts{Equal: 8, Compacted: 1, Missing: 1}, "missing: source offset 5, target offset 5: the target has no record there, and no later one has its key")
	// A range that ends earlier cannot tell.
	got = compare(t, east, west, state(10, 10, 10), 0, 8, verify.Options{})
	want(t, got, verify.Counts{Equal: 6, Compacted: 2})
}

func TestRangesAreWhatBothSidesHold(t *testing.T) {
	east := newRegion(t, "east")
	east.write(records(40), 10)
	if _, err := east.admin.DeleteRecords(t.Context(), kadm.OffsetsList{{Topic: "orders", At: 5}}.Offsets()); err != nil {
		t.Fatal(err)
	}
	whole := state(40, 40, 40)
	again := offsets.Writer{ProducerID: 4711, Epoch: 4}
	for _, c := range []struct {
		name     string
		tail     offsets.Tail
		last     int64
		from, to int64
	}{
		{"all", offsets.Tail{State: whole, End: 40}, 0, 5, 40},
		{"the last", offsets.Tail{State: whole, End: 40}, 10, 30, 40},
		{"more than there are", offsets.Tail{State: whole, End: 40}, 1000, 5, 40},
		{"target starts later", offsets.Tail{State: whole, Start: 20, End: 40}, 0, 20, 40},
		{"nothing copied", offsets.Tail{State: state(0, 0, 0)}, 0, 0, 0},
		{"last across a hole", offsets.Tail{State: state(30, 40, 30, offsets.Spans{Lane: lane, Writer: writer, Runs: []offsets.Span{{Ordinal: 25, Source: 35}}}), End: 30}, 10, 20, 40},
		{"source went back", offsets.Tail{State: offsets.StateOf(
			offsets.EpochRecord{Lane: lane, Writer: writer},
			offsets.EpochRecord{Lane: lane, Writer: again, Ordinal: 40, Source: 10, Target: 41},
			offsets.Position{Lane: lane, Writer: again, Ordinal: 50, Source: 20, Target: 51})}, 0, 10, 20},
		{"trimmed", offsets.Tail{State: state(40, 40, 40, offsets.Trim{Lane: lane, Writer: writer, Ordinal: 12, Source: 12, Target: 12}), End: 40}, 0, 12, 40},
	} {
		c.tail.TargetTopic = "orders"
		got, err := verify.Ranges(t.Context(), east.cluster, map[offsets.Lane]offsets.Tail{lane: c.tail}, c.last)
		if err != nil || len(got) != 1 || got[0].Err != nil {
			t.Fatalf("%s: %+v, %v", c.name, got, err)
		}
		if got[0].From != c.from || got[0].To != c.to {
			t.Errorf("%s: [%d, %d), want [%d, %d)", c.name, got[0].From, got[0].To, c.from, c.to)
		}
	}
	gone := offsets.Lane{Topic: "gone"}
	got, err := verify.Ranges(t.Context(), east.cluster, map[offsets.Lane]offsets.Tail{gone: {State: whole, TargetTopic: "gone"}}, 0)
	if err != nil || len(got) != 1 || got[0].Err == nil {
		t.Errorf("a topic the source lacks: %+v, %v", got, err)
	}
}

func TestWhatCannotBeReadIsNotEqual(t *testing.T) {
	east, west := newRegion(t, "east"), newRegion(t, "west")
	east.write(records(10), 10)
	west.write(records(10)[:8], 8) // the map knows ten: the target lost its tail
	got := compare(t, east, west, state(10, 10, 10), 0, 10, verify.Options{})
	if !strings.Contains(got.Error, "has lost its tail") {
		t.Errorf("error %q, %+v", got.Error, got.Counts)
	}
	r, err := verify.Run(t.Context(), east.cluster, west.cluster, []verify.Range{
		{Lane: lane, TargetTopic: "absent", State: state(10, 10, 10), To: 10},
		{Lane: offsets.Lane{Topic: "orders", Partition: 7}, TargetTopic: "orders", State: state(10, 10, 10), To: 10},
		{Lane: lane, TargetTopic: "orders", State: state(10, 10, 10), To: 11},
	}, verify.Options{})
	if err != nil || r.Equal() || r.Failed() != 3 {
		t.Errorf("%d lanes failed, %v", r.Failed(), err)
	}
}

func TestReadingIsThrottledAndProgressTold(t *testing.T) {
	east, west := newRegion(t, "east"), newRegion(t, "west")
	all := make([]*kgo.Record, 64)
	for i := range all {
		all[i] = &kgo.Record{Value: make([]byte, 8<<10), Timestamp: day}
	}
	east.write(all, 8, kgo.ProducerBatchCompression(kgo.NoCompression()))
	west.write(all, 8, kgo.ProducerBatchCompression(kgo.NoCompression()))
	var last verify.Progress
	begun := time.Now()
	got := compare(t, east, west, state(64, 64, 64), 0, 64, verify.Options{BytesPerSecond: 512 << 10, Progress: func(p verify.Progress) { last = p }})
	// A MiB is read, and half a MiB may be read at once.
	if took := time.Since(begun); took < 900*time.Millisecond {
		t.Errorf("read %d bytes in %v", got.Bytes, took)
	}
	want(t, got, verify.Counts{Equal: 64, Closed: 64})
	if last.Offsets != 64 || last.Done != 64 || last.LanesDone != 1 || last.Bytes != got.Bytes {
		t.Errorf("progress %+v", last)
	}
}
