package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"

	"replicator/internal/pause"
	"replicator/pkg/offsets"
)

const (
	// seldomest is the longest time between two renewals of a lane, whatever brokers remember.
	seldomest = 6 * time.Hour
	// firstRenewal is the longest time from the closing of a link to the first renewal
	// of its fence: whoever closed it has just fenced it.
	firstRenewal = time.Minute
	renewalRetry = time.Minute // longest time until a renewal that failed is tried again
	// deniedRetry is when a lane is tried again whose topic we may not write to: whoever
	// lifts that rule does not tell.
	deniedRetry = time.Minute
)

// GuardStatus is how the fence of a closed link is kept.
type GuardStatus struct {
	Lanes   int           `json:"lanes"`          // that are kept fenced
	Fenced  int           `json:"fenced"`         // of them, whose epoch this daemon has taken since the link closed
	Renewed int64         `json:"renewed"`        // epochs taken since then
	Last    *time.Time    `json:"last,omitempty"` // when one was taken last
	Next    *time.Time    `json:"next,omitempty"` // when the next is due
	Every   time.Duration `json:"every_ns"`       // how often each lane's is taken
	// Assumed says why Every rests on an assumption: some broker did not tell for how long
	// it remembers a fence, and may forget it sooner. Empty: all told.
	Assumed string `json:"assumed,omitempty"`
	// Denied are lanes on whose target topic we may not write: a rule keeps out whoever has
	// our principal, and no epoch is needed as long as it stands.
	Denied int    `json:"denied,omitempty"`
	Error  string `json:"error,omitempty"`
}

// renewer keeps the fence of a closed link: it takes the epochs of all its lanes again
// before the target's brokers forget them, and when a leader changes, which may not
// know them. It needs the target alone and writes nothing but control records.
type renewer struct {
	*opener
	lanes map[offsets.Lane]*fencedPlace
	asked time.Time // when brokers were last asked how long they remember

	mu     sync.Mutex
	status GuardStatus
}

type fencedPlace struct {
	key      offsets.Lane
	place    targetPlace
	renewed  bool
	at       time.Time // of the last renewal, where renewed
	denied   bool
	due      time.Time
	failures int
	err      error
}

func newRenewer(op *opener) *renewer {
	return &renewer{opener: op, lanes: map[offsets.Lane]*fencedPlace{}}
}

// run renews until ctx ends.
func (g *renewer) run(ctx context.Context) {
	for ctx.Err() == nil {
		every := g.interval(ctx)
		err := g.look(ctx, every)
		if err != nil && ctx.Err() == nil {
			g.log.Warn("fence is not looked after, trying again", zap.Error(err))
		}
		due := g.due()
		for batch := range slices.Chunk(due, openBatch) {
			began := time.Now()
			g.renew(ctx, batch, every)
			g.note(err)
			// Half of the time is for others.
			if len(due) > openBatch && pause.For(ctx, time.Since(began)) != nil {
				return
			}
		}
		g.note(err)
		if pause.For(ctx, g.pause()) != nil {
			return
		}
	}
}

// interval is how often a lane's epoch is taken: a quarter of what the brokers remember.
// They are asked again now and then, because it may be changed while they run.
func (g *renewer) interval(ctx context.Context) time.Duration {
	g.mu.Lock()
	every, was := g.status.Every, g.status.Assumed
	g.mu.Unlock()
	if every > 0 && time.Since(g.asked) < g.opts.RefreshInterval {
		return every
	}
	r := g.remembered(ctx)
	if ctx.Err() != nil {
		return max(every, time.Second)
	}
	g.asked = time.Now()
	every = min(max(r.For/4, time.Second), seldomest)
	if (r.Assumed == "") != (was == "") {
		g.log.Info("how often the fence is renewed", zap.Duration("every", every), zap.String("assumed", r.Assumed))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.status.Every, g.status.Assumed = every, r.Assumed
	return every
}

// look finds the lanes and where they are led.
func (g *renewer) look(ctx context.Context, every time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	places, err := g.targetLanes(ctx)
	if err != nil {
		return err
	}
	t := time.Now()
	for key, p := range places {
		ln := g.lanes[key]
		switch {
		case errors.Is(p.err, errGone):
			delete(g.lanes, key)
		case ln == nil:
			first := min(every, firstRenewal)
			g.lanes[key] = &fencedPlace{key: key, place: p, due: t.Add(backoff(0, first, first))}
		default:
			if p.err == nil && p.leader >= 0 && (p.leader != ln.place.leader || p.leaderEpoch != ln.place.leaderEpoch) {
				ln.due = t
			}
			ln.place = p
			ln.noLater(t, every)
		}
	}
	for key := range g.lanes {
		if _, ok := places[key]; !ok {
			delete(g.lanes, key)
		}
	}
	return nil
}

// noLater brings a lane forward that was to wait longer than brokers are known to
// remember now. One that fails, or is kept out by a rule, has its own time.
func (ln *fencedPlace) noLater(t time.Time, every time.Duration) {
	since := t
	if ln.renewed {
		since = ln.at
	}
	if latest := since.Add(every); ln.failures == 0 && !ln.denied && ln.due.After(latest) {
		ln.due = latest
	}
}

func (g *renewer) due() (due []*fencedPlace) {
	t := time.Now()
	for _, ln := range g.lanes {
		if !t.Before(ln.due) {
			due = append(due, ln)
		}
	}
	slices.SortFunc(due, func(a, b *fencedPlace) int { return compareLanes(a.key, b.key) })
	return due
}

// renew takes the epochs of a batch of lanes. That somebody else has taken a later
// one is as good.
func (g *renewer) renew(ctx context.Context, lanes []*fencedPlace, every time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	batch := make([]*opening, len(lanes))
	for i, ln := range lanes {
		batch[i] = ln.place.opening(ln.key)
		batch[i].fromEnd = true
	}
	g.takeOver(ctx, alive(batch))
	t, failed, denied := time.Now(), map[string]int{}, 0
	for i, o := range batch {
		ln := lanes[i]
		if errors.Is(o.err, kerr.ProducerFenced) || errors.Is(o.err, kerr.InvalidProducerEpoch) {
			o.err = nil
		}
		was := ln.denied
		if ln.denied = errors.Is(o.err, kerr.TopicAuthorizationFailed); ln.denied {
			ln.err, ln.failures, ln.due = nil, 0, t.Add(min(every, deniedRetry))
			if !was {
				denied++
			}
			continue
		}
		if ln.err = o.err; ln.err != nil {
			ln.failures++
			ln.due = t.Add(backoff(ln.failures, 500*time.Millisecond, min(every, renewalRetry)))
			failed[ln.err.Error()]++
			continue
		}
		ln.failures, ln.renewed, ln.at = 0, true, t
		ln.due = t.Add(every - time.Duration(jitter(int64(every/10))))
		g.mu.Lock()
		g.status.Renewed++
		g.status.Last = &t
		g.mu.Unlock()
	}
	if denied > 0 {
		g.log.Info("fence needs no renewal where we may not write: a rule keeps out whoever has our principal", zap.Int("lanes", denied))
	}
	for cause, n := range failed {
		if ctx.Err() == nil {
			g.log.Warn("fence not renewed, trying again", zap.Int("lanes", n), zap.String("cause", cause))
		}
	}
}

// note brings the status up to date.
func (g *renewer) note(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.status
	s.Lanes, s.Fenced, s.Denied, s.Error, s.Next = len(g.lanes), 0, 0, "", nil
	failed := 0
	for _, ln := range g.lanes {
		if ln.renewed {
			s.Fenced++
		}
		if ln.denied {
			s.Denied++
		}
		if ln.err != nil {
			if failed++; s.Error == "" {
				s.Error = ln.key.String() + ": " + ln.err.Error()
			}
		}
		if s.Next == nil || ln.due.Before(*s.Next) {
			due := ln.due
			s.Next = &due
		}
	}
	if failed > 0 {
		s.Error = fmt.Sprintf("%d of %d lanes: %s", failed, len(g.lanes), s.Error)
	}
	if err != nil {
		s.Error = err.Error()
	}
}

// pause is how long until something is due or the leaders are looked at again.
func (g *renewer) pause() time.Duration {
	wait := g.opts.RefreshInterval
	t := time.Now()
	for _, ln := range g.lanes {
		wait = min(wait, ln.due.Sub(t))
	}
	return max(wait, minRefresh)
}

func (g *renewer) snapshot() *GuardStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.status
	return &s
}

// startGuard keeps the fence from now on. Called by the loop.
func (l *Link) startGuard() {
	if l.guard != nil || l.stopping {
		return
	}
	ctx, cancel := context.WithCancel(l.ctx)
	g := newRenewer(&l.opener)
	l.guard, l.guardEnd = g, cancel
	l.spawn(func(context.Context) { g.run(ctx) })
}

// stopGuard lets the lanes have their epochs. A renewal that is under way puts a
// lane in doubt once.
func (l *Link) stopGuard() {
	if l.guard != nil {
		l.guardEnd()
		l.guard, l.guardEnd = nil, nil
	}
}
