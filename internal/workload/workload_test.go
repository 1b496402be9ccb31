package workload_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/workload"
)

var day = time.UnixMilli(1_700_000_000_000)

func fake(t testing.TB) (*kfake.Cluster, []kgo.Opt) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}
}

// read returns all records a read_committed consumer sees.
func read(t testing.TB, opts []kgo.Opt, topic string) []*kgo.Record {
	t.Helper()
	var out []*kgo.Record
	if err := compare.Read(t.Context(), opts, topic, func(r *kgo.Record) error { out = append(out, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// batches counts the records of each stored batch of a topic, with its codec.
func batches(t testing.TB, opts []kgo.Opt, topic string) map[kgo.FetchBatchMetrics]int {
	t.Helper()
	h := &batchHook{seen: make(map[kgo.FetchBatchMetrics]int)}
	cl, err := kgo.NewClient(append(slices.Clone(opts), kgo.ConsumeTopics(topic), kgo.WithHooks(h))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	want := len(read(t, opts, topic))
	for got := 0; got < want; {
		fs := cl.PollFetches(t.Context())
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		got += fs.NumRecords()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.seen)
}

type batchHook struct {
	mu   sync.Mutex
	seen map[kgo.FetchBatchMetrics]int
}

func (h *batchHook) OnFetchBatchRead(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.FetchBatchMetrics) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen[kgo.FetchBatchMetrics{NumRecords: m.NumRecords, CompressionType: m.CompressionType}]++
}

func TestEveryKindIsWrittenAndItsContentProvesItself(t *testing.T) {
	cluster, opts := fake(t)
	for _, spec := range workload.Catalogue("w-", 600, false) {
		t.Run(spec.Topic, func(t *testing.T) {
			if spec.Kind == workload.Compacted {
				spec.Clean = cluster.Compact
			}
			result, err := workload.Write(t.Context(), opts, spec)
			if err != nil {
				t.Fatal(err)
			}
			records := read(t, opts, spec.Topic)
			if int64(len(records)) != result.Visible() {
				t.Errorf("%d records visible, result says %d: %+v", len(records), result.Visible(), result)
			}
			if want := int64(spec.Records); spec.Kind != workload.Empty && result.Written != want {
				t.Errorf("wrote %d of %d", result.Written, want)
			}
			seen := make(map[workload.Identity]bool)
			last := make(map[int32]int64)
			for _, r := range records {
				if len(r.Value) == 0 && (spec.Kind == workload.Compacted || spec.Kind == workload.Nulls && len(r.Key) == 0) {
					continue // no identity
				}
				id, err := workload.Parse(r.Key, r.Value)
				if err != nil {
					t.Fatalf("offset %d: %v", r.Offset, err)
				}
				if seen[id] || id.Topic != spec.Topic || id.Partition != r.Partition || id.Sequence < last[r.Partition] {
					t.Fatalf("offset %d of partition %d holds %s", r.Offset, r.Partition, id)
				}
				seen[id], last[r.Partition] = true, id.Sequence
			}
		})
	}
}

func TestKindsAreWhatTheyAreNamedFor(t *testing.T) {
	cluster, opts := fake(t)
	write := func(s workload.Spec) (workload.Result, []*kgo.Record) {
		t.Helper()
		s.Topic = fmt.Sprintf("k-%s-%s", s.Kind, s.Codec)
		r, err := workload.Write(t.Context(), opts, s)
		if err != nil {
			t.Fatal(err)
		}
		return r, read(t, opts, s.Topic)
	}
	only := func(topic string, want kgo.FetchBatchMetrics) {
		t.Helper()
		for m := range batches(t, opts, topic) {
			if m.NumRecords != want.NumRecords && want.NumRecords > 0 || m.CompressionType != want.CompressionType {
				t.Errorf("%s has batches of %d records, codec %d", topic, m.NumRecords, m.CompressionType)
			}
		}
	}
	for codec, id := range map[workload.Codec]uint8{workload.None: 0, workload.Gzip: 1, workload.Snappy: 2, workload.RawSnappy: 2, workload.LZ4: 3, workload.Zstd: 4} {
		write(workload.Spec{Kind: workload.Plain, Codec: codec})
		only("k-plain-"+string(codec), kgo.FetchBatchMetrics{CompressionType: id})
	}
	write(workload.Spec{Kind: workload.Tiny, Records: 30})
	only("k-tiny-", kgo.FetchBatchMetrics{NumRecords: 1})
	write(workload.Spec{Kind: workload.Ten, Records: 300, Codec: workload.LZ4})
	only("k-ten-lz4", kgo.FetchBatchMetrics{NumRecords: 10, CompressionType: 3})

	if _, rs := write(workload.Spec{Kind: workload.Ten, Records: 30}); len(rs[0].Value) != 100 {
		t.Errorf("ten: value of %d bytes", len(rs[0].Value))
	}
	if r, rs := write(workload.Spec{Kind: workload.Large, Records: 4}); len(rs) != 4 || r.Bytes < 4_000_000 {
		t.Errorf("large: %+v", r)
	}
	if _, rs := write(workload.Spec{Kind: workload.Old}); time.Since(rs[0].Timestamp) < 48*time.Hour {
		t.Errorf("old: written at %s", rs[0].Timestamp)
	}
	r, _ := write(workload.Spec{Kind: workload.Transactions, Records: 3000, Partitions: 1})
	if r.Aborted == 0 || r.Transactions < 20 || r.Aborted > 1500 {
		t.Errorf("transactions: %+v", r)
	}
	if r, _ := write(workload.Spec{Kind: workload.Compacted, Clean: cluster.Compact}); r.Holes < 200 || r.Holes > 800 {
		t.Errorf("compacted: %d holes of %d", r.Holes, r.Written)
	}
	mixed := make(map[uint8]bool)
	write(workload.Spec{Kind: workload.MixedCodec})
	for m := range batches(t, opts, "k-mixedcodec-") {
		mixed[m.CompressionType] = true
	}
	if len(mixed) != 5 {
		t.Errorf("mixed: codecs %v", mixed)
	}
	if r, _ := write(workload.Spec{Kind: workload.LogAppendTime}); len(r.Notes) != 1 {
		t.Errorf("logappendtime: the fake does not know it, and that is not said: %+v", r)
	}
	_, rs := write(workload.Spec{Kind: workload.Nulls})
	shapes := make(map[string]bool)
	for _, r := range rs {
		shapes[fmt.Sprint(r.Key == nil, len(r.Key) == 0, r.Value == nil, len(r.Value) == 0)] = true
	}
	if len(shapes) != 8 {
		t.Errorf("nulls: %d shapes", len(shapes))
	}
	_, rs = write(workload.Spec{Kind: workload.Headers})
	var null, empty, doubled, none, five bool
	for _, r := range rs {
		none, five = none || len(r.Headers) == 0, five || len(r.Headers) == 5
		names := make(map[string]bool)
		for _, h := range r.Headers {
			null, empty = null || h.Value == nil, empty || h.Value != nil && len(h.Value) == 0
			doubled = doubled || names[h.Key]
			names[h.Key] = true
		}
	}
	if !null || !empty || !doubled || !none || !five {
		t.Errorf("headers: %v %v %v %v %v", null, empty, doubled, none, five)
	}
}

func TestTheSameSeedWritesTheSameRecords(t *testing.T) {
	start := day
	clusters := make([]compare.Cluster, 2)
	for i := range clusters {
		_, clusters[i] = fake(t)
	}
	kinds := []workload.Kind{workload.Plain, workload.Headers, workload.Nulls, workload.Transactions, workload.Ten, workload.MixedCodec}
	compareAll := func(seed uint64) compare.Report {
		t.Helper()
		var pairs []compare.Pair
		for _, k := range kinds {
			topic := fmt.Sprintf("%s-%d", k, seed)
			pairs = append(pairs, compare.Pair{Source: topic, Target: topic})
			for i, c := range clusters {
				s := workload.Spec{Topic: topic, Kind: k, Seed: 7, Start: start, BatchBytes: 4096 << i}
				if i == 1 {
					s.Seed = seed
				}
				if _, err := workload.Write(t.Context(), c, s); err != nil {
					t.Fatal(err)
				}
			}
		}
		r, err := compare.Topics(t.Context(), clusters[0], clusters[1], pairs, compare.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if err := compareAll(7).Err(); err != nil {
		t.Error(err)
	}
	if r := compareAll(8); r.Total.Matched > r.Total.SourceRecords/10 {
		t.Errorf("another seed, and still equal: %s", r)
	}
}

func TestChangedContentDoesNotParse(t *testing.T) {
	_, opts := fake(t)
	if _, err := workload.Write(t.Context(), opts, workload.Spec{Topic: "orders", Kind: workload.Plain, Records: 1}); err != nil {
		t.Fatal(err)
	}
	r := read(t, opts, "orders")[0]
	if id, err := workload.Parse(r.Key, r.Value); err != nil || id != (workload.Identity{Topic: "orders"}) {
		t.Fatalf("%v %v", id, err)
	}
	for i := range r.Value {
		v := bytes.Clone(r.Value)
		v[i] ^= 1
		if id, err := workload.Parse(r.Key, v); err == nil {
			t.Fatalf("byte %d changed, and parses as %s", i, id)
		}
	}
	for n := range len(r.Value) {
		if id, err := workload.Parse(nil, r.Value[:n]); err == nil {
			t.Fatalf("cut to %d bytes, and parses as %s", n, id)
		}
	}
}

func TestWritingOnContinuesTheSequence(t *testing.T) {
	_, opts := fake(t)
	s := workload.Spec{Topic: "orders", Kind: workload.Plain, Records: 300}
	for range 3 {
		if _, err := workload.Write(t.Context(), opts, s); err != nil {
			t.Fatal(err)
		}
		s.First += 100
	}
	next := make(map[int32]int64)
	for _, r := range read(t, opts, "orders") {
		if id, err := workload.Parse(r.Key, r.Value); err != nil || id.Sequence != next[r.Partition] {
			t.Fatalf("offset %d holds %s, want sequence %d: %v", r.Offset, id, next[r.Partition], err)
		}
		next[r.Partition]++
	}
}

func TestAnOpenTransactionHoldsTheStableEnd(t *testing.T) {
	_, opts := fake(t)
	s := workload.Spec{Topic: "orders", Kind: workload.Plain, Records: 30}
	if _, err := workload.Write(t.Context(), opts, s); err != nil {
		t.Fatal(err)
	}
	s.First = 10
	open, err := workload.Begin(t.Context(), opts, s, 9)
	if err != nil {
		t.Fatal(err)
	}
	s.First = 13
	if _, err := workload.Write(t.Context(), opts, s); err != nil {
		t.Fatal(err)
	}
	if n := len(read(t, opts, "orders")); n != 30 {
		t.Errorf("%d records visible before the end", n)
	}
	if err := open.End(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if n := len(read(t, opts, "orders")); n != 69 {
		t.Errorf("%d records visible after the end", n)
	}
	if open.End(t.Context(), true) == nil {
		t.Error("ended twice")
	}
}

func TestWrongSpecsAreRefused(t *testing.T) {
	_, opts := fake(t)
	for _, s := range []workload.Spec{
		{Kind: workload.Plain},
		{Topic: "t", Kind: "sideways"},
		{Topic: "t", Kind: workload.Plain, Codec: "rar"},
		{Topic: "t", Kind: workload.OldMessages, Magic: 2},
		{Topic: "t", Kind: workload.OldMessages, Codec: workload.Zstd},
	} {
		if _, err := workload.Write(t.Context(), opts, s); err == nil {
			t.Errorf("%+v is taken", s)
		}
	}
	if _, err := workload.StartLive(t.Context(), opts, workload.LiveConfig{Spec: workload.Spec{Topic: "t", Kind: workload.Tiny}}); err == nil {
		t.Error("live producer of tiny batches is taken")
	}
}

func TestLiveKnowsWhatWasAcknowledgedThroughMovesAndFaults(t *testing.T) {
	cluster, opts := fake(t)
	live, err := workload.StartLive(t.Context(), opts, workload.LiveConfig{Spec: workload.Spec{Topic: "orders", Kind: workload.Idempotent, ValueBytes: 100}, Rate: 5000})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	until := func(n int64) {
		t.Helper()
		for live.Counts().Acknowledged < n {
			select {
			case <-ctx.Done():
				t.Fatalf("stuck at %+v", live.Counts())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	until(500)
	for p := range int32(3) {
		if err := cluster.MoveTopicPartition("orders", p, 1-cluster.LeaderFor("orders", p)); err != nil {
			t.Fatal(err)
		}
	}
	until(live.Counts().Acknowledged + 1000)
	r, err := live.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if r.Failed != 0 || r.Acknowledged != r.Attempted || r.Acknowledged < 1500 {
		t.Errorf("%+v", r.LiveCounts)
	}
	a, err := r.Audit(ctx, opts, "orders")
	if err != nil || a.Err() != nil || a.Found != r.Acknowledged {
		t.Errorf("%+v %v", a, err)
	}
	for p, runs := range r.Runs {
		at := int64(0)
		for _, run := range runs {
			if run.Sequence != at || run.Offset != at {
				t.Errorf("partition %d: run %+v, want %d", p, run, at)
			}
			at += run.Count
		}
		if at != r.Next[p] {
			t.Errorf("partition %d: next is %d, acknowledged up to %d", p, r.Next[p], at)
		}
	}
}

// The audit finds what the comparer would find, on a copy alone.
func TestAuditFindsLossAndDoubling(t *testing.T) {
	_, opts := fake(t)
	live, err := workload.StartLive(t.Context(), opts, workload.LiveConfig{Spec: workload.Spec{Topic: "orders", Kind: workload.Plain, ValueBytes: 100, Partitions: 1}, Rate: 10000})
	if err != nil {
		t.Fatal(err)
	}
	for live.Counts().Acknowledged < 100 {
		time.Sleep(time.Millisecond)
	}
	r, err := live.Stop(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	in := read(t, opts, "orders")
	cl, err := kgo.NewClient(append(slices.Clone(opts), kgo.AllowAutoTopicCreation(), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	broken := slices.Concat(in[:10], in[12:20], in[15:20], in[21:22], in[20:21], in[22:])
	if _, err := workload.Write(t.Context(), opts, workload.Spec{Topic: "copy", Kind: workload.Empty, Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	for _, rec := range broken {
		c := kgo.Record{Topic: "copy", Key: rec.Key, Value: rec.Value}
		cl.Produce(t.Context(), &c, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "copy", Value: []byte("foreign")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	a, err := r.Audit(t.Context(), opts, "copy")
	if err != nil {
		t.Fatal(err)
	}
	if a.Missing != 2 || a.Doubled != 5 || a.Disordered != 1 || a.Corrupt != 1 || a.Err() == nil || !strings.Contains(strings.Join(a.First, "\n"), "orders/0/10 is missing") {
		t.Errorf("%+v", a)
	}
}

func TestLiveRunsInFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(network.Listen))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		opts := []kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...), kgo.Dialer(func(ctx context.Context, n, a string) (net.Conn, error) { return network.DialContext(ctx, n, a) })}
		live, err := workload.StartLive(t.Context(), opts, workload.LiveConfig{Spec: workload.Spec{Topic: "orders", Kind: workload.Plain, Codec: workload.Zstd, ValueBytes: 50}, Rate: 10})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		r, err := live.Stop(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if r.Acknowledged < 595 || r.Acknowledged > 605 {
			t.Errorf("%d records in a minute at 10 a second", r.Acknowledged)
		}
	})
}

// With the brokers gone for good, a full buffer and no time left, Stop still
// returns, and says how much is open.
func TestLiveStopsWhenBrokersAreGone(t *testing.T) {
	cluster, opts := fake(t)
	live, err := workload.StartLive(t.Context(), opts, workload.LiveConfig{Spec: workload.Spec{Topic: "orders", Kind: workload.Plain, ValueBytes: 50}, Rate: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	for live.Counts().Acknowledged == 0 {
		time.Sleep(time.Millisecond)
	}
	cluster.Close()
	before := int64(-1)
	for c := live.Counts().Attempted; c != before; c = live.Counts().Attempted {
		before = c
		time.Sleep(100 * time.Millisecond) // until it stands still: the buffer is full
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	r, err := live.Stop(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || r.Failed == 0 || r.Failed+r.Acknowledged != r.Attempted {
		t.Errorf("%+v %v", r.LiveCounts, err)
	}
}
