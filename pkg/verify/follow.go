package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"replicator/internal/pause"
	"replicator/pkg/cluster"
	"replicator/pkg/mirror"
	"replicator/pkg/offsets"
)

const (
	followInterval = 10 * time.Second
	// leastPart is what is compared of a lane at least: brokers send whole batches, so less costs the same.
	leastPart = 256 << 10
	// rangeTries is how often a range is tried before it is given up.
	rangeTries      = 5
	keptDifferences = 20 // in a status
	keptEvents      = 20
)

// Link is what a follower needs of a link.
type Link interface {
	Status(ctx context.Context) (mirror.LinkStatus, bool)
	Live(ctx context.Context, lanes []offsets.Lane) (map[offsets.Lane]offsets.Live, error)
}

// FollowConfig is what a follower needs.
type FollowConfig struct {
	Source, Target  *cluster.Cluster
	Link            Link
	Share           float64       // of the bytes the link copies, above 0, at most 1
	BytesPerSecond  int64         // read from both sides together; 0: no limit
	ReadCommitted   bool          // as the link's isolation
	MaxDecodedBytes int           // the most one batch may grow to, 128 MiB by default
	Interval        time.Duration // between rounds, 10 s by default
	Log             *zap.Logger
}

// Follower compares a share of what a link copies, soon after it was copied, for the lanes this
// daemon holds. Each round it compares the newest records of some lanes, as many as the share of
// the bytes copied since allows, the lanes first that waited longest; with a share of 1 it compares
// all records.
//
// How far it is, it keeps in memory: a follower begins at the lanes' present ends, so what was
// copied while no daemon ran, and in the last round before a stop, is not compared. A lane that
// comes from another daemon begins at its end, too.
type Follower struct {
	cfg    FollowConfig
	lanes  map[offsets.Lane]*followed // of Run
	budget float64                    // copied bytes that may be compared, of Run
	round  int64

	mu      sync.Mutex
	status  FollowStatus
	events  []mirror.Event // the newest ones
	counted int64          // events in all
}

// followed is how far one lane was looked at, and what its link says of it.
type followed struct {
	source, ordinal int64 // next: up to where it had its turn
	bytes           int64 // the lane's count, as it was then
	copied          int64 // the lane's count as last seen
	round           int64 // in which it had its turn
	tries           int   // of the part that is due, which failed
}

// FollowStatus is how a follower does. It counts since the start of the daemon.
type FollowStatus struct {
	Share       float64 `json:"share"`
	Records     int64   `json:"records"` // compared
	Bytes       int64   `json:"bytes"`   // read from both sides
	Differences int64   `json:"differences"`
	Failed      int64   `json:"failed"` // ranges that could not be compared
	// Position is up to when what was copied has been looked at; absent before the first round.
	Position *time.Time `json:"position_time,omitempty"`
	// LagSeconds is the time since then: it grows while comparing does not keep up.
	LagSeconds *float64 `json:"lag_seconds,omitempty"`
	// Error is why a range could not be compared in the last round; empty: all could.
	Error string           `json:"error,omitempty"`
	First []LaneDifference `json:"first_differences,omitempty"` // the first ones
}

// LaneDifference is a difference and its lane.
type LaneDifference struct {
	Lane string `json:"lane"` // "orders-3"
	Difference
}

// NewFollower makes a follower; Run starts it.
func NewFollower(c FollowConfig) *Follower {
	c.Interval = cmp.Or(c.Interval, followInterval)
	return &Follower{cfg: c, lanes: map[offsets.Lane]*followed{}, status: FollowStatus{Share: c.Share}}
}

// Status takes a snapshot. There is an event for each lane and round in which something differed;
// the newest are returned, the newest last, and how many there were in all.
func (f *Follower) Status() (s FollowStatus, events []mirror.Event, counted int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s = f.status
	s.First = slices.Clone(s.First)
	if s.Position != nil {
		lag := time.Since(*s.Position).Seconds()
		s.LagSeconds = &lag
	}
	return s, slices.Clone(f.events), f.counted
}

// Run compares until ctx ends. Nothing ends it before: what cannot be compared is in the status.
func (f *Follower) Run(ctx context.Context) {
	for pause.For(ctx, f.cfg.Interval) == nil {
		at := time.Now()
		turns, err := f.choose(ctx)
		if err != nil {
			continue // the link does not say how it is: the lag shows it
		}
		ranges := make([]Range, len(turns))
		for i := range turns {
			ranges[i] = turns[i].Range
		}
		answer := int32(0)
		if f.cfg.Share < 1 {
			answer = leastPart // most ranges are not larger, and behind them there may be more
		}
		report, err := Run(ctx, f.cfg.Source, f.cfg.Target, ranges, Options{
			answerBytes: answer, BytesPerSecond: f.cfg.BytesPerSecond, Parallel: 1, MaxDifferences: keptDifferences, ReadCommitted: f.cfg.ReadCommitted, MaxDecodedBytes: f.cfg.MaxDecodedBytes,
		})
		if err != nil {
			return // stopping
		}
		f.judge(at, turns, report)
	}
}

// turn is what is compared of a lane in a round.
type turn struct {
	Range
	lane    *followed
	ordinal int64 // next: of the range's end
	copied  int64 // the lane's count when it was chosen
}

// choose returns what to compare in this round.
func (f *Follower) choose(ctx context.Context) ([]turn, error) {
	s, ok := f.cfg.Link.Status(ctx)
	if !ok {
		return nil, errors.New("ask link for its lanes: no answer")
	}
	f.round++
	held := map[offsets.Lane]bool{}
	var due []offsets.Lane
	for i := range s.Lanes {
		ln := &s.Lanes[i]
		l := offsets.Lane{Topic: ln.Topic, Partition: ln.Partition}
		held[l] = true
		if ln.Position < 0 || ln.Ordinal < 0 {
			continue // opening
		}
		was := f.lanes[l]
		if was == nil || ln.Bytes < was.copied || ln.Position < was.source {
			f.lanes[l] = &followed{source: ln.Position, ordinal: ln.Ordinal, bytes: ln.Bytes, copied: ln.Bytes, round: f.round}
			continue
		}
		f.budget += f.cfg.Share * float64(ln.Bytes-was.copied)
		was.copied = ln.Bytes
		// Not by the bytes: what an opening finds in the target's log counts none.
		if ln.Position > was.source {
			due = append(due, l)
		}
	}
	for l := range f.lanes {
		if !held[l] {
			delete(f.lanes, l)
		}
	}
	if len(due) == 0 {
		return nil, nil
	}
	// Those first that have waited longest.
	slices.SortFunc(due, func(a, b offsets.Lane) int {
		return cmp.Or(cmp.Compare(f.lanes[a].round, f.lanes[b].round), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	live, err := f.cfg.Link.Live(ctx, due)
	if err != nil {
		return nil, err
	}
	return f.turns(due, live), nil
}

// turns gives lanes their turn as far as the budget goes.
func (f *Follower) turns(due []offsets.Lane, live map[offsets.Lane]offsets.Live) []turn {
	all := int64(0)
	for _, l := range due {
		all += f.lanes[l].copied - f.lanes[l].bytes
	}
	f.budget = min(f.budget, float64(max(leastPart, all))) // more there is not to be spent on
	var turns []turn
	for i, l := range due {
		was, ln := f.lanes[l], live[l]
		end, opened := endOf(ln.State)
		if !opened || end.Ordinal <= was.ordinal || end.Source <= was.source {
			continue
		}
		from, fresh := was.source, max(1, was.copied-was.bytes)
		if f.cfg.Share < 1 {
			part := min(fresh, max(leastPart, int64(f.budget)/int64(len(due)-i)))
			if float64(part) > f.budget {
				break // the rest is kept for the next round
			}
			f.budget -= float64(part)
			records := int64(float64(end.Ordinal-was.ordinal) * float64(part) / float64(fresh))
			if p, ok := ln.State.At(end.Ordinal - max(1, records)); ok {
				from = max(from, p.Source)
			}
		}
		turns = append(turns, turn{
			Range: Range{Lane: l, TargetTopic: ln.TargetTopic, State: ln.State, From: min(from, end.Source), To: end.Source},
			lane:  was, ordinal: end.Ordinal, copied: was.copied,
		})
	}
	return turns
}

// judge takes in what a round found.
func (f *Follower) judge(at time.Time, turns []turn, report Report) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.status
	s.Error = ""
	behind := false
	for i, t := range turns {
		found := &report.Lanes[i]
		s.Bytes += found.Bytes
		if found.Error != "" {
			s.Error = fmt.Sprintf("%v: %s", t.Lane, found.Error)
			f.cfg.Log.Warn("compare source and target", zap.Stringer("lane", t.Lane), zap.String("error", found.Error))
			if t.lane.tries++; f.cfg.Share == 1 && t.lane.tries < rangeTries && found.Differences() == 0 {
				behind = true
				continue // again in the next round
			}
			s.Failed++
		}
		s.Records += found.Equal + found.Differences()
		s.Differences += found.Differences()
		if found.Differences() > 0 {
			f.report(at, t.Lane, found)
		}
		*t.lane = followed{source: t.To, ordinal: t.ordinal, bytes: t.copied, copied: t.lane.copied, round: f.round}
	}
	if !behind {
		s.Position = &at
	}
}

// report notes an event for a lane that differs.
func (f *Follower) report(at time.Time, l offsets.Lane, found *LaneReport) {
	for _, d := range found.First {
		if len(f.status.First) < keptDifferences {
			f.status.First = append(f.status.First, LaneDifference{l.String(), d})
		}
	}
	detail := fmt.Sprintf("source and target differ in %d records of source offsets %d to %d", found.Differences(), found.From, found.To-1)
	if len(found.First) > 0 {
		detail += "; first " + found.First[0].String()
	}
	f.cfg.Log.Error("source and target differ", zap.Stringer("lane", l), zap.String("detail", detail))
	if len(f.events) == keptEvents {
		f.events = slices.Delete(f.events, 0, 1)
	}
	f.events = append(f.events, mirror.Event{Time: at, Kind: mirror.EventDifference, Lane: l.String(), Detail: detail})
	f.counted++
}
