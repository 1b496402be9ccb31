package stranded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/pause"
	"replicator/pkg/cluster"
)

const (
	fetchBytes   = 1 << 20          // of one answer
	patience     = 60 * time.Second // without an answer, before a read gives up
	emptyAnswers = 5                // in a row below the last stable offset: no record is left there
)

// reader reads partitions of a cluster from one offset to another, as a read_committed consumer
// sees them. It asks for offsets itself: a consumer does not say where it is when a log
// ends in control records, aborted records or holes.
type reader struct {
	cluster *cluster.Cluster
	decode  kgo.Decompressor

	mu     sync.Mutex
	topics map[string]kadm.TopicDetail
}

func newReader(c *cluster.Cluster) *reader {
	return &reader{cluster: c, decode: kgo.DefaultDecompressor(), topics: map[string]kadm.TopicDetail{}}
}

// final is an error that will not get better.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// topic returns what the cluster says of a topic, asked for again if fresh.
func (r *reader) topic(ctx context.Context, name string, fresh bool) (kadm.TopicDetail, error) {
	r.mu.Lock()
	t, ok := r.topics[name]
	r.mu.Unlock()
	if ok && !fresh {
		return t, nil
	}
	all, err := r.cluster.Admin().ListTopics(ctx, name)
	if err == nil {
		t = all[name]
		err = t.Err
	}
	if err != nil {
		err = r.right(err, "DESCRIBE", name)
		if errors.Is(err, kerr.TopicAuthorizationFailed) {
			err = final{err}
		}
		return t, fmt.Errorf("describe topic %s of cluster %s: %w", name, r.cluster.Alias(), err)
	}
	r.mu.Lock()
	r.topics[name] = t
	r.mu.Unlock()
	return t, nil
}

func (r *reader) right(err error, operation, topic string) error {
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		return fmt.Errorf("%w; grant %s on topic %s of cluster %s", err, operation, topic, r.cluster.Alias())
	}
	return err
}

// bounds are where a partition's log begins, up to where it is stable, and where it ends.
type bounds struct{ start, stable, end int64 }

// bounds asks for those of all partitions of a topic, until the leaders answer.
func (r *reader) bounds(ctx context.Context, topic string) (map[int32]bounds, error) {
	deadline := time.Now().Add(patience)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		all, err := r.boundsOnce(ctx, topic)
		if err == nil || ctx.Err() != nil || !kerr.IsRetriable(err) || time.Now().After(deadline) {
			return all, err
		}
		if perr := pause.For(ctx, wait); perr != nil {
			return nil, fmt.Errorf("%w: %w", perr, err)
		}
	}
}

func (r *reader) boundsOnce(ctx context.Context, topic string) (map[int32]bounds, error) {
	all := map[int32]bounds{}
	for _, ask := range []struct {
		list func(context.Context, ...string) (kadm.ListedOffsets, error)
		note func(*bounds, int64)
	}{
		// The last stable offset first: the end is never below it.
		{r.cluster.Admin().ListStartOffsets, func(b *bounds, o int64) { b.start = o }},
		{r.cluster.Admin().ListCommittedOffsets, func(b *bounds, o int64) { b.stable = o }},
		{r.cluster.Admin().ListEndOffsets, func(b *bounds, o int64) { b.end = o }},
	} {
		listed, err := ask.list(ctx, topic)
		if err == nil {
			err = listed.Error()
		}
		if err != nil {
			return nil, fmt.Errorf("list offsets of topic %s of cluster %s: %w", topic, r.cluster.Alias(), r.right(err, "DESCRIBE", topic))
		}
		for p, o := range listed[topic] {
			b := all[p]
			ask.note(&b, o.Offset)
			all[p] = b
		}
	}
	return all, nil
}

// read gives the records of [from, to) to f, an answer at a time. f may keep them.
func (r *reader) read(ctx context.Context, topic string, partition int32, from, to int64, f func([]*kgo.Record) error) error {
	empty := 0
	for next := from; next < to; {
		records, after, stable, err := r.fetch(ctx, topic, partition, next)
		if err != nil {
			return fmt.Errorf("read %s-%d of cluster %s at offset %d: %w", topic, partition, r.cluster.Alias(), next, err)
		}
		if after > next {
			empty = 0
		} else if empty++; empty == emptyAnswers {
			if stable < to {
				return fmt.Errorf("read %s-%d of cluster %s: it was stable up to offset %d and is now up to %d: it lost its tail", topic, partition, r.cluster.Alias(), to, stable)
			}
			return nil // compaction left no record up to the end
		}
		for len(records) > 0 && records[len(records)-1].Offset >= to {
			records = records[:len(records)-1]
		}
		if len(records) > 0 {
			if err := f(records); err != nil {
				return err
			}
		}
		next = after
	}
	return nil
}

// fetch reads from an offset on, and says where to go on and up to where the log is stable. What
// brokers and connections fail with is tried again for a while.
func (r *reader) fetch(ctx context.Context, topic string, partition int32, offset int64) (records []*kgo.Record, next, stable int64, err error) {
	deadline := time.Now().Add(patience)
	for wait, fresh := 20*time.Millisecond, false; ; wait, fresh = min(2*wait, 2*time.Second), true {
		records, next, stable, err = r.fetchOnce(ctx, topic, partition, offset, fresh)
		if err == nil || ctx.Err() != nil || errors.As(err, new(final)) || time.Now().After(deadline) {
			return records, next, stable, err
		}
		if perr := pause.For(ctx, wait); perr != nil {
			return nil, 0, 0, fmt.Errorf("%w: %w", perr, err)
		}
	}
}

func (r *reader) fetchOnce(ctx context.Context, topic string, partition int32, offset int64, fresh bool) (records []*kgo.Record, next, stable int64, err error) {
	t, err := r.topic(ctx, topic, fresh)
	if err != nil {
		return nil, 0, 0, err
	}
	p, ok := t.Partitions[partition]
	if !ok || p.Leader < 0 {
		return nil, 0, 0, kerr.LeaderNotAvailable
	}
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID = -1
	req.MaxWaitMillis = 200
	req.MinBytes = 1
	req.MaxBytes = fetchBytes
	req.IsolationLevel = 1
	req.SessionEpoch = -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic, t.ID
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.LogStartOffset, rp.PartitionMaxBytes = partition, offset, -1, fetchBytes
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, r.cluster.Client().Broker(int(p.Leader)))
	if err != nil {
		return nil, 0, 0, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, 0, 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, 0, 0, errors.New("the partition is missing in the answer")
	}
	part := &resp.Topics[0].Partitions[0]
	switch err := kerr.ErrorForCode(part.ErrorCode); {
	case err == nil:
	case kerr.IsRetriable(err) && !errors.Is(err, kerr.OffsetOutOfRange):
		return nil, 0, 0, err
	default:
		return nil, 0, 0, final{r.right(err, "READ", topic)}
	}
	got, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset: offset, IsolationLevel: kgo.ReadCommitted(), Topic: topic, Partition: partition,
	}, part, r.decode, nil)
	switch {
	case got.Err != nil:
		return nil, 0, 0, final{got.Err}
	case next == offset && len(part.RecordBatches) > 0:
		return nil, 0, 0, final{fmt.Errorf("%d bytes hold no whole batch", len(part.RecordBatches))}
	}
	return got.Records, next, part.LastStableOffset, nil
}

// divergence asks where the log ends that was written under a leader epoch: below offset, the log
// lost records that stood below it. It returns offset where it did not, or nobody knows.
func (r *reader) divergence(ctx context.Context, topic string, partition int32, epoch int32, offset int64) (int64, error) {
	if epoch < 0 {
		return offset, nil
	}
	req := kadm.OffsetForLeaderEpochRequest{}
	req.Add(topic, partition, epoch)
	deadline := time.Now().Add(patience)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		all, err := r.cluster.Admin().OffsetForLeaderEpoch(ctx, req)
		answer, ok := all[topic][partition]
		if err == nil && !ok {
			err = errors.New("the partition is missing in the answer")
		}
		if err == nil {
			err = answer.Err
		}
		if err == nil {
			if answer.EndOffset >= 0 && answer.EndOffset < offset {
				return answer.EndOffset, nil
			}
			return offset, nil
		}
		if ctx.Err() != nil || !kerr.IsRetriable(err) || time.Now().After(deadline) {
			return 0, fmt.Errorf("ask for the end of leader epoch %d of %s-%d: %w", epoch, topic, partition, r.right(err, "DESCRIBE", topic))
		}
		if perr := pause.For(ctx, wait); perr != nil {
			return 0, fmt.Errorf("%w: %w", perr, err)
		}
	}
}

// size is what a record counts against limits and in reports.
func size(r *kgo.Record) int64 {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return int64(n)
}
