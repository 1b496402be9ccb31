package stranded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"replicator/internal/newtopic"
	"replicator/internal/pause"
	"replicator/pkg/cluster"
)

const (
	chunkBytes   = 4 << 20 // of records in one transaction
	chunkRecords = 5000
	// transactionTime is how long the brokers keep a transaction open whose run was killed, unless
	// the next run ends it first. It holds back readers of the partitions.
	transactionTime = 60 * time.Second
	exportBytes     = 12 << 20 // max.message.bytes of a topic for exports
)

// Replay appends the records of a report to the partitions of the same names in the authoritative
// region, exactly once over all runs. Topics must be there. It needs READ and DESCRIBE on the
// topics in both regions, WRITE in the authoritative one, also on the topic replicator.stranded, and WRITE on the
// transactional id replicator.stranded.<from>.
func Replay(ctx context.Context, old, authoritative *cluster.Cluster, report Report, o Options) (Result, error) {
	t := newTransfer(old, authoritative, report, o, verbReplay)
	result, err := t.run(ctx)
	if err != nil {
		return result, fmt.Errorf("replay stranded records: %w", err)
	}
	return result, nil
}

// ExportTopic appends the records of a report to the topic replicator.stranded.<from> of the
// authoritative region, exactly once over all runs. It makes the topic if it is missing; the records of a
// partition stay in order. Rights as for Replay, and CREATE.
func ExportTopic(ctx context.Context, old, authoritative *cluster.Cluster, report Report, o Options) (Result, error) {
	t := newTransfer(old, authoritative, report, o, verbExport)
	err := ensureTopic(ctx, t.target, newtopic.Topic{Name: ExportTopicName(report.From), Partitions: 8, Settings: []newtopic.Setting{
		{Name: "cleanup.policy", Value: "delete"},
		{Name: "retention.ms", Value: "-1"},
		{Name: "max.message.bytes", Value: strconv.Itoa(exportBytes)},
		{Name: newtopic.MinInSync, Value: "2"},
	}})
	var result Result
	if err == nil {
		result, err = t.run(ctx)
	}
	if err != nil {
		return result, fmt.Errorf("export stranded records: %w", err)
	}
	return result, nil
}

// transfer appends stranded records to another cluster.
type transfer struct {
	source, target *reader
	report         Report
	options        Options
	verb           string
	log            *zap.Logger
	limit          limiter
	chunkRecords   int // in one transaction at most
	progress       map[string]progress
	records, bytes int64 // done, of all runs
	result         Result
}

func newTransfer(old, authoritative *cluster.Cluster, report Report, o Options, verb string) *transfer {
	t := &transfer{
		source: newReader(old), target: newReader(authoritative), report: report, options: o, verb: verb,
		log: o.Log, limit: newLimiter(o.BytesPerSecond), chunkRecords: chunkRecords,
	}
	if t.log == nil {
		t.log = zap.NewNop()
	}
	return t
}

func (t *transfer) run(ctx context.Context) (Result, error) {
	if err := t.check(ctx); err != nil {
		return t.result, err
	}
	err := ensureTopic(ctx, t.target, newtopic.Topic{Name: ProgressTopic, Partitions: 1, Settings: progressSettings})
	if err != nil {
		return t.result, err
	}
	if policy := setting(ctx, t.target.cluster.Admin(), ProgressTopic, "cleanup.policy"); policy != "" && policy != "compact" {
		return t.result, fmt.Errorf("topic %s of cluster %s forgets what was done, and records would be appended twice: set its cleanup.policy to compact", ProgressTopic, t.target.cluster.Alias())
	}
	// A client a topic: how large its batches may be is the topic's.
	for ranges := t.report.Ranges; len(ranges) > 0; {
		n := slices.IndexFunc(ranges, func(r Range) bool { return r.Topic != ranges[0].Topic })
		if n < 0 {
			n = len(ranges)
		}
		if err := t.topic(ctx, ranges[:n]); err != nil {
			return t.result, err
		}
		ranges = ranges[n:]
	}
	return t.result, nil
}

// check refuses what cannot be appended, before anything is.
func (t *transfer) check(ctx context.Context) error {
	if t.source.cluster.ID() == t.target.cluster.ID() && t.source.cluster.ID() != "" {
		return errors.New("the old and the authoritative region are the same cluster")
	}
	for _, r := range t.report.Ranges {
		if r.Records == 0 || t.verb != verbReplay {
			continue
		}
		d, err := t.target.topic(ctx, r.Topic, false)
		if errors.Is(err, kerr.UnknownTopicOrPartition) {
			return t.missing(ctx, r)
		}
		if err != nil {
			return err
		}
		if n := len(d.Partitions); int(r.Partition) >= n {
			return fmt.Errorf("topic %s of cluster %s has %d partitions and partition %d has stranded records: add partitions first", r.Topic, t.target.cluster.Alias(), n, r.Partition)
		}
	}
	return nil
}

// missing says what to do about a topic that the authoritative region does not have.
func (t *transfer) missing(ctx context.Context, r Range) error {
	old, err := t.source.topic(ctx, r.Topic, false)
	if err != nil {
		return err
	}
	return fmt.Errorf("topic %s of cluster %s has stranded records and cluster %s has no such topic: create it there with %d partitions and run it again, or choose export or discard",
		r.Topic, t.report.From, t.target.cluster.Alias(), len(old.Partitions))
}

// destination is where the records of a range go.
func (t *transfer) destination(ctx context.Context, r Range) (topic string, partition int32, err error) {
	if t.verb == verbReplay {
		return r.Topic, r.Partition, nil
	}
	topic = ExportTopicName(t.report.From)
	d, err := t.target.topic(ctx, topic, false)
	if err != nil {
		return "", 0, err
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s-%d", r.Topic, r.Partition)
	return topic, int32(h.Sum64() % uint64(len(d.Partitions))), nil
}

// topic appends the records of a topic's partitions, one after the other.
func (t *transfer) topic(ctx context.Context, ranges []Range) error {
	destination, _, err := t.destination(ctx, ranges[0])
	if err != nil {
		return err
	}
	client, err := t.target.cluster.NewClient(
		kgo.TransactionalID(TransactionalID(t.report.From)),
		kgo.TransactionTimeout(transactionTime),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(batchBytes(ctx, t.target.cluster.Admin(), destination)),
		kgo.MaxBufferedRecords(t.chunkRecords+1),
		kgo.ProducerLinger(5*time.Millisecond),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	// Fences a run that is still alive, and ends its transaction: what is committed now stays so.
	if _, _, err := client.ProducerID(ctx); err != nil {
		return t.failed(ranges[0], "take the transactional id", err)
	}
	if t.progress, err = readProgress(ctx, t.target.cluster); err != nil {
		return err
	}
	for _, r := range ranges {
		if err := t.lane(ctx, client, r); err != nil {
			return err
		}
	}
	return nil
}

// batchBytes is how large a batch the topic takes; kgo's own limit where nobody may know.
func batchBytes(ctx context.Context, admin *kadm.Client, topic string) int32 {
	n, err := strconv.ParseInt(setting(ctx, admin, topic, "max.message.bytes"), 10, 32)
	if err != nil || n < 1024 {
		return 1_000_012
	}
	return int32(min(n, exportBytes))
}

// lane appends what is left of a range, and counts what is there then.
func (t *transfer) lane(ctx context.Context, client *kgo.Client, r Range) error {
	done, resumed := t.progress[progressKey(t.verb, t.report.From, r)]
	lane := LaneResult{Lane: r.Lane}
	start := max(r.From, r.Start)
	if start >= r.To || r.Records == 0 {
		t.result.add(lane)
		return nil
	}
	next := start
	if resumed = resumed && done.Next > start; !resumed {
		// What was done is of an earlier range. Between it and this one may stand all that
		// applications wrote since, which is not to be read when this one is counted.
		done.Records, done.Begin, done.End = 0, 0, 0
	}
	if resumed {
		same, err := t.source.divergence(ctx, r.Topic, r.Partition, done.LeaderEpoch, min(done.Next, r.To))
		if err != nil {
			return err
		}
		if same < min(done.Next, r.To) {
			return &ResumeError{Lane: r.Lane, Next: done.Next, Reason: fmt.Sprintf(
				"the old region lost its tail from offset %d on since run %s appended what stood there: what is there now was not looked at; export it to a file and compare", same, done.Run)}
		}
		next = min(done.Next, r.To)
		if lane.Already, err = t.count(ctx, r, start, next); err != nil {
			return err
		}
		t.records += lane.Already
		t.options.report(t.report, t.records, t.bytes)
	}
	var err error
	if done.Topic, done.Partition, err = t.destination(ctx, r); err != nil {
		return err
	}
	var chunk []*kgo.Record
	var bytes int64
	flush := func(upTo int64) error {
		if len(chunk) == 0 {
			return nil
		}
		if err := t.limit.spend(ctx, bytes); err != nil {
			return err
		}
		if err := t.commit(ctx, client, r, &done, chunk, upTo); err != nil {
			return err
		}
		lane.Records += int64(len(chunk))
		t.result.Bytes, t.bytes, t.records = t.result.Bytes+bytes, t.bytes+bytes, t.records+int64(len(chunk))
		t.options.report(t.report, t.records, t.bytes)
		chunk, bytes = nil, 0
		return nil
	}
	err = t.source.read(ctx, r.Topic, r.Partition, next, r.To, func(records []*kgo.Record) error {
		for _, rec := range records {
			if n := size(rec); len(chunk) > 0 && (len(chunk) == t.chunkRecords || bytes+n > chunkBytes) {
				if err := flush(chunk[len(chunk)-1].Offset + 1); err != nil {
					return err
				}
			}
			chunk, bytes = append(chunk, rec), bytes+size(rec)
		}
		return nil
	})
	if err == nil {
		err = flush(r.To)
	}
	if err != nil {
		return err
	}
	lane.From, lane.To = done.Begin, done.End
	if have := lane.Already + lane.Records; have != r.Records {
		return &CountError{Lane: r.Lane, Found: r.Records, Have: have}
	}
	if lane.Counted, err = t.recount(ctx, r, done); err != nil {
		return err
	}
	t.result.add(lane)
	if lane.Counted != r.Records {
		return &CountError{Lane: r.Lane, Found: r.Records, Have: lane.Counted,
			Where: fmt.Sprintf("in %s-%d of cluster %s from offset %d on", done.Topic, done.Partition, t.target.cluster.Alias(), done.Begin)}
	}
	return nil
}

// count counts the records of the old region between two offsets.
func (t *transfer) count(ctx context.Context, r Range, from, to int64) (n int64, err error) {
	err = t.source.read(ctx, r.Topic, r.Partition, from, to, func(records []*kgo.Record) error {
		n += int64(len(records))
		return nil
	})
	return n, err
}

// commit appends a chunk and how far the lane then is, both or neither. done is moved on.
func (t *transfer) commit(ctx context.Context, client *kgo.Client, r Range, done *progress, chunk []*kgo.Record, upTo int64) error {
	place := fmt.Sprintf("append offsets %d to %d", chunk[0].Offset, upTo-1)
	if err := client.BeginTransaction(); err != nil {
		return t.failed(r, place, err)
	}
	appended := make([]*kgo.Record, len(chunk))
	for i, rec := range chunk {
		appended[i] = t.marked(rec, done)
	}
	err := client.ProduceSync(ctx, appended...).FirstErr()
	now := *done
	if err == nil {
		now.Version, now.Run, now.Time = progressVersion, t.options.Run, time.Now().UTC()
		now.Next, now.LeaderEpoch = upTo, chunk[len(chunk)-1].LeaderEpoch
		if now.Records == 0 {
			now.Begin = appended[0].Offset
		}
		now.Records += int64(len(chunk))
		now.End = appended[len(appended)-1].Offset + 1
		err = t.note(ctx, client, r, now)
	}
	if err != nil {
		// Ended with a context of its own, because ctx may be what failed. If this fails too, the next
		// run or the brokers end it.
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if aborted := client.AbortBufferedRecords(ending); aborted == nil {
			aborted = client.EndTransaction(ending, kgo.TryAbort)
			if aborted != nil {
				t.log.Warn("transaction was not aborted; the next run or its time-out ends it", zap.Error(aborted))
			}
		}
		return t.failed(r, place, err)
	}
	if err := cluster.EndTransaction(ctx, client, kgo.TryCommit, done.Topic, ProgressTopic); err != nil {
		return t.failed(r, place+": whether the transaction was committed is not known, run it again to go on", err)
	}
	*done = now
	return nil
}

func (t *transfer) note(ctx context.Context, client *kgo.Client, r Range, now progress) error {
	value, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return client.ProduceSync(ctx, &kgo.Record{Topic: ProgressTopic, Key: []byte(progressKey(t.verb, t.report.From, r)), Value: value}).FirstErr()
}

// marked is the record as it is appended.
func (t *transfer) marked(r *kgo.Record, done *progress) *kgo.Record {
	m := &kgo.Record{Topic: done.Topic, Partition: done.Partition, Key: r.Key, Value: r.Value, Timestamp: r.Timestamp}
	m.Headers = append(slices.Clone(r.Headers), kgo.RecordHeader{Key: HeaderFrom, Value: []byte(t.report.From)})
	if t.verb == verbExport {
		m.Headers = append(m.Headers, kgo.RecordHeader{Key: HeaderTopic, Value: []byte(r.Topic)})
	}
	m.Headers = append(m.Headers,
		kgo.RecordHeader{Key: HeaderPartition, Value: strconv.AppendInt(nil, int64(r.Partition), 10)},
		kgo.RecordHeader{Key: HeaderOffset, Value: strconv.AppendInt(nil, r.Offset, 10)},
		kgo.RecordHeader{Key: HeaderRun, Value: []byte(t.options.Run)})
	return m
}

func (t *transfer) failed(r Range, what string, err error) error {
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		err = fmt.Errorf("%w; grant WRITE on topics %s and %s of cluster %s", err, r.Topic, ProgressTopic, t.target.cluster.Alias())
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		err = fmt.Errorf("%w; grant WRITE and DESCRIBE on transactional id %s of cluster %s", err, TransactionalID(t.report.From), t.target.cluster.Alias())
	case errors.Is(err, kerr.ProducerFenced), errors.Is(err, kerr.InvalidProducerEpoch):
		err = fmt.Errorf("%w: another run took over", err)
	case errors.Is(err, kerr.MessageTooLarge):
		err = fmt.Errorf("%w: with the headers that say where it is from, a record is larger than the topic takes; raise its max.message.bytes", err)
	}
	return fmt.Errorf("%v: %s: %w", r.Lane, what, err)
}

func led(partitions kadm.PartitionDetails) bool {
	for _, p := range partitions {
		if p.Leader < 0 {
			return false
		}
	}
	return len(partitions) > 0
}

func wait(ctx context.Context) error { return pause.For(ctx, 200*time.Millisecond) }
