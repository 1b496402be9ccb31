package authority

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"replicator/internal/pause"
)

const (
	pollWait    = 500 * time.Millisecond // a broker waits for a change at most
	missingWait = time.Second            // between two looks for a topic that is not there
	errorWait   = time.Second            // after an error
)

// Watcher follows one cluster's copy for ever: the topic may be made later, brokers
// may come and go. Its methods may be called from many goroutines.
type Watcher struct {
	cfg Config

	asking sync.Mutex  // one Sync at a time
	asked  *copyReader // of Sync

	mu      sync.Mutex
	known   Knowledge
	id      [16]byte // of the topic known is of
	next    int64    // how far known was read
	highest int64    // epoch ever seen
	changed chan struct{}
}

// Knowledge is what a watcher knows.
type Knowledge struct {
	State State
	Known bool // State was read and can be believed
	// AsOf is when the copy was seen to say so last, zero: never.
	AsOf time.Time
	// Err is why nothing newer is known, or why State cannot be believed.
	Err error
}

// Watch makes a watcher. Run makes it follow.
func Watch(cfg Config) *Watcher {
	cfg = cfg.withDefaults()
	return &Watcher{cfg: cfg, asked: newCopyReader(cfg, cfg.Cluster.Client()), changed: make(chan struct{}), next: -1}
}

// Run follows until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	// A client of its own, so that waiting answers hold up nobody else's.
	var client *kgo.Client
	for {
		var err error
		if client, err = w.cfg.Cluster.NewClient(); err == nil {
			break
		}
		_, _ = w.publish(nil, time.Now(), false, err) // it is what is known now
		if pause.For(ctx, errorWait) != nil {
			return
		}
	}
	defer client.Close()
	r := newCopyReader(w.cfg, client)
	for ctx.Err() == nil {
		asked := time.Now()
		current, err := r.follow(ctx, pollWait)
		if ctx.Err() != nil {
			return
		}
		_, _ = w.publish(r, asked, current, err) // it is what is known now
		switch {
		case err != nil:
			_ = pause.For(ctx, errorWait) // the loop sees that ctx ended
		case !r.there:
			_ = pause.For(ctx, missingWait)
		}
	}
}

// publish makes known what a reader found when it asked. It returns what is known
// by that reader, with the error that makes it worthless.
func (w *Watcher) publish(r *copyReader, asked time.Time, current bool, err error) (State, error) {
	var s State
	if err == nil {
		s, err = r.state()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case err == nil && current && s.Epoch() < w.highest:
		err = &LostError{Pair: w.cfg.Pair, Cluster: w.cfg.Cluster.Alias(), Topic: w.cfg.Topic, Before: w.highest, Then: s.Epoch()}
	case err == nil:
		w.highest = max(w.highest, s.Epoch())
	}
	before := w.known
	switch {
	case err != nil:
		w.known.Err = err
		if !unsure(err) {
			w.known.Known = false
		}
	case !current:
		return s, nil // not read to the end yet
	case w.known.Known && r.there && r.id == w.id && r.next < w.next && asked.Before(w.known.AsOf):
		return s, nil // another reader asked later and has come further
	default:
		w.known = Knowledge{State: s, Known: true, AsOf: asked}
		w.id, w.next = r.id, r.next
	}
	if before.Known != w.known.Known || w.known.Known && !before.State.equal(w.known.State) {
		close(w.changed)
		w.changed = make(chan struct{})
	}
	if (before.Err == nil) != (w.known.Err == nil) {
		w.tell()
	}
	return s, err
}

// tell logs that reading fails, or works again.
func (w *Watcher) tell() {
	to := w.cfg.Log.With(zap.String("cluster", w.cfg.Cluster.Alias()), zap.String("pair", w.cfg.Pair.String()))
	if err := w.known.Err; err != nil {
		to.Warn("authority cannot be read", zap.Error(err))
		return
	}
	to.Info("authority is read", zap.Int64("epoch", w.known.State.Epoch()), zap.String("region", w.known.State.Region("")))
}

// State returns what is known, false if that is nothing or cannot be believed.
func (w *Watcher) State() (State, bool) {
	k := w.Knowledge()
	return k.State, k.Known
}

// Knowledge returns what is known, how old it is and what is wrong.
func (w *Watcher) Knowledge() Knowledge {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known
}

// Changed returns a channel that is closed when what State returns changes. Ask for
// it before State, or a change between the two is missed.
func (w *Watcher) Changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changed
}

// Sync reads to the present end of the copy: what was written before it began is in
// the State it returns. It needs no Run.
func (w *Watcher) Sync(ctx context.Context) (State, error) {
	w.asking.Lock()
	defer w.asking.Unlock()
	asked := time.Now()
	err := w.asked.sync(ctx)
	if err != nil && ctx.Err() != nil {
		return State{}, err // who asks gave up, that says nothing of the copy
	}
	return w.publish(w.asked, asked, err == nil, err)
}

// LinkAuthority is what a watcher of a link's target says of the link.
type LinkAuthority struct {
	*Watcher
	From, To string
	// Implied is the region that is authoritative as long as no record was written;
	// of two opposite links only one can be meant.
	Implied string
}

// Sync says whether the link may append, by the copy as it is now; why is for people.
func (l *LinkAuthority) Sync(ctx context.Context) (ok bool, why string, err error) {
	s, err := l.Watcher.Sync(ctx)
	if err != nil {
		return false, "", fmt.Errorf("ask who is authoritative: %w", err)
	}
	ok, why = l.judge(s)
	return ok, why, nil
}

// Allowed says whether the link may append by what is known now, without asking.
func (l *LinkAuthority) Allowed() (ok bool, why string) {
	k := l.Knowledge()
	if !k.Known {
		if k.Err != nil {
			return false, k.Err.Error()
		}
		return false, "it is not known yet who is authoritative"
	}
	return l.judge(k.State)
}

func (l *LinkAuthority) judge(s State) (ok bool, why string) {
	if _, found := s.Current(); !found && l.Implied != l.From {
		return false, fmt.Sprintf("no authority was ever set, %s is implied", orNone(l.Implied))
	}
	return s.MayAppend(l.From, l.To)
}
