package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/pause"
	"replicator/internal/workload"
)

// keptFor is the retention of the scratch topic: what nobody deletes is gone after it.
const keptFor = "86400000" // ms: a day

// create makes the scratch topic on the source and waits until it has leaders.
// The target's copy is the link's to make.
func (b *Bench) create(ctx context.Context) error {
	b.o.Progress(fmt.Sprintf("making topic %s on cluster %s", b.names.topic, b.link.From))
	b.made = true // from here on it may be there, whatever the answer
	retention := keptFor
	if _, err := b.source.Admin().CreateTopic(ctx, b.o.Partitions, -1, map[string]*string{"retention.ms": &retention}, b.names.topic); err != nil {
		return refuse(fmt.Errorf("create topic %s on cluster %s: %w", b.names.topic, b.link.From, err), "CREATE", "topic "+b.names.topic, b.source)
	}
	ctx, cancel := context.WithTimeout(ctx, b.o.Patience)
	defer cancel()
	for {
		listed, err := b.source.Admin().ListTopics(ctx, b.names.topic)
		if err == nil {
			led := int32(0)
			for _, p := range listed[b.names.topic].Partitions {
				if p.Err == nil && p.Leader >= 0 {
					led++
				}
			}
			if led == b.o.Partitions {
				return nil
			}
		}
		if pause.For(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("wait for the leaders of topic %s on cluster %s: %w", b.names.topic, b.link.From, ctx.Err())
		}
	}
}

// produced counts what a producer wrote and how long it was asked to wait.
type produced struct {
	records   atomic.Int64
	throttled atomic.Int64 // ns
}

var (
	_ kgo.HookProduceBatchWritten = (*produced)(nil)
	_ kgo.HookBrokerThrottle      = (*produced)(nil)
)

// OnProduceBatchWritten is called by the client.
func (p *produced) OnProduceBatchWritten(_ kgo.BrokerMetadata, _ string, _ int32, m kgo.ProduceBatchMetrics) {
	p.records.Add(int64(m.NumRecords))
}

// OnBrokerThrottle is called by the client.
func (p *produced) OnBrokerThrottle(_ kgo.BrokerMetadata, d time.Duration, _ bool) {
	p.throttled.Add(int64(d))
}

// turn is how many records are written by one producer. Their timestamps are a
// millisecond apart and end now: none may look an hour old when it is copied, as
// a link is careful with those.
const turn = 1_000_000

// write fills the source's topic.
func (b *Bench) write(ctx context.Context, w *WriteResult) error {
	b.o.Progress(fmt.Sprintf("writing to cluster %s", b.link.From))
	var count produced
	total := b.o.bulk()
	ctx, watched := b.watch(ctx, "written to "+b.link.From, total, count.records.Load, nil)
	defer watched()
	opts := b.source.ClientOptions(kgo.UnknownTopicRetries(-1), kgo.WithHooks(&count))
	parts := int64(b.o.Partitions)
	began := time.Now()
	for w.Records < total {
		// Turns begin at the first partition, so that sequence numbers go on.
		n := min(turn/parts*parts, total-w.Records)
		res, err := workload.Write(ctx, opts, b.workload(int(n), w.Records/parts))
		w.Records += res.Written
		w.Bytes += res.Bytes
		if err != nil {
			return cause(ctx, err)
		}
	}
	w.Seconds = time.Since(began).Seconds()
	w.MBPerSecond = per(w.Bytes, w.Seconds) / 1e6
	w.ThrottledSeconds = time.Duration(count.throttled.Load()).Seconds()
	return nil
}
