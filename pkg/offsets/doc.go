// Package offsets promises that for every record a link has put on its target, the target
// alone tells which source record it is, at every moment, even when the source region and
// the daemon die in the same second.
//
// It has two halves:
//
//   - The [Journal], a compacted topic on the target, holds facts about lanes: who opened a
//     lane and where ([EpochRecord]), which source offsets the ordinals of a lane stand for
//     ([Spans], written ahead of the records), how far a lane has come ([Position]), and what
//     went differently ([Gap], [Shift], [Shifts], [Cut], [Generation]). [Trim] stands in for what the source no longer
//     holds and the journal need not keep.
//   - [LaneState] is what those facts say of one lane: a pure function of the set of facts, in
//     whatever order they arrived. It is the offset map, with lookups both ways: what lies below a
//     trim is not known, and a [Translation] says so.
//
// Where a pair switches over, the link of the other direction has to know what this one copied:
// [LaneState.Inverse] turns a lane's facts round, and they become those of a writer of their own
// ([InverseProducer]) in the other journal. [LaneState.Strand] notes what was never copied.
//
// Facts never change. The key of an entry holds lane, writer and first ordinal, so compaction
// loses none, and a fenced daemon's late entry overwrites none. (A position is the one entry a
// writer replaces by a newer one, under a key of its own.) Writers are ordered by where their
// first append lies on the target, not by number; what a writer said counts only for ordinals
// below those of the next writer's epoch record, and what a writer without an epoch record said
// counts for nothing.
//
// # Offsets
//
// All offsets here are next offsets unless a name says last: a position of 7 means that 7 is
// not yet copied. An ordinal counts the records a lane has appended in all; it has neither the
// holes of the source's offsets nor the control records of the target's.
package offsets
