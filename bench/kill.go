package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/kafkatest"
	"replicator/internal/pause"
	"replicator/internal/workload"
)

const (
	killRate       = 2000 // records a second
	killPartitions = 8
	killLoad       = 15 * time.Second // under load before the kill
	killAfter      = 5 * time.Second  // under load once all partitions move again
	killPatience   = 3 * time.Minute  // for that, and for the last record to be copied
	killStalled    = time.Second      // a partition without a new record for longer was the killed one's
)

// A killRun is what a kill -9 under load did to a copy. Times are from the kill
// to the arrival of a record that was produced after it.
type killRun struct {
	Mover        mover         `json:"mover"`
	Round        int           `json:"round"`
	Stalled      int           `json:"stalled"`  // partitions that stood still
	First        time.Duration `json:"first_ns"` // the first of them to move again
	All          time.Duration `json:"all_ns"`   // the last of them
	Acknowledged int64         `json:"acknowledged"`
	Doubled      int64         `json:"doubled"`
	Lost         int64         `json:"lost"`
	Disordered   int64         `json:"disordered"`
}

// kills ends movers under load: one of two replicators, and a MirrorMaker 2
// that is started again at once.
func (c *comparison) kills(ctx context.Context) error {
	movers := c.wanted([]mover{ours, mmTuned})
	if c.quick {
		movers = c.wanted([]mover{ours})
	}
	return site{}.with(ctx, func(pair *kafkatest.ClusterPair) error {
		for round := range c.rounds {
			for _, m := range movers {
				if err := up(pair); err != nil {
					return err
				}
				c.say("kill -9 under load, round %d of %d: %s", round+1, c.rounds, m.title())
				r, err := c.killOf(ctx, pair, m)
				if err := c.fails(ctx, "kill of "+string(m), err); err != nil {
					return err
				}
				if err != nil {
					continue
				}
				r.Round = round + 1
				c.results.Kill = append(c.results.Kill, r)
				c.say("  %d partitions stood still, moved again after %.1f s to %.1f s; doubled %d, lost %d of %d", r.Stalled, r.First.Seconds(), r.All.Seconds(), r.Doubled, r.Lost, r.Acknowledged)
				if err := c.save(); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func (c *comparison) killOf(ctx context.Context, pair *kafkatest.ClusterPair, m mover) (r killRun, err error) {
	r.Mover = m
	topic := "bench-kill-" + string(m)
	live, err := workload.StartLive(ctx, pair.Source.ClientOpts(), workload.LiveConfig{
		Spec: workload.Spec{Topic: topic, Kind: workload.Plain, Codec: workload.LZ4, Partitions: killPartitions}, Rate: killRate,
	})
	if err != nil {
		return r, err
	}
	stopped := false
	stop := func() (workload.LiveResult, error) {
		stopped = true
		ctx, cancel := context.WithTimeout(ctx, killPatience)
		defer cancel()
		return live.Stop(ctx)
	}
	defer func() {
		if !stopped {
			_, stopErr := stop()
			err = errors.Join(err, stopErr)
		}
		err = errors.Join(err, deleteTopics(ctx, pair.Source.Admin(), topic))
	}()
	// Offsets are written as often as in other measurements: by default, once a
	// minute, more would be doubled. And Connect gives a worker 5 minutes to come back.
	w, err := c.start(m, job{pair: pair, topic: topic, codec: workload.LZ4, more: []string{flushOften, "target.scheduled.rebalance.max.delay.ms = 0"}})
	if err != nil {
		return r, err
	}
	victim := w.Process
	defer func() {
		w.Kill()
		clean, cancel := afterwards(ctx)
		defer cancel()
		err = errors.Join(err, w.clean(clean, pair))
	}()
	if m == ours {
		if victim, err = c.second(w); err != nil {
			return r, err
		}
		defer victim.Kill()
	}
	a, err := watchArrivals(ctx, pair.Target, w.target)
	if err != nil {
		return r, err
	}
	defer a.close()
	if _, err := a.wait(ctx, time.Now()); err != nil { // all partitions move
		return r, fmt.Errorf("%w, the end of the log:\n%s", err, w.Tail(30))
	}
	if err := pause.For(ctx, killLoad); err != nil {
		return r, err
	}
	if !victim.Running() {
		return r, fmt.Errorf("ended by itself before it was killed: %v, the end of the log:\n%s", victim.State(), victim.Tail(30))
	}
	killed := time.Now()
	victim.Kill()
	if m != ours {
		if w.Process, err = w.again(); err != nil {
			return r, err
		}
	}
	moved, err := a.wait(ctx, killed)
	if err != nil {
		return r, fmt.Errorf("%w, the end of the log:\n%s", err, w.Tail(30))
	}
	if r.Stalled, r.First, r.All = stalls(killed, moved); r.Stalled == 0 {
		return r, fmt.Errorf("kill %s: no partition stood still: it copied nothing", m)
	}
	if err := pause.For(ctx, killAfter); err != nil {
		return r, err
	}
	written, err := stop()
	if err != nil {
		return r, err
	}
	return c.audit(ctx, pair, w, written, r)
}

// second starts another daemon of the same configuration, for a kill.
func (l *lab) second(w *moving) (*kafkatest.Process, error) {
	_, dir, err := l.run()
	if err != nil {
		return nil, err
	}
	return l.startDaemon(dir, w.yaml)
}

// audit waits until every acknowledged record is on the target, and counts.
func (c *comparison) audit(ctx context.Context, pair *kafkatest.ClusterPair, w *moving, written workload.LiveResult, r killRun) (killRun, error) {
	deadline := time.Now().Add(killPatience)
	for {
		a, err := written.Audit(ctx, pair.Target.ClientOpts(), w.target)
		if err != nil {
			return r, err
		}
		r.Acknowledged, r.Doubled, r.Lost, r.Disordered = a.Acknowledged, a.Doubled, a.Missing, a.Disordered+a.Corrupt
		if a.Missing == 0 || time.Now().After(deadline) {
			return r, nil
		}
		if err := pause.For(ctx, time.Second); err != nil {
			return r, err
		}
	}
}

// arrivals are when records came to the partitions of a topic.
type arrivals struct {
	client *kgo.Client
	ended  chan struct{}

	mu      sync.Mutex
	since   time.Time           // records produced later are looked for
	first   map[int32]time.Time // arrival of the first of them
	changed chan struct{}       // closed when there is another in first
}

// watchArrivals begins to read a topic that may have to be made yet.
func watchArrivals(ctx context.Context, on *kafkatest.Cluster, topic string) (*arrivals, error) {
	client, err := kgo.NewClient(append(on.ClientOpts(), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.MetadataMaxAge(time.Second), kgo.UnknownTopicRetries(-1))...)
	if err != nil {
		return nil, fmt.Errorf("make consumer: %w", err)
	}
	a := &arrivals{client: client, ended: make(chan struct{}), first: map[int32]time.Time{}, changed: make(chan struct{})}
	go a.run(ctx)
	return a, nil
}

// close ends the reading.
func (a *arrivals) close() {
	a.client.Close()
	<-a.ended
}

func (a *arrivals) run(ctx context.Context) {
	defer close(a.ended)
	for {
		fetches := a.client.PollFetches(ctx)
		if fetches.IsClientClosed() || ctx.Err() != nil {
			return
		}
		now := time.Now()
		a.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			if _, known := a.first[r.Partition]; !known && r.Timestamp.After(a.since) {
				a.first[r.Partition] = now
				close(a.changed)
				a.changed = make(chan struct{})
			}
		})
		a.mu.Unlock()
	}
}

// wait returns, for each partition, when the first record came that was
// produced later than a moment.
func (a *arrivals) wait(ctx context.Context, since time.Time) (map[int32]time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, killPatience)
	defer cancel()
	a.mu.Lock()
	a.since, a.first = since, map[int32]time.Time{}
	a.mu.Unlock()
	for {
		a.mu.Lock()
		first, changed := maps.Clone(a.first), a.changed
		a.mu.Unlock()
		if len(first) == killPartitions {
			return first, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the copy: %d of %d partitions move: %w", len(first), killPartitions, context.Cause(ctx))
		}
	}
}

// stalls tells of the partitions that stood still when the first and the last
// moved again.
func stalls(killed time.Time, moved map[int32]time.Time) (n int, first, all time.Duration) {
	for _, at := range moved {
		after := at.Sub(killed)
		if after < killStalled {
			continue
		}
		if n++; n == 1 {
			first = after
		}
		first, all = min(first, after), max(all, after)
	}
	return n, first, all
}
