package checkpoint

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"replicator/pkg/cluster"
	"replicator/pkg/offsets"
)

// StandbyConfig says where a target keeps what it knows of a link.
type StandbyConfig struct {
	Target           *cluster.Cluster
	JournalTopic     string
	CheckpointsTopic string                    // "" reads none: lanes only
	TargetName       func(topic string) string // of a source topic, "" if it is not copied
	Log              *zap.Logger
}

// Standby is what a target alone tells of a link's groups. Nothing is asked of the
// source, and nothing is written but by Apply: it works when the source's region
// and the daemon are gone.
type Standby struct {
	cfg     StandbyConfig
	journal *offsets.Journal
	kept    contents
	read    time.Time
}

// OpenStandby reads the checkpoints and the journal.
func OpenStandby(ctx context.Context, cfg StandbyConfig) (*Standby, error) {
	s := &Standby{cfg: cfg, read: time.Now()}
	var err error
	if s.journal, err = offsets.OpenJournal(ctx, offsets.JournalConfig{
		Client: cfg.Target.NewClient, Admin: cfg.Target.Admin(), Topic: cfg.JournalTopic, ReadOnly: true, Log: cfg.Log,
	}); err != nil {
		return nil, err
	}
	if cfg.CheckpointsTopic == "" {
		return s, nil
	}
	if s.kept, err = readTopic(ctx, cfg.Target, cfg.CheckpointsTopic); err != nil {
		s.journal.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the connections it made.
func (s *Standby) Close() { s.journal.Close() }

// Time is when reading began: what the target was told later is not in it.
func (s *Standby) Time() time.Time { return s.read }

// Warnings are what may be missing in what was read.
func (s *Standby) Warnings() []string { return s.journal.Warnings() }

// Checkpoints returns the newest checkpoint of each group and partition, sorted.
func (s *Standby) Checkpoints() []*Checkpoint { return s.kept.sorted() }

// Lanes returns the lanes the link has copied, sorted.
func (s *Standby) Lanes() []offsets.Lane { return s.journal.Lanes() }

// goneAfter is how long a daemon that says nothing more is counted among those
// that follow commits.
const goneAfter = time.Minute

// Current tells up to when commits of the source are known to be in the
// checkpoints: what was committed later may be missing. With several daemons it is
// the least of those that lived last, because each keeps its own lanes. False: no
// daemon has said.
func (s *Standby) Current() (Freshness, bool) {
	var newest time.Time
	for _, f := range s.kept.fresh {
		if f.Said.After(newest) {
			newest = f.Said
		}
	}
	var out Freshness
	for _, f := range s.kept.fresh {
		if newest.Sub(f.Said) < goneAfter && (out.Instance == "" || f.Current.Before(out.Current)) {
			out = f
		}
	}
	return out, out.Instance != ""
}

// Tails reads how far the lanes have come on the target, which may be further than
// the journal says.
func (s *Standby) Tails(ctx context.Context, lanes []offsets.Lane) (map[offsets.Lane]offsets.Tail, error) {
	return offsets.ReadTails(ctx, s.cfg.Target, s.journal, func(l offsets.Lane) string { return s.cfg.TargetName(l.Topic) }, lanes)
}

// Placements translates checkpoints with all that the target tells now. What
// cannot be translated has the outcome Unknown and says why in Why.
func (s *Standby) Placements(ctx context.Context, checkpoints []*Checkpoint) ([]*Placement, error) {
	seen := map[offsets.Lane]bool{}
	var lanes []offsets.Lane
	for _, c := range checkpoints {
		if !seen[c.Lane] && s.cfg.TargetName(c.Lane.Topic) != "" {
			seen[c.Lane] = true
			lanes = append(lanes, c.Lane)
		}
	}
	tails, err := s.Tails(ctx, lanes)
	if err != nil {
		return nil, err
	}
	return s.PlacementsAt(tails, checkpoints), nil
}

// PlacementsAt is Placements by tails that were read before, of all lanes the link has copied.
func (s *Standby) PlacementsAt(tails map[offsets.Lane]offsets.Tail, checkpoints []*Checkpoint) []*Placement {
	out := make([]*Placement, 0, len(checkpoints))
	for _, c := range checkpoints {
		p := &Placement{Checkpoint: *c, TargetTopic: s.cfg.TargetName(c.Lane.Topic), Current: -1, Repeat: -1}
		p.Checked = s.read
		tail, ok := tails[c.Lane]
		switch {
		case p.TargetTopic == "":
			p.unknown("the topic is not among those the link copies")
		case !ok:
			p.unknown("the link has not copied this partition")
		case tail.Err != nil:
			p.unknown(tail.Err.Error())
		default:
			t := tail.State.Translate(c.Source).Within(tail.Start, tail.End)
			p.Target, p.Outcome, p.Missing, p.Why = t.To, t.Outcome, t.Missing, cmp.Or(t.Reason, tail.Warning)
			p.Repeat = Repeat(tail.State, t)
		}
		out = append(out, p)
	}
	return out
}

func (p *Placement) unknown(why string) {
	p.Target, p.Outcome, p.Missing, p.Why = -1, offsets.Unknown, 0, why
}

// Repeat is how many records a consumer that resumes at the translated target
// offset reads a second time at most; -1: not known.
func Repeat(lane offsets.LaneState, t offsets.Translation) int64 {
	switch t.Outcome {
	case offsets.Unknown:
		return -1
	case offsets.Ahead:
		// What it has read already, should the link still copy it.
		return t.Missing
	case offsets.Before:
		// What it had not read begins at the first record known from there on.
		first, ok := lane.TargetOf(t.From)
		if !ok {
			return -1
		}
		return max(0, first.Target-t.To)
	}
	return 0
}

// Prove reads again what the target's groups have and compares it with what was
// placed or kept. It returns those that differ.
func (pl Placer) Prove(ctx context.Context, placements []*Placement) (differ []*Placement, err error) {
	again := make([]*Placement, 0, len(placements))
	for _, p := range placements {
		if p.Action != Skip {
			c := *p
			again = append(again, &c)
		}
	}
	if err := pl.Plan(ctx, again); err != nil {
		return nil, fmt.Errorf("prove offsets: %w", err)
	}
	for _, p := range again {
		if p.Current != p.Target {
			differ = append(differ, p)
		}
	}
	return differ, nil
}
