package mirror

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
)

// startOpener opens a batch of lanes in the background. Each step is taken for
// all lanes before the next, a lane that fails drops out.
func (l *Link) startOpener(batch []*opening) {
	l.spawn(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, openTime)
		defer cancel()
		l.open(ctx, batch)
		l.inbox.post(func() {
			l.openers--
			l.openingDone(batch)
		})
	})
}

func (l *Link) open(ctx context.Context, batch []*opening) {
	l.takeOver(ctx, batch)
	l.obey(ctx, batch)
	l.syncJournal(ctx, alive(batch))
	for _, o := range alive(batch) {
		o.err = l.recover(o)
	}
	unprepared(batch)
	l.firstPositions(ctx, alive(batch))
	l.writeEpochs(ctx, alive(batch))
}

// firstPositions decides where lanes begin that nobody has opened before, and
// those of a topic that was made again: the latter always at its start.
func (l *Link) firstPositions(ctx context.Context, batch []*opening) {
	var start, end []*opening
	for _, o := range batch {
		switch {
		case o.recovered.source >= 0:
		case o.recovered.first && l.opts.StartLatest && !o.later:
			end = append(end, o)
		default:
			start = append(start, o)
		}
	}
	l.positionsFrom(ctx, l.source.Admin().ListStartOffsets, start)
	l.positionsFrom(ctx, l.source.Admin().ListEndOffsets, end)
}

func (l *Link) positionsFrom(ctx context.Context, list func(context.Context, ...string) (kadm.ListedOffsets, error), batch []*opening) {
	var topics []string
	seen := map[string]bool{}
	for _, o := range batch {
		if !seen[o.key.Topic] {
			seen[o.key.Topic] = true
			topics = append(topics, o.key.Topic)
		}
	}
	if len(topics) == 0 {
		return
	}
	listed, failed := listEach(ctx, list, topics)
	for _, o := range batch {
		at, ok := listed.Lookup(o.key.Topic, o.key.Partition)
		switch err := failed[o.key.Topic]; {
		case err != nil:
			o.err = fmt.Errorf("list offsets of source: %w", l.sourceRight(err, "READ", o.key.Topic))
		case !ok:
			o.err = errors.New("list offsets of source: partition missing in the answer")
		case at.Err != nil:
			o.err = fmt.Errorf("list offsets of source: %w", at.Err)
		default:
			o.recovered.source = at.Offset
		}
	}
}
