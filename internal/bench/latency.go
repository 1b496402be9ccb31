package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// steady is the phase at a steady rate: one producer on the source, one consumer
// on the target, one clock. The first records, one a partition, warm up the
// connections and do not count.
type steady struct {
	topic    string
	parts    int64
	warm     int64 // records
	total    int64 // records, with those
	base     time.Time
	acked    []time.Duration // since base, by number; written by promises, read when all are kept
	mu       sync.Mutex
	seen     []time.Duration // since base, by number
	arrived  atomic.Int64
	warmed   chan struct{} // closed when as many have arrived as warm up
	failed   error         // of the producer
	values   [][]byte
	producer *kgo.Client
}

// latency measures the time from the source to a consumer of the target.
func (b *Bench) latency(ctx context.Context, l *link, r *LatencyResult) (err error) {
	b.o.Progress(fmt.Sprintf("measuring latency at %d records/s for %s", b.o.Rate, b.o.Duration))
	s := &steady{topic: b.names.topic, parts: int64(b.o.Partitions), warm: int64(b.o.Partitions), base: time.Now(), warmed: make(chan struct{})}
	s.total = s.warm + b.o.steady()
	s.acked, s.seen = make([]time.Duration, s.total), make([]time.Duration, s.total)
	s.values = values(b.o.RecordBytes)

	consumer, err := b.tailTarget(ctx)
	if err != nil {
		return err
	}
	opts := []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(int32(b.o.BatchBytes)), kgo.ProducerBatchCompression(codec(b.o.Codec))}
	if s.producer, err = b.source.NewClient(opts...); err != nil {
		consumer.Close()
		return err
	}
	ctx, watched := b.watch(ctx, "seen on "+b.link.To, s.total, s.arrived.Load, func() string {
		st, _ := l.Status(ctx)
		return reason(st)
	})
	var began time.Duration
	g, both := errgroup.WithContext(ctx)
	g.Go(func() error { return s.consume(both, consumer) })
	g.Go(func() (err error) {
		began, err = s.produce(both, l, b.o.Rate)
		return err
	})
	err = cause(ctx, g.Wait())
	watched()
	s.producer.Close()
	consumer.Close()
	if err != nil {
		return err
	}
	s.result(began, b.o.Rate, r)
	return nil
}

// tailTarget makes a consumer of what will be appended to the target from now on.
func (b *Bench) tailTarget(ctx context.Context) (*kgo.Client, error) {
	ends, err := b.target.Admin().ListEndOffsets(ctx, b.names.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the ends of topic %s of cluster %s: %w", b.names.topic, b.link.To, err)
	}
	at := map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) { at[o.Partition] = kgo.NewOffset().At(o.Offset) })
	return b.target.NewClient(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{b.names.topic: at}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(500*time.Millisecond))
}

// produce writes at the rate, each record at its own moment whatever became of
// those before, and returns the moment the first was due.
func (s *steady) produce(ctx context.Context, l *link, perSecond int) (began time.Duration, err error) {
	for n := range s.warm {
		s.send(ctx, n)
	}
	if err := s.flushed(ctx); err != nil {
		return 0, err
	}
	select {
	case <-s.warmed:
	case <-l.ended:
		return 0, errors.Join(errors.New("the link ended"), l.err)
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	began = time.Since(s.base)
	for n := s.warm; n < s.total; n++ {
		if wait := s.due(n, began, perSecond) - time.Since(s.base); wait > 0 {
			if err := alive(ctx, l, wait); err != nil {
				return 0, err
			}
		}
		s.send(ctx, n)
	}
	return began, s.flushed(ctx)
}

// due is when a record has to be sent.
func (s *steady) due(n int64, began time.Duration, perSecond int) time.Duration {
	return began + time.Duration(float64(n-s.warm)/float64(perSecond)*float64(time.Second))
}

// alive waits, unless the link or the context ends.
func alive(ctx context.Context, l *link, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-l.ended:
		return errors.Join(errors.New("the link ended"), l.err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *steady) send(ctx context.Context, n int64) {
	r := &kgo.Record{Topic: s.topic, Partition: int32(n % s.parts), Key: strconv.AppendInt(nil, n, 10), Value: s.values[n%int64(len(s.values))]}
	s.producer.Produce(ctx, r, func(_ *kgo.Record, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil && s.failed == nil {
			s.failed = fmt.Errorf("produce to partition %d of the source: %w", r.Partition, err)
		}
		s.acked[n] = time.Since(s.base)
	})
}

// flushed waits until all that was sent is acknowledged.
func (s *steady) flushed(ctx context.Context) error {
	err := s.producer.Flush(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.failed, err)
}

// consume notes when each record arrives, until all have.
func (s *steady) consume(ctx context.Context, consumer *kgo.Client) error {
	for s.arrived.Load() < s.total {
		fetches := consumer.PollFetches(ctx)
		now := time.Since(s.base)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var wrong error
		fetches.EachError(func(_ string, p int32, err error) {
			wrong = errors.Join(wrong, fmt.Errorf("read partition %d of the target: %w", p, err))
		})
		fetches.EachRecord(func(r *kgo.Record) {
			n, err := strconv.ParseInt(string(r.Key), 10, 64)
			switch {
			case err != nil || n < 0 || n >= s.total:
				wrong = errors.Join(wrong, fmt.Errorf("record %d of partition %d of the target was not written by this run", r.Offset, r.Partition))
			case s.seen[n] != 0:
				wrong = errors.Join(wrong, fmt.Errorf("record %d of partition %d of the target is there twice", r.Offset, r.Partition))
			default:
				s.seen[n] = now
				if s.arrived.Add(1) == s.warm {
					close(s.warmed)
				}
			}
		})
		if wrong != nil {
			return wrong
		}
	}
	return nil
}

// result may be called when producer and consumer are done.
func (s *steady) result(began time.Duration, perSecond int, r *LatencyResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sent, acked []time.Duration
	last, visible := began, began
	for n := s.warm; n < s.total; n++ {
		sent = append(sent, s.seen[n]-s.due(n, began, perSecond))
		acked = append(acked, max(0, s.seen[n]-s.acked[n]))
		last, visible = max(last, s.acked[n]), max(visible, s.seen[n])
	}
	r.Records = s.total - s.warm
	r.RecordsPerSecond = per(r.Records, (last - began).Seconds())
	r.VisiblePerSecond = per(r.Records, (visible - began).Seconds())
	r.FromSent, r.FromAcknowledged = spread(sent), spread(acked)
}

// values are a few values to write in turn, of words as JSON would compress.
func values(bytes int) [][]byte {
	out := make([][]byte, 64)
	rng := rand.New(rand.NewPCG(1, 2))
	var words [256][12]byte
	for i := range words {
		for j := range words[i] {
			words[i][j] = "etaoinshrdlucmfw"[rng.IntN(16)]
		}
	}
	for i := range out {
		for len(out[i]) < bytes {
			out[i] = append(out[i], words[rng.IntN(256)][:]...)
		}
		out[i] = out[i][:bytes]
	}
	return out
}

func codec(name string) kgo.CompressionCodec {
	switch name {
	case "gzip":
		return kgo.GzipCompression()
	case "snappy":
		return kgo.SnappyCompression()
	case "lz4":
		return kgo.Lz4Compression()
	case "zstd":
		return kgo.ZstdCompression()
	}
	return kgo.NoCompression()
}
