package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/newtopic"
	"replicator/internal/pause"
	"replicator/pkg/cluster"
)

// topicSettings are what a topic of checkpoints is created with. The later a
// setting in the list, the sooner it is left out for a cluster that does not
// take it.
var topicSettings = []newtopic.Setting{
	{Name: "cleanup.policy", Value: "compact"},
	{Name: newtopic.MinInSync, Value: "2"},
	{Name: "compression.type", Value: "producer"},
	{Name: "segment.bytes", Value: strconv.Itoa(64 << 20)}, // compaction leaves the last segment alone, and a reader reads it all
}

// ensureTopic creates a compacted topic with one partition if it is missing. One
// that is there must be compacted.
func ensureTopic(ctx context.Context, c *cluster.Cluster, topic string, replicas int16) error {
	admin := c.Admin()
	topics, err := admin.ListTopicsWithInternal(ctx, topic)
	if err == nil {
		err = topics[topic].Err
	}
	switch {
	case err == nil:
		return checkCompacted(ctx, c, topic)
	case !errors.Is(err, kerr.UnknownTopicOrPartition):
		return fmt.Errorf("describe topic %s of %s: %w", topic, c.Alias(), right(err, "WRITE", "topic "+topic, c.Alias()))
	}
	t := newtopic.Topic{Name: topic, Partitions: 1, Replicas: replicas, Settings: topicSettings}
	if err := newtopic.Create(ctx, admin, t); err != nil {
		return fmt.Errorf("create topic %s on %s: %w", topic, c.Alias(), right(err, "CREATE", "topic "+topic, c.Alias()))
	}
	return settled(ctx, c, topic)
}

// settled waits until the brokers know a topic that was just made.
func settled(ctx context.Context, c *cluster.Cluster, topic string) error {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	for {
		starts, err := c.Admin().ListStartOffsets(ctx, topic)
		if err == nil {
			err = starts.Error()
		}
		if err == nil || !kerr.IsRetriable(err) {
			return err
		}
		if pause.For(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("wait for topic %s of %s: %w", topic, c.Alias(), err)
		}
	}
}

// checkCompacted refuses a topic that would forget checkpoints. What it may not
// ask it lets pass.
func checkCompacted(ctx context.Context, c *cluster.Cluster, topic string) error {
	configs, err := c.Admin().DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return nil //nolint:nilerr // not allowed to ask, most likely
	}
	settings, err := configs.On(topic, nil)
	if err != nil || settings.Err != nil {
		return nil //nolint:nilerr // as above
	}
	for _, s := range settings.Configs {
		if s.Key == "cleanup.policy" && s.Value != nil && strings.TrimSpace(*s.Value) != "compact" {
			return fmt.Errorf("use topic %s of %s: cleanup.policy is %q and would forget checkpoints; set it to compact", topic, c.Alias(), *s.Value)
		}
	}
	return nil
}

// right adds to a refused authorization what has to be granted.
func right(err error, operation, resource, cluster string) error {
	for _, refused := range []error{kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed} {
		if errors.Is(err, refused) {
			return fmt.Errorf("%w; grant %s on %s of cluster %s", err, operation, resource, cluster)
		}
	}
	return err
}

// contents is what a topic of checkpoints holds.
type contents struct {
	checkpoints map[Key]*Checkpoint
	fresh       map[string]Freshness // by instance
}

// readTopic reads a topic of checkpoints from its start to its present end.
func readTopic(ctx context.Context, c *cluster.Cluster, topic string) (contents, error) {
	out := contents{map[Key]*Checkpoint{}, map[string]Freshness{}}
	fail := func(err error) (contents, error) {
		return contents{}, fmt.Errorf("read checkpoints %s of %s: %w", topic, c.Alias(), right(err, "READ", "topic "+topic, c.Alias()))
	}
	starts, err := c.Admin().ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return fail(err)
	}
	ends, err := c.Admin().ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fail(err)
	}
	for _, start := range starts.Offsets().Sorted() {
		end, _ := ends.Lookup(topic, start.Partition)
		if err := out.readPartition(ctx, c, topic, start.Partition, start.At, end.Offset); err != nil {
			return fail(fmt.Errorf("partition %d: %w", start.Partition, err))
		}
	}
	return out, nil
}

// readPartition takes in the records of offsets [from, to). It fetches by itself,
// because a consumer does not tell when it has come to an end behind which
// compaction left no record. It asks once at least: that the topic may not be read
// has to be known before there is something in it.
func (c *contents) readPartition(ctx context.Context, cl *cluster.Cluster, topic string, partition int32, from, to int64) error {
	for asked := false; !asked || from < to; {
		next, err := c.fetch(ctx, cl, topic, partition, from)
		switch {
		case err == nil:
			from, asked = next, true
			continue
		case ctx.Err() != nil:
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case !kerr.IsRetriable(err) && !kgo.IsRetryableBrokerErr(err) && !errors.Is(err, errNoPartition):
			return err
		}
		if err := pause.For(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// errNoPartition says that an answer has not what was asked for: a broker answers so
// whoever is over a quota. The client then waits as long as the broker wants.
var errNoPartition = errors.New("the answer is without the partition")

// fetch takes in what one answer of the leader holds and returns the next offset.
func (c *contents) fetch(ctx context.Context, cl *cluster.Cluster, topic string, partition int32, from int64) (int64, error) {
	topics, err := cl.Admin().ListTopicsWithInternal(ctx, topic)
	if err != nil {
		return 0, err
	}
	detail := topics[topic].Partitions[partition]
	if err := errors.Join(topics[topic].Err, detail.Err); err != nil {
		return 0, err
	}
	req := kmsg.NewPtrFetchRequest()
	req.MinBytes, req.MaxWaitMillis, req.MaxBytes, req.SessionEpoch = 0, 500, 4<<20, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic, topics[topic].ID
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = partition, from, 4<<20, detail.LeaderEpoch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := cl.Client().Broker(int(detail.Leader)).RetriableRequest(ctx, req)
	if err != nil {
		return 0, err
	}
	fetched := resp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(fetched.ErrorCode); err != nil {
		return 0, err
	}
	if len(fetched.Topics) == 0 {
		return 0, errNoPartition
	}
	next := from
	for _, t := range fetched.Topics {
		for i := range t.Partitions {
			got, after := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: topic, Partition: partition, Offset: from}, &t.Partitions[i], kgo.DefaultDecompressor(), nil)
			if got.Err != nil {
				return 0, got.Err
			}
			for _, r := range got.Records {
				if err := c.take(r); err != nil {
					return 0, err
				}
			}
			next = after
		}
	}
	return next, nil
}

func (c *contents) take(r *kgo.Record) error {
	e, err := decode(r.Key, r.Value)
	if err != nil {
		if newer, ok := errors.AsType[*VersionError](err); ok {
			newer.Topic, newer.Partition, newer.Offset = r.Topic, r.Partition, r.Offset
		} else if corrupt, ok := errors.AsType[*CorruptError](err); ok {
			corrupt.Topic, corrupt.Partition, corrupt.Offset = r.Topic, r.Partition, r.Offset
		}
		return err
	}
	switch {
	case e.checkpoint != nil && e.deleted:
		delete(c.checkpoints, e.checkpoint.Key)
	case e.checkpoint != nil:
		c.checkpoints[e.checkpoint.Key] = e.checkpoint
	case e.deleted:
		delete(c.fresh, e.fresh.Instance)
	default:
		e.fresh.Said = r.Timestamp
		c.fresh[e.fresh.Instance] = *e.fresh
	}
	return nil
}

// sorted returns the checkpoints in the order of tables.
func (c *contents) sorted() []*Checkpoint {
	out := make([]*Checkpoint, 0, len(c.checkpoints))
	for _, cp := range c.checkpoints {
		out = append(out, cp)
	}
	slices.SortFunc(out, func(a, b *Checkpoint) int { return a.compare(b.Key) })
	return out
}
