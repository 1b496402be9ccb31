// Package cutover changes which region of a pair is authoritative, and proves it.
//
// What it promises:
//
//   - One region is authoritative at any moment, by a record with an epoch that is
//     changed by compare-and-set (pkg/authority). Two commands never change it at the
//     same time: the later one takes over, the earlier one is told.
//   - A run has steps in a fixed order, each with a proof. One of them is named as
//     irreversible: the authority record. A run that fails before it undoes what it
//     did; a run that fails behind it is finished by running the same command again.
//     A run that was killed is known from its events on the cluster that becomes
//     authoritative, wherever the command is run next.
//   - Groups are translated only when the old direction is fenced: every lane has
//     been opened, its end is final, and an append of the former writer was refused.
//   - The direction that is to copy afterwards begins where the new region's own
//     records begin: nothing that was copied travels back.
//   - Whatever was seen and done is an event of a hash chain (pkg/evidence), kept on
//     the cluster and in a bundle.
//
// A run works on a [Setup]: the old and the new region and the links between them. The
// old region may be unreachable in a failover.
//
// A verb is a list of steps ([Steps]); each step has one function. The engine (run.go)
// knows nothing of what they do.
package cutover
