// Package compare proves that a target topic holds exactly what a source
// topic holds: the same records, in the same partitions, in the same order,
// with the same keys, values, headers and timestamps, nothing missing and
// nothing twice.
//
// It reads both sides as a read_committed consumer sees them, from where each
// log starts to an end that is fixed when the comparison begins, and walks the
// two streams of a partition in lockstep. Memory is bounded by a few fetch
// answers and a window per partition that is being read; a topic is never held
// in memory.
//
// It shares no code with the replicator: requests are built with kmsg and
// answers are decoded by kgo. Fetches name their offset themselves instead of
// going through a kgo consumer, because only then is the end of a partition
// known exactly when it ends in control records, aborted data or holes.
//
// Where the streams differ, the comparer looks ahead a bounded window on both
// sides to find where they agree again, and names what lies between: missing,
// doubled, extra, reordered, changed. The names are there to give useful
// numbers. They never excuse: whatever is not matched one to one, in order, is
// counted under one of them, and a report is equal only if all are zero.
//
// When it does not hold: while someone writes to a side, its end moves and
// the comparison speaks about the ends it fixed. Compare after a quiet phase,
// or say what is tolerated with [Options].
package compare
