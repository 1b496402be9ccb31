package demo

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// watch is a consumer of the target, as an application there would be. It tells
// how far the copy is and how long records took.
type watch struct {
	client *kgo.Client

	mu       sync.Mutex
	records  int64
	newest   map[lane]time.Time // timestamp of the newest record
	arrivals map[string][]arrival
	changed  chan struct{} // closed and replaced when records have come
	trouble  error         // the last
}

type lane struct {
	topic     string
	partition int32
}

// arrival is one record: when it was handed to its producer, and how long after
// that a consumer of the target had it.
type arrival struct {
	written time.Time
	wait    time.Duration
}

func newWatch(target []string) (*watch, error) {
	var names []string
	for _, t := range topics {
		names = append(names, t.name)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(target...), kgo.ClientID("demo-consumer"), kgo.ConsumeTopics(names...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(250*time.Millisecond),
		// The topics are not there yet.
		kgo.MetadataMinAge(100*time.Millisecond), kgo.MetadataMaxAge(500*time.Millisecond))
	if err != nil {
		return nil, fmt.Errorf("make consumer: %w", err)
	}
	return &watch{client: client, newest: map[lane]time.Time{}, arrivals: map[string][]arrival{}, changed: make(chan struct{})}, nil
}

func (w *watch) close() {
	if w != nil {
		w.client.Close()
	}
}

func (w *watch) run(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := w.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		w.take(fetches, time.Now())
	}
}

func (w *watch) take(fetches kgo.Fetches, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fetches.EachError(func(topic string, partition int32, err error) {
		w.trouble = fmt.Errorf("consume %s-%d of west: %w", topic, partition, err)
	})
	fetches.EachRecord(func(r *kgo.Record) {
		w.records++
		l := lane{r.Topic, r.Partition}
		if r.Timestamp.After(w.newest[l]) {
			w.newest[l] = r.Timestamp
		}
		w.arrivals[r.Topic] = append(w.arrivals[r.Topic], arrival{r.Timestamp, now.Sub(r.Timestamp)})
	})
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *watch) count() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.records
}

// newerThan is how many partitions have a record written after a moment. The
// caller holds the lock.
func (w *watch) newerThan(t time.Time) (n int) {
	for _, newest := range w.newest {
		if newest.After(t) {
			n++
		}
	}
	return n
}

// wait returns when done says so, with the lock held, or ctx has ended.
func (w *watch) wait(ctx context.Context, done func(*watch) bool) error {
	for {
		w.mu.Lock()
		ok, changed, trouble := done(w), w.changed, w.trouble
		w.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if trouble != nil {
				return fmt.Errorf("%w; %w", context.Cause(ctx), trouble)
			}
			return context.Cause(ctx)
		}
	}
}
