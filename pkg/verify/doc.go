// Package verify compares what a link has copied, source against target, record
// by record, by the offset map.
//
// What it promises:
//
//   - Every record of a range is looked for at the one place where the map says it
//     is, and every record of the target's log in that range is asked whose it is.
//     Key, value, headers and timestamp are compared. What differs is named with
//     the first offset on both sides.
//   - A batch that has the same bytes on both sides is not opened. All others are:
//     repacked, recompressed, with holes, of the old formats.
//   - What a source's reader would not see (aborted transactions, control records)
//     is not expected on the target, and what the target has aborted is nobody's.
//     What one side has lost to retention or compaction is counted apart and is no
//     difference, and a record that compaction is to have removed has to be there
//     again with the same key. So are records that were stranded on the target when
//     it was the source: the journal of the other direction knows them.
//   - Memory is bounded by the number of lanes compared at a time, both sides are
//     read through their boundary, and no faster than was asked.
//   - A lane that could not be compared says so. It does not count as equal.
//
// When it does not hold: records are compared by 64-bit hashes where batches have to
// be opened; two that differ and have the same hash by chance (once in 10^19) are
// taken for equal. A key that a compacted source lost between the reading of two of
// its records can only be told from a lost one where the lane is drained; elsewhere
// it counts as compacted.
//
//	ranges.go    what of each lane both sides still hold
//	verify.go    lanes to workers, the report
//	stream.go    one side of one lane, read ahead by one answer
//	side.go      its records in order, closed as long as possible
//	place.go     where the map says a record is
//	lockstep.go  both sides side by side
//	report.go    what was found
package verify
