package mirror

import (
	"time"

	"replicator/pkg/offsets"
	"replicator/pkg/wire"
)

// Times of the lane protocol. They hold together: see DESIGN.md, "One writer per lane".
const (
	// leaseTime is how long after the sending of the last answered request a lane
	// may send without asking the target whether it still owns its end.
	leaseTime = 10 * time.Second
	// leaseMargin is how long a request may lie before the writer, see lease.
	leaseMargin = 3 * time.Second
	// requestLife is the longest life of a request that was sent: TCP_USER_TIMEOUT
	// of the data connections.
	requestLife = 10 * time.Second
	// leaseWait is how long after a fence the last request of any earlier holder
	// may still arrive.
	leaseWait = leaseTime + requestLife
	// oldAge is the age from which a record counts as old: a broker may forget the
	// producer of old records (producer.id.expiration.ms, a day) at any moment.
	oldAge = time.Hour
	// window is how many batches of a lane may be unanswered.
	window = 5
	// crowdedBytes is the mean size below which waiting batches are a crowd: the
	// router merges compressed ones up to this size, see small.
	crowdedBytes = 4 << 10
)

// instant is a moment on both clocks. Since is the larger of both: the monotonic
// clock stands still while a machine is suspended, the wall clock may be set back.
type instant struct{ t time.Time }

func now() instant { return instant{time.Now()} }

func (i instant) since() time.Duration {
	n := time.Now()
	return max(n.Sub(i.t), n.Round(0).Sub(i.t.Round(0)))
}

// goal is what a lane is drained for.
type goal uint8

const (
	goalCopy    goal = iota // open again
	goalHalt                // stay halted
	goalRelease             // another daemon takes it over, or we stop
	goalClose               // stay closed until the authority allows the link again
)

// lane is the pipeline of one source partition to its target partition. The
// link's loop owns it; nobody else reads or writes it.
//
// Its chain never breaks: fetched >= mapped >= acknowledged (source offsets,
// next). Items enter at the back of chain when fetched and leave at its front
// when acknowledged; the first sent of them are in flight.
type lane struct {
	key    offsets.Lane
	state  LaneState
	reason string
	goal   goal

	// Where it lies. Broker ids are -1 while unknown.
	targetTopic        string
	sourceID, targetID [16]byte
	maxBytes           int // largest batch the target topic takes, 0 unknown
	sourceBroker       int32
	sourceEpoch        int32 // leader epoch of the source leader
	targetBroker       int32
	fetcher            *fetcher  // that has it, nil: none
	appender           *appender // it is attached to, nil: none

	// generation counts openings and restarts of the fetch: what was begun under
	// an older one is ignored.
	generation uint32
	opening    bool // an opener has it
	attempts   int  // openings since the last acknowledged batch
	barrierID  int64
	barrierAt  instant // when barrierID's first barrier stood; see errSecondBarrier
	queuedOpen bool
	notBefore  time.Time // no opening earlier
	placeAt    time.Time // when it is placed again because of notBefore
	clean      bool      // draining without a doubt
	check      *recordCheck

	// The opening in force.
	writer       offsets.Writer
	idGeneration int32
	epochAt      instant       // sending of the request that took the epoch
	reopenAfter  time.Duration // the epoch is taken anew at this age
	quietAt      time.Time     // from then on no request of an earlier holder can be alive
	lastAnswered instant       // sending of the last request the partition answered
	acked        bool          // a batch of this opening has been acknowledged
	ackedNewest  int64         // ms, newest timestamp of the last acknowledged batch
	validating   bool
	validated    bool // the opening counts

	// The chain.
	chain    queue[item]
	sent     int // items at the front that are in flight
	queued   int // bytes in chain, in flight included
	inflight int // bytes in flight

	fetched    int64 // next source offset to fetch
	fetchEpoch int32 // leader epoch of the last fetched record
	mapOrdinal int64 // next ordinal to be mapped
	mapSource  int64 // source offset that continues the current span
	spanSent   uint64
	spanAcked  uint64
	sequence   int32 // of the next batch
	predicted  int64 // target offset of the next batch
	position   int64 // next source offset; all below is acknowledged
	posEpoch   int32 // leader epoch of the record before it, -1 unknown
	ordinal    int64
	targetEnd  int64 // target offset behind the last acknowledged record
	newest     int64 // ms, largest timestamp acknowledged
	splitBelow int64 // source offsets below are sent one record a batch

	fetchGeneration uint32 // counts starts of the fetch: what an older one read is dropped

	positionOut bool // a position record is under way
	keeping     bool // its journal entries are being tidied
	ready       bool // in its appender's ready queue
	wakeAt      time.Time
	paused      bool  // left out of fetches until its queue is shorter
	fetchHeld   bool  // the fetch waits for something; what it is starts it again
	nearBroker  int32 // replica fetched from instead of the leader, -1 none
	nearUntil   time.Time
	committed   int64 // position last offered to the source's group
	verify      int64 // source offset the first fetch begins at, see recovered
	verifyEpoch int32
	follow      int64 // next source offset the next opening goes back to: the source was truncated there; -1 none
	released    []func()

	// The source as last seen.
	sourceEnd, sourceStable, sourceStart int64
	endAsOf                              time.Time // when the answer was asked for that said so
	lagSince                             time.Time // what the source had then is copied: the lag is no older
	seenEnd                              int64     // source end at seenAt, the next lagSince
	seenAt                               time.Time
	stuckSince                           time.Time // when the last stable offset last moved below the end

	records, bytes, openings int64
}

func newLane(key offsets.Lane) *lane {
	return &lane{
		key: key, state: LaneWaiting, reason: "topics not known yet",
		sourceBroker: -1, targetBroker: -1, sourceEpoch: -1,
		position: -1, ordinal: -1, targetEnd: -1, posEpoch: -1, fetchEpoch: -1, barrierID: -1, nearBroker: -1, committed: -1, verify: -1, follow: -1,
		sourceEnd: -1, sourceStable: -1, sourceStart: -1, writer: offsets.Writer{ProducerID: -1, Epoch: -1},
	}
}

// old says whether a batch with this newest timestamp (ms) may be forgotten by
// the broker before long. now is the time of the loop's turn; that a turn may be
// interrupted is what the lease is for, which looks at the clock itself.
func old(newest int64, now time.Time) bool { return now.UnixMilli()-newest > oldAge.Milliseconds() }

// open says whether the lane has an epoch it may append under.
func (ln *lane) open() bool { return ln.state == LaneCopying }

// dropQueued forgets what was fetched but not sent.
func (ln *lane) dropQueued() {
	for ln.chain.len() > ln.sent {
		it := ln.chain.popBack()
		ln.queued -= len(it.data)
		if it.frame != nil {
			it.frame.Release()
		}
	}
}

// unsent is how many items wait to be sent.
func (ln *lane) unsent() int { return ln.chain.len() - ln.sent }

// crowded says that so many small batches wait that the next should come together:
// what one answer brings of a lane is merged, what several bring is not. Five
// batches a round trip are little where the target is far.
func (ln *lane) crowded() bool {
	return ln.unsent() > 2*window && ln.queued-ln.inflight < ln.unsent()*crowdedBytes
}

// head is the next item to send, nil if there is none.
func (ln *lane) head() *item {
	if ln.chain.len() == ln.sent {
		return nil
	}
	return ln.chain.at(ln.sent)
}

// windowOpen says whether one more batch may be sent now: up to five in flight,
// but one alone unless the last acknowledged batch and all unanswered ones are
// young (each by its own newest timestamp, as of now), and the first of an
// opening alone.
func (ln *lane) windowOpen(now time.Time) bool {
	flying := 0
	allYoung := ln.acked && !old(ln.ackedNewest, now)
	for i := range ln.sent {
		if it := ln.chain.at(i); it.data != nil {
			flying++
			allYoung = allYoung && !old(it.newest, now)
		}
	}
	return flying == 0 || allYoung && flying < window
}

// lease says whether the lane may send without validating.
// It stops a while before the lease ends, so that what is handed over now is sent
// in time; the writer asks the clock again.
func (ln *lane) lease() bool { return ln.lastAnswered.since() < leaseTime-leaseMargin }

// spans returns the spans that have to be journalled before the items from index
// i of the chain on are sent, and marks these items.
func (ln *lane) mapItems(from int) []offsets.Span {
	var spans []offsets.Span
	for i := from; i < ln.chain.len(); i++ {
		it := ln.chain.at(i)
		if it.data == nil {
			continue
		}
		if it.runs == nil {
			spans = ln.mapRun(spans, it.first, int64(it.records))
		}
		for _, r := range it.runs {
			spans = ln.mapRun(spans, r.Source, int64(r.Count))
		}
		it.runs = nil
		if spans != nil {
			it.span = ln.spanSent + 1
		}
	}
	if spans != nil {
		ln.spanSent++
	}
	return spans
}

func (ln *lane) mapRun(spans []offsets.Span, source, count int64) []offsets.Span {
	if source != ln.mapSource {
		spans = append(spans, offsets.Span{Ordinal: ln.mapOrdinal, Source: source})
	}
	ln.mapSource = source + count
	ln.mapOrdinal += count
	return spans
}

// lag returns the lag in records and seconds, nil while unknown.
func (ln *lane) lag(now time.Time) (records *int64, seconds *float64) {
	if ln.sourceEnd < 0 || ln.position < 0 {
		return nil, nil
	}
	n := max(0, ln.sourceEnd-ln.position)
	records = &n
	var s float64
	switch {
	case n == 0:
	case ln.chain.len() > 0 && ln.chain.at(0).oldest > 0:
		s = max(0, now.Sub(time.UnixMilli(ln.chain.at(0).oldest)).Seconds())
	case !ln.lagSince.IsZero():
		s = max(0, now.Sub(ln.lagSince).Seconds())
	default:
		return records, nil
	}
	return records, &s
}

func (ln *lane) status(now time.Time) LaneStatus {
	s := LaneStatus{
		Topic: ln.key.Topic, Partition: ln.key.Partition, TargetTopic: ln.targetTopic, State: ln.state, Reason: ln.reason,
		Position: ln.position, SourceEnd: ln.sourceEnd, SourceStable: ln.sourceStable, SourceStart: ln.sourceStart,
		Ordinal: ln.ordinal, TargetEnd: ln.targetEnd, ProducerID: ln.writer.ProducerID, Epoch: ln.writer.Epoch,
		SourceBroker: ln.sourceBroker, TargetBroker: ln.targetBroker,
		InFlightBytes: int64(ln.inflight), QueuedBytes: int64(ln.queued),
		Records: ln.records, Bytes: ln.bytes, Openings: ln.openings,
	}
	s.LagRecords, s.LagSeconds = ln.lag(now)
	return s
}

// fetchPosition is where the fetch of the lane goes on. The first one of an
// opening begins where the journal knows the leader epoch of the record before,
// so that a truncated and regrown source is noticed; records below the lane's
// position are passed over.
func (ln *lane) fetchPosition() wire.FetchPosition {
	if v := ln.verify; v >= 0 {
		if v <= ln.fetched && ln.verifyEpoch >= 0 {
			return wire.FetchPosition{Offset: v, LeaderEpoch: ln.sourceEpoch, LastEpoch: ln.verifyEpoch}
		}
	}
	return wire.FetchPosition{Offset: ln.fetched, LeaderEpoch: ln.sourceEpoch, LastEpoch: ln.fetchEpoch}
}
