// Package hooks runs an operator's commands before and after the steps of a
// cutover: to move a DNS name, to stop producers, to tell a load balancer.
//
// What it promises:
//
//   - A command runs without a shell, with nothing on its standard input and an
//     environment of PATH, HOME and REPLICATOR_* alone: no secret of the calling
//     process reaches it by its environment.
//   - It ends in time. At its timeout, or when the context ends, its process group is
//     asked to end (SIGTERM) and killed five seconds later. On Linux what it left
//     in its group when it ended itself is killed as well.
//   - What it printed is kept, the first and the last 32 KiB, with control characters
//     written out: it can do nothing to a terminal or a report that shows it.
//   - A failure ends the row of hooks and is an error, unless the hook is optional: then
//     it is noted in its result.
//
// A run that is repeated runs its hooks again. They have to bear that.
package hooks
