package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// PrepareConfig is what preparing a link needs.
type PrepareConfig struct {
	Options  Options // of the link to prepare
	Target   *cluster.Cluster
	Log      *zap.Logger // nil: none
	Run      string      // the run that prepares: run again under this name, what is done is kept
	Lanes    []PreparedLane
	Progress func(done, total int) // nil: none. Called by one goroutine at a time.
	Patience time.Duration         // how long after the last lane that was prepared the rest is tried; 0: until the context ends
}

// PreparedLane says where a lane of the link goes on.
type PreparedLane struct {
	Lane offsets.Lane
	// Inverse are the facts that describe what the link of the other direction
	// copied: the epoch record of a synthetic writer, its spans and shifts. None: it
	// copied nothing.
	Inverse []offsets.Entry
	Ordinal int64 // next: how many records the lane has in all, those of Inverse included
	// Position is the next source offset: the first that was written on the link's
	// source after the promotion.
	Position          int64
	SourceTopicID     [16]byte // zero: not known
	SourceLeaderEpoch int32    // of the record before Position, -1 unknown
	// Earlier is the instance of an earlier run that has prepared the lane for the same end, "" if
	// none has: it is kept, as one of this run would be. See [PreparedFor].
	Earlier string
	// Gap are source offsets that are never copied; nil: none. Its lane and writer are
	// filled in.
	Gap *offsets.Gap
}

// PrepareReport is what was prepared.
type PrepareReport struct {
	Link  string               `json:"link"`
	Lanes []PreparedLaneReport `json:"lanes"` // by topic and partition
}

// PreparedLaneReport is one lane that a daemon may open and go on with. Offsets are next offsets.
type PreparedLaneReport struct {
	Topic     string         `json:"topic"`
	Partition int32          `json:"partition"`
	Writer    offsets.Writer `json:"writer"`
	Ordinal   int64          `json:"ordinal"`
	Source    int64          `json:"source"`         // where the daemon begins to copy
	Target    int64          `json:"target"`         // behind the control record
	Done      bool           `json:"done"`           // the epoch record is acknowledged
	Kept      bool           `json:"kept,omitempty"` // by an earlier start of the same run
	// Missing says why there was nothing to prepare: the target has no partition that the link
	// would copy the lane to. When it has one, a daemon begins the lane like any new one.
	Missing string `json:"missing,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Prepare makes a link ready to append behind what is on its target already: its
// journal gets the inverse of what the link of the other direction copied, then
// every lane is opened where the target ends, with Position as the source offset it
// goes on from. A daemon's opening afterwards goes on from there by its ordinary
// rules. It may be run again under the same Run. A lane without a partition on the
// target is left out.
func Prepare(ctx context.Context, c PrepareConfig) (PrepareReport, error) {
	op, err := newOpener(ctx, c.Options, c.Target, c.Log, preparedBy+c.Run, false)
	if err != nil {
		return PrepareReport{}, err
	}
	defer op.journal.Close()
	places, err := op.targetLanes(ctx)
	if err != nil {
		return PrepareReport{}, fmt.Errorf("prepare link %s: %w", op.opts.Name, err)
	}
	p := prepare{rounds: rounds{opener: op, progress: c.Progress, patience: c.Patience}, report: PrepareReport{Link: op.opts.Name}}
	p.open = p.prepare
	p.want = slices.SortedFunc(slices.Values(c.Lanes), func(a, b PreparedLane) int { return compareLanes(a.Lane, b.Lane) })
	unlisted, err := op.unlisted(ctx, p.want, places)
	if err != nil {
		return PrepareReport{}, fmt.Errorf("prepare link %s: %w", op.opts.Name, err)
	}
	for i, want := range p.want {
		at, ok := places[want.Lane]
		if !ok {
			at = unlisted[want.Lane]
		}
		p.lanes = append(p.lanes, &laneWork{key: want.Lane, at: i, place: at, barrierID: -1})
		p.report.Lanes = append(p.report.Lanes, PreparedLaneReport{
			Topic: want.Lane.Topic, Partition: want.Lane.Partition, Writer: noWriter, Ordinal: -1, Source: -1, Target: -1,
		})
	}
	p.run(ctx)
	for _, w := range p.lanes {
		if p.report.Lanes[w.at].Error = w.failure(); errors.Is(w.err, errGone) {
			p.report.Lanes[w.at].Missing = w.err.Error()
		}
	}
	return p.report, p.outcome("prepare", true)
}

// unlisted are the places of lanes that neither the journal nor the target's list of topics
// has. A broker leaves out of that list what may not be described, so each topic is asked
// for by name before it counts as one that is not there.
func (op *opener) unlisted(ctx context.Context, want []PreparedLane, places map[offsets.Lane]targetPlace) (map[offsets.Lane]targetPlace, error) {
	out := map[offsets.Lane]targetPlace{}
	var names []string
	for _, w := range want {
		if _, ok := places[w.Lane]; ok {
			continue
		}
		out[w.Lane] = targetPlace{err: fmt.Errorf("link %s does not copy topic %s to a topic of this name: %w", op.opts.Name, w.Lane.Topic, errGone)}
		if op.filter.match(w.Lane.Topic) && op.opts.Rename(w.Lane.Topic) == w.Lane.Topic && !slices.Contains(names, w.Lane.Topic) {
			names = append(names, w.Lane.Topic)
		}
	}
	if len(names) == 0 {
		return out, nil
	}
	listed, err := listTopics(ctx, op.target.Client(), names)
	if err != nil {
		return nil, fmt.Errorf("list topics of %s: %w", op.opts.To, err)
	}
	for lane := range out {
		d, asked := listed[lane.Topic]
		_, there := d.partitions[lane.Partition]
		switch {
		case !asked:
		case errors.Is(d.err, kerr.UnknownTopicOrPartition), d.err == nil && !there:
			out[lane] = targetPlace{err: errGone}
		case d.err != nil:
			out[lane] = targetPlace{err: fmt.Errorf("find target topic: %w", op.targetRight(d.err, "DESCRIBE", lane.Topic))}
		default:
			p := targetPlace{place: placeOf(d, lane.Partition)}
			p.topic = lane.Topic
			out[lane] = p
		}
	}
	return out, nil
}

// preparedBy begins the instance of an epoch record that Prepare wrote; see fencedBy.
const preparedBy = "prepare: "

// prepare is a Prepare under way.
type prepare struct {
	rounds
	want   []PreparedLane
	report PrepareReport // each lane is written by who has it
}

// prepare takes one batch through the steps. What is on the target is described by
// the inverse, so the log is only read for our control record. The inverse is
// acknowledged before the epoch record is written: that one alone says that the lane
// is prepared.
func (p *prepare) prepare(ctx context.Context, lanes []*laneWork) []error {
	batch := make([]*opening, len(lanes))
	for i, w := range lanes {
		batch[i] = w.opening()
		batch[i].fromEnd = true
		if p.kept(w) {
			batch[i].err = errKept
		}
	}
	p.takeOver(ctx, alive(batch))
	p.syncJournal(ctx, alive(batch))
	var g errgroup.Group
	g.SetLimit(inversesAtOnce)
	for i, o := range batch {
		if o.err != nil {
			continue
		}
		want := p.want[lanes[i].at]
		if o.err = p.lay(o, want); o.err == nil && len(want.Inverse) > 0 {
			g.Go(func() error { o.err = p.write(ctx, want.Inverse); return nil })
		}
	}
	_ = g.Wait() // each opening keeps its own error
	p.writeEpochs(ctx, alive(batch))
	for i, o := range batch {
		if errors.Is(o.err, errKept) {
			o.err = nil
		} else if o.err == nil {
			ln := &p.report.Lanes[lanes[i].at]
			ln.Done, ln.Writer, ln.Ordinal, ln.Source, ln.Target = true, o.writer, o.recovered.ordinal, o.recovered.source, o.target
		}
	}
	return outcomes(batch)
}

// errKept ends the opening of a lane that an earlier start of the run has prepared.
var errKept = errors.New("prepared already")

const (
	inversesAtOnce = 16
	inverseAtOnce  = 200 // entries of a lane on their way to the journal
)

// kept says that the run has prepared the lane before, and reports what it did. A
// daemon may have gone on from there since.
func (p *prepare) kept(w *laneWork) bool {
	state := p.journal.State(w.key)
	e, ok := openedBy(state, p.instance)
	if earlier := p.want[w.at].Earlier; !ok && earlier != "" {
		if e, ok = openedBy(state, earlier); ok {
			e, _ = state.Last() // it has been opened since, and goes on from there
		}
	}
	if ok {
		ln := &p.report.Lanes[w.at]
		ln.Done, ln.Kept, ln.Writer, ln.Ordinal, ln.Source, ln.Target = true, true, e.Writer, e.Ordinal, e.Source, e.Target
	}
	return ok
}

// PreparedBy says whether a run has prepared a lane, by the link's journal. Prepare keeps
// such a lane and asks for nothing but its name: its inverse cannot be made again.
func PreparedBy(s offsets.LaneState, run string) bool {
	_, ok := openedBy(s, preparedBy+run)
	return ok
}

// PreparedFor returns who prepared a lane last, if that was for the source offset where a fence
// of the other direction's lane has its end now. Nothing was copied in that direction since: there
// is no inverse to make, and what the lane itself has copied since is no news to it.
func PreparedFor(s offsets.LaneState, source int64) (instance string, ok bool) {
	for _, e := range slices.Backward(s.Epochs()) {
		if strings.HasPrefix(e.Instance, preparedBy) {
			return e.Instance, e.Source == source
		}
	}
	return "", false
}

// FenceEnd returns the target offset where a fence has ended a lane, 0 for one that nobody ever
// opened; false where a daemon has it, or had it last.
func FenceEnd(s offsets.LaneState) (target int64, ok bool) {
	last, _ := s.Last()
	return last.Target, endKnown(s)
}

func openedBy(s offsets.LaneState, instance string) (offsets.EpochRecord, bool) {
	for _, e := range s.Epochs() {
		if e.Instance == instance {
			return e, true
		}
	}
	return offsets.EpochRecord{}, false
}

// lay fills in where the lane goes on, if the journal agrees.
func (p *prepare) lay(o *opening, want PreparedLane) error {
	state := p.journal.State(o.key)
	if err := state.Err(); err != nil {
		return haltf("journal of the lane is damaged: %v", err)
	}
	if top, ok := state.MaxEpoch(o.writer.ProducerID); ok && top >= o.writer.Epoch {
		return fmt.Errorf("epoch %d of producer id %d was used before: taking another", o.writer.Epoch, o.writer.ProducerID)
	}
	if err := p.secondBarrier(o, state); err != nil {
		return err
	}
	ordinal := int64(0)
	if last, ok := state.Last(); ok {
		ordinal = last.Ordinal
	}
	if at, ok := state.Position(); ok {
		ordinal = max(ordinal, at.Ordinal)
	}
	if ordinal > want.Ordinal {
		return haltf("lane has %d records by its journal, the inverse goes on at %d: the inverse was made before the lane was fenced; make it again", ordinal, want.Ordinal)
	}
	o.target, o.sourceID = o.log.marker+1, want.SourceTopicID
	o.recovered = recovered{ordinal: want.Ordinal, source: want.Position, sourceEpoch: want.SourceLeaderEpoch}
	if want.Gap != nil {
		gap := *want.Gap
		gap.Lane, gap.Writer = o.key, o.writer
		o.gap = &gap
	}
	return nil
}

// write journals entries of one lane, in order, some at a time.
func (p *prepare) write(ctx context.Context, entries []offsets.Entry) error {
	for some := range slices.Chunk(entries, inverseAtOnce) {
		done := make(chan error, 1)
		p.journal.Append(func(err error) { done <- err }, some...)
		select {
		case err := <-done:
			if err != nil {
				return fmt.Errorf("write inverse of the offset map: %w", err)
			}
		case <-ctx.Done():
			return fmt.Errorf("write inverse of the offset map: %w", context.Cause(ctx))
		}
	}
	return nil
}
