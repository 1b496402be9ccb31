package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"replicator/internal/kafkatest"
	"replicator/internal/pause"
	"replicator/internal/stats"
	"replicator/internal/workload"
)

const (
	latencyRate       = 1000 // records a second
	latencyPartitions = 8
	latencyBytes      = 1000             // of a value
	latencyWarmUp     = 10 * time.Second // of the steady rate, before records count
	latencyStart      = 2 * time.Minute  // for the first records to come
	latencyGrace      = 30 * time.Second // for the last ones
)

// A latencyRun is how long records took from the producer to a consumer of the
// target, both of them in this process, at a steady rate.
type latencyRun struct {
	Mover   mover         `json:"mover"`
	Round   int           `json:"round"`
	Records int           `json:"records"`
	P50     time.Duration `json:"p50_ns"`
	P99     time.Duration `json:"p99_ns"`
	P999    time.Duration `json:"p999_ns"`
	Max     time.Duration `json:"max_ns"`
}

// latency measures the replicator and MirrorMaker 2, and beside them a consumer
// of the source itself: what brokers and clients take without a mover.
func (c *comparison) latency(ctx context.Context) error {
	return site{}.with(ctx, func(pair *kafkatest.ClusterPair) error {
		for round := range c.rounds {
			for _, m := range c.wanted([]mover{direct, ours, mmTuned}) {
				if err := up(pair); err != nil {
					return err
				}
				c.say("latency at %d records a second, round %d of %d, %d s: %s", latencyRate, round+1, c.rounds, c.seconds, m.title())
				r, err := c.latencyOf(ctx, pair, m)
				if err := c.fails(ctx, "latency of "+string(m), err); err != nil {
					return err
				}
				if err != nil {
					continue
				}
				r.Round = round + 1
				c.results.Latency = append(c.results.Latency, r)
				c.say("  p50 %s, p99 %s, p99.9 %s, max %s", millis(r.P50), millis(r.P99), millis(r.P999), millis(r.Max))
				if err := c.save(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (c *comparison) latencyOf(ctx context.Context, pair *kafkatest.ClusterPair, m mover) (r latencyRun, err error) {
	during := time.Duration(c.seconds) * time.Second
	ctx, cancel := context.WithTimeout(ctx, latencyStart+latencyWarmUp+during+latencyGrace)
	defer cancel()
	topic := "bench-latency-" + string(m)
	spec := workload.Spec{Topic: topic, Kind: workload.Empty, Partitions: latencyPartitions}
	if _, err := workload.Write(ctx, pair.Source.ClientOpts(), spec); err != nil {
		return r, err
	}
	defer func() {
		clean, cancel := afterwards(ctx)
		defer cancel()
		err = errors.Join(err, deleteTopics(clean, pair.Source.Admin(), topic))
	}()
	from, target := pair.Source, topic
	var dead <-chan struct{} // never, where nothing moves
	ended := func() error { return nil }
	if m != direct {
		// What waits for more is made to wait no more.
		w, err := c.start(m, job{pair: pair, topic: topic, codec: workload.None, more: []string{"target.producer.linger.ms = 0"}})
		if err != nil {
			return r, err
		}
		defer func() {
			w.Kill()
			clean, cancel := afterwards(ctx)
			defer cancel()
			err = errors.Join(err, w.clean(clean, pair))
		}()
		from, target, dead, ended = pair.Target, w.target, w.Done(), w.ended
	}
	s, err := newStopwatch(pair.Source, from, topic, target)
	if err != nil {
		return r, err
	}
	defer s.close()
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { // ends with this call
		select {
		case <-dead:
			stop(ended())
		case <-running.Done():
		}
	}()
	took, err := s.measure(running, during)
	if err != nil {
		return r, err
	}
	return latencyRun{Mover: m, Records: len(took), P50: stats.Quantile(took, 0.5), P99: stats.Quantile(took, 0.99), P999: stats.Quantile(took, 0.999), Max: took[len(took)-1]}, nil
}

// afterwards is the context of tidying up after a measurement, whose own may have
// ended: what it left would be measured the next time.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
}

// A stopwatch writes records with the time in them on one cluster and reads
// them on another.
type stopwatch struct {
	producer, consumer *kgo.Client
	filler             []byte

	mu      sync.Mutex
	counted time.Time // records of then and later count
	failed  error     // of the producer
	took    []time.Duration
}

func newStopwatch(source, target *kafkatest.Cluster, from, to string) (*stopwatch, error) {
	s := &stopwatch{filler: []byte(strings.Repeat("steady ", latencyBytes/7+1))[:latencyBytes-8]}
	var err error
	s.producer, err = kgo.NewClient(append(source.ClientOpts(), kgo.DefaultProduceTopic(from), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		return nil, fmt.Errorf("make producer: %w", err)
	}
	s.consumer, err = kgo.NewClient(append(target.ClientOpts(), kgo.ConsumeTopics(to), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.MetadataMaxAge(time.Second), kgo.UnknownTopicRetries(-1))...) // the topic is made by the mover
	if err != nil {
		s.producer.Close()
		return nil, fmt.Errorf("make consumer: %w", err)
	}
	return s, nil
}

func (s *stopwatch) close() {
	s.producer.Close()
	s.consumer.Close()
}

// measure waits until a record of each partition came through, writes at the
// steady rate, and returns how long the records took after warming up, sorted.
func (s *stopwatch) measure(ctx context.Context, during time.Duration) ([]time.Duration, error) {
	n := int((latencyWarmUp + during).Seconds() * latencyRate)
	ready := make(chan struct{}) // closed once each partition came through
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.write(ctx, n, ready) })
	g.Go(func() error { return s.read(ctx, n+latencyPartitions, ready) })
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if len(s.took) == 0 {
		return nil, errors.New("read records: none counted")
	}
	slices.Sort(s.took)
	return s.took, nil
}

// write writes a record to each partition and, when they came through, n more
// at the steady rate.
func (s *stopwatch) write(ctx context.Context, n int, ready <-chan struct{}) error {
	for p := range int32(latencyPartitions) {
		s.send(ctx, p)
	}
	soon, cancel := context.WithTimeoutCause(ctx, latencyStart, errors.New("they did not come in time"))
	defer cancel()
	select {
	case <-ready:
	case <-soon.Done():
		return fmt.Errorf("wait for the first records: %w", context.Cause(soon))
	}
	began := time.Now()
	s.mu.Lock()
	s.counted = began.Add(latencyWarmUp)
	s.mu.Unlock()
	for i := range n {
		if err := pause.For(ctx, time.Until(began.Add(time.Duration(i)*time.Second/latencyRate))); err != nil { // a rate
			return err
		}
		s.send(ctx, int32(i%latencyPartitions))
	}
	if err := s.producer.Flush(ctx); err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// read reads as many records.
func (s *stopwatch) read(ctx context.Context, want int, ready chan<- struct{}) error {
	touched := map[int32]bool{}
	for seen := 0; seen < want; {
		fetches := s.consumer.PollFetches(ctx)
		now := time.Now()
		if ctx.Err() != nil {
			return fmt.Errorf("read records: %d of %d came: %w", seen, want, context.Cause(ctx))
		}
		s.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			seen++
			if touched[r.Partition] = true; len(touched) == latencyPartitions && ready != nil {
				close(ready)
				ready = nil
			}
			sent := time.Unix(0, int64(binary.BigEndian.Uint64(r.Value)))
			if !s.counted.IsZero() && !sent.Before(s.counted) {
				s.took = append(s.took, now.Sub(sent))
			}
		})
		s.mu.Unlock()
	}
	return nil
}

// send writes a record that says when.
func (s *stopwatch) send(ctx context.Context, partition int32) {
	value := make([]byte, 8, latencyBytes)
	binary.BigEndian.PutUint64(value, uint64(time.Now().UnixNano()))
	s.producer.Produce(ctx, &kgo.Record{Partition: partition, Value: append(value, s.filler...)}, func(_ *kgo.Record, err error) {
		if err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.failed = fmt.Errorf("write records: %w", err)
		}
	})
}

func millis(d time.Duration) string { return digits(inMillis(d)) + " ms" }

func inMillis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
