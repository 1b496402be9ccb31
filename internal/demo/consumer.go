package demo

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// consumer is one member of a consumer group that reads all topics, processes what it
// reads and commits it. It works on the region it is told to.
type consumer struct {
	mu       sync.Mutex
	visits   map[key][]visit // every time a record was processed
	unknown  int64           // records that no producer wrote
	sessions []*session
	changed  chan struct{} // closed and replaced when something was processed
}

// visit is one processing of a record.
type visit struct {
	region string
	position
}

// session is the consumer's stay on one region.
type session struct {
	region string
	first  map[lane]firstRecord // of each partition
}

type firstRecord struct {
	key    key
	offset int64
	at     time.Time
}

type lane struct {
	topic     string
	partition int32
}

const (
	groupName   = "billing"
	commitEvery = 200 * time.Millisecond
)

func newConsumer() *consumer {
	return &consumer{visits: map[key][]visit{}, changed: make(chan struct{})}
}

func (c *consumer) work(until context.Context, region string, addrs []string) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(addrs...), kgo.ClientID("demo-consumer"), kgo.ConsumerGroup(groupName), kgo.ConsumeTopics(topicNames()...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.DisableAutoCommit(),
		kgo.FetchMaxWait(250*time.Millisecond), kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.MetadataMinAge(100*time.Millisecond), kgo.MetadataMaxAge(time.Second))
	if err != nil {
		return fmt.Errorf("make consumer: %w", err)
	}
	defer client.Close()
	s := &session{region: region, first: map[lane]firstRecord{}}
	c.mu.Lock()
	c.sessions = append(c.sessions, s)
	c.mu.Unlock()
	committed := time.Now()
	for until.Err() == nil {
		polling, cancel := context.WithTimeout(until, commitEvery)
		fetches := client.PollFetches(polling)
		cancel()
		c.take(s, fetches, time.Now())
		if time.Since(committed) < commitEvery {
			continue
		}
		committed = time.Now()
		ctx, cancel := context.WithTimeout(until, time.Second)
		// What could not be committed is committed next time, or read again.
		_ = client.CommitUncommittedOffsets(ctx)
		cancel()
	}
	// A region that is alive is left in order; with a dead one that does not take long.
	ctx, cancel := grace(until, leaveTime)
	defer cancel()
	_ = client.CommitUncommittedOffsets(ctx)
	_ = client.LeaveGroupContext(ctx)
	return nil
}

func (c *consumer) take(s *session, fetches kgo.Fetches, now time.Time) {
	if fetches.NumRecords() == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fetches.EachRecord(func(r *kgo.Record) {
		k, ok := nameOf(r)
		if !ok {
			c.unknown++
			return
		}
		l := lane{r.Topic, r.Partition}
		if _, ok := s.first[l]; !ok {
			s.first[l] = firstRecord{k, r.Offset, now}
		}
		c.visits[k] = append(c.visits[k], visit{s.region, position{r.Partition, r.Offset}})
	})
	close(c.changed)
	c.changed = make(chan struct{})
}

// processed is how many records were, at least once.
func (c *consumer) processed() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(len(c.visits))
}

// stay is the last session, with the first record of each partition so far.
func (c *consumer) stay() (region string, first map[lane]firstRecord) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sessions) == 0 {
		return "", nil
	}
	s := c.sessions[len(c.sessions)-1]
	return s.region, maps.Clone(s.first)
}

// await waits until done says so; it is asked when something was processed.
func (c *consumer) await(ctx context.Context, done func() bool) error {
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if done() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
