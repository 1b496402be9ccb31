package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"

	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// newOpener makes an opener for a command, with a journal of its own that the
// caller closes.
func newOpener(ctx context.Context, o Options, target *cluster.Cluster, log *zap.Logger, instance string, readOnly bool) (*opener, error) {
	if log == nil {
		log = zap.NewNop()
	}
	o = o.withDefaults()
	filter, err := newTopicFilter(o)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", o.Name, err)
	}
	op := &opener{opts: o, filter: filter, target: target, openPool: wire.NewPool(16 << 20), log: log.With(zap.String("link", o.Name)), instance: instance}
	if op.journal, err = op.openJournal(ctx, readOnly); err != nil {
		return nil, fmt.Errorf("link %s: %s: %w", o.Name, o.To, err)
	}
	return op, nil
}

func (op *opener) openJournal(ctx context.Context, readOnly bool) (*offsets.Journal, error) {
	return offsets.OpenJournal(ctx, offsets.JournalConfig{
		Client: op.target.NewClient, Admin: op.target.Admin(), Topic: op.opts.JournalTopic,
		Partitions: op.opts.JournalPartitions, ReplicationFactor: journalReplication(op.opts.JournalReplicationFactor), Log: op.log, ReadOnly: readOnly,
	})
}

// targetPlace is where a lane's target partition lies.
type targetPlace struct {
	place
	err error // why it is not known
}

// errGone is a target partition that does not exist.
var errGone = errors.New("target partition does not exist")

// opening begins an opening of a lane that lies there, without anything of its source.
func (p targetPlace) opening(lane offsets.Lane) *opening {
	o := &opening{
		key: lane, targetTopic: p.topic, targetID: p.id, targetBroker: p.leader, leaderEpoch: p.leaderEpoch, barrierID: -1, follow: -1, err: p.err,
	}
	if o.err == nil && p.leader < 0 {
		o.err = errors.New("target partition has no leader")
	}
	return o
}

// targetLanes are all lanes of the link by what the target alone tells: those of
// the journal, and the partitions of every topic there that the link would copy
// under that name.
func (op *opener) targetLanes(ctx context.Context) (map[offsets.Lane]targetPlace, error) {
	listed, err := listTopics(ctx, op.target.Client(), nil)
	if err != nil {
		return nil, fmt.Errorf("list topics of %s: %w", op.opts.To, err)
	}
	lanes := op.journal.Lanes()
	var unlisted []string // a broker leaves out what may not be described as if it did not exist
	for _, lane := range lanes {
		if name := op.opts.Rename(lane.Topic); name != "" && listed[name].name == "" && !slices.Contains(unlisted, name) {
			unlisted = append(unlisted, name)
		}
	}
	if len(unlisted) > 0 {
		named, err := listTopics(ctx, op.target.Client(), unlisted)
		if err != nil {
			return nil, fmt.Errorf("list topics of %s: %w", op.opts.To, err)
		}
		maps.Copy(listed, named)
	}
	out := map[offsets.Lane]targetPlace{}
	for _, lane := range lanes {
		name := op.opts.Rename(lane.Topic)
		d := listed[name]
		_, there := d.partitions[lane.Partition]
		p := targetPlace{place: placeOf(d, lane.Partition)}
		p.topic = name
		switch {
		case name == "", errors.Is(d.err, kerr.UnknownTopicOrPartition), d.err == nil && !there:
			p.err = errGone
		case d.err != nil:
			p.err = fmt.Errorf("find target topic: %w", op.targetRight(d.err, "DESCRIBE", name))
		}
		out[lane] = p
	}
	for name, d := range listed {
		if d.internal || !op.filter.match(name) || op.opts.Rename(name) != name {
			continue
		}
		for partition := range d.partitions {
			lane := offsets.Lane{Topic: name, Partition: partition}
			if _, ok := out[lane]; !ok {
				out[lane] = targetPlace{place: placeOf(d, partition)}
			}
		}
	}
	return out, nil
}
