// Package demo shows the replicator at work on one machine, with nothing
// installed: two embedded regions, producers that never stop for its sake, two
// daemons in processes of their own that are killed, and a proof at the end.
//
// What it promises: Run returns nil only if the target was read back and every
// record that a producer was told is written stands there once, in order and
// unchanged, after the kills that were announced. Whatever happens, its child
// processes and files are gone when it returns, and on Linux the processes are
// gone even if it is killed itself.
//
// The proof takes nothing from the daemons' word. What should be there is
// counted by the producers; what is there is read from both regions by
// internal/compare, which shares no code with the path the data took.
package demo
