// Package demo shows on one machine, with nothing installed, what becomes of records
// when a region is lost: two embedded regions, links in both directions, producers that
// never stop for the demo's sake, a consumer group, and the program's own commands.
//
// What it promises: Run returns nil only if everything that was announced happened and
// every part of the proof (proof.go) holds. Whatever happens, its child processes and
// files are gone when it returns, but for the evidence of the commands; on Linux the
// processes are gone even if it is killed itself.
//
// The proof takes nothing from the daemon's word. What should be there is counted by the
// producers, what was processed by the consumer, and what is there is read from both
// regions by a consumer that knows nothing of the replicator. The commands' evidence is
// verified against the anchors they printed, and its figures are held against the logs.
//
// What it does not show: the regions are kfake, franz-go's imitation of brokers, not
// Kafka. Each is a process of its own, so that it dies and returns as one, and kfake
// itself refuses appends of an older epoch. But kfake does so at once, where Kafka does
// from the fence's control record on, and it never forgets; and it does not list the
// producers of a partition, which the demo's region answers in its place
// (producers.go). Replication between brokers, elections and power cuts are not there.
// The tests in e2e show the same on real brokers.
//
//	demo.go      the run, from regions to proof
//	story.go     what happens, in its order
//	pair.go      configuration and commands
//	regions.go   the embedded regions; producers.go what kfake does not answer
//	child.go     processes that are killed, frozen and started again
//	signs.go     how hooks move the applications
//	traffic.go   the producers; ledger.go what they know
//	consumer.go  the group
//	readback.go  what a region holds in the end
//	proof.go     what it shows
//	screen.go    how it is told
package demo
