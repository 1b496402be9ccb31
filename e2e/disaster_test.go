package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/kafkatest"
	"replicator/internal/workload"
	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// transact writes transactions of one to twenty records to random partitions, a
// quarter of them aborted, until stop is closed or the broker is gone.
func transact(c *kafkatest.Cluster, topic string, partitions int, seed uint64, stop <-chan struct{}) error {
	client, err := kgo.NewClient(append(c.ClientOpts(), kgo.TransactionalID(fmt.Sprintf("%s-%d", topic, seed)),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RecordDeliveryTimeout(5*time.Second))...)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	rnd := rand.New(rand.NewPCG(seed, 7))
	for n := 0; ctx.Err() == nil; {
		if err := client.BeginTransaction(); err != nil {
			return err
		}
		for range 1 + rnd.IntN(20) {
			n++
			client.Produce(ctx, &kgo.Record{Topic: topic, Partition: int32(rnd.IntN(partitions)), Value: fmt.Appendf(nil, "%d-%d", seed, n)}, nil)
		}
		if err := client.Flush(ctx); err != nil {
			return err
		}
		if err := client.EndTransaction(ctx, kgo.TransactionEndTry(rnd.IntN(4) != 0)); err != nil {
			return err
		}
	}
	return nil
}

// Source and daemon die in the same moment, under load, again and again. Each
// time the target alone tells, for every record it holds, which source record
// that is, and for every source offset that still exists what it is on the target.
func TestTheTargetKnowsEveryRecordWhenSourceAndDaemonDieTogether(t *testing.T) {
	t.Parallel()
	rounds := setting("E2E_DISASTERS", 3)
	seed := uint64(setting("E2E_SEED", int(time.Now().UnixNano()&0xffffff)))
	t.Logf("E2E_SEED=%d E2E_DISASTERS=%d", seed, rounds)
	rnd := rand.New(rand.NewPCG(seed, 3))
	pair := kafkatest.StartPair(t, kafkatest.Config{}, kafkatest.Config{})
	const partitions = 3
	pair.Source.CreateTopic(t, "ledger", partitions)
	topics := []string{"ledger", "stream"}
	live, err := workload.StartLive(t.Context(), opts(pair.Source), workload.LiveConfig{
		Spec: workload.Spec{Topic: "stream", Kind: workload.Plain, Codec: workload.LZ4, Partitions: partitions, ValueBytes: 200}, Rate: 2000,
	})
	if err != nil {
		t.Fatal(err)
	}
	daemon := startProcess(t, checkpointFile(t, pair, "auto", topics...), "daemon", "")
	target := openCluster(t, "west", pair.Target.Bootstrap(), wire.NewPool(64<<20))
	waitCopied(t, pair.Target, topics...)
	records, translated, behind := 0, 0, 0
	for round := range rounds {
		stop := make(chan struct{})
		var writers sync.WaitGroup
		for w := range 2 {
			writers.Go(func() {
				// The broker is killed under it: its last error says nothing.
				_ = transact(pair.Source, "ledger", partitions, seed*1000+uint64(round*10+w), stop)
			})
		}
		time.Sleep(time.Duration(1000+rnd.IntN(3000)) * time.Millisecond) // the moment is random on purpose
		var both sync.WaitGroup
		both.Go(daemon.kill)
		both.Go(func() { pair.Source.Broker(1).Kill() })
		both.Wait()
		close(stop)

		tails := tailsOf(t, target, topics, partitions)
		writers.Wait()
		if err := pair.Source.Broker(1).Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		for lane, tail := range tails {
			if tail.Err != nil || tail.Warning != "" {
				t.Fatalf("round %d, %v: %v %s", round, lane, tail.Err, tail.Warning)
			}
			n, m, b := everyOffset(t, pair, lane, tail)
			records, translated, behind = records+n, translated+m, behind+b
		}
		daemon.start()
	}
	t.Logf("%d disasters: %d records on the target, each the one its source offset says; %d source offsets translated; %d records stood behind the journalled positions",
		rounds, records, translated, behind)
	if behind == 0 {
		t.Error("no record stood behind a journalled position: the hard case was not met")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := live.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if report, err := compare.WaitEqual(ctx, opts(pair.Source), opts(pair.Target), compare.Same(topics...), compare.Options{}); err != nil {
		t.Fatal(report, err)
	}
}

// waitCopied waits until the topics hold records on the target.
func waitCopied(t *testing.T, c *kafkatest.Cluster, topics ...string) {
	t.Helper()
	for range 300 {
		ends, err := c.Admin().ListEndOffsets(t.Context(), topics...)
		if err == nil && ends.Error() == nil {
			empty := len(ends) < len(topics)
			ends.Each(func(o kadm.ListedOffset) { empty = empty || o.Offset == 0 })
			if !empty {
				return
			}
		}
		time.Sleep(100 * time.Millisecond) // between two looks, 300 at most
	}
	t.Fatal("nothing is copied")
}

// tailsOf reads the journal and the target's logs as the commands do.
func tailsOf(t *testing.T, target *cluster.Cluster, topics []string, partitions int32) map[offsets.Lane]journalled {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	j, err := offsets.OpenJournal(ctx, offsets.JournalConfig{Client: target.NewClient, Admin: target.Admin(), Topic: "replicator.east.west.journal", ReadOnly: true, Log: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	var lanes []offsets.Lane
	for _, topic := range topics {
		for p := range partitions {
			lanes = append(lanes, offsets.Lane{Topic: topic, Partition: p})
		}
	}
	tails, err := offsets.ReadTails(ctx, target, j, func(l offsets.Lane) string { return l.Topic }, lanes)
	if err != nil {
		t.Fatal(err)
	}
	out := map[offsets.Lane]journalled{}
	for lane, tail := range tails {
		at := int64(0)
		if p, ok := j.State(lane).Position(); ok {
			at = p.Ordinal
		} else if last, ok := j.State(lane).Last(); ok {
			at = last.Ordinal
		}
		out[lane] = journalled{tail, at}
	}
	return out
}

// journalled is a tail and the ordinal of the journal's own position.
type journalled struct {
	offsets.Tail
	ordinal int64
}

// everyOffset compares the map of a lane with both logs: every record of the
// target, and every source offset from 0 to beyond the end.
func everyOffset(t *testing.T, pair *kafkatest.ClusterPair, lane offsets.Lane, tail journalled) (records, translated, behind int) {
	t.Helper()
	source, target := visible(t, pair.Source, lane.Topic)[lane.Partition], visible(t, pair.Target, lane.Topic)[lane.Partition]
	at := make(map[string]int64, len(source))
	for _, r := range source {
		at[r.hash] = r.offset
	}
	faults := 0
	fault := func(format string, args ...any) {
		if faults++; faults <= 5 {
			t.Errorf("%v: "+format, append([]any{lane}, args...)...)
		}
	}
	for i, r := range target {
		back := tail.State.TranslateBack(r.offset)
		if want, ok := at[r.hash]; !ok || back.Outcome != offsets.Exact || back.To != want {
			fault("target offset %d is %+v, its record has the source offset %d (%v)", r.offset, back, want, ok)
		}
		records++
		if int64(i) >= tail.ordinal {
			behind++
		}
	}
	// Records are a prefix of the source's: the first missing one ends it.
	for offset := range behindLast(source) + 5 {
		got := tail.State.Translate(offset)
		_, i := nextOf(source, offset)
		translated++
		switch {
		case i < len(target):
			want := offsets.Next
			if source[i].offset == offset {
				want = offsets.Exact
			}
			if got.To != target[i].offset || got.Outcome != want {
				fault("source offset %d is %+v, want %v of target offset %d", offset, got, want, target[i].offset)
			}
		case got.Outcome != offsets.End && got.Outcome != offsets.Ahead || len(target) > 0 && got.To <= target[len(target)-1].offset:
			fault("source offset %d is %+v, the target has %d records", offset, got, len(target))
		}
	}
	return records, translated, behind
}

func behindLast(records []recordAt) int64 {
	if len(records) == 0 {
		return 0
	}
	return records[len(records)-1].offset + 1
}
