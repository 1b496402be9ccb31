package compare

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
	"github.com/twmb/franz-go/pkg/kversion"

	"replicator/internal/pause"
)

const (
	fetchBytes = 1 << 20          // per fetch answer and partition
	patience   = 30 * time.Second // without progress before a read gives up
	emptyLimit = 3                // empty answers below the end before the rest counts as a hole
)

// Cluster says how to reach a cluster: the options of a kgo client.
type Cluster []kgo.Opt

// Seeds is a Cluster reached in plain text through these brokers.
func Seeds(addrs ...string) Cluster { return Cluster{kgo.SeedBrokers(addrs...)} }

// reader reads partitions of one cluster by offset.
type reader struct {
	client *kgo.Client
	admin  *kadm.Client
	decode kgo.Decompressor

	mu      sync.Mutex
	leaders map[string]map[int32]int32 // topic -> partition -> broker
}

func newReader(c Cluster) (*reader, error) {
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(1, 12) // Fetch by topic name; ids come with 13
	opts := append([]kgo.Opt{kgo.ClientID("compare")}, c...)
	opts = append(opts, kgo.MaxVersions(versions), kgo.MetadataMinAge(50*time.Millisecond))
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &reader{
		client:  client,
		admin:   kadm.NewClient(client),
		decode:  decompressor{kgo.DefaultDecompressor()},
		leaders: make(map[string]map[int32]int32),
	}, nil
}

func (r *reader) close() { r.client.Close() }

// bounds are the offsets of a partition: [start, end), end being the last
// stable offset.
type bounds struct{ start, end int64 }

// bounds lists log start and last stable offset of every partition of the
// topics. Topics that do not exist are left out.
func (r *reader) bounds(ctx context.Context, topics ...string) (map[string]map[int32]bounds, error) {
	known, err := r.admin.ListTopics(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("list topics: %w", err)
	}
	var present []string
	for _, t := range topics {
		switch d, ok := known[t]; {
		case !ok, errors.Is(d.Err, kerr.UnknownTopicOrPartition):
		case d.Err != nil:
			return nil, fmt.Errorf("describe topic %s: %w", t, d.Err)
		default:
			present = append(present, t)
		}
	}
	out := make(map[string]map[int32]bounds)
	if len(present) == 0 {
		return out, nil
	}
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		out, err = r.boundsOnce(ctx, present)
		if err == nil || !kerr.IsRetriable(err) {
			return out, err
		}
		if pause.For(ctx, wait) != nil {
			return nil, err
		}
	}
}

func (r *reader) boundsOnce(ctx context.Context, topics []string) (map[string]map[int32]bounds, error) {
	ends, err := r.admin.ListCommittedOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("list end offsets: %w", err)
	}
	starts, err := r.admin.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("list start offsets: %w", err)
	}
	if err := errors.Join(ends.Error(), starts.Error()); err != nil {
		return nil, fmt.Errorf("list offsets: %w", errors.Join(ends.Error(), starts.Error()))
	}
	out := make(map[string]map[int32]bounds)
	for topic, ps := range ends {
		m := make(map[int32]bounds)
		for p, o := range ps {
			s, ok := starts.Lookup(topic, p)
			if !ok {
				return nil, fmt.Errorf("list start offset of %s-%d: no answer", topic, p)
			}
			m[p] = bounds{start: s.Offset, end: max(o.Offset, s.Offset)}
		}
		out[topic] = m
	}
	return out, nil
}

// leader is the broker that leads a partition, asked for again if fresh.
func (r *reader) leader(ctx context.Context, topic string, partition int32, fresh bool) (int32, error) {
	r.mu.Lock()
	id, ok := r.leaders[topic][partition]
	r.mu.Unlock()
	if ok && !fresh {
		return id, nil
	}
	topics, err := r.admin.ListTopics(ctx, topic)
	if err != nil {
		return -1, fmt.Errorf("find leader: %w", err)
	}
	d := topics[topic]
	if d.Err != nil {
		return -1, fmt.Errorf("find leader: %w", d.Err)
	}
	m := make(map[int32]int32, len(d.Partitions))
	for p, pd := range d.Partitions {
		m[p] = pd.Leader
	}
	r.mu.Lock()
	r.leaders[topic] = m
	r.mu.Unlock()
	id, ok = m[partition]
	if !ok || id < 0 {
		return -1, fmt.Errorf("find leader: %w", kerr.LeaderNotAvailable)
	}
	return id, nil
}

// fetch reads committed records from offset on. The returned next is where the
// following fetch has to start; it moves over control records, aborted data
// and holes too. Faults of brokers and connections are tried again until
// patience or ctx ends.
func (r *reader) fetch(ctx context.Context, topic string, partition int32, offset int64) (records []*kgo.Record, next, stable int64, err error) {
	deadline := time.Now().Add(patience)
	for wait, fresh := 20*time.Millisecond, false; ; wait, fresh = min(2*wait, time.Second), true {
		var final bool
		records, next, stable, final, err = r.fetchOnce(ctx, topic, partition, offset, fresh)
		if err == nil {
			return records, next, stable, nil
		}
		err = fmt.Errorf("fetch %s-%d at offset %d: %w", topic, partition, offset, err)
		if final || time.Now().After(deadline) {
			return nil, offset, 0, err
		}
		if cerr := pause.For(ctx, wait); cerr != nil {
			return nil, offset, 0, errors.Join(cerr, err)
		}
	}
}

func (r *reader) fetchOnce(ctx context.Context, topic string, partition int32, offset int64, fresh bool) (records []*kgo.Record, next, stable int64, final bool, err error) {
	broker, err := r.leader(ctx, topic, partition, fresh)
	if err != nil {
		return nil, 0, 0, false, err
	}
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID = -1
	req.MaxWaitMillis = 500
	req.MinBytes = 1
	req.MaxBytes = 2 * fetchBytes
	req.IsolationLevel = 1
	req.SessionEpoch = -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition = partition
	rp.FetchOffset = offset
	rp.LogStartOffset = -1
	rp.PartitionMaxBytes = fetchBytes
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)

	resp, err := req.RequestWith(ctx, r.client.Broker(int(broker)))
	if err != nil {
		return nil, 0, 0, false, fmt.Errorf("ask broker %d: %w", broker, err)
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, 0, 0, !kerr.IsRetriable(err), fmt.Errorf("broker %d: %w", broker, err)
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, 0, 0, false, fmt.Errorf("broker %d: answer without the partition", broker)
	}
	part := &resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(part.ErrorCode); err != nil {
		return nil, 0, 0, !kerr.IsRetriable(err) || errors.Is(err, kerr.OffsetOutOfRange), fmt.Errorf("broker %d: %w", broker, err)
	}
	got, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset:         offset,
		IsolationLevel: kgo.ReadCommitted(),
		Topic:          topic,
		Partition:      partition,
	}, part, r.decode, nil)
	if got.Err != nil {
		return nil, 0, 0, true, fmt.Errorf("decode answer of broker %d: %w", broker, got.Err)
	}
	if next == offset && len(part.RecordBatches) > 0 {
		return nil, 0, 0, true, fmt.Errorf("decode answer of broker %d: %d bytes hold no whole batch", broker, len(part.RecordBatches))
	}
	stampMessages(part.RecordBatches, got.Records)
	return got.Records, next, part.LastStableOffset, false, nil
}

// read hands the committed records of [from, to) to fn, one fetch answer at a
// time. fn keeps what it is given.
func (r *reader) read(ctx context.Context, topic string, partition int32, from, to int64, fn func([]*kgo.Record) error) error {
	empty := 0
	for next := from; next < to; {
		records, after, stable, err := r.fetch(ctx, topic, partition, next)
		if err != nil {
			return err
		}
		if after > next {
			empty = 0
		} else if empty++; empty >= emptyLimit {
			if stable >= to {
				return nil // nothing but a hole is left below the end
			}
			return fmt.Errorf("read %s-%d: stable end went back to offset %d, below %d", topic, partition, stable, to)
		}
		for len(records) > 0 && records[len(records)-1].Offset >= to {
			records = records[:len(records)-1]
		}
		if len(records) > 0 {
			if err := fn(records); err != nil {
				return err
			}
		}
		next = after
	}
	return nil
}

// Read hands every committed record of a topic, from its log start to the
// stable end it has now, to fn: partition after partition, in order. It is the
// comparer's reader, for tests that check content against something else than
// a topic. A topic that does not exist is an error.
func Read(ctx context.Context, c Cluster, topic string, fn func(*kgo.Record) error) error {
	r, err := newReader(c)
	if err != nil {
		return err
	}
	defer r.close()
	all, err := r.bounds(ctx, topic)
	if err != nil {
		return err
	}
	parts, ok := all[topic]
	if !ok {
		return fmt.Errorf("read %s: %w", topic, kerr.UnknownTopicOrPartition)
	}
	for p := range int32(len(parts)) {
		b := parts[p]
		err := r.read(ctx, topic, p, b.start, b.end, func(records []*kgo.Record) error {
			for _, rec := range records {
				if err := fn(rec); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
