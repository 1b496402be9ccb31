package offsets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"replicator/pkg/cluster"
)

// Tail is what a lane's target partition shows beyond what the journal knows.
type Tail struct {
	State       LaneState // with the position and the shifts that the target's log shows
	TargetTopic string
	Start, End  int64  // of the target's log, next
	Warning     string // the target has lost its tail: State ends with what is left
	Err         error  // nothing can be said of the lane; State is then what the journal has
	Unread      bool   // Err says why the log was not read in time; asking again may help
}

// ReadTails reads what the target's logs hold behind the lanes' journalled positions, which may be
// a second old, and returns for each lane how far it really came. With the source gone and no
// daemon running this is the last word; while a daemon copies it is a snapshot. It writes nothing,
// fences nobody and needs READ on the target's topics.
//
// target names a lane's topic on the target. Records of ours that the journal does not know, a
// target topic made anew, and a log that was cut and written to since are errors of the lane. A log
// that ends where the journal's position says is believed without a look at its last record.
// Leaders that move are asked again for 10 s, for 2 s where all replicas of what is left are offline,
// at most until three quarters of ctx's time are over, or ctx ends; the lanes that are left then have
// the last error. The error returned is that of the
// journal.
func ReadTails(ctx context.Context, c *cluster.Cluster, j *Journal, target func(Lane) string, lanes []Lane) (map[Lane]Tail, error) {
	r := tailReader{cluster: c}
	for _, l := range lanes {
		r.pending = append(r.pending, &tailLog{lane: l, topic: target(l), before: j.State(l)})
	}
	logs := slices.Clone(r.pending)
	within, cancel := ctx, context.CancelFunc(func() {})
	if deadline, ok := ctx.Deadline(); ok {
		within, cancel = context.WithDeadline(ctx, deadline.Add(-time.Until(deadline)/4))
	}
	r.read(within)
	cancel()
	// What a record stands for is in the journal before the record is sent. So whoever has read the
	// log first, and the journal then, knows all records.
	if err := j.Sync(ctx, lanes); err != nil {
		return nil, err
	}
	tails := make(map[Lane]Tail, len(lanes))
	for _, log := range logs {
		tails[log.lane] = log.tail(j.State(log.lane))
	}
	return tails, nil
}

// tailLog is what was read of one lane's target partition.
type tailLog struct {
	lane    Lane
	topic   string    // on the target
	before  LaneState // before the log was read
	topicID [16]byte  // of the target, zero if unknown
	start   int64     // of the log, next
	end     int64     // of the log, next, when reading began
	next    int64     // target offset to read next
	runs    []logRun
	err     error // final, or why it was not read yet
}

// logRun is one control record, or batches of one producer that follow each other.
type logRun struct {
	writer     Writer // producer id -1 if none
	control    bool
	sequence   int64 // of the first record
	base, next int64 // target offsets
}

// maxTailRuns bounds the memory for one lane.
const maxTailRuns = 100_000

var errManyRuns = fmt.Errorf("more than %d runs of batches stand behind the journalled position", maxTailRuns)

// add notes a batch.
func (t *tailLog) add(r logRun) error {
	if n := len(t.runs); n > 0 {
		last := &t.runs[n-1]
		follows := r.writer.ProducerID < 0 || r.sequence-last.sequence == r.base-last.base && r.sequence >= 0
		if last.writer == r.writer && last.next == r.base && !last.control && !r.control && follows {
			last.next = r.next
			return nil
		}
	}
	if len(t.runs) == maxTailRuns {
		return errManyRuns
	}
	t.runs = append(t.runs, r)
	return nil
}

// tail says what the log means, given all facts that were there when it was read.
func (t *tailLog) tail(state LaneState) Tail {
	tail := Tail{State: state, TargetTopic: t.topic, Start: t.start, End: t.end}
	fail := func(err error) Tail {
		tail.Err = fmt.Errorf("read target partition %s-%d: %w", t.topic, t.lane.Partition, err)
		return tail
	}
	if err := cmp.Or(t.err, state.Err()); err != nil {
		tail.Unread = t.err != nil && !errors.As(t.err, new(refused))
		return fail(err)
	}
	last, ok := state.Last()
	if !ok {
		return tail
	}
	if none := [16]byte{}; t.topicID != last.TargetTopicID && t.topicID != none && last.TargetTopicID != none {
		return fail(errors.New("the topic was deleted and created again since the lane was opened: its offsets are not those of the journal"))
	}
	if _, opened := t.before.Last(); opened && t.end < t.before.view().end().Target {
		return t.shortened(tail, fail)
	}
	p, shifts, err := t.advance(state)
	if err != nil {
		return fail(err)
	}
	if p != nil {
		tail.State = state.withEnd(*p, shifts)
		if err := tail.State.Err(); err != nil {
			tail.State = state
			return fail(err)
		}
	}
	// A daemon that copies may have journalled more than the log had.
	tail.End = max(t.end, tail.State.view().end().Target)
	return tail
}

// shortened is the tail of a log that ends below the journalled position.
func (t *tailLog) shortened(tail Tail, fail func(error) Tail) Tail {
	known := t.before.view().end()
	if now := tail.State.view().end(); now != known {
		tail.Unread = true
		return fail(errors.New("the log ended below the journalled position, which has moved since: read again"))
	}
	next, ok := tail.State.SourceOf(t.end)
	if !ok {
		return fail(fmt.Errorf("the log lost its tail: it ends at offset %d, the journal knows %d, and the map does not reach down to there", t.end, known.Target))
	}
	p, _ := tail.State.Position()
	last, _ := tail.State.Last()
	p.Lane, p.Writer = t.lane, last.Writer
	p.Ordinal, p.Source, p.Target, p.Closed, p.Quiet = next.Ordinal, next.Source, t.end, false, false
	if before, ok := tail.State.At(next.Ordinal - 1); ok {
		p.Source = before.Source + 1
	}
	tail.State = tail.State.withEnd(p, nil)
	tail.Warning = fmt.Sprintf("target partition %s-%d lost its tail: its log ends at offset %d and the journal knows %d; what is gone is translated to the log's end",
		t.topic, t.lane.Partition, t.end, known.Target)
	return tail
}

// advance follows the log from the state's position on. It returns nil when nothing was added.
func (t *tailLog) advance(state LaneState) (*Position, []Shift, error) {
	v := state.view()
	last := v.epochs[len(v.epochs)-1]
	journalled := v.end()
	at := journalled
	ours := map[int64]bool{}
	for _, e := range v.epochs {
		ours[e.ProducerID] = true
	}
	var shifts []Shift
	for _, r := range t.runs {
		if r.base < journalled.Target && r.next >= journalled.Target {
			if err := t.holdsLast(state, r, journalled); err != nil {
				return nil, nil, err
			}
		}
		from := max(r.base, journalled.Target)
		if r.control || !ours[r.writer.ProducerID] || from >= r.next {
			continue
		}
		ordinal, _, ok := state.Resolve(r.writer, r.sequence+from-r.base)
		final, source, ok2 := state.Resolve(r.writer, r.sequence+r.next-1-r.base)
		if !ok || !ok2 || r.sequence < 0 {
			return nil, nil, fmt.Errorf("records of producer %v at offsets %d to %d are not known to the journal: it has lost entries", r.writer, from, r.next-1)
		}
		// Records before it can be missing where compaction or retention removed them, but then
		// their offsets are missing too.
		if skipped := ordinal - at.Ordinal; r.writer != last.Writer || skipped < 0 || skipped > from-at.Target {
			return nil, nil, fmt.Errorf("records of our producer %v are out of place: offset %d holds ordinal %d, %d was expected", r.writer, from, ordinal, at.Ordinal)
		}
		if p, ok := state.At(ordinal); ok && p.Target != from {
			shifts = append(shifts, Shift{Lane: t.lane, Writer: r.writer, Ordinal: ordinal, Target: from})
		}
		at = Point{Ordinal: final + 1, Source: source + 1, Target: r.next}
	}
	if at == journalled {
		return nil, nil, nil
	}
	p, ok := state.Position()
	if !ok {
		p = Position{Lane: t.lane, Writer: last.Writer, SourceLeaderEpoch: -1, NewestTimestamp: -1, Time: last.Time}
	}
	p.Ordinal, p.Source, p.Target, p.SourceEnd = at.Ordinal, at.Source, at.Target, max(p.SourceEnd, at.Source)
	p.Closed, p.Quiet = false, false
	return &p, shifts, nil
}

// holdsLast compares the run that covers the offset below the journalled end with what the journal
// says stands there. A log that lost its tail may have grown beyond it again.
func (t *tailLog) holdsLast(state LaneState, r logRun, end Point) error {
	at := end.Target - 1
	last, _ := state.Last()
	p, ok := state.At(end.Ordinal - 1)
	switch {
	case last.Inverse():
		return nil // nothing was appended since the lane was prepared: there is no record of ours to compare
	case end.Target == last.Target:
		if r.control && r.writer == last.Writer {
			return nil
		}
	case !ok || p.Target != at:
		return nil // a foreign record, or not known any more
	case !r.control && r.sequence >= 0:
		if ordinal, _, ok := state.Resolve(r.writer, r.sequence+at-r.base); ok && ordinal == p.Ordinal {
			return nil
		}
	}
	return fmt.Errorf("the log was cut and written to since: producer %v stands at offset %d, which should be ours; the next opening of the lane notes it", r.writer, at)
}

// byTopic groups logs by their target topic.
func byTopic(logs []*tailLog) map[string][]*tailLog {
	topics := map[string][]*tailLog{}
	for _, t := range logs {
		topics[t.topic] = append(topics[t.topic], t)
	}
	return topics
}

func sortedTopics(topics map[string][]*tailLog) []string { return slices.Sorted(maps.Keys(topics)) }
