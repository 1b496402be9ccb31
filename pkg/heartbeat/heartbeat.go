// Package heartbeat writes MirrorMaker 2's heartbeats, so that its client can
// tell which clusters a cluster is copied from, and over how many hops.
//
// A heartbeat of the link from east to west is a record in the topic heartbeats
// of east that the link copies to east.heartbeats on west. Its own source and
// target are the other way round: MirrorMaker 2 4.3.1 running "east->west" writes
// heartbeats to east by the connector of the pair "west->east", so that a reader
// of east.heartbeats on west finds source west and target east in each. We write
// the same. Readers go by the topic's name.
//
// It promises: one record an interval, as long as that works; an error is kept in
// the status and ends nothing. Several daemons of one link write a heartbeat each,
// which does no harm: only the newest counts.
package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"replicator/pkg/cluster"
	"replicator/pkg/mirrormaker"
)

// tryTime is how long one heartbeat is tried.
const tryTime = 10 * time.Second

// Config is what an emitter needs.
type Config struct {
	Cluster        *cluster.Cluster // the link's source, which is written to
	Source, Target string           // aliases of the link's clusters
	Interval       time.Duration
	Log            *zap.Logger
}

// Emitter writes the heartbeats of one link. Status may be asked at any time.
type Emitter struct {
	cfg    Config
	client *kgo.Client // nil until the topic is known to be there; of Run

	mu      sync.Mutex
	written int64
	failed  int64
	last    time.Time // when the newest was acknowledged
	problem string    // why the last one was not written, "" if it was
}

// Status is how an emitter does.
type Status struct {
	Written int64 `json:"written"` // acknowledged since the start
	Failed  int64 `json:"failed"`  // could not be written since the start
	// Age is the time since the newest was acknowledged; absent before the first.
	Age *float64 `json:"age_seconds,omitempty"`
	// Error is why the last one could not be written; empty: it was.
	Error string `json:"error,omitempty"`
}

// New makes an emitter; Run starts it.
func New(c Config) *Emitter {
	return &Emitter{cfg: c}
}

// Status takes a snapshot.
func (e *Emitter) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := Status{Written: e.written, Failed: e.failed, Error: e.problem}
	if !e.last.IsZero() {
		age := time.Since(e.last).Seconds()
		s.Age = &age
	}
	return s
}

// Run writes a heartbeat at once and then at every interval, until ctx ends.
func (e *Emitter) Run(ctx context.Context) {
	defer func() {
		if e.client != nil {
			e.client.Close()
		}
	}()
	tick := time.NewTicker(e.cfg.Interval)
	defer tick.Stop()
	for {
		err := e.beat(ctx)
		if ctx.Err() != nil {
			return
		}
		e.note(err)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// note keeps what became of a heartbeat. Only a change is logged, because errors
// would repeat at every interval.
func (e *Emitter) note(err error) {
	e.mu.Lock()
	was := e.problem
	if err == nil {
		e.written, e.last, e.problem = e.written+1, time.Now(), ""
	} else {
		e.failed, e.problem = e.failed+1, err.Error()
	}
	is := e.problem
	e.mu.Unlock()
	switch {
	case is == was:
	case err != nil:
		e.cfg.Log.Warn("retrying", zap.String("class", "heartbeat"), zap.Error(err))
	default:
		e.cfg.Log.Info("heartbeats are written again")
	}
}

// beat writes one heartbeat.
func (e *Emitter) beat(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	if e.client == nil {
		if err := e.open(ctx); err != nil {
			return err
		}
	}
	now := time.Now()
	// See the package's comment for the order.
	key, value, err := mirrormaker.Heartbeat{Source: e.cfg.Target, Target: e.cfg.Source, Timestamp: now.UnixMilli()}.Encode()
	if err != nil {
		return err
	}
	err = e.client.ProduceSync(ctx, &kgo.Record{Topic: mirrormaker.HeartbeatsTopic, Key: key, Value: value, Timestamp: now}).FirstErr()
	if err != nil {
		// The next one looks for the topic first: it may have been deleted.
		e.client.Close()
		e.client = nil
		return fmt.Errorf("write heartbeat to %s: %w", e.cfg.Cluster.Alias(), e.right(err, "WRITE"))
	}
	return nil
}

// open makes the topic if it is missing, and a client that writes to it.
func (e *Emitter) open(ctx context.Context) error {
	if err := e.ensureTopic(ctx); err != nil {
		return err
	}
	client, err := e.cfg.Cluster.NewClient(
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.DisableIdempotentWrite(), // one written twice does no harm, and this needs no further right
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
	)
	if err != nil {
		return err
	}
	e.client = client
	return nil
}

func (e *Emitter) ensureTopic(ctx context.Context) error {
	const topic = mirrormaker.HeartbeatsTopic
	admin, alias := e.cfg.Cluster.Admin(), e.cfg.Cluster.Alias()
	topics, err := admin.ListTopics(ctx, topic)
	if err == nil {
		err = topics[topic].Err
	}
	if err == nil {
		return nil
	}
	if !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("describe topic %s of %s: %w", topic, alias, e.right(err, "WRITE"))
	}
	brokers, err := admin.ListBrokers(ctx)
	if err != nil {
		return fmt.Errorf("create topic %s on %s: list brokers: %w", topic, alias, err)
	}
	replicas := int16(-1) // the cluster's default
	if len(brokers) >= 3 {
		replicas = 3
	}
	compact := "compact"
	_, err = admin.CreateTopic(ctx, 1, replicas, map[string]*string{"cleanup.policy": &compact}, topic)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) { // another daemon was quicker
		return fmt.Errorf("create topic %s on %s: %w", topic, alias, e.right(err, "CREATE"))
	}
	return nil
}

// right adds to a refused authorization what has to be granted.
func (e *Emitter) right(err error, operation string) error {
	if errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return fmt.Errorf("%w; grant %s on topic %s of cluster %s, or set heartbeats.enabled to false", err, operation, mirrormaker.HeartbeatsTopic, e.cfg.Cluster.Alias())
	}
	return err
}
