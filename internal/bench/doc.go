// Package bench measures a pair of clusters of an operator's own: it writes a
// scratch topic to the source of a link, copies it with a link that runs in this
// process, measures that, compares every record and deletes what it made.
//
// What it promises:
//
//   - Nothing else is touched. Topic, journal, consumer group and transactional
//     ids carry a random name under "replicator.bench.", which no daemon copies
//     or follows whatever its patterns; checkpoints and heartbeats do not run.
//   - What was made is deleted, also after an error or an interrupt, or is named
//     with the command that deletes it. Kafka has no request that deletes a
//     transactional id: the target forgets those by itself.
//   - A figure is of what it is called. The copy is timed from before the first
//     partition may be copied to the acknowledgement of the last record, and
//     counts only if all records are then found equal on both sides.
//
// It does not promise that the figures are those of a daemon elsewhere: they hold
// for this machine, its place in the network and records that compress like these.
package bench
