// Package evidence promises that what a run did can be proved afterwards: a switchover, a
// failover, a drill, also one that was killed in its middle.
//
// A run has an id ([NewRun]) and writes events ([Event]), each of which holds the hash of the one
// before: a changed, dropped or moved event breaks the chain. What an event tells is one of the
// documents of docs.go, named by its kind. A [Recorder] writes every event to a bundle, which is a
// directory named after the run, and to other sinks, as a topic on the cluster.
//
// # The bundle
//
//   - events.jsonl: one event a line, on disk before the run goes on. Everything else is made from it.
//   - report.html and summary.json: for people and for programs, made anew at every step's end.
//   - MANIFEST.json: size and sha256 of each file, and the head of the chain. It is sealed when the
//     run has an outcome.
//
// [Open] and [Verify] check a bundle or its archive ([Pack]). A run that was killed leaves a bundle that is
// valid and incomplete.
//
// # What it proves
//
// Who can write the whole bundle can write it anew, hashes included. What was kept elsewhere tells:
// the events in the audit topic, or the head of the chain that was printed, as an [Anchor].
//
// # Hashes, by hand
//
// A line of events.jsonl ends with `,"hash":"<64 hex digits>"}`. The hash is the sha256 of the line
// with that end replaced by "}". Its field prev is the hash of the line before; that of the first
// line is the sha256 of the run's id.
package evidence
