// Package lanemodel checks the protocol by which a lane has one writer. It
// walks through every state a small world can reach and looks for one in
// which a record is doubled, missing or cannot be translated. Who changes a
// rule of the protocol changes it here first.
//
// # The promise that is checked
//
// In every reachable state (check in search.go):
//   - the records on the target are a beginning of the source's records: none doubled, none missing, none out of order;
//   - for every record on the target the journal gives its source offset, at that moment;
//   - an opener never finds records it cannot translate, and never works out a wrong position;
//   - once a failover has declared the end of a lane, no record comes behind it.
//
// # The state
//
// One lane: a source partition (records fresh or old, and holes), its target
// partition as a log of records and control records, what the partition's
// leader remembers of up to two producer ids, the transaction coordinator, the
// journal, the authority record, two daemons A and B and the failover command
// C, each with what it believes and what it has in flight, and the network:
// produce requests and journal writes whose senders no longer wait.
//
// # The steps
//
// A daemon opens the lane (InitProducerId, AddPartitionsToTxn, EndTxn, reading
// up to its control record, journal, authority, epoch record, end), sends, reads
// answers, validates, waits out the lease, closes. The broker processes a
// request, or refuses it; late requests and journal entries arrive at any
// later moment. A scenario names the faults on top (Fault) and how often each
// may happen. A broker treats a producer it does not know as Kafka does: any
// epoch and any sequence is taken.
//
// # Time
//
// There is no clock. What matters is the order between the sending of a
// request and the wait of somebody else, so every request and every credit to
// send carries an age against each wait under way (type age): sent before the
// wait began, or at most ten seconds later, or later still. At the end of a
// wait the first two kinds are dead. A credit may end at any moment (Pause). An old
// record's producer may be forgotten at any moment (Forget, Restart), a fresh
// one's only by a day passing (Day).
//
// # The rules
//
// Each rule of the protocol is a field of Rules and can be taken out; the test
// shows that the search then finds a violation. That is the proof that the
// model can fail. Two rules are second lines of defence: without FirstAlone,
// DailyOpening still protects, and without DailyOpening, TwoBarriers,
// BaseOffset and FirstAlone do; the test takes each out together with the
// other line. Options holds choices the search has found safe or needless.
//
// # What the search has answered
//
//   - Validating by the leader's end alone is enough (ValidateEpoch and ValidateFresh are needless). It rests on
//     SameConnection, on LeaseWait, and on ages in WindowOfOne being taken against the present time, not the
//     time of the acknowledgement.
//
//   - The first opening of all need not wait out the lease (SkipFirst), nor an opening behind a quiet clean close
//     (SkipClosed); a close by a holder that has not waited itself proves nothing (QuietClose). Both rest on
//     EndCheckLast: who has not had its epoch record acknowledged before the next control record never sends.
//
//   - A changed producer id needs TwoBarriers; behind a quiet clean close even that could be spared (SkipNewID),
//     which the protocol does not use.
//
//   - The end may be asked on any connection, but the one that carries the appends has to be open to the leader
//     since before the control record was read (ReadOnConnection): offsets alone are ambiguous after a lost tail.
//
//   - A daemon's own late requests are a predecessor's (OwnRequestsToo).
//
//   - Of a lane whose failover is final, requests that come far too late are kept out as well, as long as the epoch
//     is taken again before the partition forgets it (Guard).
//
// # Not in the model
//
// Requests delivered later than the lease and their longest life, but for that one case; a transaction
// log that loses an epoch not yet seen on the target; two leaders of one
// partition at a time, and a lost tail with connections left open; foreign
// writers; filters; batches of more than one record, windows above two, the
// sequence's wrap at 2^31; compaction and retention of target and journal;
// journal writes that are acknowledged and lost; merged journal entries; more
// than one change of the producer id.
//
// # Running it
//
//	go test ./internal/lanemodel                      quick scenarios, seconds
//	LANEMODEL_LONG=1 go test -timeout 1h ./internal/lanemodel
//	go run ./internal/lanemodel/cmd/lanemodel -without LeaseWait -scenario "old records"
//	go run ./internal/lanemodel/cmd/lanemodel -records of_f -faults "late forget=2"
package lanemodel
