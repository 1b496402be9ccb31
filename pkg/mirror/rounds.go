package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"replicator/internal/pause"
	"replicator/pkg/offsets"
)

// rounds take a command's lanes through openings, batch by batch, and those that
// failed for a passing reason again, until all are done or the context ends.
type rounds struct {
	*opener
	lanes    []*laneWork
	open     func(context.Context, []*laneWork) []error // one batch; an outcome for each lane
	progress func(done, total int)
	// patience is how long lanes are tried after the last one that was done, 0 until the
	// context ends: what only time can help must not hold up what comes behind.
	patience time.Duration

	mu     sync.Mutex
	done   int
	doneAt time.Time // when the last one was
}

// laneWork is a lane on its way. One goroutine at a time has it.
type laneWork struct {
	key       offsets.Lane
	at        int // in the command's report
	place     targetPlace
	barrierID int64   // see opening
	barrierAt instant // see opening
	notBefore time.Time
	failures  int
	done      bool
	err       error // the last
}

// opening begins the lane's next opening.
func (w *laneWork) opening() *opening {
	o := w.place.opening(w.key)
	o.barrierID, o.barrierAt = w.barrierID, w.barrierAt
	return o
}

func (r *rounds) run(ctx context.Context) {
	left := r.lanes
	r.doneAt = time.Now()
	for round := 0; len(left) > 0 && ctx.Err() == nil; round++ {
		if round > 0 { // leaders may have moved
			if places, err := r.targetLanes(ctx); err == nil {
				for _, w := range left {
					if p, ok := places[w.key]; ok {
						w.place = p
					}
				}
			}
		}
		var g errgroup.Group
		g.SetLimit(openersAtOnce)
		for batch := range slices.Chunk(due(left), openBatch) {
			g.Go(func() error {
				opening, cancel := context.WithTimeout(ctx, openTime)
				defer cancel()
				for i, err := range r.open(opening, batch) {
					r.settle(batch[i], err)
				}
				return nil
			})
		}
		_ = g.Wait() // each lane keeps its own error
		left = slices.DeleteFunc(slices.Clone(left), func(w *laneWork) bool { return w.done })
		if len(left) == 0 || r.patience > 0 && time.Since(r.doneAt) > r.patience {
			return
		}
		soonest := slices.MinFunc(left, func(a, b *laneWork) int { return a.notBefore.Compare(b.notBefore) })
		if pause.For(ctx, time.Until(soonest.notBefore)) != nil {
			return
		}
	}
}

// due are the lanes that may be tried now.
func due(lanes []*laneWork) (out []*laneWork) {
	t := time.Now()
	for _, w := range lanes {
		if !t.Before(w.notBefore) {
			out = append(out, w)
		}
	}
	return out
}

// settle decides what an outcome means: done, or when to try again.
func (r *rounds) settle(w *laneWork, err error) {
	w.err = err
	if second, ok := errors.AsType[*secondBarrierError](err); ok {
		w.barrierID, w.barrierAt = second.producerID, second.at
		w.notBefore = second.at.t.Add(leaseWait)
		return
	}
	if err != nil && !errors.As(err, new(*haltError)) && !notAuthorized(err) && !errors.Is(err, errGone) {
		w.failures++
		w.notBefore = time.Now().Add(backoff(w.failures, 50*time.Millisecond, 2*time.Second))
		return
	}
	w.done = true
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done++
	r.doneAt = time.Now()
	if r.progress != nil {
		r.progress(r.done, len(r.lanes))
	}
}

// failure is why a lane is not done, "" if it is, or there is nothing to be done.
func (w *laneWork) failure() string {
	switch {
	case errors.Is(w.err, errGone), w.err == nil && w.done:
		return ""
	case w.err == nil:
		return "not tried in time"
	}
	return w.err.Error()
}

// pending: it was tried as long as patience lasts, and may still pass.
func (w *laneWork) pending() bool { return !w.done && w.err != nil }

// outcome says how many lanes are not done, nil if all are. Pending ones may be left out.
func (r *rounds) outcome(what string, pending bool) error {
	failed, first := 0, ""
	for _, w := range r.lanes {
		if w.pending() && !pending {
			continue
		}
		if why := w.failure(); why != "" {
			if failed++; first == "" {
				first = w.key.String() + ": " + why
			}
		}
	}
	if failed == 0 {
		return nil
	}
	return fmt.Errorf("%s link %s: %d of %d lanes are not done: %s", what, r.opts.Name, failed, len(r.lanes), first)
}

func outcomes(batch []*opening) []error {
	out := make([]error, len(batch))
	for i, o := range batch {
		out[i] = o.err
	}
	return out
}
