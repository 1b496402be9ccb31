package offsets

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/pause"
	"replicator/pkg/cluster"
	"replicator/pkg/wire"
)

// tailReader reads the ends of many target partitions, a connection a leader.
type tailReader struct {
	cluster *cluster.Cluster
	pending []*tailLog // not read yet
}

const (
	tailAnswerBytes    = 8 << 20 // of one fetch; the frame lies in the cluster's pool
	tailPartitionBytes = 1 << 20
	emptyAnswers       = 20 // in a row, of a tenth of a second each: there is nothing more to read

	// leaderPatience is how long leaders are waited for while no other log comes to its end: as
	// long as a controller takes to miss a broker (broker.session.timeout.ms, 9 s by default).
	leaderPatience = 10 * time.Second
	// offlinePatience is that of partitions whose replicas are all on brokers that the controller
	// misses already: there is no leader until one of these is back, which may take hours.
	offlinePatience = 2 * time.Second
)

var errOffline = errors.New("all its replicas are on brokers that are down")

// refused is an answer that will not get better.
type refused struct{ error }

func (e refused) Unwrap() error { return e.error }

// read reads all logs. Those that could not be read when ctx ends, or for whose leader has been
// waited long enough, keep the last error.
func (r *tailReader) read(ctx context.Context) {
	for since := time.Now(); len(r.pending) > 0; {
		byBroker := r.leaders(ctx)
		var wg sync.WaitGroup
		for broker, logs := range byBroker {
			wg.Go(func() {
				if err := r.readFrom(ctx, broker, logs); err != nil {
					for _, t := range logs {
						if !t.done() {
							t.err = err
						}
					}
				}
			})
		}
		wg.Wait()
		var left []*tailLog
		for _, t := range r.pending {
			if !t.done() {
				left = append(left, t)
			}
		}
		if len(left) < len(r.pending) {
			since = time.Now()
		}
		r.pending = left
		patience := offlinePatience
		if slices.ContainsFunc(left, func(t *tailLog) bool { return !errors.Is(t.err, errOffline) }) {
			patience = leaderPatience
		}
		if len(left) > 0 && time.Since(since) > patience {
			return
		}
		if len(left) > 0 {
			_ = pause.For(ctx, retryAfter)
		}
		if ctx.Err() != nil {
			for _, t := range left {
				t.err = fmt.Errorf("%w: %w", context.Cause(ctx), t.err)
			}
			return
		}
	}
}

// done tells whether the log has been read to its end, or never will be.
func (t *tailLog) done() bool {
	return t.err == nil && t.end >= 0 && t.next >= t.end || errors.As(t.err, new(refused))
}

// answered notes the code of a broker's answer; it reports whether the answer is good.
func (t *tailLog) answered(code int16) bool {
	err := kerr.ErrorForCode(code)
	switch {
	case err == nil:
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		t.err = refused{right(err, "READ", t.topic)}
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.OffsetOutOfRange), kerr.IsRetriable(err):
		t.err = err
	default:
		t.err = refused{err}
	}
	return err == nil
}

// leaders groups the pending logs by the broker that leads them; those without one get the error.
func (r *tailReader) leaders(ctx context.Context) map[int32][]*tailLog {
	topics := byTopic(r.pending)
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range sortedTopics(topics) {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(name)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, r.cluster.Client())
	for _, t := range r.pending {
		t.err = fmt.Errorf("find the leader: %w", kerr.LeaderNotAvailable)
		if err != nil {
			t.err = fmt.Errorf("find the leader: %w", err)
		}
	}
	byBroker := map[int32][]*tailLog{}
	if err != nil {
		return byBroker
	}
	for _, answer := range resp.Topics {
		if answer.Topic == nil {
			continue
		}
		partitions := map[int32]*kmsg.MetadataResponseTopicPartition{}
		for i := range answer.Partitions {
			partitions[answer.Partitions[i].Partition] = &answer.Partitions[i]
		}
		for _, t := range topics[*answer.Topic] {
			p := partitions[t.lane.Partition]
			switch {
			case !t.answered(answer.ErrorCode):
				if errors.Is(t.err, kerr.UnknownTopicOrPartition) {
					t.err = refused{errors.New("the topic does not exist on the target")}
				}
			case p == nil:
				t.err = refused{fmt.Errorf("the topic has %d partitions on the target", len(answer.Partitions))}
			case p.Leader >= 0:
				t.topicID = answer.TopicID
				byBroker[p.Leader] = append(byBroker[p.Leader], t)
			case len(p.Replicas) > 0 && !slices.ContainsFunc(p.Replicas, func(b int32) bool { return !slices.Contains(p.OfflineReplicas, b) }):
				t.err = fmt.Errorf("find the leader: %w: %w, %d", kerr.LeaderNotAvailable, errOffline, p.Replicas)
			}
		}
	}
	return byBroker
}

// readFrom reads the logs one broker leads. What is wrong with one log is noted there.
func (r *tailReader) readFrom(ctx context.Context, broker int32, logs []*tailLog) error {
	conn, err := r.cluster.Connect(ctx, broker)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, t := range logs {
		t.err, t.start, t.end, t.next, t.runs = nil, -1, -1, -1, nil
	}
	for _, ask := range []struct {
		timestamp int64
		note      func(*tailLog, int64)
	}{
		{-2, func(t *tailLog, start int64) { t.start = start }},
		// Asked for by this request, because right after an election the end in a fetch's answer
		// may be too low, and this one is then refused instead.
		{-1, func(t *tailLog, end int64) { t.end = end }},
	} {
		if err := listTails(ctx, conn, logs, ask.timestamp, ask.note); err != nil {
			return fmt.Errorf("list offsets: %w", err)
		}
	}
	session := wire.NewFetchSession()
	reading := map[Lane]*tailLog{}
	for _, t := range logs {
		switch {
		case t.err != nil:
			continue
		case t.start < 0 || t.end < 0:
			t.err = fmt.Errorf("list offsets: partition is missing in the answer: %w", errStale)
			continue
		}
		t.next = t.end
		if _, opened := t.before.Last(); opened && t.before.view().end().Target < t.end {
			t.next = max(t.start, t.before.view().end().Target-1) // with the last record the journal knows of
		}
		key := Lane{t.topic, t.lane.Partition}
		if reading[key] != nil {
			t.err = refused{errors.New("another lane has the same target partition")}
			continue
		}
		if t.next < t.end {
			reading[key] = t
			t.fetchNext(session)
		}
	}
	for empty := 0; len(reading) > 0; {
		resp, err := conn.Fetch(ctx, session, wire.FetchOptions{MaxWait: 100 * time.Millisecond, MinBytes: 1, MaxBytes: tailAnswerBytes})
		if err != nil {
			return fmt.Errorf("fetch: %w", err)
		}
		if resp.Throttle == 0 || len(resp.Partitions) > 0 {
			empty++
		} // else we are over a quota, and such an answer says nothing of the logs
		for i := range resp.Partitions {
			p := &resp.Partitions[i]
			if len(p.Records) > 0 || p.ErrorCode != 0 {
				empty = 0
			}
			key := Lane{p.Topic, p.Partition}
			t := reading[key]
			if t == nil {
				continue
			}
			if t.answered(p.ErrorCode) {
				t.err = t.take(p.Records)
			}
			if t.err == nil && t.next < t.end {
				t.fetchNext(session)
				continue
			}
			delete(reading, key)
			session.Forget(p.Topic, p.Partition)
		}
		resp.Frame.Release()
		if empty == emptyAnswers {
			// Compaction can leave a log without a batch at its end.
			for _, t := range reading {
				t.next = t.end
			}
			return nil
		}
	}
	return nil
}

func (t *tailLog) fetchNext(s *wire.FetchSession) {
	s.Set(t.topic, t.topicID, t.lane.Partition, wire.FetchPosition{Offset: t.next, LeaderEpoch: -1, LastEpoch: -1, MaxBytes: tailPartitionBytes})
}

// take notes the batches of an answer, as far as they lie below the end.
func (t *tailLog) take(records []byte) error {
	for len(records) > 0 && t.next < t.end {
		entry, rest, err := wire.Split(records)
		if errors.Is(err, wire.ErrPartial) {
			return nil
		}
		if err != nil {
			return refused{err}
		}
		records = rest
		run := logRun{writer: Writer{-1, -1}, sequence: -1, base: t.next, next: wire.NextOffset(entry)}
		if wire.Magic(entry) == 2 {
			b := wire.Batch(entry)
			if err := b.Verify(); err != nil {
				return refused{err}
			}
			run = logRun{
				writer: Writer{b.ProducerID(), b.ProducerEpoch()}, control: b.IsControl(),
				sequence: int64(b.BaseSequence()), base: b.BaseOffset(), next: b.NextOffset(),
			}
		}
		if run.next <= t.next {
			continue
		}
		if err := t.add(run); err != nil {
			return refused{err}
		}
		t.next = run.next
	}
	return nil
}

// listTails asks a broker for an offset of each of the logs that have no error.
func listTails(ctx context.Context, conn *wire.Conn, logs []*tailLog, timestamp int64, note func(*tailLog, int64)) error {
	topics := byTopic(logs)
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	asked := map[Lane]*tailLog{}
	for _, name := range sortedTopics(topics) {
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = name
		for _, t := range topics[name] {
			if t.err != nil {
				continue
			}
			p := kmsg.NewListOffsetsRequestTopicPartition()
			p.Partition, p.CurrentLeaderEpoch, p.Timestamp = t.lane.Partition, -1, timestamp
			rt.Partitions = append(rt.Partitions, p)
			asked[Lane{name, t.lane.Partition}] = t
		}
		if len(rt.Partitions) > 0 {
			req.Topics = append(req.Topics, rt)
		}
	}
	if len(asked) == 0 {
		return nil
	}
	resp, err := conn.Request(ctx, req)
	if err != nil {
		return err
	}
	for _, rt := range resp.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range rt.Partitions {
			if t := asked[Lane{rt.Topic, p.Partition}]; t != nil && t.answered(p.ErrorCode) {
				note(t, p.Offset)
			}
		}
	}
	return nil
}
