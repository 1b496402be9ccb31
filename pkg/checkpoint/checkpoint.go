package checkpoint

import (
	"time"

	"replicator/pkg/offsets"
)

// Checkpoint is a group's committed source offset in one partition and what it
// is on the target, at a time. It is what the checkpoints topic on the target
// keeps.
type Checkpoint struct {
	Key
	Source      int64 // next source offset the group will read
	LeaderEpoch int32 // of the source, -1 unknown
	Metadata    string
	Committed   time.Time // when the group committed it, millisecond precision

	// Target is the next target offset, -1 with the outcome Unknown.
	Target  int64
	Outcome offsets.Outcome
	Missing int64     // see offsets.Translation
	Checked time.Time // when it was translated, millisecond precision

	// Placed is the target offset last committed to the target's group by us, -1
	// if none. A target group that stands there has not moved by itself.
	Placed int64
}

// at takes in a commit and its translation.
func (c *Checkpoint) at(commit *Commit, t offsets.Translation, now time.Time) {
	c.Source, c.LeaderEpoch, c.Metadata, c.Committed = commit.Offset, commit.LeaderEpoch, commit.Metadata, commit.Time
	c.Target, c.Outcome, c.Missing, c.Checked = t.To, t.Outcome, t.Missing, now
}

// says tells whether two checkpoints mean the same, whenever they were made.
func (c *Checkpoint) says(o *Checkpoint) bool {
	return c.Source == o.Source && c.Target == o.Target && c.Outcome == o.Outcome && c.Missing == o.Missing &&
		c.LeaderEpoch == o.LeaderEpoch && c.Metadata == o.Metadata && c.Placed == o.Placed
}
