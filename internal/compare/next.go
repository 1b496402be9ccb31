package compare

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// Place is a position a consumer can resume at.
type Place struct {
	Topic     string
	Partition int32
	Offset    int64 // next
}

// errFound ends a read.
var errFound = errors.New("found")

// Next returns for each place the record a read_committed consumer that resumes
// there reads first, nil where none is left below the stable end of now. A
// place before the log's start reads from the start.
func Next(ctx context.Context, c Cluster, places []Place) ([]*kgo.Record, error) {
	r, err := newReader(c)
	if err != nil {
		return nil, err
	}
	defer r.close()
	known := map[string]bool{}
	var topics []string
	for _, p := range places {
		if !known[p.Topic] {
			known[p.Topic] = true
			topics = append(topics, p.Topic)
		}
	}
	all, err := r.bounds(ctx, topics...)
	if err != nil {
		return nil, err
	}
	out := make([]*kgo.Record, len(places))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, p := range places {
		b, ok := all[p.Topic][p.Partition]
		if !ok {
			return nil, fmt.Errorf("read %s-%d: %w", p.Topic, p.Partition, kerr.UnknownTopicOrPartition)
		}
		g.Go(func() error {
			err := r.read(ctx, p.Topic, p.Partition, max(p.Offset, b.start), b.end, func(records []*kgo.Record) error {
				out[i] = records[0]
				return errFound
			})
			if errors.Is(err, errFound) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

// SameRecord tells whether two records are the same to a consumer: key, value,
// headers and timestamp. Two that are not there are the same, too.
func SameRecord(a, b *kgo.Record) bool {
	if a == nil || b == nil {
		return a == b
	}
	return same(a, b)
}
