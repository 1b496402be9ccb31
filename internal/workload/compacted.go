package workload

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/compare"
	"replicator/internal/pause"
)

// compacted writes in sixteen steps, so that a broker rolls segments between
// them, then waits until the cleaner has made holes.
func (w *writer) compacted(ctx context.Context) error {
	client, err := w.client(w.spec.Codec)
	if err != nil {
		return err
	}
	defer client.Close()
	step := max(1, (w.spec.Records+15)/16)
	for from := 0; from < w.spec.Records; from += step {
		if err := w.produce(ctx, client, from, min(from+step, w.spec.Records)); err != nil {
			return err
		}
	}
	if w.spec.Clean != nil {
		w.spec.Clean()
	}
	deadline := time.Now().Add(w.spec.CleanWait)
	for before := int64(0); ; {
		holes, err := Holes(ctx, w.opts, w.spec.Topic)
		if err != nil {
			return err
		}
		if holes > 0 && holes == before { // the cleaner is done with all partitions
			w.result.Holes = holes
			return nil
		}
		before = holes
		if time.Now().After(deadline) {
			return fmt.Errorf("wait for the cleaner: no holes after %s", w.spec.CleanWait)
		}
		settle := 20 * time.Millisecond
		if w.spec.Clean == nil {
			settle = 2 * time.Second
		}
		if err := pause.For(ctx, settle); err != nil {
			return fmt.Errorf("wait for the cleaner: %w", err)
		}
	}
}

// Holes counts the offsets of a topic, between log start and stable end, that
// hold no record a read_committed consumer sees: compacted away, aborted, or
// taken by control records.
func Holes(ctx context.Context, opts []kgo.Opt, topic string) (int64, error) {
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.ClientID("workload")}, opts...)...)
	if err != nil {
		return 0, fmt.Errorf("count holes: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("count holes: list start offsets: %w", err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("count holes: list end offsets: %w", err)
	}
	holes := int64(0)
	for p, end := range ends[topic] {
		holes += end.Offset - starts[topic][p].Offset
	}
	if err := compare.Read(ctx, opts, topic, func(*kgo.Record) error { holes--; return nil }); err != nil {
		return 0, fmt.Errorf("count holes: %w", err)
	}
	return holes, nil
}
