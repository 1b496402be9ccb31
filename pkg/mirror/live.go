package mirror

import (
	"context"

	"replicator/pkg/offsets"
)

// Live returns those of the lanes that this daemon has open, as they are now;
// nil asks for all. A lane that is opening, halted or another daemon's is left
// out: what it is may be decided elsewhere.
func (l *Link) Live(ctx context.Context, lanes []offsets.Lane) (map[offsets.Lane]offsets.Live, error) {
	held, err := l.look(ctx, lanes)
	return held.Open, err
}

// Held returns all lanes of this daemon. One that is halted, or closed by the authority, is
// left out.
func (l *Link) Held(ctx context.Context) (offsets.Held, error) { return l.look(ctx, nil) }

func (l *Link) look(ctx context.Context, lanes []offsets.Lane) (held offsets.Held, err error) {
	select {
	case <-l.begun:
	case <-l.dead:
		return held, nil
	default:
		return held, nil // the journal is being read
	}
	got := make(chan offsets.Held, 1)
	l.inbox.post(func() { got <- l.held(lanes) })
	select {
	case held = <-got:
		return held, nil
	case <-l.dead:
		return held, nil
	case <-ctx.Done():
		return held, ctx.Err()
	}
}

func (l *Link) held(lanes []offsets.Lane) offsets.Held {
	held := offsets.Held{Open: make(map[offsets.Lane]offsets.Live, len(lanes)), Known: l.assigned}
	add := func(ln *lane) {
		switch {
		case ln == nil:
		case ln.open() && ln.validated:
			held.Open[ln.key] = offsets.Live{
				State: l.journal.State(ln.key).With(l.positionOf(ln)), TargetTopic: ln.targetTopic, SourceEnd: ln.sourceEnd,
			}
		case ln.state == LaneWaiting, ln.state == LaneOpening, ln.state == LaneCopying, ln.state == LaneDraining && ln.goal == goalCopy:
			if ln.goal != goalRelease {
				held.Opening = append(held.Opening, ln.key)
			}
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
	return held
}

// Copies tells whether a source topic of that name is copied.
func (l *Link) Copies(topic string) bool {
	return l.filter.match(topic) && l.opts.Rename(topic) != ""
}
