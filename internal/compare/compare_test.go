package compare_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/pkg/cluster"
)

// pair is a source and a target on kfake, one topic of one partition each
// unless a test makes more.
type pair struct {
	source, target *kfake.Cluster
}

func newPair(t testing.TB, partitions int32) pair {
	t.Helper()
	make := func() *kfake.Cluster {
		c, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(partitions, "orders"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	return pair{make(), make()}
}

func (p pair) compare(t testing.TB, opts compare.Options) compare.Report {
	t.Helper()
	r, err := compare.Topics(t.Context(), compare.Seeds(p.source.ListenAddrs()...), compare.Seeds(p.target.ListenAddrs()...), compare.Same("orders"), opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func produce(t testing.TB, c *kfake.Cluster, records []*kgo.Record, opts ...kgo.Opt) {
	t.Helper()
	produceTo(t, append([]kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, opts...), records)
}

func produceTo(t testing.TB, opts []kgo.Opt, records []*kgo.Record) {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

var day = time.UnixMilli(1_700_000_000_000)

// orders makes n records of one partition, all fields filled.
func orders(n int) []*kgo.Record {
	out := make([]*kgo.Record, n)
	for i := range out {
		out[i] = &kgo.Record{
			Key: fmt.Appendf(nil, "key-%d", i), Value: fmt.Appendf(nil, "value-%d", i),
			Timestamp: day.Add(time.Duration(i) * time.Millisecond),
			Headers:   []kgo.RecordHeader{{Key: "trace", Value: fmt.Appendf(nil, "t%d", i)}, {Key: "trace", Value: nil}, {Key: "", Value: []byte{}}},
		}
	}
	return out
}

// clone copies records so that a test can alter them.
func clone(in []*kgo.Record) []*kgo.Record {
	out := make([]*kgo.Record, len(in))
	for i, r := range in {
		c := *r
		c.Headers = slices.Clone(r.Headers)
		out[i] = &c
	}
	return out
}

func TestEqualTopicsAreEqualWhateverTheirBatchesAndCodecs(t *testing.T) {
	p := newPair(t, 3)
	in := orders(900)
	for i, r := range in {
		r.Partition = int32(i % 3)
	}
	in[7].Key, in[8].Key, in[9].Value, in[10].Value, in[11].Headers = nil, []byte{}, nil, []byte{}, nil
	produce(t, p.source, clone(in), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	produce(t, p.target, clone(in), kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(1024))
	r := p.compare(t, compare.Options{})
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	if r.Total.SourceRecords != 900 || r.Total.TargetRecords != 900 || r.Total.Matched != 900 || len(r.Partitions) != 3 {
		t.Fatalf("not all was compared: %s", r)
	}
	if r.SourceSum != r.TargetSum || r.Partitions[0].SourceSum != r.Partitions[0].TargetSum || r.Partitions[0].SourceSum == r.Partitions[1].SourceSum {
		t.Fatalf("sums do not follow the content: %s", r)
	}
}

// Each fault a copy can have is found, counted once, and named with the
// offsets on both sides.
func TestEveryKindOfFaultIsNamed(t *testing.T) {
	const n = 50
	tests := []struct {
		name   string
		break_ func([]*kgo.Record) []*kgo.Record
		want   compare.Counts
		first  compare.Difference
		detail string
	}{
		{
			"a lost record",
			func(r []*kgo.Record) []*kgo.Record { return slices.Delete(r, 20, 21) },
			compare.Counts{SourceRecords: n, TargetRecords: n - 1, Matched: n - 1, Missing: 1},
			compare.Difference{Kind: compare.Missing, SourceOffset: 20, TargetOffset: -1}, `key "key-20"`,
		},
		{
			"the first record lost",
			func(r []*kgo.Record) []*kgo.Record { return r[1:] },
			compare.Counts{SourceRecords: n, TargetRecords: n - 1, Matched: n - 1, Missing: 1},
			compare.Difference{Kind: compare.Missing, SourceOffset: 0, TargetOffset: -1}, "",
		},
		{
			"the tail lost",
			func(r []*kgo.Record) []*kgo.Record { return r[:n-3] },
			compare.Counts{SourceRecords: n, TargetRecords: n - 3, Matched: n - 3, Missing: 3},
			compare.Difference{Kind: compare.Missing, SourceOffset: n - 3, TargetOffset: -1}, "",
		},
		{
			"a doubled record",
			func(r []*kgo.Record) []*kgo.Record { return slices.Insert(r, 21, r[20]) },
			compare.Counts{SourceRecords: n, TargetRecords: n + 1, Matched: n, Doubled: 1},
			compare.Difference{Kind: compare.Doubled, SourceOffset: 20, TargetOffset: 21}, "",
		},
		{
			"a doubled batch",
			func(r []*kgo.Record) []*kgo.Record { return slices.Insert(r, 30, r[20:30]...) },
			compare.Counts{SourceRecords: n, TargetRecords: n + 10, Matched: n, Doubled: 10},
			compare.Difference{Kind: compare.Doubled, SourceOffset: 20, TargetOffset: 30}, "",
		},
		{
			"a batch doubled at the end",
			func(r []*kgo.Record) []*kgo.Record { return append(r, r[20:30]...) },
			compare.Counts{SourceRecords: n, TargetRecords: n + 10, Matched: n, Doubled: 10},
			compare.Difference{Kind: compare.Doubled, SourceOffset: 20, TargetOffset: n}, "",
		},
		{
			"a record written too early and again in its place",
			func(r []*kgo.Record) []*kgo.Record { return slices.Insert(r, 10, r[40]) },
			compare.Counts{SourceRecords: n, TargetRecords: n + 1, Matched: n, Doubled: 1},
			compare.Difference{Kind: compare.Doubled, SourceOffset: -1, TargetOffset: 10}, "",
		},
		{
			"two neighbours swapped",
			func(r []*kgo.Record) []*kgo.Record { r[20], r[21] = r[21], r[20]; return r },
			compare.Counts{SourceRecords: n, TargetRecords: n, Matched: n - 2, Reordered: 2},
			compare.Difference{Kind: compare.Reordered, SourceOffset: 20, TargetOffset: 21}, "",
		},
		{
			"two far ones swapped",
			func(r []*kgo.Record) []*kgo.Record { r[5], r[40] = r[40], r[5]; return r },
			compare.Counts{SourceRecords: n, TargetRecords: n, Matched: n - 2, Reordered: 2},
			compare.Difference{Kind: compare.Reordered, SourceOffset: 5, TargetOffset: -1}, "",
		},
		{
			"two batches swapped",
			func(r []*kgo.Record) []*kgo.Record {
				return slices.Concat(r[:10], r[20:30], r[10:20], r[30:])
			},
			compare.Counts{SourceRecords: n, TargetRecords: n, Matched: n - 10, Reordered: 10},
			compare.Difference{Kind: compare.Reordered, SourceOffset: -1, TargetOffset: 10}, "",
		},
		{
			"a foreign record",
			func(r []*kgo.Record) []*kgo.Record {
				return slices.Insert(r, 20, &kgo.Record{Key: []byte("other"), Value: []byte("x"), Timestamp: day})
			},
			compare.Counts{SourceRecords: n, TargetRecords: n + 1, Matched: n, Extra: 1},
			compare.Difference{Kind: compare.Extra, SourceOffset: -1, TargetOffset: 20}, `key "other"`,
		},
		{
			"a header value",
			func(r []*kgo.Record) []*kgo.Record { r[20].Headers[0].Value = []byte("t0"); return r },
			changed(n), changedAt20, `header 0 ("trace") value "t20" -> "t0"`,
		},
		{
			"a header null instead of empty",
			func(r []*kgo.Record) []*kgo.Record { r[20].Headers[2].Value = nil; return r },
			changed(n), changedAt20, `header 2 ("") value "" -> null`,
		},
		{
			"headers in another order",
			func(r []*kgo.Record) []*kgo.Record {
				h := r[20].Headers
				h[0], h[2] = h[2], h[0]
				return r
			},
			changed(n), changedAt20, `header 0 key "trace" -> ""`,
		},
		{
			"a header dropped",
			func(r []*kgo.Record) []*kgo.Record { r[20].Headers = r[20].Headers[:2]; return r },
			changed(n), changedAt20, "headers 3 -> 2",
		},
		{
			"a timestamp",
			func(r []*kgo.Record) []*kgo.Record {
				r[20].Timestamp = r[20].Timestamp.Add(time.Millisecond)
				return r
			},
			changed(n), changedAt20, "timestamp 1700000000020 -> 1700000000021",
		},
		{
			"a key",
			func(r []*kgo.Record) []*kgo.Record { r[20].Key = []byte("k"); return r },
			changed(n), changedAt20, `key "key-20" -> "k"`,
		},
		{
			"a value empty instead of null",
			func(r []*kgo.Record) []*kgo.Record { r[30].Value = []byte{}; return r },
			changed(n), compare.Difference{Kind: compare.Changed, SourceOffset: 30, TargetOffset: 30}, `value null -> ""`,
		},
		{
			"a key null instead of empty",
			func(r []*kgo.Record) []*kgo.Record { r[31].Key = nil; return r },
			changed(n), compare.Difference{Kind: compare.Changed, SourceOffset: 31, TargetOffset: 31}, `key "" -> null`,
		},
		{
			"every timestamp",
			func(r []*kgo.Record) []*kgo.Record {
				for _, x := range r {
					x.Timestamp = x.Timestamp.Add(time.Hour)
				}
				return r
			},
			compare.Counts{SourceRecords: n, TargetRecords: n, Changed: n},
			compare.Difference{Kind: compare.Changed, SourceOffset: 0, TargetOffset: 0}, "timestamp",
		},
		{
			"nothing copied",
			func(r []*kgo.Record) []*kgo.Record { return nil },
			compare.Counts{SourceRecords: n, Missing: n},
			compare.Difference{Kind: compare.Missing, SourceOffset: 0, TargetOffset: -1}, "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t, 1)
			in := orders(n)
			in[30].Value, in[31].Key = nil, []byte{}
			produce(t, p.source, clone(in))
			if out := tt.break_(clone(in)); len(out) > 0 {
				produce(t, p.target, clone(out))
			}
			r := p.compare(t, compare.Options{})
			if r.Total != tt.want {
				t.Errorf("counted %v\nwant    %v", r.Total, tt.want)
			}
			if r.Equal() || r.Err() == nil || r.SourceSum == r.TargetSum {
				t.Errorf("a broken copy passes: %s", r)
			}
			if len(r.Partitions[0].First) == 0 {
				t.Fatal("no difference kept")
			}
			first := r.Partitions[0].First[0]
			if first.Kind != tt.first.Kind || first.SourceOffset != tt.first.SourceOffset || first.TargetOffset != tt.first.TargetOffset || !strings.Contains(first.Detail, tt.detail) {
				t.Errorf("first difference is %q, want %q with %q", first, tt.first, tt.detail)
			}
			if !strings.Contains(r.Err().Error(), string(tt.first.Kind)) {
				t.Errorf("error does not name %s: %v", tt.first.Kind, r.Err())
			}
		})
	}
}

func changed(n int64) compare.Counts {
	return compare.Counts{SourceRecords: n, TargetRecords: n, Matched: n - 1, Changed: 1}
}

var changedAt20 = compare.Difference{Kind: compare.Changed, SourceOffset: 20, TargetOffset: 20}

// Losses and doublings longer than the window still end in the right numbers.
func TestLongRunsAreCountedBeyondTheWindow(t *testing.T) {
	const n = 5000
	for name, tt := range map[string]struct {
		break_ func([]*kgo.Record) []*kgo.Record
		want   compare.Counts
	}{
		"lost": {
			func(r []*kgo.Record) []*kgo.Record { return slices.Delete(r, 1000, 3000) },
			compare.Counts{SourceRecords: n, TargetRecords: n - 2000, Matched: n - 2000, Missing: 2000},
		},
		"doubled": {
			func(r []*kgo.Record) []*kgo.Record { return slices.Insert(r, 3000, r[1000:3000]...) },
			compare.Counts{SourceRecords: n, TargetRecords: n + 2000, Matched: n, Doubled: 2000},
		},
		"lost and doubled": {
			func(r []*kgo.Record) []*kgo.Record {
				r = slices.Insert(r, 4000, r[3500:4000]...)
				return slices.Delete(r, 1000, 1500)
			},
			compare.Counts{SourceRecords: n, TargetRecords: n, Matched: n - 500, Missing: 500, Doubled: 500},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, 1)
			in := orders(n)
			produce(t, p.source, clone(in))
			produce(t, p.target, clone(tt.break_(clone(in))))
			r := p.compare(t, compare.Options{Window: 100})
			if r.Total != tt.want {
				t.Errorf("counted %v\nwant    %v", r.Total, tt.want)
			}
			if got := len(r.Partitions[0].First); got != 20 {
				t.Errorf("%d differences kept, want 20", got)
			}
		})
	}
}

func TestAbortedTransactionsAndControlRecordsAreNotExpected(t *testing.T) {
	p := newPair(t, 1)
	tx, err := kgo.NewClient(kgo.SeedBrokers(p.source.ListenAddrs()...), kgo.TransactionalID("tx"), kgo.DefaultProduceTopic("orders"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	in := orders(40)
	for i := range 4 {
		if err := tx.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := tx.ProduceSync(t.Context(), clone(in[i*10:i*10+10])...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cluster.EndTransaction(t.Context(), tx, kgo.TransactionEndTry(i%2 == 0), "orders"); err != nil {
			t.Fatal(err)
		}
	}
	produce(t, p.target, slices.Concat(clone(in[:10]), clone(in[20:30])))
	if err := p.compare(t, compare.Options{}).Err(); err != nil {
		t.Error(err)
	}
	// The aborted ones on the target would be wrong.
	produce(t, p.target, clone(in[30:]))
	if r := p.compare(t, compare.Options{}); r.Total.Extra != 10 {
		t.Errorf("aborted records on the target are not seen: %s", r)
	}
	// What is open on the source is not expected either.
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := tx.ProduceSync(t.Context(), clone(in[:1])...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if r := p.compare(t, compare.Options{}); r.Total.SourceRecords != 20 {
		t.Errorf("open transaction is read: %s", r)
	}
}

func TestStartsAndEndsCanBeMoved(t *testing.T) {
	p := newPair(t, 1)
	in := orders(100)
	produce(t, p.source, clone(in))
	produce(t, p.target, clone(in[:80]))
	lane := compare.Partition{Topic: "orders"}

	if r := p.compare(t, compare.Options{Prefix: true}); !r.Equal() || r.Total.Lag != 20 || r.SourceSum != r.TargetSum {
		t.Errorf("a running copy: %s", r)
	}
	if r := p.compare(t, compare.Options{}); r.Total.Missing != 20 {
		t.Errorf("a copy that ended early: %s", r)
	}
	if err := p.source.DeleteRecords("orders", 0, 30); err != nil {
		t.Fatal(err)
	}
	if r := p.compare(t, compare.Options{Prefix: true}); r.Total.Extra != 30 {
		t.Errorf("source trimmed, not tolerated: %s", r)
	}
	if r := p.compare(t, compare.Options{Prefix: true, SkipTargetPrefix: true}); !r.Equal() || r.Total.Skipped != 30 || r.Total.Matched != 50 || r.SourceSum != r.TargetSum {
		t.Errorf("source trimmed: %s", r)
	}
	at := func(offset int64) map[compare.Partition]int64 { return map[compare.Partition]int64{lane: offset} }
	if r := p.compare(t, compare.Options{Prefix: true, From: at(40), TargetFrom: at(40)}); !r.Equal() || r.Total.Matched != 40 {
		t.Errorf("from offset 40: %s", r)
	}
	if r := p.compare(t, compare.Options{Prefix: true, From: at(40), TargetFrom: at(41)}); r.Total.Missing != 1 {
		t.Errorf("from offset 40, target from 41: %s", r)
	}
	_, err := compare.Topics(t.Context(), compare.Seeds(p.source.ListenAddrs()...), compare.Seeds(p.target.ListenAddrs()...), compare.Same("orders"), compare.Options{From: at(10)})
	if err == nil || !strings.Contains(err.Error(), "from source offset 10: log starts at 30") {
		t.Errorf("from an offset that is gone: %v", err)
	}
}

func TestTopicsThatDoNotCorrespondAreNamed(t *testing.T) {
	p := newPair(t, 2)
	if err := p.target.CreateTopic("wide", 3, nil); err != nil {
		t.Fatal(err)
	}
	produce(t, p.source, orders(5))
	r, err := compare.Topics(t.Context(), compare.Seeds(p.source.ListenAddrs()...), compare.Seeds(p.target.ListenAddrs()...),
		[]compare.Pair{{Source: "orders", Target: "wide"}, {Source: "orders", Target: "absent"}}, compare.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Total.Layout != 2 || r.Total.Missing != 10 || !strings.Contains(r.String(), "orders has 2 partitions, absent has 0") {
		t.Errorf("report: %s", r)
	}
	_, err = compare.Topics(t.Context(), compare.Seeds(p.source.ListenAddrs()...), compare.Seeds(p.target.ListenAddrs()...), compare.Same("absent"), compare.Options{})
	if err == nil || !strings.Contains(err.Error(), "source topic absent") {
		t.Errorf("a source that does not exist: %v", err)
	}
}

func TestWaitEqualWaitsForTheTarget(t *testing.T) {
	p := newPair(t, 1)
	in := orders(300)
	produce(t, p.source, clone(in))
	var behind []compare.Progress
	step := make(chan struct{}, 100)
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range 3 {
			<-step
			produce(t, p.target, clone(in[i*100:i*100+100]))
		}
	}()
	r, err := compare.WaitEqual(t.Context(), compare.Seeds(p.source.ListenAddrs()...), compare.Seeds(p.target.ListenAddrs()...), compare.Same("orders"),
		compare.Options{Poll: 20 * time.Millisecond, Progress: func(p compare.Progress) {
			behind = append(behind, p)
			select {
			case step <- struct{}{}:
			default:
			}
		}})
	<-written
	if err != nil {
		t.Fatal(err)
	}
	if r.Total.Matched != 300 || len(behind) < 2 || behind[0].Target == 300 || behind[len(behind)-1].Behind != 0 {
		t.Errorf("report %s, progress %v", r, behind)
	}
}

func TestWaitEqualSaysWhatIsMissingWhenTimeIsUp(t *testing.T) {
	p := newPair(t, 1)
	in := orders(30)
	produce(t, p.source, clone(in))
	produce(t, p.target, clone(in[:25]))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	r, err := compare.WaitEqual(ctx, compare.Seeds(p.source.ListenAddrs()...), compare.Seeds(p.target.ListenAddrs()...), compare.Same("orders"), compare.Options{Poll: 20 * time.Millisecond})
	if !errors.Is(err, compare.ErrBehind) || !errors.Is(err, context.DeadlineExceeded) || r.Total.Missing != 5 {
		t.Errorf("error %v, report %s", err, r)
	}
}

func TestItWorksInFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var clusters []compare.Cluster
		for range 2 {
			var network kfake.VirtualNetwork
			c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"), kfake.ListenFn(network.Listen))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			opts := compare.Cluster{kgo.SeedBrokers(c.ListenAddrs()...), kgo.Dialer(func(ctx context.Context, n, a string) (net.Conn, error) { return network.DialContext(ctx, n, a) })}
			clusters = append(clusters, opts)
		}
		in := orders(100)
		produceTo(t, slices.Clone(clusters[0]), clone(in))
		go func() {
			time.Sleep(time.Hour)
			produceTo(t, slices.Clone(clusters[1]), clone(in))
		}()
		begun := time.Now()
		if _, err := compare.WaitEqual(t.Context(), clusters[0], clusters[1], compare.Same("orders"), compare.Options{Poll: time.Minute}); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begun); d < time.Hour || d > 2*time.Hour {
			t.Errorf("waited %s", d)
		}
	})
}

func TestAFollowedReaderNeedsNoLuckWithLeaders(t *testing.T) {
	p := newPair(t, 1)
	in := orders(2000)
	produce(t, p.source, clone(in), kgo.ProducerBatchMaxBytes(2048))
	produce(t, p.target, clone(in))
	seen := 0
	err := compare.Read(t.Context(), compare.Seeds(p.source.ListenAddrs()...), "orders", func(*kgo.Record) error {
		if seen++; seen == 1 {
			return p.source.MoveTopicPartition("orders", 0, 1-p.source.LeaderFor("orders", 0))
		}
		return nil
	})
	if err != nil || seen != 2000 {
		t.Errorf("read %d records: %v", seen, err)
	}
}
