package stranded

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/newtopic"
	"replicator/pkg/cluster"
)

// The verbs under which progress is kept: the same records may be exported and replayed.
const (
	verbReplay = "replay"
	verbExport = "export"
)

const progressVersion = 1

// progress is how far a partition of an old region was replayed or exported, over all runs that
// dealt with the newest range of it. It is written in the transaction of the records it speaks of.
type progress struct {
	Version     int       `json:"version"`
	Run         string    `json:"run"`
	Next        int64     `json:"next"`         // source offset, next: all below was appended
	LeaderEpoch int32     `json:"leader_epoch"` // of the last record appended, in the old region
	Records     int64     `json:"records"`      // of the range
	Topic       string    `json:"topic"`        // the destination
	Partition   int32     `json:"partition"`
	Begin       int64     `json:"begin"` // destination offset of the range's first record
	End         int64     `json:"end"`   // destination offset, next, behind the last one
	Time        time.Time `json:"time"`
}

// progressKey names a partition. The id of its topic belongs to it: a topic that was made anew has other records.
func progressKey(verb, from string, r Range) string {
	return fmt.Sprintf("%s/%s/%s/%s/%d", verb, from, hex.EncodeToString(r.TopicID[:]), r.Topic, r.Partition)
}

var progressSettings = []newtopic.Setting{
	{Name: "cleanup.policy", Value: "compact"},
	{Name: newtopic.MinInSync, Value: "2"},
}

// ensureTopic creates a topic where it is missing and waits until it is led.
func ensureTopic(ctx context.Context, r *reader, t newtopic.Topic) error {
	deadline := time.Now().Add(patience)
	created := false
	for {
		d, err := r.topic(ctx, t.Name, true)
		switch {
		case errors.Is(err, kerr.UnknownTopicOrPartition) && !created:
			if err := newtopic.Create(ctx, r.cluster.Admin(), t); err != nil {
				return fmt.Errorf("create topic %s of cluster %s: %w", t.Name, r.cluster.Alias(), r.right(err, "CREATE", t.Name))
			}
			created = true
			continue
		case errors.As(err, new(final)):
			return err
		case err == nil && led(d.Partitions):
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("wait for the leaders of topic %s of cluster %s: %w", t.Name, r.cluster.Alias(), errors.Join(err, context.DeadlineExceeded))
		}
		if err := wait(ctx); err != nil {
			return err
		}
	}
}

// readProgress reads the whole topic. Nobody else may append: the transactional id is ours.
func readProgress(ctx context.Context, c *cluster.Cluster) (map[string]progress, error) {
	r := newReader(c)
	all := map[string]progress{}
	ends, err := r.bounds(ctx, ProgressTopic)
	if err != nil {
		return nil, err
	}
	for p, b := range ends {
		err := r.read(ctx, ProgressTopic, p, b.start, b.stable, func(records []*kgo.Record) error {
			for _, rec := range records {
				if rec.Value == nil {
					delete(all, string(rec.Key))
					continue
				}
				var v progress
				err := json.Unmarshal(rec.Value, &v)
				switch {
				case err != nil:
				case v.Version > progressVersion:
					err = fmt.Errorf("it has version %d, and %d is known: use the newer replicator", v.Version, progressVersion)
				case v.Next < 0 || v.Begin < 0 || v.End < v.Begin || v.Records < 0:
					err = errors.New("it contradicts itself")
				}
				if err != nil {
					return fmt.Errorf("read progress at offset %d of %s-%d: %w", rec.Offset, ProgressTopic, p, err)
				}
				all[string(rec.Key)] = v
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
