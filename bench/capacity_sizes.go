package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"replicator/internal/kafkatest"
	"replicator/internal/workload"
)

// sizeResult is the copying of messages of one size.
type sizeResult struct {
	Bytes    int     `json:"message_bytes"`
	Messages int64   `json:"messages"`
	GB       float64 `json:"gb"`      // of keys and values
	WireGB   float64 `json:"wire_gb"` // of the source's log
	CPUPerGB float64 `json:"cpu_seconds_per_gb"`
	Speed    float64 `json:"mb_per_second"`
	Peak     int64   `json:"peak_rss_bytes"`
	Checked  string  `json:"checked"`
}

// messageSizes copies the same bytes in messages of different sizes.
func (c *capacity) messageSizes(ctx context.Context) error {
	return site{}.with(ctx, func(pair *kafkatest.ClusterPair) error {
		for _, size := range c.sizes {
			c.say("messages of %d bytes", size)
			r, err := c.sizeOf(ctx, pair, size)
			if err == nil {
				c.results.Sizes = append(c.results.Sizes, r)
				c.say("  %.0f MB/s, %.3f CPU s/GB, peak %d MiB", r.Speed, r.CPUPerGB, r.Peak>>20)
			}
			if err := c.fails(ctx, fmt.Sprintf("messages of %d bytes", size), err); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *capacity) sizeOf(ctx context.Context, pair *kafkatest.ClusterPair, size int) (r sizeResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	spec := workload.Spec{
		Topic: fmt.Sprintf("bench-size-%d", size), Kind: workload.Plain, Codec: workload.LZ4, Partitions: 8,
		Records: int(c.bytes) / size, ValueBytes: size,
		// A batch holds at least one message, and no more than the topic takes.
		BatchBytes: max(closedBatch, size+1000),
		Run:        max(1, closedBatch/size),
	}
	w, err := workload.Write(ctx, pair.Source.ClientOpts(), spec)
	if err != nil {
		return r, err
	}
	wire, err := logBytes(ctx, pair.Source.Admin(), spec.Topic)
	if err != nil {
		return r, err
	}
	m, err := c.start(ours, job{pair: pair, topic: spec.Topic, codec: spec.Codec})
	if err != nil {
		return r, err
	}
	defer func() {
		m.Kill()
		err = errors.Join(err, m.clean(ctx, pair), deleteTopics(ctx, pair.Source.Admin(), spec.Topic))
	}()
	run, err := m.follow(ctx, w.Written, 10*time.Millisecond)
	if err != nil {
		return r, err
	}
	if err := m.stop(); err != nil {
		return r, err
	}
	n, err := m.copied(ctx)
	if err != nil || n != w.Written {
		return r, errors.Join(err, fmt.Errorf("the target holds %d records, the source %d", n, w.Written))
	}
	t := trialResult{Bytes: w.Bytes, WireBytes: wire}
	return sizeResult{
		Bytes: size, Messages: w.Written, GB: float64(w.Bytes) / 1e9, WireGB: float64(wire) / 1e9,
		CPUPerGB: t.cpuPerGB(run), Speed: t.speed(run), Peak: run.Peak, Checked: fmt.Sprintf("count of %d equal", n),
	}, nil
}
