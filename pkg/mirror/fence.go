package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// FenceConfig is what fencing a link needs. Nothing of its source is.
type FenceConfig struct {
	Options  Options // of the link
	Target   *cluster.Cluster
	Log      *zap.Logger           // nil: none
	Instance string                // who fences, kept in the journal: "switchover 3f9c by ann"
	Progress func(done, total int) // lanes fenced so far; nil: none. Called by one goroutine at a time.
	// Patience is how long after the last lane that was fenced the rest is tried; they are
	// left Pending then, which is no error. 0: until the context ends.
	Patience time.Duration
}

// FenceReport is what a fence found and left behind.
type FenceReport struct {
	Link  string       `json:"link"`
	Lanes []FencedLane `json:"lanes"` // by topic and partition
}

// FencedLane is one lane behind a fence. Offsets are next offsets.
type FencedLane struct {
	Topic       string `json:"topic"` // on the source
	Partition   int32  `json:"partition"`
	TargetTopic string `json:"target_topic"`
	// Fenced says that the target's leader has taken our control record: it refuses
	// every older epoch. It may be true beside an Error, which then says why the
	// lane's end is not known.
	Fenced bool `json:"fenced"`
	// Gone says that the target partition does not exist: there is nothing to fence.
	Gone        bool  `json:"gone,omitempty"`
	Leader      int32 `json:"leader"`
	LeaderEpoch int32 `json:"leader_epoch"` // of the target partition's leader, -1 unknown
	// Old is the lane's last holder that could append: the one of the last epoch
	// record that no fence wrote. Its ProducerID is -1 when nobody ever opened the lane.
	Old offsets.Writer `json:"old"`
	New offsets.Writer `json:"new"` // whose control record stands on the target now
	// Source and Ordinal are where the lane ended, End is the target offset behind
	// the control record that made this final: what the old holder appended lies
	// below it. Of a lane that nobody ever opened Source is -1, and a later fence
	// has a later End.
	Source  int64 `json:"source"`
	Ordinal int64 `json:"ordinal"`
	End     int64 `json:"end"`
	// Pending says that the lane could not be fenced as long as patience lasted, as when
	// the partition has no leader. Nobody appends to it then, and the guard fences it
	// when it has one.
	Pending bool `json:"pending,omitempty"`
	// Kept says that an earlier fence had ended the lane: Source, Ordinal and End are
	// that one's, the epoch alone is new.
	Kept bool `json:"kept,omitempty"`
	// Foreign counts the offsets somebody else had written behind the lane's records.
	Foreign int64  `json:"foreign,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Lane is its name in the journal.
func (l FencedLane) Lane() offsets.Lane { return offsets.Lane{Topic: l.Topic, Partition: l.Partition} }

// fencedBy begins the instance of an epoch record that a fence wrote. A daemon's
// instance ends in its process id and has no colon before it.
const fencedBy = "fence: "

// isFence says whether an epoch record is a fence's.
func isFence(e offsets.EpochRecord) bool { return strings.HasPrefix(e.Instance, fencedBy) }

// Fence opens every lane of a link on its target, with the steps of a daemon's
// opening, so that each lane's end is final and the brokers refuse whoever held it
// before. The authority record that closes the link's direction has to be there
// already: a daemon that opens a lane later reads it and stops.
//
// The lanes are those of the journal, and the partitions of all topics on the target
// the link would copy. A lane nobody has ever opened gets an epoch and a control
// record, but no epoch record: a daemon that is about to open it for the first
// time, and has no acknowledged epoch record before our control record, finds the
// partition's end moved and never sends.
//
// What may pass is tried again until patience or ctx ends. It may be run again at any time: a
// lane whose end is final keeps it, whatever applications have written behind it
// since, and gets a new epoch. The error says how many lanes are not fenced, or not
// accounted for; the report then tells each one's cause.
func Fence(ctx context.Context, c FenceConfig) (FenceReport, error) {
	op, err := newOpener(ctx, c.Options, c.Target, c.Log, fencedBy+c.Instance, false)
	if err != nil {
		return FenceReport{}, err
	}
	defer op.journal.Close()
	places, err := op.targetLanes(ctx)
	if err != nil {
		return FenceReport{}, fmt.Errorf("fence link %s: %w", op.opts.Name, err)
	}
	f := fence{rounds: rounds{opener: op, progress: c.Progress, patience: c.Patience}, report: FenceReport{Link: op.opts.Name}}
	f.open = f.fence
	keys := slices.SortedFunc(maps.Keys(places), compareLanes)
	for i, lane := range keys {
		p := places[lane]
		f.lanes = append(f.lanes, &laneWork{key: lane, at: i, place: p, barrierID: -1})
		f.report.Lanes = append(f.report.Lanes, FencedLane{
			Topic: lane.Topic, Partition: lane.Partition, TargetTopic: p.topic, Leader: p.leader, LeaderEpoch: p.leaderEpoch,
			Old: noWriter, New: noWriter, Source: -1, Ordinal: -1, End: -1,
		})
	}
	f.run(ctx)
	for _, w := range f.lanes {
		f.report.Lanes[w.at].Gone = errors.Is(w.err, errGone)
		f.report.Lanes[w.at].Error, f.report.Lanes[w.at].Pending = w.failure(), w.pending()
	}
	return f.report, f.outcome("fence", c.Patience <= 0 || ctx.Err() != nil)
}

var noWriter = offsets.Writer{ProducerID: -1, Epoch: -1}

// fence is a Fence under way.
type fence struct {
	rounds
	report FenceReport // each lane is written by who has it
}

// fence takes one batch through the steps.
func (f *fence) fence(ctx context.Context, lanes []*laneWork) []error {
	batch := make([]*opening, len(lanes))
	for i, w := range lanes {
		batch[i] = w.opening()
		batch[i].fromEnd = endKnown(f.journal.State(w.key))
	}
	f.takeOver(ctx, alive(batch))
	f.syncJournal(ctx, alive(batch))
	var fresh []*opening
	for i, o := range batch {
		if o.err != nil {
			continue
		}
		ln, state := &f.report.Lanes[lanes[i].at], f.journal.State(o.key)
		ln.Fenced, ln.New, ln.Leader, ln.LeaderEpoch = true, o.writer, o.targetBroker, o.leaderEpoch
		last, opened := state.Last()
		switch {
		case endKnown(state) != o.fromEnd:
			o.err = errors.New("another holder opened the lane meanwhile: taking its epoch once more")
		case !opened:
			ln.End = o.log.marker + 1
		case o.fromEnd:
			o.err = f.secondBarrier(o, state)
			ln.Kept, ln.Old, ln.Source, ln.Ordinal, ln.End = true, heldBefore(state), last.Source, last.Ordinal, last.Target
		default:
			ln.Old, o.sourceID = last.Writer, last.SourceTopicID
			if o.err = f.recover(o); o.err == nil {
				fresh = append(fresh, o)
			}
		}
		if errors.As(o.err, new(*secondBarrierError)) {
			ln.Fenced = false
		}
	}
	f.writeEpochs(ctx, fresh)
	for i, o := range batch {
		if ln := &f.report.Lanes[lanes[i].at]; o.err == nil && o.target > 0 {
			ln.Source, ln.Ordinal, ln.End, ln.Foreign = o.recovered.source, o.recovered.ordinal, o.target, o.recovered.foreign
		}
	}
	return outcomes(batch)
}

// endKnown says that a lane's log need not be read: a fence has ended it, or there
// is no record of ours in it.
func endKnown(s offsets.LaneState) bool {
	last, opened := s.Last()
	return !opened || isFence(last)
}

// heldBefore is the lane's last holder that no fence was.
func heldBefore(s offsets.LaneState) offsets.Writer {
	for _, e := range slices.Backward(s.Epochs()) {
		if !isFence(e) {
			return e.Writer
		}
	}
	return noWriter
}
