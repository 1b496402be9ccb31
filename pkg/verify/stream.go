package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/time/rate"

	"replicator/internal/pause"
	"replicator/pkg/cluster"
	"replicator/pkg/wire"
)

const (
	nearAnswer   = 1 << 20  // bytes of a fetch's answer where a round trip takes no time
	farAnswer    = 4 << 20  // and the most over a distance
	farRate      = 64 << 20 // bytes a second that one lane is to be read with over a distance
	fetchWait    = 200 * time.Millisecond
	emptyAnswers = 5 // in a row, below an end the broker names: no record is left there
	maxFailures  = 8 // in a row, before a lane is given up
)

// answer is what one fetch brought, or where a log begins now.
type answer struct {
	frame   *wire.Frame // nil: no records
	records []byte
	aborted []wire.AbortedTxn
	start   int64 // first offset the log still holds, -1 unknown
	end     int64 // its high watermark, -1 unknown: the answer says nothing of the partition
	stable  int64 // up to where it may be read: the last stable offset, or the same
}

// reader reads lanes of one cluster, one after the other, for one worker.
type reader struct {
	cluster *cluster.Cluster
	side    string // "source" or "target", for errors
	stable  bool   // read_committed
	answer  int32  // bytes of an answer, 0: by the distance
	pool    *wire.Pool
	limit   *rate.Limiter
	leaders *leaders
	brokers map[int32]*broker
}

// broker is a connection and the session on it.
type broker struct {
	conn    *wire.Conn
	session *wire.FetchSession
}

func newReader(c *cluster.Cluster, side string, limit *rate.Limiter, l *leaders) *reader {
	// One answer is being compared, one waits. A pool of its own for each reader:
	// a side never waits for memory that the other one holds.
	return &reader{cluster: c, side: side, pool: wire.NewPool(3 * farAnswer), limit: limit, leaders: l, brokers: map[int32]*broker{}}
}

func (r *reader) close() {
	for _, b := range r.brokers {
		b.conn.Close()
	}
}

// partition is what is read.
type partition struct {
	topic    string
	number   int32
	from, to int64 // offsets of this side: [from, to)
}

// final is an error that will not get better.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

// read sends the answers that cover the partition's offsets to out, in order, and
// returns nil behind the last. Leaders that move are followed.
func (r *reader) read(ctx context.Context, p partition, out chan<- answer) error {
	next := p.from
	failures := 0
	for next < p.to {
		before := next
		err := r.attempt(ctx, p, &next, out)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if failures++; next > before {
			failures = 0
		}
		if errors.As(err, new(final)) || failures == maxFailures {
			return fmt.Errorf("read %s partition %s-%d at offset %d: %w", r.side, p.topic, p.number, next, err)
		}
		r.leaders.forget(p.topic)
		if err := pause.For(ctx, min(2*time.Second, 50*time.Millisecond<<failures)); err != nil {
			return err
		}
	}
	return nil
}

// attempt reads from the leader of the moment until that fails.
func (r *reader) attempt(ctx context.Context, p partition, next *int64, out chan<- answer) (err error) {
	id, topicID, err := r.leaders.of(ctx, p.topic, p.number)
	if err != nil {
		return err
	}
	b := r.brokers[id]
	if b == nil || b.conn.Err() != nil {
		conn, err := r.cluster.ConnectWith(ctx, id, r.pool)
		if err != nil {
			return err
		}
		b = &broker{conn, wire.NewFetchSession()}
		r.brokers[id] = b
	}
	defer func() {
		b.session.Forget(p.topic, p.number)
		if err != nil {
			b.session.Reset() // asked anew, the broker says all of it again
		}
	}()
	size := cmp.Or(r.answer, int32(min(farAnswer, nearAnswer+farRate*b.conn.RoundTrip().Seconds())))
	end, stable := int64(-1), int64(-1) // as last said: an answer leaves out what has not changed
	for empty := 0; *next < p.to; {
		b.session.Set(p.topic, topicID, p.number, wire.FetchPosition{Offset: *next, LeaderEpoch: -1, LastEpoch: -1, MaxBytes: size})
		resp, err := b.conn.Fetch(ctx, b.session, wire.FetchOptions{MaxWait: fetchWait, MinBytes: 1, MaxBytes: size, ReadCommitted: r.stable})
		if err != nil {
			return err
		}
		a, err := r.take(ctx, b.conn, p, next, resp)
		if err != nil {
			return err
		}
		if err := r.spend(ctx, len(a.records)); err != nil {
			a.release()
			return err
		}
		if a.end >= 0 {
			end, stable = a.end, a.stable
		}
		if a.frame == nil && a.start < 0 {
			if resp.Throttle > 0 && a.end < 0 {
				continue // over a quota, a broker says nothing; the connection waits as long as it wants
			}
			// Compaction can leave a log without a batch at its end.
			if empty++; empty < emptyAnswers {
				continue
			}
			switch {
			case stable >= p.to:
				*next = p.to
				return nil
			case end >= p.to:
				return fmt.Errorf("an open transaction at offset %d holds back what was copied already", stable)
			case end < 0:
				return errors.New("the answers are without the partition")
			}
			return final{fmt.Errorf("the log ends at offset %d, below %d, which the link's map knows: it has lost its tail", end, p.to)}
		}
		empty = 0
		select {
		case out <- a:
		case <-ctx.Done():
			a.release()
			return context.Cause(ctx)
		}
	}
	return nil
}

func (a *answer) release() {
	if a.frame != nil {
		a.frame.Release()
	}
}

// take turns a fetch's answer into ours and moves next behind it.
func (r *reader) take(ctx context.Context, conn *wire.Conn, p partition, next *int64, resp *wire.FetchResponse) (answer, error) {
	a := answer{frame: resp.Frame, start: -1, end: -1, stable: -1}
	for i := range resp.Partitions {
		f := &resp.Partitions[i]
		if f.Partition != p.number || f.Topic != "" && f.Topic != p.topic {
			continue
		}
		a.end, a.stable = f.HighWatermark, f.HighWatermark
		if r.stable {
			a.stable = f.LastStable
		}
		if err := kerr.ErrorForCode(f.ErrorCode); err != nil {
			a.release()
			return r.refused(ctx, conn, p, next, err)
		}
		behind := *next
		for rest := f.Records; ; {
			entry, more, err := wire.Split(rest)
			if errors.Is(err, wire.ErrPartial) {
				break
			}
			if err != nil {
				a.release()
				return answer{}, final{err}
			}
			behind, rest = max(behind, wire.NextOffset(entry)), more
		}
		if behind > *next {
			*next = behind
			a.records, a.aborted, a.start = f.Records, append([]wire.AbortedTxn(nil), f.Aborted...), f.LogStart
			return a, nil
		}
	}
	a.release()
	a.frame = nil
	return a, nil
}

// refused deals with an error code. Where the log begins above what was asked for, it goes on there.
func (r *reader) refused(ctx context.Context, conn *wire.Conn, p partition, next *int64, err error) (answer, error) {
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange):
		start, err := logStart(ctx, conn, p)
		if err != nil {
			return answer{}, err
		}
		if start <= *next {
			return answer{}, final{fmt.Errorf("the log ends below it, but the link's map knows it: it has lost its tail")}
		}
		*next = start
		return answer{start: start, end: start}, nil
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return answer{}, final{fmt.Errorf("%w; grant READ on topic %s", err, p.topic)}
	case kerr.IsRetriable(err), errors.Is(err, kerr.UnknownTopicOrPartition):
		return answer{}, err
	}
	return answer{}, final{err}
}

// logStart asks the leader for the first offset of a log.
func logStart(ctx context.Context, conn *wire.Conn, p partition) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = p.topic
	part := kmsg.NewListOffsetsRequestTopicPartition()
	part.Partition, part.CurrentLeaderEpoch, part.Timestamp = p.number, -1, -2
	t.Partitions = append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	resp, err := conn.Request(ctx, req)
	if err != nil {
		return 0, fmt.Errorf("ask for the log's start: %w", err)
	}
	topics := resp.(*kmsg.ListOffsetsResponse).Topics
	if len(topics) != 1 || len(topics[0].Partitions) != 1 {
		return 0, errors.New("ask for the log's start: the answer does not have this partition")
	}
	found := topics[0].Partitions[0]
	if err := kerr.ErrorForCode(found.ErrorCode); err != nil {
		return 0, fmt.Errorf("ask for the log's start: %w", err)
	}
	return found.Offset, nil
}

// spend waits until n bytes more may have been read.
func (r *reader) spend(ctx context.Context, n int) error {
	if r.limit == nil {
		return nil
	}
	for n > 0 {
		part := min(n, r.limit.Burst())
		if err := r.limit.WaitN(ctx, part); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// leaders knows who leads the partitions of a cluster. It is shared by the workers.
type leaders struct {
	cluster *cluster.Cluster

	mu     sync.Mutex
	topics map[string]topicLeaders
}

type topicLeaders struct {
	id      [16]byte // zero if unknown
	brokers map[int32]int32
}

// of returns the leader of a partition and the topic's id.
func (l *leaders) of(ctx context.Context, topic string, partition int32) (int32, [16]byte, error) {
	l.mu.Lock()
	t, ok := l.topics[topic]
	l.mu.Unlock()
	if !ok {
		var err error
		if t, err = l.ask(ctx, topic); err != nil {
			return 0, t.id, fmt.Errorf("find the leader: %w", err)
		}
		l.mu.Lock()
		l.topics[topic] = t
		l.mu.Unlock()
	}
	broker, ok := t.brokers[partition]
	switch {
	case !ok:
		return 0, t.id, final{fmt.Errorf("find the leader: the topic has %d partitions", len(t.brokers))}
	case broker < 0:
		return 0, t.id, fmt.Errorf("find the leader: %w", kerr.LeaderNotAvailable)
	}
	return broker, t.id, nil
}

func (l *leaders) forget(topic string) {
	l.mu.Lock()
	delete(l.topics, topic)
	l.mu.Unlock()
}

func (l *leaders) ask(ctx context.Context, topic string) (topicLeaders, error) {
	t := topicLeaders{brokers: map[int32]int32{}}
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, l.cluster.Client())
	if err != nil {
		return t, err
	}
	for _, answer := range resp.Topics {
		if answer.Topic == nil || *answer.Topic != topic {
			continue
		}
		err := kerr.ErrorForCode(answer.ErrorCode)
		switch {
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			return t, final{fmt.Errorf("%w; grant DESCRIBE on topic %s", err, topic)}
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			return t, final{fmt.Errorf("there is no topic %s: %w", topic, err)}
		case err != nil:
			return t, err
		}
		t.id = answer.TopicID
		for _, p := range answer.Partitions {
			t.brokers[p.Partition] = p.Leader
		}
		return t, nil
	}
	return t, errors.New("the answer has no topic")
}
