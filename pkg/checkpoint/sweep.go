package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"replicator/internal/pause"
	"replicator/pkg/offsets"
)

// sweep does what is done every interval: it notes which lanes are ours and
// whether they were opened anew, says up to when commits are known, and commits
// to the target's groups.
func (k *Keeper) sweep(ctx context.Context) {
	ticker := time.NewTicker(k.cfg.Interval)
	defer ticker.Stop()
	for {
		due := false
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			due = true
		case <-k.gained:
		}
		if k.closed() {
			k.hold(offsets.Held{}, time.Now()) // what others keep meanwhile is read when the lanes are ours again
			continue
		}
		mine, err := k.cfg.Link.Held(ctx)
		if err == nil {
			err = k.takeOver(ctx, mine)
		}
		if err != nil {
			k.mended(ctx, "read", err)
			if pause.For(ctx, time.Second) != nil {
				return
			}
			continue
		}
		k.hold(mine, time.Now())
		if !due {
			continue
		}
		if mine.Known {
			if err := k.sayCurrent(ctx); err != nil {
				k.mended(ctx, "write", err) // where nobody commits, this is all that is written
			}
		}
		if k.cfg.CommitGroups {
			k.place(ctx)
		}
	}
}

// takeOver reads what other daemons have kept of lanes that are new to us: what is
// known of them here may be old.
func (k *Keeper) takeOver(ctx context.Context, mine offsets.Held) error {
	k.mu.Lock()
	gained := map[offsets.Lane]bool{}
	for lane := range mine.Open {
		if _, ok := k.held[lane]; !ok {
			gained[lane] = true
		}
	}
	for _, lane := range mine.Opening {
		if _, ok := k.held[lane]; !ok && !k.opening[lane] {
			gained[lane] = true
		}
	}
	k.mu.Unlock()
	if len(gained) == 0 {
		return nil
	}
	kept, err := readTopic(ctx, k.cfg.Target, k.cfg.CheckpointsTopic)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, c := range kept.checkpoints {
		if !gained[key.Lane] {
			continue
		}
		p := k.of(key)
		p.have, p.placed = *c, c.Placed
		p.placedFor, p.placedAt, p.reason, p.detail = -1, time.Time{}, "", ""
		switch {
		case c.Source == p.commit.Offset && c.Metadata == p.commit.Metadata:
			p.unwritten = time.Time{}
		case !p.unwritten.IsZero() && p.vouched.Before(c.Checked):
			p.vouched = c.Checked // until then another daemon has kept it
		}
	}
	return nil
}

// known is up to when the commits of the source are in the checkpoints of our
// lanes, open or not yet. Called with the lock held.
func (k *Keeper) known() time.Time {
	known := k.taken
	for _, p := range k.progress {
		if p.unwritten.IsZero() || !p.vouched.Before(known) {
			continue
		}
		if _, open := k.held[p.Lane]; open || k.opening[p.Lane] {
			known = p.vouched // what came since is known here, but not yet on the target
		}
	}
	return known
}

// hold notes the lanes of this daemon, and what of theirs has to be written again.
func (k *Keeper) hold(mine offsets.Held, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	held := make(map[offsets.Lane]heldLane, len(mine.Open))
	for lane, l := range mine.Open {
		last, _ := l.State.Last()
		held[lane] = heldLane{last.Writer, l.TargetTopic, l.SourceEnd}
		// An opening may have found that the target lost its tail: what lay beyond
		// is withdrawn by translating anew.
		opened := k.held[lane].writer != last.Writer
		for p := range k.byLane[lane] {
			age := now.Sub(p.have.Checked)
			if p.have.Source >= 0 && age > rewriteAfter {
				p.rewrite = true
			}
			if opened || p.rewrite || p.have.Placed != p.placed && age > notePlacedAfter {
				k.touch(p)
			}
		}
	}
	k.held, k.opening = held, map[offsets.Lane]bool{}
	for _, lane := range mine.Opening {
		k.opening[lane] = true
	}
	if len(k.dirty) > 0 {
		k.wakeUp()
	}
}

// sayCurrent writes up to when the commits of the source are known here.
func (k *Keeper) sayCurrent(ctx context.Context) error {
	k.mu.Lock()
	f := Freshness{Instance: k.cfg.Instance, Mode: k.mode, Current: k.known()}
	k.mu.Unlock()
	if f.Current.IsZero() {
		return nil
	}
	key, value := encodeFreshness(f)
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	if err := k.client.ProduceSync(ctx, &kgo.Record{Topic: k.cfg.CheckpointsTopic, Key: key, Value: value}).FirstErr(); err != nil {
		return fmt.Errorf("write freshness: %w", right(err, "WRITE", "topic "+k.cfg.CheckpointsTopic, k.cfg.Target.Alias()))
	}
	return nil
}

// place commits to the target's groups what they should have.
func (k *Keeper) place(ctx context.Context) {
	want := k.unplaced(time.Now())
	translated := make(map[Key]int64, len(want)) // Apply moves targets into the target's log
	for _, w := range want {
		translated[w.Key] = w.Target
	}
	err := Placer{Target: k.cfg.Target}.Apply(ctx, want)
	if err != nil && !errors.Is(err, context.Canceled) {
		k.fail("place", err)
	}
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.placing = ""
	if err != nil {
		k.placing = err.Error()
	}
	for _, w := range want {
		p := k.progress[w.Key]
		if p == nil || w.Action == "" {
			continue
		}
		p.reason, p.detail = w.Reason, w.Detail
		if w.Action == Skip {
			continue
		}
		if w.Action == Place {
			k.placed++
		}
		if w.Action == Place || p.placedAt.IsZero() {
			p.placedAt = now
		}
		// A group that was kept may have come there by itself: then it is not to
		// follow backwards.
		if w.Action == Place {
			p.placed = w.Target
		}
		p.placedFor = translated[w.Key]
		if w.Clamped != "" {
			p.placedFor = -1 // the target's log may soon reach there: looked at again
		}
	}
}

// unplaced are the checkpoints that the target's groups do not have, as far as is
// known here.
func (k *Keeper) unplaced(now time.Time) []*Placement {
	k.mu.Lock()
	defer k.mu.Unlock()
	var want []*Placement
	for lane, held := range k.held {
		for p := range k.byLane[lane] {
			if p.have.Source < 0 || p.have.Outcome == offsets.Unknown || p.commit.Offset < 0 || p.commit.Deleted {
				continue
			}
			refresh := !p.placedAt.IsZero() && now.Sub(p.placedAt) > refreshAfter
			if p.have.Target == p.placedFor && p.reason == "" && !refresh && !p.placedAt.IsZero() {
				continue
			}
			w := &Placement{Checkpoint: p.have, TargetTopic: held.targetTopic, Refresh: refresh}
			w.Placed = p.placed
			want = append(want, w)
		}
	}
	return want
}
