package offsets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// JournalConfig says where the journal is and how to reach it.
type JournalConfig struct {
	Client            func(...kgo.Opt) (*kgo.Client, error) // a new client of the target cluster; the journal closes it
	Admin             *kadm.Client                          // of the same cluster
	Topic             string
	Partitions        int32         // at creation, default 8
	ReplicationFactor int16         // at creation; 0 or less: 3 where there are three brokers, else the cluster's default
	Timeout           time.Duration // until an append has failed, default 10 s, at least 1 s
	Log               *zap.Logger   // nil: none

	// ReadOnly creates and writes nothing: a missing topic is a [*TopicError], and Append refuses.
	// It needs no right but to read and describe the topic.
	ReadOnly bool
}

// Journal is the topic of facts on the target: group-committed writes, and a reader that follows
// its end for ever. It is safe for concurrent use.
//
// A lane's entries are in one partition: the FNV-1a hash (64 bit) of the source topic's bytes and
// the source partition as four bytes, high byte first, modulo the number of the journal's
// partitions. So that number must not change while the journal has entries; a journal where it
// did is refused.
//
// Facts that Append wrote show in State before done runs. What can be replaced (positions) and
// deletions show when the reader has come past them; Sync makes sure.
type Journal struct {
	cfg    JournalConfig
	log    *zap.Logger
	client *kgo.Client
	topic  topicFacts
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	reader sync.WaitGroup
	done   chan struct{} // closed with the first error, and by Close

	pending atomic.Int64 // bytes of entries appended and not yet answered
	heard   atomic.Int64 // UnixNano of the last answer to a fetch

	mu       sync.Mutex
	lanes    map[Lane]*lane
	next     []int64       // by partition: the reader has passed all below
	advanced chan struct{} // closed and replaced when next moves or err is set
	err      error
	closed   bool
	lost     bool      // the topic is not the one that was opened any more
	readErr  error     // the last trouble of the reader, for who waits too long
	missing  time.Time // since when brokers say that the topic does not exist
}

// OpenJournal creates the topic if it is missing and may be created, checks it, and reads it to its
// present end.
func OpenJournal(ctx context.Context, cfg JournalConfig) (*Journal, error) {
	cfg.Timeout = max(cmp.Or(cfg.Timeout, 10*time.Second), time.Second)
	cfg.Partitions = cmp.Or(cfg.Partitions, 8)
	if cfg.Log == nil {
		cfg.Log = zap.NewNop()
	}
	topic, err := ensureTopic(ctx, cfg)
	if err != nil {
		return nil, err
	}
	j := &Journal{
		cfg: cfg, log: cfg.Log, topic: topic,
		done: make(chan struct{}), advanced: make(chan struct{}),
		lanes: map[Lane]*lane{}, next: make([]int64, topic.partitions),
	}
	j.heard.Store(time.Now().UnixNano())
	if err := j.open(ctx); err != nil {
		j.Close()
		return nil, fmt.Errorf("open journal %s: %w", cfg.Topic, err)
	}
	for _, w := range j.topic.warnings {
		j.log.Warn("journal topic is less safe than it could be", zap.String("topic", cfg.Topic), zap.String("what", w))
	}
	return j, nil
}

func (j *Journal) open(ctx context.Context) error {
	j.ctx, j.cancel = context.WithCancel(context.Background())
	starts, err := j.starts(ctx)
	if err != nil {
		return fmt.Errorf("list start offsets: %w", err)
	}
	from := map[int32]kgo.Offset{}
	for p := range j.next {
		start, ok := starts.Lookup(j.cfg.Topic, int32(p))
		if !ok {
			return fmt.Errorf("list start offsets: partition %d is missing", p)
		}
		if start.Offset > 0 {
			j.topic.warnings = append(j.topic.warnings, fmt.Sprintf(
				"partition %d begins at offset %d: records were deleted, and a journal without all its records may not know all offsets", p, start.Offset))
		}
		j.next[p] = start.Offset
		from[int32(p)] = kgo.NewOffset().At(start.Offset)
	}
	opts := []kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{j.cfg.Topic: from}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.FetchMaxWait(500 * time.Millisecond),
		kgo.KeepRetryableFetchErrors(),
		kgo.WithHooks(fetchHook{&j.heard}),
	}
	if !j.cfg.ReadOnly {
		opts = append(opts, j.producerOpts()...)
	}
	client, err := j.cfg.Client(opts...)
	if err != nil {
		return fmt.Errorf("open client: %w", err)
	}
	j.client = client
	j.reader.Go(j.read)
	return j.sync(ctx, allPartitions(len(j.next)))
}

// leadersTime is how long an opening waits for the journal's partitions to be led.
const leadersTime = 30 * time.Second

// starts returns where the journal's partitions begin. The leaders of a topic that
// was just made are named before they know of it.
func (j *Journal) starts(ctx context.Context) (kadm.ListedOffsets, error) {
	ctx, cancel := context.WithTimeout(ctx, leadersTime)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		starts, err := j.cfg.Admin.ListStartOffsets(ctx, j.cfg.Topic)
		if err == nil {
			err = starts.Error()
		}
		if err == nil || !kerr.IsRetriable(err) {
			return starts, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (j *Journal) producerOpts() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerLinger(time.Millisecond),
		kgo.RecordDeliveryTimeout(j.cfg.Timeout),
		kgo.ProduceRequestTimeout(j.cfg.Timeout / 2),
		kgo.RequestTimeoutOverhead(max(j.cfg.Timeout/2, time.Second)),
		// An entry that was written although its append failed does no harm, and one written
		// twice neither; an append that is never answered would.
		kgo.AllowIdempotentProduceCancellation(),
		kgo.MaxBufferedRecords(2 * maxPendingBytes / entryOverhead),
	}
}

// State returns what is known of a lane. It takes a moment, and keeps nobody waiting.
func (j *Journal) State(l Lane) LaneState {
	j.mu.Lock()
	defer j.mu.Unlock()
	if lane := j.lanes[l]; lane != nil {
		return lane.state()
	}
	return LaneState{}
}

// Lanes returns all lanes with entries, sorted.
func (j *Journal) Lanes() []Lane {
	j.mu.Lock()
	defer j.mu.Unlock()
	lanes := make([]Lane, 0, len(j.lanes))
	for l := range j.lanes {
		lanes = append(lanes, l)
	}
	slices.SortFunc(lanes, func(a, b Lane) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return lanes
}

// Compacted returns what the owner of a lane may do to keep the journal short: entries to write,
// and when they are acknowledged, deletions to write. sourceStart is the log start of the lane's
// source partition, 0 if unknown: what lies below it is trimmed, but for the newest million records
// and the newest epochs. Positions of older writers go, small adjacent chunks of spans are merged. Not for anyone but the owner, after Sync.
func (j *Journal) Compacted(l Lane, sourceStart int64) (write, remove []Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if lane := j.lanes[l]; lane != nil && j.err == nil {
		return lane.compacted(sourceStart)
	}
	return nil, nil
}

// Err is set once the journal cannot be trusted any more: reading stopped, lanes must not open.
// It is [*VersionError], [*CorruptError] or [*TopicError].
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// Done is closed when Err is set or the journal is closed.
func (j *Journal) Done() <-chan struct{} { return j.done }

// Warnings are deviations of the topic's settings from what is safe, found when it was opened.
func (j *Journal) Warnings() []string { return slices.Clone(j.topic.warnings) }

// Age is the time since a broker last answered the reader. Above a second the target's brokers
// are in trouble.
func (j *Journal) Age() time.Duration { return time.Since(time.Unix(0, j.heard.Load())) }

// Partition returns the journal partition that holds the lane's entries.
func (j *Journal) Partition(l Lane) int32 { return partitionOf(l, len(j.next)) }

// Close ends the journal; appends not yet acknowledged fail with [ErrClosed]. Not to be called
// from an append's done.
func (j *Journal) Close() {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return
	}
	j.closed = true
	if j.err == nil {
		close(j.done)
	}
	j.wake()
	j.mu.Unlock()
	if j.cancel != nil {
		j.cancel()
	}
	if j.client != nil {
		j.client.Close()
	}
	j.reader.Wait()
}

// wake tells who waits that something moved. Called with the lock held.
func (j *Journal) wake() {
	close(j.advanced)
	j.advanced = make(chan struct{})
}

// fail stops reading for good. Only the first error counts.
func (j *Journal) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failLocked(err)
}

func (j *Journal) failLocked(err error) {
	if j.err != nil || j.closed {
		return
	}
	var gone *TopicError
	j.err, j.lost = err, errors.As(err, &gone)
	j.log.Error("journal cannot be read any more; no lane opens until this is mended", zap.String("topic", j.cfg.Topic), zap.Error(err))
	close(j.done)
	j.wake()
}

// usable returns why the journal cannot be used. Called with the lock held.
func (j *Journal) usable() error {
	if j.err != nil {
		return j.err
	}
	if j.closed {
		return ErrClosed
	}
	return nil
}

// partitionOf is part of the journal's format.
func partitionOf(l Lane, partitions int) int32 {
	h := uint64(14695981039346656037)
	add := func(b byte) { h = (h ^ uint64(b)) * 1099511628211 }
	for i := range len(l.Topic) {
		add(l.Topic[i])
	}
	for shift := 24; shift >= 0; shift -= 8 {
		add(byte(uint32(l.Partition) >> shift))
	}
	return int32(h % uint64(partitions))
}

func allPartitions(n int) []int32 {
	all := make([]int32, n)
	for p := range all {
		all[p] = int32(p)
	}
	return all
}
