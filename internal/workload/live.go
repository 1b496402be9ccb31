package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"replicator/internal/compare"
)

// LiveConfig says how to keep writing.
type LiveConfig struct {
	// Spec names the topic, which is created if it does not exist, and the
	// content: of the kinds a kgo producer writes record by record. Records and
	// Start do not count: records carry the time they are written at. Of Compacted,
	// Records sets how many keys there are, and nobody waits for the cleaner.
	Spec Spec
	Rate int // records a second over all partitions, 1000 by default
}

// Live is a producer that writes at a steady rate until it is stopped. It is
// idempotent, never gives a record up, and knows of every record whether it
// was acknowledged, at which offset.
type Live struct {
	writer *writer
	client *kgo.Client
	stop   context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	counts LiveCounts
	acked  map[int32][]Run
	failed error
}

// LiveCounts are numbers of records.
type LiveCounts struct {
	Attempted    int64 // handed to the producer
	Acknowledged int64
	Failed       int64 // given up: only after an unrecoverable error or a stop whose time ran out
	DataLoss     int64 // times a broker was found to have lost acknowledged records
}

// Run is a run of acknowledged records at consecutive offsets.
type Run struct {
	Sequence int64 // of the first record
	Offset   int64 // of the first record, on the cluster written to
	Count    int64
}

// LiveResult is what a Live has written in the end.
type LiveResult struct {
	LiveCounts
	Topic string
	// Next is the sequence number each partition would have gone on with.
	Next map[int32]int64
	// Acknowledged by partition, sorted by sequence number.
	Runs map[int32][]Run
}

// StartLive creates the topic and begins to write. Ending ctx ends the writing
// without waiting for acknowledgements; Stop must be called in any case.
func StartLive(ctx context.Context, opts []kgo.Opt, cfg LiveConfig) (*Live, error) {
	cfg.Rate = cmp.Or(cfg.Rate, 1000)
	switch cfg.Spec.Kind {
	case Plain, Headers, Nulls, Compacted, Old, Idempotent, ManyParts:
	default:
		return nil, fmt.Errorf("start live producer: kind %q is not written record by record", cfg.Spec.Kind)
	}
	s, err := cfg.Spec.withDefaults()
	if err == nil {
		err = create(ctx, opts, s)
	}
	if err != nil {
		return nil, fmt.Errorf("start live producer on %s: %w", s.Topic, err)
	}
	l := &Live{
		writer: &writer{opts: opts, maker: newMaker(s), result: &Result{Spec: s}},
		ended:  make(chan struct{}),
		acked:  make(map[int32][]Run),
	}
	l.client, err = l.writer.client(s.Codec,
		kgo.ProducerLinger(5*time.Millisecond),
		kgo.UnknownTopicRetries(-1),
		kgo.ProducerOnDataLossDetected(func(string, int32) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.counts.DataLoss++
		}))
	if err != nil {
		return nil, fmt.Errorf("start live producer on %s: %w", s.Topic, err)
	}
	ctx, l.stop = context.WithCancel(ctx)
	go l.run(ctx, cfg.Rate)
	return l, nil
}

func (l *Live) run(ctx context.Context, perSecond int) {
	defer close(l.ended)
	chunk := max(1, perSecond/100)
	pace := rate.NewLimiter(rate.Limit(perSecond), chunk)
	for n := 0; ; {
		if pace.WaitN(ctx, chunk) != nil {
			return
		}
		for range chunk {
			p, seq := l.writer.place(n)
			n++
			l.mu.Lock()
			l.counts.Attempted++
			l.mu.Unlock()
			r := l.writer.at(p, seq, time.Now().Add(-l.writer.spec.Age).Truncate(time.Millisecond))
			// Its own context: stopping must not cancel what was handed over.
			l.client.Produce(context.WithoutCancel(ctx), r, func(r *kgo.Record, err error) { l.answered(r, seq, err) })
		}
	}
}

func (l *Live) answered(r *kgo.Record, seq int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.counts.Failed++
		if l.failed == nil {
			l.failed = fmt.Errorf("produce %s-%d sequence %d: %w", r.Topic, r.Partition, seq, err)
		}
		return
	}
	l.counts.Acknowledged++
	runs := l.acked[r.Partition]
	if n := len(runs); n > 0 && runs[n-1].Sequence+runs[n-1].Count == seq && runs[n-1].Offset+runs[n-1].Count == r.Offset {
		runs[n-1].Count++
		return
	}
	l.acked[r.Partition] = append(runs, Run{Sequence: seq, Offset: r.Offset, Count: 1})
}

// Counts is how far it is now.
func (l *Live) Counts() LiveCounts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts
}

// Stop ends the writing and waits until every record is acknowledged. When ctx
// ends before, the rest is given up and counted as failed: such a record may be
// on the cluster or not. The error names the first failure. It may be called
// once.
func (l *Live) Stop(ctx context.Context) (LiveResult, error) {
	l.stop()
	// A producer whose buffer is full while its brokers are away blocks in
	// Produce; closing the client lets go of it.
	var err error
	select {
	case <-l.ended:
		err = l.client.Flush(ctx)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	l.client.Close()
	<-l.ended

	l.mu.Lock()
	defer l.mu.Unlock()
	// Close fails what is buffered; its promises may come a moment later, and
	// then no longer count.
	l.counts.Failed = l.counts.Attempted - l.counts.Acknowledged
	out := LiveResult{LiveCounts: l.counts, Topic: l.writer.spec.Topic, Next: make(map[int32]int64), Runs: make(map[int32][]Run)}
	for p, runs := range l.acked {
		runs = slices.Clone(runs)
		slices.SortFunc(runs, func(a, b Run) int { return cmp.Compare(a.Sequence, b.Sequence) })
		out.Runs[p] = runs
	}
	parts := int64(l.writer.spec.Partitions)
	for p := range parts {
		out.Next[int32(p)] = l.writer.spec.First + (l.counts.Attempted-p+parts-1)/parts
	}
	if err != nil {
		err = fmt.Errorf("stop live producer: %w", err)
	}
	return out, errors.Join(err, l.failed)
}

// Audit is how a copy stands to what was acknowledged.
type Audit struct {
	Acknowledged int64 // records that must be there
	Found        int64 // of them, at least once
	Missing      int64 // acknowledged, and not in the copy
	Doubled      int64 // records that are there more than once: every further time
	Unknown      int64 // there, but not acknowledged: their fate was open
	Disordered   int64 // records behind one with a higher sequence number
	Corrupt      int64 // records whose content does not prove an identity
	First        []string
}

// Err is nil if every acknowledged record is there once, in order.
func (a Audit) Err() error {
	if a.Missing+a.Doubled+a.Disordered+a.Corrupt == 0 {
		return nil
	}
	return fmt.Errorf("audit: %+v", a)
}

// Audit reads a topic, the one written to or a copy of it, and checks it
// against what was acknowledged, by content alone. It needs a kind whose
// records all have an identity, so not Nulls.
func (r LiveResult) Audit(ctx context.Context, opts []kgo.Opt, topic string) (Audit, error) {
	a := Audit{Acknowledged: r.Acknowledged}
	note := func(format string, args ...any) {
		if len(a.First) < 20 {
			a.First = append(a.First, fmt.Sprintf(format, args...))
		}
	}
	seen := make(map[int32][]uint64) // a bit for each sequence number
	highest := make(map[int32]int64)
	acked := func(p int32, seq int64) bool {
		runs := r.Runs[p]
		i, found := slices.BinarySearchFunc(runs, seq, func(r Run, s int64) int { return cmp.Compare(r.Sequence, s) })
		if !found {
			i--
		}
		return i >= 0 && seq < runs[i].Sequence+runs[i].Count
	}
	err := compare.Read(ctx, opts, topic, func(rec *kgo.Record) error {
		id, err := Parse(rec.Key, rec.Value)
		if err != nil || id.Topic != r.Topic || id.Partition != rec.Partition || id.Sequence < 0 || id.Sequence >= r.Next[id.Partition] {
			a.Corrupt++
			note("offset %d of partition %d is no record of the producer: %s: %v", rec.Offset, rec.Partition, id, err)
			return nil
		}
		bits := seen[id.Partition]
		word, bit := id.Sequence/64, uint64(1)<<(id.Sequence%64)
		for int64(len(bits)) <= word {
			bits = append(bits, make([]uint64, max(1024, len(bits)))...)
		}
		seen[id.Partition] = bits
		top, known := highest[id.Partition]
		switch {
		case bits[word]&bit != 0:
			a.Doubled++
			note("%s is doubled at offset %d", id, rec.Offset)
			return nil
		case known && id.Sequence < top:
			a.Disordered++
			note("%s is behind sequence %d at offset %d", id, top, rec.Offset)
		}
		bits[word] |= bit
		highest[id.Partition] = max(top, id.Sequence)
		if acked(id.Partition, id.Sequence) {
			a.Found++
		} else {
			a.Unknown++
		}
		return nil
	})
	if err != nil {
		return a, fmt.Errorf("audit %s: %w", topic, err)
	}
	a.Missing = a.Acknowledged - a.Found
	for p, runs := range r.Runs {
		for _, run := range runs {
			for seq := run.Sequence; seq < run.Sequence+run.Count && len(a.First) < 20 && a.Missing > 0; seq++ {
				if w := seq / 64; w >= int64(len(seen[p])) || seen[p][w]&(1<<(seq%64)) == 0 {
					note("%s is missing", Identity{r.Topic, p, seq})
				}
			}
		}
	}
	return a, nil
}
