package checkpoint

import (
	"cmp"
	"time"

	"replicator/pkg/offsets"
)

// GroupType is the kind of a group.
type GroupType uint8

// The types of groups. Their numbers are part of the format of checkpoints.
const (
	Consumer GroupType = 0 // classic and KIP-848 consumer groups
	Share    GroupType = 1 // share groups (KIP-932): the offset is a partition's share-partition start offset
)

// Key names the progress of one group in one source partition.
type Key struct {
	Group string
	Type  GroupType
	Lane  offsets.Lane
}

// compare orders keys as tables do: by group, topic, partition.
func (k Key) compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Group, o.Group), cmp.Compare(k.Type, o.Type), cmp.Compare(k.Lane.Topic, o.Lane.Topic), cmp.Compare(k.Lane.Partition, o.Lane.Partition))
}

// Commit is what a group committed on the source.
type Commit struct {
	Key
	// Deleted says that the group let go of the partition: what follows means nothing.
	Deleted     bool
	Offset      int64 // next source offset the group will read
	LeaderEpoch int32 // of the source, -1 unknown
	Metadata    string
	Time        time.Time // of the commit; where polling cannot know it, when it was first seen
}

// Sink takes what a follower reads. Its methods are called from one goroutine,
// which they hold up, and must not keep the slice.
type Sink interface {
	// Commits takes commits in their order: the last one of a key counts.
	Commits([]Commit)
	// Current says that every commit that a broker had acknowledged by then has
	// been handed over. It never goes back. Share groups are not covered.
	Current(asOf time.Time)
	// Following says how commits are read now, and why not better; reason is
	// empty when nothing is wrong. It is called when either changes.
	Following(mode string, reason string)
}
