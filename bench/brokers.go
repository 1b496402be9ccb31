package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"replicator/internal/kafkatest"
	"replicator/internal/wan"
)

// farBuffer is the most, in bytes, that TCP of the far side buffers: more than a
// round trip's worth of any figure to expect.
const farBuffer = 16 << 20

// site is where brokers are put.
type site struct {
	TLS bool
	RTT time.Duration // of the round trip between the source and everything else
}

// launch starts one broker a side, as they run in production: the optimising
// compiler, and a heap of 1 GiB. What was deleted is gone from the disk soon.
func (s site) launch(ctx context.Context, source kafkatest.Network) (*kafkatest.ClusterPair, error) {
	cfg := kafkatest.Config{FullJIT: true, Heap: "1g", Properties: map[string]string{
		"log.segment.delete.delay.ms": "1000",
		"log.cleaner.backoff.ms":      "1000",
	}}
	if s.TLS {
		cfg.TLS = kafkatest.ServerTLS
	}
	far := cfg
	if far.Network = source; s.RTT > 0 {
		// As brokers are set up for consumers that are far away: by default they send
		// at most 100 KiB a round trip.
		far.Properties = maps.Clone(cfg.Properties)
		far.Properties["socket.send.buffer.bytes"] = "-1"
	}
	pair, err := kafkatest.LaunchPair(ctx, far, cfg)
	if err != nil {
		return nil, fmt.Errorf("start brokers: %w", err)
	}
	return pair, nil
}

// with launches brokers for as long as a function runs. Those of a site with a
// round trip are as near as others.
func (s site) with(ctx context.Context, do func(*kafkatest.ClusterPair) error) error {
	return s.withDistance(ctx, func(pair *kafkatest.ClusterPair, _ func(bool) error) error { return do(pair) })
}

// withDistance also gives a function that puts the source far away, by the
// site's round trip, and brings it back.
func (s site) withDistance(ctx context.Context, do func(pair *kafkatest.ClusterPair, away func(bool) error) error) (err error) {
	away := func(bool) error { return nil }
	var source kafkatest.Network
	if s.RTT > 0 {
		link, err := wan.Open(ctx, wan.Config{TCPBuffer: farBuffer})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, link.Close()) }()
		source = kafkatest.Network{Host: link.Far.String(), Command: link.Command}
		away = func(far bool) error {
			if far {
				return link.Set(s.RTT/2, 0, 0)
			}
			return link.Set(0, 0, 0)
		}
	}
	pair, err := s.launch(ctx, source)
	if err != nil {
		return err
	}
	defer pair.Close()
	return do(pair, away)
}

// up is an error if a broker of a pair has ended, with the end of its log.
func up(pair *kafkatest.ClusterPair) error {
	for _, c := range []*kafkatest.Cluster{pair.Source, pair.Target} {
		for _, b := range c.Brokers() {
			if !b.Running() {
				return fmt.Errorf("a broker of %s ended by itself (%s), the end of its log:\n%s", c.Config().Name, b.Process().State(), b.Process().Tail(30))
			}
		}
	}
	return nil
}

// freeze keeps a compacted topic, and copies with its settings, as they are.
func freeze(ctx context.Context, admin *kadm.Client, topic string) error {
	day := "86400000" // ms
	answers, err := admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "min.compaction.lag.ms", Value: &day},
		{Op: kadm.SetConfig, Name: "delete.retention.ms", Value: &day},
	}, topic)
	for _, a := range answers {
		err = errors.Join(err, a.Err)
	}
	if err != nil {
		return fmt.Errorf("stop the cleaning of %s: %w", topic, err)
	}
	return nil
}

// logBytes is the size of a topic's log on one broker a partition.
func logBytes(ctx context.Context, admin *kadm.Client, topic string) (int64, error) {
	dirs, err := admin.DescribeAllLogDirs(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("read log sizes of %s: %w", topic, err)
	}
	largest := map[int32]int64{} // a replica may be behind
	for _, broker := range dirs {
		for _, dir := range broker {
			if dir.Err != nil {
				return 0, fmt.Errorf("read log sizes of %s: %w", topic, dir.Err)
			}
			for partition, p := range dir.Topics[topic] {
				if !p.IsFuture {
					largest[partition] = max(largest[partition], p.Size)
				}
			}
		}
	}
	var n int64
	for size := range maps.Values(largest) {
		n += size
	}
	return n, nil
}

// endOffsets is where each partition of a topic ends; nil while the topic is
// not there.
func endOffsets(ctx context.Context, admin *kadm.Client, topic string) (map[int32]int64, error) {
	listed, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("list end offsets of %s: %w", topic, err)
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err == nil {
			ends[o.Partition] = o.Offset
		}
	})
	return ends, nil
}

// deleteTopics deletes those topics of a cluster whose name contains a part.
func deleteTopics(ctx context.Context, admin *kadm.Client, part string) error {
	all, err := admin.ListTopics(ctx)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	names := slices.DeleteFunc(all.Names(), func(n string) bool { return !strings.Contains(n, part) })
	if len(names) == 0 {
		return nil
	}
	answers, err := admin.DeleteTopics(ctx, names...)
	if err == nil {
		err = answers.Error()
	}
	if err != nil {
		return fmt.Errorf("delete topics %s: %w", strings.Join(names, ", "), err)
	}
	return nil
}
