package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// targetLog is what an opening has read of its target partition: from some
// offset to its own control record.
type targetLog struct {
	start   int64 // log start offset of the target
	from    int64 // where reading began (next)
	end     int64 // journalled end, as known before reading; next, 0 if never opened
	marker  int64 // offset of our control record, -1 not seen
	again   bool  // the tail was read a second time, from further down
	batches []logBatch
	last    []byte // copy of the last batch of data that may be ours
}

// logBatch is a run of one producer's batches, or one control record.
type logBatch struct {
	writer   offsets.Writer
	control  bool
	sequence int32 // of the first record
	base     int64 // target offset of the first record
	next     int64 // target offset behind it
}

// backRead is how much of a target's tail is read again when the log ends below
// the journalled end.
const backRead = 20000

// readBarriers reads every lane's target partition until its own control record
// is seen.
func (op *opener) readBarriers(ctx context.Context, batch []*opening) {
	ctx, cancel := context.WithTimeout(ctx, barrierTime)
	defer cancel()
	byBroker := map[int32][]*opening{}
	for _, o := range batch {
		byBroker[o.targetBroker] = append(byBroker[o.targetBroker], o)
	}
	var wg sync.WaitGroup
	for broker, some := range byBroker {
		wg.Go(func() {
			if err := op.readBarriersOf(ctx, broker, some); err != nil {
				for _, o := range some {
					if o.log.marker < 0 && o.err == nil {
						o.err = fmt.Errorf("read target up to our control record: %w", err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func (op *opener) readBarriersOf(ctx context.Context, broker int32, batch []*opening) error {
	conn, err := op.target.ConnectWith(ctx, broker, op.openPool)
	if err != nil {
		failAll(batch, err)
		return nil
	}
	defer conn.Close()
	session := wire.NewFetchSession()
	reading := map[partitionKey]*opening{}
	for _, o := range batch {
		o.log.marker, o.log.start = -1, -1
		state := op.journal.State(o.key)
		o.log.end = journalledEnd(state)
		o.log.from = max(0, o.log.end-1) // the last record the journal knows of
		if o.fromEnd {
			o.log.end, o.log.from = 0, o.listedEnd
		}
		o.known = map[int64]bool{o.writer.ProducerID: true}
		for _, e := range state.Epochs() {
			o.known[e.ProducerID] = true
		}
		_, opened := state.Last()
		o.first = !opened
		reading[partitionKey{o.targetTopic, o.key.Partition}] = o
		setRead(session, o, o.log.from)
	}
	for len(reading) > 0 {
		resp, err := conn.Fetch(ctx, session, wire.FetchOptions{MaxWait: 100 * time.Millisecond, MinBytes: 1, MaxBytes: 4 << 20})
		if err != nil {
			if ctx.Err() != nil {
				err = errors.New("not seen in time: does the partition take writes, are enough replicas in sync?")
			}
			return err
		}
		var lost []*opening
		for i := range resp.Partitions {
			p := &resp.Partitions[i]
			o := reading[partitionKey{p.Topic, p.Partition}]
			if o == nil {
				continue
			}
			// At the end of the log with nothing read: the last record is not there.
			short := !o.fromEnd && p.ErrorCode == 0 && len(p.Records) == 0 && len(o.log.batches) == 0 && o.log.from > 0 && p.HighWatermark <= o.log.from
			if p.ErrorCode == kerr.OffsetOutOfRange.Code || short {
				lost = append(lost, o)
				continue
			}
			next := int64(-1)
			if o.err = op.brokerSaid(p.ErrorCode, o.targetTopic); o.err == nil {
				o.log.start = p.LogStart
				next, o.err = o.readOn(p.Records)
			}
			if o.err == nil && o.first && !o.fromEnd && o.log.marker < 0 && o.log.holdsData() {
				// Nobody of ours wrote this. What there is of it need not all be read.
				if !op.opts.AppendToExisting {
					o.err = op.existingRecords(o)
				} else if !o.log.again {
					o.log.again = true
					lost = append(lost, o)
					continue
				}
			}
			switch {
			case o.err == nil && o.log.marker >= 0 && !o.log.again && op.tailLost(o):
				// What is left of ours lies further down.
				o.log.again = true
				o.log.from = max(o.log.start, o.log.marker-backRead)
				o.log.batches, o.log.last, o.log.marker = nil, nil, -1
				setRead(session, o, o.log.from)
			case o.err != nil || o.log.marker >= 0:
				delete(reading, partitionKey{p.Topic, p.Partition})
				session.Forget(p.Topic, p.Partition)
			case next >= 0:
				setRead(session, o, next)
			}
		}
		resp.Frame.Release()
		if len(lost) > 0 {
			if err := op.readElsewhere(ctx, conn, lost); err != nil {
				return err
			}
			for _, o := range lost {
				if o.err != nil {
					delete(reading, partitionKey{o.targetTopic, o.key.Partition})
					session.Forget(o.targetTopic, o.key.Partition)
				} else {
					setRead(session, o, o.log.from)
				}
			}
		}
	}
	return nil
}

// journalledEnd is where the target ended by what the journal knows.
func journalledEnd(s offsets.LaneState) int64 {
	if p, ok := s.Position(); ok {
		return p.Target
	}
	if last, ok := s.Last(); ok {
		return last.Target
	}
	return 0
}

// tailLost says that the log ended below the journalled end before this opening
// and those that failed since wrote their control records.
func (op *opener) tailLost(o *opening) bool {
	if o.fromEnd {
		return false
	}
	last, ok := op.journal.State(o.key).Last()
	return ok && o.log.endedAt(last, o.writer) < o.log.end
}

// endedAt is where the log ended when the first opening after the journal's last
// epoch record came: at its control record. Openings that failed since leave
// one each, so the log may have grown beyond the journalled end again. Our own
// control record must have been seen.
func (t *targetLog) endedAt(last offsets.EpochRecord, w offsets.Writer) int64 {
	for _, b := range t.batches {
		if b.control && b.writer.ProducerID == w.ProducerID && (last.ProducerID != w.ProducerID || b.writer.Epoch > last.Epoch) {
			return b.base
		}
	}
	return t.marker
}

func setRead(s *wire.FetchSession, o *opening, from int64) {
	s.Set(o.targetTopic, o.targetID, o.key.Partition, wire.FetchPosition{Offset: from, LeaderEpoch: -1, LastEpoch: -1, MaxBytes: 1 << 20})
}

func (op *opener) brokerSaid(code int16, topic string) error {
	return op.targetRight(kerr.ErrorForCode(code), "READ", topic)
}

// readElsewhere decides where to read when the journalled end is not in the log:
// retention has passed it, or the log lost its tail.
func (op *opener) readElsewhere(ctx context.Context, conn *wire.Conn, batch []*opening) error {
	for _, o := range batch {
		start, err := listOffset(ctx, conn, o, -2)
		if err != nil {
			return err
		}
		end, err := listOffset(ctx, conn, o, -1)
		if err != nil {
			return err
		}
		tail := max(start, end-backRead)
		switch {
		case o.first && !o.fromEnd && o.log.holdsData():
			o.log.from = max(o.log.from, tail)
		case o.log.from < start:
			o.log.from = start
		case tail < o.log.from:
			o.log.from = tail
		}
		o.log.start = start
		if !o.first {
			o.log.batches = nil
		}
	}
	return nil
}

func listOffset(ctx context.Context, conn *wire.Conn, o *opening, timestamp int64) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = o.targetTopic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.CurrentLeaderEpoch, p.Timestamp = o.key.Partition, -1, timestamp
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := conn.Request(ctx, req)
	if err != nil {
		return 0, err
	}
	r := resp.(*kmsg.ListOffsetsResponse)
	if len(r.Topics) != 1 || len(r.Topics[0].Partitions) != 1 {
		return 0, errors.New("list offsets of target: partition missing in the answer")
	}
	got := r.Topics[0].Partitions[0]
	return got.Offset, kerr.ErrorForCode(got.ErrorCode)
}

// readOn notes the batches of one answer and returns where to read next, -1
// where it stands.
func (o *opening) readOn(records []byte) (next int64, err error) {
	next = -1
	for len(records) > 0 {
		entry, rest, err := wire.Split(records)
		if errors.Is(err, wire.ErrPartial) {
			return next, nil
		}
		if err != nil {
			return next, err
		}
		records = rest
		if wire.Magic(entry) != 2 {
			next = wire.NextOffset(entry)
			o.log.batches = append(o.log.batches, logBatch{writer: offsets.Writer{ProducerID: -1, Epoch: -1}, base: next - 1, next: next})
			continue
		}
		b := wire.Batch(entry)
		next = b.NextOffset()
		w := offsets.Writer{ProducerID: b.ProducerID(), Epoch: b.ProducerEpoch()}
		if next <= o.log.from {
			continue
		}
		if b.IsControl() {
			o.log.batches = append(o.log.batches, logBatch{writer: w, control: true, base: b.BaseOffset(), next: next})
			if w == o.writer {
				o.log.marker = b.BaseOffset()
				o.fencedAt = now()
				return next, nil
			}
			if w.ProducerID == o.writer.ProducerID && w.Epoch > o.writer.Epoch {
				return next, fmt.Errorf("another holder took epoch %d after our %d: %w", w.Epoch, o.writer.Epoch, kerr.ProducerFenced)
			}
			continue
		}
		o.log.add(logBatch{writer: w, sequence: b.BaseSequence(), base: b.BaseOffset(), next: next})
		if o.known[w.ProducerID] {
			o.log.last = append(o.log.last[:0], entry...)
		}
	}
	return next, nil
}

// holdsData says whether a batch that is no control record was read.
func (t *targetLog) holdsData() bool {
	return slices.ContainsFunc(t.batches, func(b logBatch) bool { return !b.control })
}

// add appends a batch, or makes it part of the run it continues.
func (t *targetLog) add(b logBatch) {
	if n := len(t.batches); n > 0 {
		run := &t.batches[n-1]
		if run.writer == b.writer && !run.control && run.next == b.base && b.sequence >= 0 &&
			int64(b.sequence)-int64(run.sequence) == b.base-run.base {
			run.next = b.next
			return
		}
	}
	t.batches = append(t.batches, b)
}
