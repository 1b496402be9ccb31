package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"

	"replicator/internal/kafkatest"
)

// site is where brokers are put: measurements of the same site share a pair.
type site struct {
	TLS bool
}

// launch starts one broker a side, as they run in production: the optimising
// compiler, and a heap of 1 GiB. What was deleted is gone from the disk soon.
func (s site) launch(ctx context.Context) (*kafkatest.ClusterPair, error) {
	cfg := kafkatest.Config{FullJIT: true, Heap: "1g", Properties: map[string]string{
		"log.segment.delete.delay.ms": "1000",
		"log.cleaner.backoff.ms":      "1000",
	}}
	if s.TLS {
		cfg.TLS = kafkatest.ServerTLS
	}
	pair, err := kafkatest.LaunchPair(ctx, cfg, cfg)
	if err != nil {
		return nil, fmt.Errorf("start brokers: %w", err)
	}
	return pair, nil
}

// with launches brokers for as long as a function runs.
func (s site) with(ctx context.Context, do func(*kafkatest.ClusterPair) error) error {
	pair, err := s.launch(ctx)
	if err != nil {
		return err
	}
	defer pair.Close()
	return do(pair)
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
