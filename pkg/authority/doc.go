// Package authority keeps who of two regions is authoritative, and who may change
// that.
//
// Both clusters of a pair have a copy of it in the compacted topic
// replicator.authority: one authority record a pair and epoch, so that the history
// stays, and one ready fact a direction. A link appends to its target as the copy
// on its target says ([State.MayAppend]); the other copy may be out of reach.
//
// What it promises:
//
//   - Of two changers of one pair on one cluster only one can write: taking the
//     right ([Change]) fences whoever had it, and what is written counts only if it
//     still has it. So an epoch is given once. Who lost is told ([FencedError],
//     [EpochError]).
//   - What [Changer.Set] and its sisters wrote without an error is seen by every
//     [Read] and [Watcher.Sync] that begins later. An error says that nothing was
//     written, or it is an [UnknownError].
//   - A copy that cannot be read, that holds what this program does not understand,
//     or that forgot what it once said, allows nothing.
//
// When it does not hold: a broker that lost its place in the cluster without
// knowing, if both metadata and the copy are asked of it, answers with what it
// last knew. The lane's epoch is what stops a link then, see DESIGN.md. Who writes
// to the topic by hand is trusted.
//
// # In the topics
//
// Keys are text: <a>/<b>/epoch/<n> for an authority record, <a>/<b>/ready/<from>/<to>
// for a ready fact, a and b the pair's regions by name. Values are JSON objects
// with "version" and the fields of [Record] or [Ready]. Of one key the last value
// counts, which is the one compaction keeps. replicator.audit has a run's id as key,
// an event as value and the pair in the header "pair"; it is never compacted. Its
// retention removes what is older than a year, as it is made here; no command deletes
// from it. The fact [LastRunFact] tells where the events of the last run begin, so that
// nobody has to read the topic to know whether one has to be finished.
package authority
