// Package mirror moves records: it copies topics of a source cluster to a target
// cluster, one lane per partition.
//
// What it promises, for each partition:
//
//   - A read_committed consumer of the target sees the records a read_committed
//     consumer of the source sees: the same ones, once, in order, with key,
//     value, headers and timestamp. Kills, cuts, restarts of brokers and second
//     daemons on the same lanes do not change that.
//   - At every moment the target alone, its log and the journal on it, tells the
//     source offset of each record that was copied.
//   - What is lost elsewhere (retention, truncation) is an Event, never silent. A
//     lane that cannot go on safely halts; its neighbours do not notice.
//
// When it does not hold: a topic somebody else writes to on the target holds that
// somebody's records too (an event says so); with ReadUncommitted, data of
// aborted transactions is copied; a request that reaches a broker more than 10
// seconds after it was sent, when the broker has forgotten its producer, is not
// kept out.
//
// # Who owns what
//
// A Link runs one goroutine, the loop, that owns every lane, timer and appender
// (link.go, lanes.go, append.go). Others work for it and talk to it alone:
//
//	fetcher     one a source broker: reads frames, routes batches    fetch.go, route.go
//	opener      takes a batch of lanes through the steps of opening  open.go, opener.go, epoch.go, barrier.go, recover.go
//	topology    watches topics and leaders, makes and grows topics   topology.go
//	membership  the seat in the source's group that shares lanes     group.go
//
// A governed link also has one that watches the authority (authority.go) and, while
// it is closed, the guard (guard.go).
//
// They reach the loop through channels (answers, fetched) and a mailbox of
// functions; the loop never waits for the network. The rules of the lane
// protocol are in DESIGN.md at the root and checked in internal/lanemodel: change
// a rule there first.
//
// # Without a link
//
// Commands use the opener alone, on the target: Fence ends a link's lanes, Prove and
// FenceAges ask the brokers what is left of that, Prepare makes a link go on behind
// what the other direction copied. A Guard stands in for a link whose source is gone.
package mirror
