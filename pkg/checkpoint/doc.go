// Package checkpoint keeps, on the target, where the consumer groups of a link's
// source stand, and where they resume on the target.
//
// What it promises:
//
//   - A checkpoint holds what a group committed on the source, and what that
//     offset is on the target. It is never past a record that the group has not
//     read and the target has. Where the source may be tailed, it is on the target
//     within a second of the commit.
//   - The target alone tells where its groups resume, when source and daemon are
//     gone ([Standby]). Offsets are translated anew then, so that a checkpoint made
//     while its lane was behind is as exact as any.
//   - A target's group with members is never written to, one that could not be read
//     neither, and one that was moved by somebody on the target is never set back.
//   - What is not kept or not placed is said, by group, with the reason.
//
// When it does not hold: commits of the last moments before the source died are
// not known ([Freshness] says since when). A consumer of the target's group that
// joins, commits and leaves within the two seconds that our reading of the group and
// our commit may take may have its commit overwritten: brokers refuse us while a group has
// members, and offer no way to commit only if nothing has changed since.
//
// # Who owns what
//
//	follower    reads commits of the source: tail, polls, share groups   follow*.go, tail.go, poll.go, share.go
//	keeper      translates them by the maps of the lanes it holds        keeper.go
//	sweep       every interval: whose lanes, how fresh, placing          sweep.go
//	placer      reads groups of the target, decides, commits             placement.go, place.go
//	store       the topics, and reading them                             store.go, codec.go
//	standby     all of it read back from the target alone                standby.go
//
// A commit on its way:
//
//  1. The follower hands it to the keeper, which holds the newest of each group and
//     partition: what waits is bounded by their number.
//  2. The keeper's writer asks the link for the lanes concerned, translates, and
//     writes one record to our topic and one to MirrorMaker's. A group ahead of its
//     lane is written as ahead, and again when the lane has come there. Lanes of
//     other daemons are left to them.
//  3. The sweep commits what changed to the target's groups: it reads the states of
//     the groups, then what they have committed, then commits. So a consumer that
//     has left before is seen by its commit, and one that joins after is seen by
//     the broker.
//
// A daemon that lost a lane and does not know it yet may overwrite a checkpoint
// with an older one. The new holder writes all of its checkpoints again every ten
// minutes, and an older checkpoint only makes a group read again.
package checkpoint
