package stranded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

const readers = 8 // partitions that are read at a time

// Find reads what the old region's partitions hold beyond the ends of their closed lanes. It writes
// nothing and needs READ and DESCRIBE on the topics. A topic that is gone is a range that is cut.
func Find(ctx context.Context, old *cluster.Cluster, lanes map[offsets.Lane]Since) (Report, error) {
	report := Report{From: old.Alias()}
	r := newReader(old)
	topics := map[string]map[int32]bounds{}
	compacted := map[string]bool{}
	for lane := range lanes {
		if _, ok := topics[lane.Topic]; ok {
			continue
		}
		_, err := r.topic(ctx, lane.Topic, true)
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			topics[lane.Topic] = nil
			continue
		}
		if err == nil {
			topics[lane.Topic], err = r.bounds(ctx, lane.Topic)
		}
		if err != nil {
			return report, fmt.Errorf("find stranded records: %w", err)
		}
		compacted[lane.Topic] = strings.Contains(setting(ctx, old.Admin(), lane.Topic, "cleanup.policy"), "compact")
	}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for lane, since := range lanes {
		group.Go(func() error {
			found := Range{Lane: lane, From: since.From, To: since.From, Compacted: compacted[lane.Topic]}
			b, ok := topics[lane.Topic][lane.Partition]
			if !ok {
				found.Cut = "the partition does not exist in the old region any more"
			} else if err := r.find(ctx, &found, since, b); err != nil {
				return fmt.Errorf("find stranded records: %w", err)
			}
			mu.Lock()
			defer mu.Unlock()
			report.Ranges = append(report.Ranges, found)
			report.Records += found.Records
			report.Bytes += found.Bytes
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Report{From: old.Alias()}, err
	}
	slices.SortFunc(report.Ranges, func(a, b Range) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return report, nil
}

// find fills a range from what its log holds.
func (r *reader) find(ctx context.Context, found *Range, since Since, b bounds) error {
	t, err := r.topic(ctx, found.Topic, false)
	if err != nil {
		return err
	}
	found.TopicID, found.Start, found.End = t.ID, b.start, b.end
	found.Open = max(0, b.end-max(b.stable, since.From))
	same, err := r.divergence(ctx, found.Topic, found.Partition, since.LeaderEpoch, since.From)
	if err != nil {
		return err
	}
	switch {
	case same < since.From && b.end > same:
		found.Cut = fmt.Sprintf("the log lost %s that had been copied and was written to since: what stands from offset %d on is not what was copied from there", plural(since.From-same, "offset"), same)
		found.From = same
	case b.end < since.From:
		found.Cut = fmt.Sprintf("the log ends at offset %d, below %d, up to which it was copied: it lost its tail", b.end, since.From)
		found.From = b.end
	}
	found.To = max(found.From, b.stable)
	found.Removed = max(0, min(b.start, found.To)-found.From)
	return r.read(ctx, found.Topic, found.Partition, max(found.From, b.start), found.To, func(records []*kgo.Record) error {
		for _, rec := range records {
			found.Records++
			found.Bytes += size(rec)
			if found.First.IsZero() || rec.Timestamp.Before(found.First) {
				found.First = rec.Timestamp
			}
			if rec.Timestamp.After(found.Last) {
				found.Last = rec.Timestamp
			}
		}
		return nil
	})
}

// setting returns a topic's setting, empty where nobody may know.
func setting(ctx context.Context, admin *kadm.Client, topic, name string) string {
	configs, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return ""
	}
	c, err := configs.On(topic, nil)
	if err != nil || c.Err != nil {
		return ""
	}
	for _, e := range c.Configs {
		if e.Key == name && e.Value != nil {
			return *e.Value
		}
	}
	return ""
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
