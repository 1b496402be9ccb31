package workload

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
	"golang.org/x/sync/errgroup"

	"replicator/internal/pause"
)

const (
	keyProduce = 0
	patience   = 30 * time.Second // for a leader to take a batch
)

// sender produces batches made by hand: one batch for each partition in a
// request, one request at a time to a broker, so that order is kept.
type sender struct {
	client  *kgo.Client
	admin   *kadm.Client
	topic   string
	by      producer
	next    map[int32]int32 // sequence of the next batch
	leaders map[int32]int32
}

// newSender makes a sender. A produceVersion above zero caps the version of
// produce requests. Idempotent senders get a producer id.
func newSender(ctx context.Context, opts []kgo.Opt, topic string, produceVersion int16, idempotent bool) (*sender, error) {
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(keyProduce, produceVersion)
	client, err := kgo.NewClient(append(append([]kgo.Opt{kgo.ClientID("workload")}, opts...), kgo.MaxVersions(versions), kgo.MetadataMinAge(50*time.Millisecond))...)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	s := &sender{client: client, admin: kadm.NewClient(client), topic: topic, by: producer{-1, -1}, next: make(map[int32]int32)}
	if idempotent {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.TransactionTimeoutMillis = 60_000
		req.ProducerID, req.ProducerEpoch = -1, -1
		resp, err := req.RequestWith(ctx, client)
		if err == nil {
			err = kerr.ErrorForCode(resp.ErrorCode)
		}
		if err != nil {
			client.Close()
			return nil, fmt.Errorf("get producer id: %w", err)
		}
		s.by = producer{resp.ProducerID, resp.ProducerEpoch}
	}
	return s, nil
}

func (s *sender) close() { s.client.Close() }

// sequence numbers the next n records of a partition.
func (s *sender) sequence(partition int32, n int) int32 {
	if s.by.id < 0 {
		return -1
	}
	seq := s.next[partition]
	s.next[partition] += int32(n)
	return seq
}

// send produces one batch for each of the partitions and returns the broker's
// append time of one of them (ms, -1 where records keep their own). What a
// leader refuses for now is sent again; without a producer id only what was
// certainly not stored.
func (s *sender) send(ctx context.Context, batches map[int32][]byte) (appendTime int64, err error) {
	appendTime = -1
	deadline := time.Now().Add(patience)
	for wait := 10 * time.Millisecond; len(batches) > 0; wait = min(2*wait, time.Second) {
		if s.leaders == nil {
			if err := s.findLeaders(ctx); err != nil {
				return -1, err
			}
		}
		byBroker := make(map[int32]map[int32][]byte)
		for p, b := range batches {
			id := s.leaders[p]
			if byBroker[id] == nil {
				byBroker[id] = make(map[int32][]byte)
			}
			byBroker[id][p] = b
		}
		var mu sync.Mutex
		var last error
		left := make(map[int32][]byte)
		var g errgroup.Group
		for broker, parts := range byBroker {
			g.Go(func() error {
				at, refused, err := s.produce(ctx, broker, parts)
				mu.Lock()
				defer mu.Unlock()
				appendTime = max(appendTime, at)
				for p, cause := range refused {
					left[p] = parts[p]
					last = fmt.Errorf("produce to %s-%d on broker %d: %w", s.topic, p, broker, cause)
				}
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return -1, err
		}
		batches = left
		if len(left) == 0 {
			break
		}
		s.leaders = nil
		if time.Now().After(deadline) {
			return -1, last
		}
		if err := pause.For(ctx, wait); err != nil {
			return -1, errors.Join(err, last)
		}
	}
	return appendTime, nil
}

// produce sends one request. It returns the partitions to try again, with the
// cause, and an error for what trying again cannot help.
func (s *sender) produce(ctx context.Context, broker int32, batches map[int32][]byte) (appendTime int64, again map[int32]error, err error) {
	req := kmsg.NewPtrProduceRequest()
	req.Acks = -1
	req.TimeoutMillis = 10_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = s.topic
	for p, b := range batches {
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = p, b
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)

	again = make(map[int32]error)
	resp, err := req.RequestWith(ctx, s.client.Broker(int(broker)))
	if err != nil {
		if s.by.id < 0 || ctx.Err() != nil {
			return -1, nil, fmt.Errorf("produce to %s on broker %d: %w", s.topic, broker, err)
		}
		for p := range batches {
			again[p] = err
		}
		return -1, again, nil
	}
	appendTime = -1
	answered := 0
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			answered++
			switch cause := kerr.ErrorForCode(p.ErrorCode); {
			case cause == nil:
				appendTime = max(appendTime, p.LogAppendTime)
			case errors.Is(cause, kerr.DuplicateSequenceNumber):
			case kerr.IsRetriable(cause) && (s.by.id >= 0 || notStored(cause)):
				again[p.Partition] = cause
			default:
				message := ""
				if p.ErrorMessage != nil {
					message = ": " + *p.ErrorMessage
				}
				return -1, nil, fmt.Errorf("produce to %s-%d on broker %d: %w%s", s.topic, p.Partition, broker, cause, message)
			}
		}
	}
	if answered != len(batches) {
		return -1, nil, fmt.Errorf("produce to %s on broker %d: answer for %d of %d partitions", s.topic, broker, answered, len(batches))
	}
	return appendTime, again, nil
}

// notStored holds for errors after which a batch is certainly not in the log.
func notStored(err error) bool {
	return errors.Is(err, kerr.NotLeaderForPartition) || errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.LeaderNotAvailable) || errors.Is(err, kerr.NotEnoughReplicas)
}

func (s *sender) findLeaders(ctx context.Context) error {
	topics, err := s.admin.ListTopics(ctx, s.topic)
	if err != nil {
		return fmt.Errorf("find leaders of %s: %w", s.topic, err)
	}
	if err := topics[s.topic].Err; err != nil {
		return fmt.Errorf("find leaders of %s: %w", s.topic, err)
	}
	s.leaders = make(map[int32]int32)
	for p, d := range topics[s.topic].Partitions {
		s.leaders[p] = d.Leader
	}
	return nil
}
