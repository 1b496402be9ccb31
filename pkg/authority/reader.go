package authority

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/pause"
)

const (
	retryPause = 100 * time.Millisecond // between two tries of a question
	fetchBytes = 1 << 20                // of one answer
	overQuota  = 10                     // answers in a row without what was asked for
)

// errMissing says that no broker knows the topic.
var errMissing = errors.New("the topic does not exist")

// errNoPartition says that an answer has not what was asked for.
var errNoPartition = errors.New("the answer is without the partition, as a broker answers whoever is over a quota")

// log is a topic of one partition, read to its last stable offset. It fetches by
// itself, because a consumer does not tell when it has come to an end behind which
// there is no record. A leader is asked once: if it does not answer, the next one
// has to be found first.
type log struct {
	client  *kgo.Client
	cluster string
	topic   string
}

// leader is who leads the partition, as the newest metadata has it.
type leader struct {
	id     [16]byte // of the topic
	broker int32
	epoch  int32
}

// locate finds the leader. That the topic is missing has to be said by all brokers
// that answer: one alone may not have heard of it yet.
func (l *log) locate(ctx context.Context) (leader, error) {
	found, brokers, err := l.metadata(ctx, l.client)
	if !errors.Is(err, errMissing) {
		return found, err
	}
	for _, b := range brokers {
		other, _, err := l.metadata(ctx, l.client.Broker(int(b)))
		if err == nil || notAuthorized(err) {
			return other, err
		}
	}
	return leader{}, errMissing
}

func (l *log) metadata(ctx context.Context, ask kmsg.Requestor) (leader, []int32, error) {
	req := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = new(l.topic)
	req.Topics = append(req.Topics, t)
	req.AllowAutoTopicCreation = false
	resp, err := req.RequestWith(ctx, ask)
	if err != nil {
		return leader{}, nil, fmt.Errorf("read metadata: %w", err)
	}
	var brokers []int32
	for _, b := range resp.Brokers {
		brokers = append(brokers, b.NodeID)
	}
	if len(resp.Topics) != 1 {
		return leader{}, brokers, fmt.Errorf("read metadata: %d topics in the answer", len(resp.Topics))
	}
	now := resp.Topics[0]
	err = kerr.ErrorForCode(now.ErrorCode)
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return leader{}, brokers, errMissing
	case err != nil:
		return leader{}, brokers, right(err, "READ", "topic "+l.topic, l.cluster)
	case len(now.Partitions) != 1:
		return leader{}, brokers, fmt.Errorf("the topic has %d partitions and has to have one", len(now.Partitions))
	case now.Partitions[0].Leader < 0:
		return leader{}, brokers, fmt.Errorf("find leader: %w", kerr.LeaderNotAvailable)
	}
	return leader{now.TopicID, now.Partitions[0].Leader, now.Partitions[0].LeaderEpoch}, brokers, nil
}

// The timestamps that ask ListOffsets for a place instead of a time.
const (
	atEnd   = -1 // the last stable offset, as it is asked read_committed
	atStart = -2
)

func (l *log) list(ctx context.Context, at leader, timestamp int64) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.IsolationLevel = 1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = l.topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	// With the epoch a leader that was replaced refuses to answer.
	p.Timestamp, p.CurrentLeaderEpoch = timestamp, at.epoch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := l.client.Broker(int(at.broker)).Request(ctx, req)
	if err != nil {
		return 0, fmt.Errorf("list offsets: %w", err)
	}
	answer := resp.(*kmsg.ListOffsetsResponse)
	if len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
		return 0, errors.New("list offsets: not one partition in the answer")
	}
	found := answer.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(found.ErrorCode); err != nil {
		return 0, fmt.Errorf("list offsets: %w", right(err, "READ", "topic "+l.topic, l.cluster))
	}
	return found.Offset, nil
}

// fetched is one answer.
type fetched struct {
	records []*kgo.Record
	next    int64 // offset to go on from
	stable  int64 // last stable offset
}

// fetch asks for committed records from an offset on, and waits for the first one
// at most that long. A broker that holds us to a quota answers with nothing, and is asked
// again: the client keeps the connection quiet for as long as the broker wants.
func (l *log) fetch(ctx context.Context, at leader, from int64, wait time.Duration) (fetched, error) {
	for n := 1; ; n++ {
		got, err := l.fetchOnce(ctx, at, from, wait)
		if n == overQuota || !errors.Is(err, errNoPartition) {
			return got, err
		}
		if ended := pause.For(ctx, retryPause); ended != nil {
			return got, fmt.Errorf("%w: %w", ended, err)
		}
	}
}

func (l *log) fetchOnce(ctx context.Context, at leader, from int64, wait time.Duration) (fetched, error) {
	req := kmsg.NewPtrFetchRequest()
	req.IsolationLevel = 1
	req.MaxBytes, req.SessionEpoch = fetchBytes, -1
	req.MaxWaitMillis = int32(wait.Milliseconds())
	if wait > 0 {
		req.MinBytes = 1
	}
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = l.topic, at.id
	p := kmsg.NewFetchRequestTopicPartition()
	p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = from, fetchBytes, at.epoch
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := l.client.Broker(int(at.broker)).Request(ctx, req)
	if err != nil {
		return fetched{}, fmt.Errorf("fetch: %w", err)
	}
	answer := resp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return fetched{}, fmt.Errorf("fetch: %w", err)
	}
	if len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
		return fetched{}, fmt.Errorf("fetch: %w", errNoPartition)
	}
	part := &answer.Topics[0].Partitions[0]
	got, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Topic: l.topic, Offset: from, IsolationLevel: kgo.ReadCommitted(),
	}, part, kgo.DefaultDecompressor(), nil)
	if got.Err != nil {
		return fetched{}, fmt.Errorf("fetch: %w", right(got.Err, "READ", "topic "+l.topic, l.cluster))
	}
	return fetched{got.Records, next, part.LastStableOffset}, nil
}

// scan gives every committed record from an offset, or the log's start if that is
// later, to the log's present end. again comes first, and whenever it has to begin anew.
func (l *log) scan(ctx context.Context, from int64, again func(), each func(*kgo.Record)) error {
	return insist(ctx, func() error {
		again()
		at, err := l.locate(ctx)
		if err != nil {
			return err
		}
		next, err := l.list(ctx, at, atStart)
		if err != nil {
			return err
		}
		next = max(next, from)
		end, err := l.list(ctx, at, atEnd)
		for err == nil && next < end {
			var got fetched
			if got, err = l.fetch(ctx, at, next, pollWait); err == nil {
				next = got.next
				for _, r := range got.records {
					each(r)
				}
			}
		}
		return err
	})
}

// transient tells whether asking again may help without anybody doing anything. A
// broker that has just become leader does not know its topic for a moment.
func transient(err error) bool {
	return kerr.IsRetriable(err) || kgo.IsRetryableBrokerErr(err) || errors.Is(err, errNoPartition)
}

func notAuthorized(err error) bool {
	return errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.TransactionalIDAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed)
}

// insist tries until it works, something is wrong that does not pass, or ctx ends.
func insist(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil || !transient(err) {
			return err
		}
		if ended := pause.For(ctx, retryPause); ended != nil {
			return fmt.Errorf("%w: %w", ended, err)
		}
	}
}

// copyReader follows one cluster's copy.
type copyReader struct {
	log
	pair  Pair
	id    [16]byte // of the topic that was read
	next  int64    // offset to go on from; -1: not begun
	there bool     // the topic was there at the last look
	slots map[string]*slot
}

// slot is what the last value of a key says.
type slot struct {
	entry
	offset   int64
	conflict bool  // an earlier value gave the epoch to another region
	err      error // it cannot be understood
}

func newCopyReader(cfg Config, client *kgo.Client) *copyReader {
	r := &copyReader{log: log{client, cfg.Cluster.Alias(), cfg.Topic}, pair: cfg.Pair}
	r.reset()
	return r
}

// reset begins anew, because the topic is not the one that was read.
func (r *copyReader) reset() { r.id, r.next, r.slots = [16]byte{}, -1, map[string]*slot{} }

// wrap says of what an error is.
func (r *copyReader) wrap(err error) error {
	if err == nil {
		return nil
	}
	if _, said := errors.AsType[*CorruptError](err); said {
		return err
	}
	return fmt.Errorf("read topic %s of cluster %s: %w", r.topic, r.cluster, err)
}

// sync reads to the last stable offset as it is now.
func (r *copyReader) sync(ctx context.Context) error {
	return r.wrap(insist(ctx, func() error {
		fresh := r.next < 0
		at, err := r.begin(ctx)
		if err != nil || !r.there {
			return err
		}
		end, err := r.list(ctx, at, atEnd)
		if err != nil {
			return err
		}
		if end < r.next { // the log lost its tail
			r.reset()
			if at, err = r.begin(ctx); err != nil || !r.there {
				return err
			}
		}
		for r.next < end {
			if _, err := r.take(ctx, at, pollWait); err != nil {
				return err
			}
			fresh = false
		}
		if fresh { // that it may not be read has to be known before there is something in it
			_, err = r.take(ctx, at, 0)
		}
		return err
	}))
}

// follow takes one answer, and waits for it at most that long. It reports whether
// everything the copy holds has been read.
func (r *copyReader) follow(ctx context.Context, wait time.Duration) (current bool, err error) {
	at, err := r.begin(ctx)
	if err != nil || !r.there {
		return err == nil, r.wrap(err)
	}
	stable, err := r.take(ctx, at, wait)
	return err == nil && r.next >= stable, r.wrap(err)
}

// begin finds the leader and, before the first record, where the log begins.
func (r *copyReader) begin(ctx context.Context) (leader, error) {
	at, err := r.locate(ctx)
	if errors.Is(err, errMissing) {
		r.there = false
		r.reset()
		return at, nil
	}
	if err != nil {
		return at, err
	}
	if r.next >= 0 && at.id != r.id {
		r.reset() // made anew
	}
	r.there, r.id = true, at.id
	if r.next < 0 {
		start, err := r.list(ctx, at, atStart)
		if err != nil {
			return at, err
		}
		r.next = start
	}
	return at, nil
}

func (r *copyReader) take(ctx context.Context, at leader, wait time.Duration) (stable int64, err error) {
	got, err := r.fetch(ctx, at, r.next, wait)
	if errors.Is(err, kerr.OffsetOutOfRange) {
		r.reset()
		return 0, fmt.Errorf("%w: %w", err, kerr.LeaderNotAvailable) // look again from the start
	}
	if err != nil {
		return 0, err
	}
	for _, rec := range got.records {
		r.apply(rec)
	}
	r.next = got.next
	return got.stable, nil
}

// apply takes in one record of the topic.
func (r *copyReader) apply(rec *kgo.Record) {
	key := string(rec.Key)
	at, err := parseKey(key)
	if at.pair != (Pair{}) && at.pair != r.pair {
		return
	}
	s := &slot{offset: rec.Offset, err: err}
	switch {
	case rec.Value == nil && at.epoch > 0 && err == nil:
		// Without its record an epoch could be given a second time.
		s.err = errors.New("the record was deleted by hand; write it again from the other cluster's copy")
	case rec.Value == nil:
		delete(r.slots, key)
		return
	case err == nil:
		s.entry, s.err = decodeValue(at, rec.Value)
		if before := r.slots[key]; before != nil && s.err == nil {
			s.conflict = before.conflict || before.record != nil && s.record != nil && before.record.Region != s.record.Region
		}
	}
	r.slots[key] = s
}

// state is what was read so far.
func (r *copyReader) state() (State, error) {
	s := State{Ready: map[string]Ready{}, Facts: map[string]Fact{}, Missing: !r.there}
	for _, key := range slices.Sorted(maps.Keys(r.slots)) {
		at := r.slots[key]
		switch {
		case at.err != nil:
			return State{}, &CorruptError{Cluster: r.cluster, Topic: r.topic, Offset: at.offset, Key: key, Err: at.err}
		case at.record != nil:
			s.Records = append(s.Records, *at.record)
			if at.conflict {
				s.Conflicts = append(s.Conflicts, at.record.Epoch)
			}
		case at.fact != nil:
			if string(at.fact.Data) != "null" {
				s.Facts[at.fact.Name] = *at.fact
			}
		case at.ready != nil:
			s.Ready[Direction(at.ready.From, at.ready.To)] = *at.ready
		}
	}
	slices.SortFunc(s.Records, func(a, b Record) int { return int(a.Epoch - b.Epoch) })
	slices.Sort(s.Conflicts)
	return s, nil
}
