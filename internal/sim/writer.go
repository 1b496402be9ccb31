package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/pkg/offsets"
)

// writer makes the source's logs: bursts of records of several codecs, batch
// sizes and ages, transactions committed and aborted, and compaction.
type writer struct {
	w      *world
	random *rand.Rand
	plain  []*kgo.Client // by codec
	next   map[offsets.Lane]int64
	fill   []byte
	// compacted are the records that were there before each compaction: what is
	// gone by now may have been copied before, or not.
	compacted map[offsets.Lane]map[int64]record
	ops       int
	quit      context.CancelFunc
	done      sync.WaitGroup
}

var codecs = []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}

func newWriter(w *world) *writer {
	wr := &writer{w: w, random: random(w.seed, 2), plain: make([]*kgo.Client, len(codecs)), next: map[offsets.Lane]int64{}, compacted: map[offsets.Lane]map[int64]record{}}
	wr.fill = make([]byte, 4<<10)
	for i := range wr.fill {
		wr.fill[i] = "abcdefgh"[wr.random.IntN(8)]
	}
	return wr
}

func (wr *writer) client(codec int, opts ...kgo.Opt) *kgo.Client {
	opts = append(opts, kgo.ProducerBatchCompression(codecs[codec]), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableClientMetrics(),
		kgo.ProducerBatchMaxBytes(pick[int32](wr.random, 4<<10, 32<<10, 1<<20)), kgo.ProducerLinger(0))
	c, err := kgo.NewClient(wr.w.client(writerHost, sourceHosts, opts...)...)
	if err != nil {
		wr.w.t.Fatalf("make producer: %v", err)
	}
	return c
}

// start writes the first records and goes on in the background.
func (wr *writer) start() {
	ctx, quit := context.WithCancel(context.Background())
	wr.quit = quit
	for range wr.random.IntN(8) {
		wr.op(ctx)
	}
	wr.done.Go(func() {
		for ctx.Err() == nil {
			wr.op(context.Background())
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(wr.random.Int64N(int64(3 * time.Second)))):
			}
		}
	})
}

// stop ends the writing, everything written is acknowledged.
func (wr *writer) stop() {
	wr.quit()
	wr.done.Wait()
}

func (wr *writer) close() {
	for _, c := range wr.plain {
		if c != nil {
			c.Close()
		}
	}
}

// lane picks a partition that gets records.
func (wr *writer) lane(compacted bool) (lane offsets.Lane, ok bool) {
	for _, i := range wr.random.Perm(len(wr.w.plan.topics)) {
		tp := wr.w.plan.topics[i]
		if tp.name != "empty" && (compacted || !tp.compacted) {
			return offsets.Lane{Topic: tp.name, Partition: wr.random.Int32N(tp.partitions)}, true
		}
	}
	return lane, false
}

func (wr *writer) op(ctx context.Context) {
	wr.ops++
	switch n := wr.random.IntN(10); {
	case n < 6:
		wr.burst(ctx)
	case n < 9:
		wr.transaction(ctx)
	default:
		wr.compact(ctx)
	}
}

func (wr *writer) burst(ctx context.Context) {
	lane, _ := wr.lane(true)
	codec := wr.random.IntN(len(codecs))
	if lane.Topic == "prices" {
		codec %= 4 // the fake's cleaner leaves a finalizer of zstd outside of the bubble
	}
	if wr.plain[codec] == nil {
		wr.plain[codec] = wr.client(codec)
	}
	wr.produce(ctx, wr.plain[codec], lane)
	if err := wr.plain[codec].Flush(ctx); err != nil {
		wr.w.wrongf("source: %v", err)
	}
}

// produce hands over some records of one lane.
func (wr *writer) produce(ctx context.Context, c *kgo.Client, lane offsets.Lane) {
	age := pick(wr.random, 0, 0, time.Hour+time.Minute, 73*time.Hour, 73*time.Hour)
	size := pick(wr.random, 10, 100, 2000)
	n := 1 + wr.random.IntN(pick(wr.random, 3, 30, 150))
	trickle := wr.random.IntN(3) == 0 // batch after batch, so that several are under way to the target
	for i := range n {
		if trickle && i%8 == 7 {
			if err := c.Flush(ctx); err != nil {
				wr.w.wrongf("source: %v", err)
			}
			time.Sleep(time.Duration(wr.random.Int64N(int64(30 * time.Millisecond))))
		}
		id := wr.next[lane]
		wr.next[lane]++
		value := binary.BigEndian.AppendUint64(make([]byte, 0, 8+size), uint64(id))
		value = append(value, wr.fill[:wr.random.IntN(size)]...)
		r := &kgo.Record{Topic: lane.Topic, Partition: lane.Partition, Key: fmt.Appendf(nil, "key-%d", id%23), Value: value, Timestamp: time.Now().Add(-age).Truncate(time.Millisecond)}
		if wr.random.IntN(10) == 0 {
			r.Headers = []kgo.RecordHeader{{Key: "h", Value: value[:4]}, {Key: "h"}}
		}
		c.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil && !errors.Is(err, kgo.ErrAborting) {
				wr.w.tellf("source: record %d of %v: %v", id, lane, err)
			}
		})
	}
}

// idOf is what the writer numbers the records of a lane by.
func idOf(value []byte) (int64, error) {
	if len(value) < 8 {
		return 0, fmt.Errorf("a record of %d bytes is none of ours", len(value))
	}
	return int64(binary.BigEndian.Uint64(value)), nil
}

func (wr *writer) transaction(ctx context.Context) {
	c := wr.client(wr.random.IntN(len(codecs)), kgo.TransactionalID(fmt.Sprintf("source-%d", wr.ops)))
	defer c.Close()
	err := c.BeginTransaction()
	for range 1 + wr.random.IntN(3) {
		if lane, ok := wr.lane(false); ok && err == nil {
			wr.produce(ctx, c, lane)
			err = c.Flush(ctx)
			time.Sleep(time.Duration(wr.random.Int64N(int64(pick(wr.random, time.Millisecond, 4*time.Second)))))
		}
	}
	if err == nil {
		err = c.EndTransaction(ctx, kgo.TransactionEndTry(wr.random.IntN(3) > 0))
	}
	if err != nil {
		wr.w.tellf("source: transaction: %v", err)
		if err := c.EndTransaction(ctx, kgo.TryAbort); err != nil {
			wr.w.tellf("source: abort: %v", err)
		}
	}
}

// compact remembers what there is and has the cleaner run.
func (wr *writer) compact(ctx context.Context) {
	compacted := false
	for _, tp := range wr.w.plan.topics {
		for p := range tp.partitions {
			if !tp.compacted {
				continue
			}
			compacted = true
			if _, err := wr.remember(ctx, offsets.Lane{Topic: tp.name, Partition: p}); err != nil {
				wr.w.wrongf("source: %v", err)
				return
			}
		}
	}
	if compacted {
		wr.w.source.Compact()
		wr.w.tellf("source: compacted")
	}
}

// remember returns the committed records of a lane, and keeps them.
func (wr *writer) remember(ctx context.Context, lane offsets.Lane) ([]record, error) {
	log, err := wr.w.readLog(ctx, wr.w.source, sourceHosts, lane)
	if err != nil {
		return nil, fmt.Errorf("read source %v: %w", lane, err)
	}
	records, err := committed(log)
	if err != nil {
		return nil, fmt.Errorf("read source %v: %w", lane, err)
	}
	if wr.compacted[lane] == nil {
		wr.compacted[lane] = map[int64]record{}
	}
	for _, r := range records {
		wr.compacted[lane][r.offset] = r
	}
	return records, nil
}
