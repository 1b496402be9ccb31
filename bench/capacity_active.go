package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/kafkatest"
	"replicator/internal/pause"
	"replicator/internal/stats"
	"replicator/internal/workload"
)

const (
	activeWarm = 15 * time.Second
	activeTime = 60 * time.Second
)

// activeResult is what lanes cost that all have something to copy.
type activeResult struct {
	Lanes     int           `json:"lanes"`
	Rate      int           `json:"records_per_second"` // over all lanes
	Bytes     int           `json:"record_bytes"`
	CPU       float64       `json:"cpu"` // share of a core
	RSS       int64         `json:"rss_bytes"`
	Batches   float64       `json:"batches_per_second"`
	Records   int           `json:"records"` // measured
	P50       time.Duration `json:"p50_ns"`  // from the record's timestamp, in ms, until a consumer of the target has it
	P99       time.Duration `json:"p99_ns"`
	Max       time.Duration `json:"max_ns"`
	SourceP99 time.Duration `json:"source_p99_ns"` // the same until a consumer of the source has it
}

// activeLanes compares many lanes that get a record a second each with eight
// that get as many together.
func (c *capacity) activeLanes(ctx context.Context) error {
	for _, n := range []int{8, c.active} {
		c.say("%d lanes, %d records a second over all", n, c.active)
		r, err := c.activeOf(ctx, n)
		if err == nil {
			c.results.Active = append(c.results.Active, r)
			c.say("  %s", r)
		}
		if err := c.fails(ctx, fmt.Sprintf("%d active lanes", n), err); err != nil {
			return err
		}
	}
	return nil
}

func (r activeResult) String() string {
	return fmt.Sprintf("%.1f %% of a core, %d MiB, %.0f batches/s, latency p50 %v, p99 %v, most %v (from the source itself p99 %v)",
		100*r.CPU, r.RSS>>20, r.Batches, r.P50, r.P99, r.Max, r.SourceP99)
}

func (c *capacity) activeOf(ctx context.Context, n int) (r activeResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	pair, err := manyPartitions(ctx)
	if err != nil {
		return r, err
	}
	defer pair.Close()
	if err := coordinate(ctx, pair.Target); err != nil {
		return r, err
	}
	r = activeResult{Lanes: n, Rate: c.active, Bytes: 1000}
	spec := workload.Spec{Topic: "many-active", Kind: workload.ManyParts, Codec: workload.LZ4, Partitions: int32(n), ValueBytes: r.Bytes}
	live, err := workload.StartLive(ctx, pair.Source.ClientOpts(), workload.LiveConfig{Spec: spec, Rate: c.active})
	if err != nil {
		return r, err
	}
	defer func() {
		ended, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		_, stopErr := live.Stop(ended)
		err = errors.Join(err, stopErr)
	}()
	d, err := c.newLanesDaemon(pair)
	if err != nil {
		return r, err
	}
	defer d.kill()
	if _, err := d.open(ctx, n, false); err != nil {
		return r, err
	}
	target, err := watchLatency(ctx, pair.Target, spec.Topic)
	if err != nil {
		return r, err
	}
	defer target.close()
	source, err := watchLatency(ctx, pair.Source, spec.Topic)
	if err != nil {
		return r, err
	}
	defer source.close()
	if err := pause.For(ctx, activeWarm); err != nil {
		return r, err
	}
	target.take()
	source.take()
	before := live.Counts().Acknowledged
	cpu, batches, rss, err := d.measure(ctx, activeTime)
	if err != nil {
		return r, err
	}
	written := live.Counts().Acknowledged - before
	r.CPU, r.Batches, r.RSS = cpu, batches, rss
	seen, atSource := target.take(), source.take()
	// What was on its way at the beginning and at the end is about the same.
	if n := int64(len(seen)); n < written*95/100 || n > written*105/100 || len(atSource) == 0 {
		return r, fmt.Errorf("%d records were written in %v, %d arrived", written, activeTime, n)
	}
	r.Rate = int(float64(written) / activeTime.Seconds())
	r.Records = len(seen)
	r.P50, r.P99, r.Max = stats.Quantile(seen, 0.5), stats.Quantile(seen, 0.99), stats.Quantile(seen, 1)
	r.SourceP99 = stats.Quantile(atSource, 0.99)
	return r, nil
}

// measure watches the daemon while it works.
func (d *lanesDaemon) measure(ctx context.Context, how time.Duration) (cpu, batches float64, rss int64, err error) {
	count := func() (float64, reading, error) {
		m, err := scrape(ctx, d.addr)
		if err != nil {
			return 0, reading{}, err
		}
		u, err := usage(d.p.PID())
		return m.sum("replicator_batches_total"), u, err
	}
	n0, before, err := count()
	if err != nil {
		return 0, 0, 0, err
	}
	began := time.Now()
	if err := pause.For(ctx, how); err != nil {
		return 0, 0, 0, err
	}
	took := time.Since(began).Seconds()
	n1, after, err := count()
	return (after.CPU - before.CPU).Seconds() / took, (n1 - n0) / took, after.RSS, err
}

// latencyWatch is a consumer that notes how old records are when it has them.
type latencyWatch struct {
	client *kgo.Client
	done   chan struct{}

	mu   sync.Mutex
	seen []time.Duration
}

func watchLatency(ctx context.Context, c *kafkatest.Cluster, topic string) (*latencyWatch, error) {
	client, err := kgo.NewClient(append(c.ClientOpts(),
		kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMinBytes(1))...)
	if err != nil {
		return nil, fmt.Errorf("make consumer: %w", err)
	}
	w := &latencyWatch{client: client, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for {
			f := client.PollFetches(ctx)
			if f.IsClientClosed() || ctx.Err() != nil {
				return
			}
			now := time.Now()
			w.mu.Lock()
			f.EachRecord(func(r *kgo.Record) { w.seen = append(w.seen, now.Sub(r.Timestamp)) })
			w.mu.Unlock()
		}
	}()
	return w, nil
}

// take is what was seen since the last time, sorted.
func (w *latencyWatch) take() []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.seen
	w.seen = nil
	slices.Sort(out)
	return out
}

func (w *latencyWatch) close() {
	w.client.Close()
	<-w.done
}
