package checkpoint

import (
	"cmp"

	"replicator/pkg/offsets"
)

// Action is what is done about a group's partition on the target.
type Action string

// The actions.
const (
	Place Action = "place" // commit the translated offset to the target's group
	Keep  Action = "keep"  // it is there already
	Skip  Action = "skip"  // not placed: see Reason
)

// Reason is why an offset is not placed.
type Reason string

// The reasons. They are label values of metrics.
const (
	GroupActive     Reason = "group_active"     // the target's group has members: what it does is its own
	GroupUnreadable Reason = "group_unreadable" // its state or offsets could not be read: never written blindly
	GroupOtherType  Reason = "group_other_type" // the target has a group of this name that is no consumer group
	TargetAhead     Reason = "target_ahead"     // the target's group has moved on by itself
	NoTranslation   Reason = "no_translation"   // the outcome is unknown
	NoTopic         Reason = "no_topic"         // the target has no such partition
	LogUnreadable   Reason = "log_unreadable"   // where the target's log starts and ends could not be read
	NotAllowed      Reason = "not_allowed"      // a right is missing
	TooSlow         Reason = "too_slow"         // what was read of the group was too old when it came to writing
	CommitFailed    Reason = "commit_failed"    // the target refused for another reason
)

// Reasons lists all of them.
func Reasons() []Reason {
	return []Reason{GroupActive, GroupUnreadable, GroupOtherType, TargetAhead, NoTranslation, NoTopic, LogUnreadable, NotAllowed, TooSlow, CommitFailed}
}

// Placement is a checkpoint on its way to the target's group.
type Placement struct {
	Checkpoint
	TargetTopic string // "": the link does not copy the topic
	Why         string // the outcome is what it is, for people; empty where it needs no words
	Repeat      int64  // see [Repeat]; a Standby fills it in

	// What Plan finds out.
	Current         int64  // the target group's offset, -1 none
	CurrentMetadata string // what it committed with that
	Action          Action
	Reason          Reason // with Skip, else empty
	Detail          string // of Reason, for people
	// Clamped says what Target was moved for: the target's log does not reach
	// there.
	Clamped string

	// Refresh has an offset that we placed committed again, so that the target's
	// retention of offsets begins anew.
	Refresh bool
}

func (p *Placement) skip(r Reason, detail string) { p.Action, p.Reason, p.Detail = Skip, r, detail }

// decide compares what the target's group has with what it should have. The
// group has no members, and its state was read.
//
// Where the target's group stands at what we placed last, nobody has moved it
// since: it follows the source's group, backwards too. Anywhere else it was moved
// by somebody on the target: then it is never set back, but a source group that
// has read further takes it along. A group that came by itself to where it should
// be is kept, and stays its own.
func (p *Placement) decide() {
	switch {
	case p.Outcome == offsets.Unknown || p.Target < 0:
		p.skip(NoTranslation, p.Why)
	case p.Current < 0:
		p.Action = Place
	case p.Current == p.Target:
		p.Action = Keep
		if p.Current == p.Placed && (p.Refresh || p.CurrentMetadata != p.Metadata) {
			p.Action = Place
		}
	case p.Current == p.Placed || p.Current < p.Target:
		p.Action = Place
	default:
		p.skip(TargetAhead, "")
	}
}

// comparePlacements orders placements by group, so that the partitions of one lie
// side by side.
func comparePlacements(a, b *Placement) int {
	return cmp.Or(a.compare(b.Key), cmp.Compare(a.TargetTopic, b.TargetTopic))
}
