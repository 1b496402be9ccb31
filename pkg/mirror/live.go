package mirror

import (
	"context"

	"replicator/pkg/offsets"
)

// Live returns those of the lanes that this daemon has open, as they are now;
// nil asks for all. A lane that is opening, halted or another daemon's is left
// out: what it is may be decided elsewhere.
func (l *Link) Live(ctx context.Context, lanes []offsets.Lane) (map[offsets.Lane]offsets.Live, error) {
	select {
	case <-l.begun:
	case <-l.dead:
		return nil, nil
	default:
		return nil, nil // the journal is being read
	}
	got := make(chan map[offsets.Lane]offsets.Live, 1)
	l.inbox.post(func() { got <- l.live(lanes) })
	select {
	case live := <-got:
		return live, nil
	case <-l.dead:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *Link) live(lanes []offsets.Lane) map[offsets.Lane]offsets.Live {
	out := make(map[offsets.Lane]offsets.Live, len(lanes))
	add := func(ln *lane) {
		if ln == nil || !ln.open() || !ln.validated {
			return
		}
		out[ln.key] = offsets.Live{
			State: l.journal.State(ln.key).With(l.positionOf(ln)), TargetTopic: ln.targetTopic, SourceEnd: ln.sourceEnd,
		}
	}
	if lanes == nil {
		for _, ln := range l.lanes {
			add(ln)
		}
	}
	for _, key := range lanes {
		add(l.lanes[key])
	}
	return out
}

// Copies tells whether a source topic of that name is copied.
func (l *Link) Copies(topic string) bool {
	return l.filter.match(topic) && l.opts.Rename(topic) != ""
}
