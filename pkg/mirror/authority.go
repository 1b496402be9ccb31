package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"replicator/internal/pause"
)

// Authority says whether a governed link may append: whether the authority record
// on its target, and the ready fact beside it, allow its direction.
type Authority interface {
	// Sync reads the copy on the target to its present end. An error means that
	// nobody knows.
	Sync(ctx context.Context) (Permission, error)
	// Changed returns a channel that is closed when Sync may say something else than
	// before. Ask for it before Sync.
	Changed() <-chan struct{}
}

// Permission is what the copy of the authority on a link's target says of the link.
type Permission struct {
	Append bool
	Why    string // for people: who is authoritative, since when, by whom
	// Epoch is that of the authority record, 0: none was ever written.
	Epoch int64
}

const (
	authorityTime = 10 * time.Second // one reading of the authority
	// unpreparedWait is the longest time between two openings of a lane that was not prepared:
	// each takes an epoch, of which there are 32,767.
	unpreparedWait = time.Minute
)

// closedError is how an opening ends that the authority does not allow.
type closedError struct{ why string }

func (e *closedError) Error() string { return e.why }

// unknownRecordsError halts a lane whose target holds records that the journal does
// not know.
type unknownRecordsError struct{ haltError }

func (e *unknownRecordsError) Unwrap() error { return &e.haltError }

// unpreparedError is unknownRecordsError on a link whose pair has an authority
// record: the records are the other direction's, and preparing the link makes them
// known.
type unpreparedError struct{ err error }

func (e *unpreparedError) Error() string {
	return "link is not prepared: run replicator failback to take over what the other direction copied: " + e.err.Error()
}

// obey asks whether the link may append, now that its lanes' control records have
// been seen: a promotion that is not in the record yet fences these epochs. Lanes
// whose target holds what nobody knows are asked for too: of a closed link they
// are not halted.
func (l *Link) obey(ctx context.Context, batch []*opening) {
	var asked []*opening
	for _, o := range batch {
		if o.err == nil || errors.As(o.err, new(*unknownRecordsError)) {
			asked = append(asked, o)
		}
	}
	if l.authority == nil || len(asked) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, authorityTime)
	defer cancel()
	p, err := l.authority.Sync(ctx)
	switch {
	case err != nil:
		failAll(asked, fmt.Errorf("ask on %s who is authoritative: %w", l.opts.To, err))
	case !p.Append:
		failAll(asked, &closedError{p.Why})
	}
	for _, o := range asked {
		o.governed = p.Epoch > 0
	}
}

// unprepared has lanes wait that would halt for records the journal does not know,
// where preparing the link is what is missing.
func unprepared(batch []*opening) {
	for _, o := range batch {
		if o.governed && errors.As(o.err, new(*unknownRecordsError)) {
			o.err = &unpreparedError{o.err}
		}
	}
}

// keepAuthority tells the loop what the authority says, whenever it says something
// else or was asked for.
func (l *Link) keepAuthority(ctx context.Context) {
	for failures := 0; ; {
		changed := l.authority.Changed()
		asking, cancel := context.WithTimeout(ctx, authorityTime)
		p, err := l.authority.Sync(asking)
		cancel()
		if ctx.Err() != nil {
			return
		}
		l.inbox.post(func() { l.onAuthority(p, err) })
		if err != nil {
			if failures++; pause.For(ctx, backoff(failures, 200*time.Millisecond, 5*time.Second)) != nil {
				return
			}
			continue
		}
		failures = 0
		select {
		case <-changed:
		case <-l.askAuthority:
		case <-ctx.Done():
			return
		}
	}
}

// authoritySoon asks keepAuthority to ask again.
func (l *Link) authoritySoon() {
	select {
	case l.askAuthority <- struct{}{}:
	default:
	}
}

// onAuthority opens or closes the link. What cannot be read changes nothing for
// lanes that copy: who is promoted meanwhile fences them. None opens until it can.
func (l *Link) onAuthority(p Permission, err error) {
	if err != nil {
		l.authorityProblem = fmt.Sprintf("ask on %s who is authoritative: %v", l.opts.To, err)
		l.fail("authority", errors.New(l.authorityProblem))
		for _, ln := range l.lanes {
			l.place(ln)
		}
		return
	}
	was, known := l.permission, l.permitted && l.authorityProblem == ""
	l.authorityProblem, l.permission, l.permitted = "", p, true
	l.appends.Store(p.Append)
	l.shut.Store(!p.Append)
	if known && was == p {
		return
	}
	if !p.Append {
		if l.guard == nil {
			l.event(EventClosed, nil, p.Why)
			l.startGuard()
		}
		for _, ln := range l.lanes {
			l.closeLane(ln)
		}
		return
	}
	if l.guard != nil {
		l.stopGuard()
		l.log.Info("link is open again", zap.String("authority", p.Why), zap.Int64("epoch", p.Epoch))
		l.refreshSoon()
	}
	for _, ln := range l.lanes {
		if ln.state == LaneClosed {
			ln.state, ln.reason, ln.attempts, ln.notBefore = LaneWaiting, "", 0, time.Time{}
		}
		l.place(ln)
	}
}

// closed says that the authority is known not to allow the link to append.
func (l *Link) closed() bool { return l.authority != nil && l.permitted && !l.permission.Append }

// barred is why no lane may be opened now, "" if lanes may.
func (l *Link) barred() string {
	switch {
	case l.authority == nil || l.permitted && l.permission.Append && l.authorityProblem == "":
		return ""
	case l.authorityProblem != "":
		return l.authorityProblem
	case !l.permitted:
		return "it is not known yet who is authoritative"
	}
	return l.permission.Why
}

// Appends says whether the link may write to its target, as far as this daemon
// knows: always, where it is not governed.
func (l *Link) Appends() bool { return l.authority == nil || l.appends.Load() }

// Closed says whether the link is known to be closed. Until its authority was read it is
// neither closed nor does it append: what does no harm to a closed link may begin.
func (l *Link) Closed() bool { return l.authority != nil && l.shut.Load() }

// closeLane lets the lane send nothing more, and journals where it stopped.
func (l *Link) closeLane(ln *lane) {
	switch ln.state {
	case LaneClosed:
		ln.reason = l.permission.Why
	case LaneDraining:
		if ln.goal != goalRelease {
			ln.goal, ln.reason = goalClose, l.permission.Why
		}
	default:
		l.drain(ln, goalClose, l.permission.Why)
	}
}
