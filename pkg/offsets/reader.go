package offsets

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"replicator/internal/pause"
)

const (
	probeAfter = 20 * time.Millisecond  // Sync looks itself when the reader has not come by
	probeEvery = 250 * time.Millisecond // and again
	retryAfter = 100 * time.Millisecond // a request that failed for a passing reason
	goneAfter  = 5 * time.Second        // brokers that start may not know a topic for a moment
)

// read follows the journal until it is closed or cannot be read.
func (j *Journal) read() {
	for {
		fetches := j.client.PollFetches(j.ctx)
		if j.ctx.Err() != nil || fetches.IsClientClosed() {
			return
		}
		var trouble error
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			// Records before an error are good.
			if n := len(p.Records); n > 0 {
				j.take(p.Partition, p.Records, p.Records[n-1].Offset+1)
			}
			if p.Err != nil {
				trouble = p.Err
				j.readFailed(p.Partition, p.Err)
			}
		})
		if j.Err() != nil {
			return
		}
		if trouble != nil {
			j.mu.Lock()
			j.readErr = trouble
			j.mu.Unlock()
			if errors.Is(trouble, kerr.UnknownTopicOrPartition) || errors.Is(trouble, kerr.UnknownTopicID) || errors.Is(trouble, kerr.InconsistentTopicID) {
				if _, err := j.leaders(j.ctx); err != nil && j.Err() != nil {
					return
				}
			}
			_ = pause.For(j.ctx, retryAfter)
		}
	}
}

// readFailed decides what an error of a fetch means: records that are gone end the journal, all
// others pass or keep Sync waiting.
func (j *Journal) readFailed(partition int32, err error) {
	var loss *kgo.ErrDataLoss
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange), errors.As(err, &loss):
		j.fail(&TopicError{Topic: j.cfg.Topic, Reason: fmt.Sprintf("partition %d has lost records already read: %v", partition, err)})
	case !kerr.IsRetriable(err):
		if j.news(err) {
			j.log.Warn("reading the journal failed, trying again", zap.String("topic", j.cfg.Topic), zap.Int32("partition", partition), zap.Error(right(err, "READ", j.cfg.Topic)))
		}
	}
}

// news says whether an error of the reader is another than the last: it tries
// ten times a second.
func (j *Journal) news(err error) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.readErr == nil || j.readErr.Error() != err.Error()
}

// take applies records of a partition, in order, and moves the reader to next. What was applied
// before is left out, so that more than one may read.
func (j *Journal) take(partition int32, records []*kgo.Record, next int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.usable() != nil || int(partition) >= len(j.next) {
		return
	}
	before := j.next[partition]
	for _, r := range records {
		if r.Offset < j.next[partition] {
			continue
		}
		if err := j.takeRecord(r); err != nil {
			j.failLocked(err)
			return
		}
		j.next[partition] = r.Offset + 1
	}
	j.next[partition] = max(j.next[partition], next)
	if j.next[partition] > before {
		j.readErr = nil
		j.wake()
	}
}

func (j *Journal) takeRecord(r *kgo.Record) error {
	e, err := DecodeEntry(r.Key, r.Value)
	if err != nil {
		if newer, ok := errors.AsType[*VersionError](err); ok {
			newer.Topic, newer.Partition, newer.Offset = r.Topic, r.Partition, r.Offset
		} else if corrupt, ok := errors.AsType[*CorruptError](err); ok {
			corrupt.Topic, corrupt.Partition, corrupt.Offset = r.Topic, r.Partition, r.Offset
		}
		return err
	}
	name := e.Key().Lane
	if want := j.Partition(name); want != r.Partition {
		return &TopicError{Topic: r.Topic, Reason: fmt.Sprintf(
			"an entry of lane %v is in partition %d (offset %d) and belongs in %d: the number of partitions was changed; make a topic with the old number and copy the entries, partition by partition",
			name, r.Partition, r.Offset, want)}
	}
	l := j.lane(name)
	l.apply(e)
	if l.empty() {
		delete(j.lanes, name)
	}
	return nil
}

// lane returns the facts of a lane, none to begin with. Called with the lock held.
func (j *Journal) lane(name Lane) *lane {
	l := j.lanes[name]
	if l == nil {
		l = newLane(name)
		j.lanes[name] = l
	}
	return l
}

// Sync waits until the reader has passed what is now the end of the lanes' journal partitions, as
// their leaders say. It costs two requests when nothing is to be read.
func (j *Journal) Sync(ctx context.Context, lanes []Lane) error {
	seen := make(map[int32]bool, len(j.next))
	var partitions []int32
	for _, l := range lanes {
		if p := j.Partition(l); !seen[p] {
			seen[p] = true
			partitions = append(partitions, p)
		}
	}
	if err := j.sync(ctx, partitions); err != nil {
		return fmt.Errorf("sync journal %s: %w", j.cfg.Topic, err)
	}
	return nil
}

func (j *Journal) sync(ctx context.Context, partitions []int32) error {
	ends := make(map[int32]int64, len(partitions))
	for {
		err := j.listEnds(ctx, partitions, ends)
		if err == nil {
			break
		}
		if fatal := j.check(); fatal != nil {
			return fatal
		}
		if !kerr.IsRetriable(err) && !kgo.IsRetryableBrokerErr(err) && !errors.Is(err, errStale) {
			return err
		}
		_ = pause.For(ctx, retryAfter)
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
	}
	return j.await(ctx, ends)
}

func (j *Journal) check() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.usable()
}

// await waits until the reader has passed the ends. The reader gives no sign when the records up
// to there were compacted away or are control records, so after a moment it looks itself.
func (j *Journal) await(ctx context.Context, ends map[int32]int64) error {
	probe := time.NewTimer(probeAfter)
	defer probe.Stop()
	for {
		j.mu.Lock()
		err, behind, advanced, readErr := j.usable(), int32(-1), j.advanced, j.readErr
		for p, end := range ends {
			if j.next[p] < end {
				behind = p
			}
		}
		j.mu.Unlock()
		if err != nil || behind < 0 {
			return err
		}
		if errors.Is(readErr, kerr.TopicAuthorizationFailed) {
			return fmt.Errorf("partition %d is not read to its end: %w", behind, right(readErr, "READ", j.cfg.Topic))
		}
		select {
		case <-advanced:
		case <-probe.C:
			if err := j.probe(ctx, behind); err != nil {
				j.log.Debug("looking at the journal's end failed", zap.Int32("partition", behind), zap.Error(err))
			}
			probe.Reset(probeEvery)
		case <-ctx.Done():
			if readErr != nil {
				return fmt.Errorf("%w: partition %d is not read to its end: %w", ctx.Err(), behind, right(readErr, "READ", j.cfg.Topic))
			}
			return fmt.Errorf("%w: partition %d is not read to its end", ctx.Err(), behind)
		}
	}
}

// probe fetches once from where the reader is, on its own, and takes what comes.
func (j *Journal) probe(ctx context.Context, partition int32) error {
	leaders, err := j.leaders(ctx)
	if err != nil {
		return err
	}
	j.mu.Lock()
	from := j.next[partition]
	j.mu.Unlock()
	req := kmsg.NewPtrFetchRequest()
	req.MinBytes, req.MaxBytes, req.SessionEpoch = 1, 4<<20, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = j.cfg.Topic, j.topic.id
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, from, 4<<20
	p.CurrentLeaderEpoch = leaders[partition].epoch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := j.client.Broker(int(leaders[partition].broker)).RetriableRequest(ctx, req)
	if err != nil {
		return err
	}
	fetch := resp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(fetch.ErrorCode); err != nil {
		return err
	}
	for _, t := range fetch.Topics {
		for i := range t.Partitions {
			fp, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Topic: j.cfg.Topic, Partition: partition, Offset: from},
				&t.Partitions[i], kgo.DefaultDecompressor(), nil)
			if fp.Err != nil {
				j.readFailed(partition, fp.Err)
				return fp.Err
			}
			j.take(partition, fp.Records, next)
		}
	}
	return nil
}

// fetchHook notes when a broker last answered a fetch.
type fetchHook struct{ heard *atomic.Int64 }

var _ kgo.HookBrokerRead = fetchHook{}

// OnBrokerRead is called by the client for every answer.
func (h fetchHook) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == 1 && err == nil {
		h.heard.Store(time.Now().UnixNano())
	}
}
