package mirror

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"replicator/pkg/offsets"
)

// assign takes lanes on.
func (l *Link) assign(keys []offsets.Lane) {
	l.assigned, l.groupProblem = true, ""
	for _, key := range keys {
		if l.lanes[key] != nil || l.stopping {
			continue
		}
		ln := newLane(key)
		l.lanes[key] = ln
		l.place(ln)
	}
}

// releaseLanes drains lanes, journals where they stopped and forgets them; done
// runs in the loop when the last is gone.
func (l *Link) releaseLanes(lanes []offsets.Lane, done func()) {
	left := 1
	one := func() {
		if left--; left == 0 {
			done()
		}
	}
	for _, key := range lanes {
		ln := l.lanes[key]
		if ln == nil {
			continue
		}
		left++
		ln.released = append(ln.released, one)
		if len(ln.released) > 1 {
			continue // on its way already
		}
		l.drain(ln, goalRelease, "released")
	}
	one()
}

// drain lets the lane send nothing more and waits for its answers; then its goal
// is carried out.
func (l *Link) drain(ln *lane, g goal, reason string) {
	wasOpen := ln.open()
	l.stopFetch(ln)
	ln.dropQueuedFrom(l)
	ln.goal, ln.reason = g, reason
	ln.clean = wasOpen && ln.validated
	ln.state = LaneDraining
	ln.validating, ln.ready = false, false
	l.drained(ln)
}

// doubt is the lane's answer to every error, time-out, lost connection or
// unexpected base offset: it stops sending, waits for its other answers and
// opens again, not before wait has passed. Nothing is ever sent again on a guess.
func (l *Link) doubt(ln *lane, class string, err error, wait time.Duration) {
	ln.clean = false
	if ln.state == LaneDraining || ln.state == LaneHalted || ln.state == LaneClosed {
		return
	}
	l.errors[class]++
	l.log.Info("lane in doubt", zap.Stringer("lane", ln.key), zap.String("class", class), zap.Error(err))
	if ln.attempts > 1 { // nothing was acknowledged since the opening before: slower
		wait = max(wait, backoff(ln.attempts, 50*time.Millisecond, 5*time.Second))
	}
	ln.notBefore = time.Now().Add(wait)
	l.drain(ln, goalCopy, err.Error())
	ln.clean = false
}

// halt stops a lane for a person to look at. The others go on.
func (l *Link) halt(ln *lane, reason string) {
	if ln.state == LaneHalted || ln.state == LaneClosed || ln.goal == goalHalt {
		return
	}
	l.event(EventHalted, ln, reason)
	if ln.state == LaneDraining && (ln.goal == goalRelease || ln.goal == goalClose) {
		return
	}
	l.drain(ln, goalHalt, reason)
}

// drained carries out the goal of a draining lane whose answers are all in.
func (l *Link) drained(ln *lane) {
	if ln.opening && ln.goal == goalRelease {
		l.removed(ln) // what its opener finds out is not wanted any more
		return
	}
	if ln.state != LaneDraining || ln.sent > 0 || ln.opening {
		return
	}
	ln.generation++
	switch ln.goal {
	case goalHalt:
		ln.state = LaneHalted
		if ln.validated {
			l.markDirty(ln)
		}
		ln.validated = false
		l.detach(ln)
	case goalCopy:
		ln.state = LaneWaiting
		ln.validated = false
		l.place(ln)
	case goalRelease:
		ln.state = LaneWaiting
		if !ln.clean {
			l.removed(ln)
			return
		}
		l.lastWord(ln, func() { l.removed(ln) })
	case goalClose:
		ln.state = LaneClosed
		if ln.clean {
			l.lastWord(ln, func() {})
		}
		ln.clean, ln.validated = false, false
		ln.sourceEnd, ln.sourceStable = -1, -1 // nobody looks any more: its lag is not known
		l.detach(ln)
		if !l.closed() { // allowed again meanwhile
			ln.state = LaneWaiting
			l.place(ln)
		}
	}
}

// lastWord journals where a lane stopped, with nothing in flight; done runs in the
// loop when that is acknowledged or failed.
func (l *Link) lastWord(ln *lane, done func()) {
	delete(l.dirty, ln) // nothing is written behind it
	p := l.positionOf(ln)
	p.Closed, p.Quiet = true, !time.Now().Before(ln.quietAt)
	l.journal.Append(func(err error) {
		l.inbox.post(func() {
			if err != nil {
				l.fail("journal", err)
			}
			done()
		})
	}, p)
}

// removed forgets a lane.
func (l *Link) removed(ln *lane) {
	if l.lanes[ln.key] != ln {
		return
	}
	delete(l.lanes, ln.key)
	delete(l.dirty, ln)
	ln.generation++
	l.stopFetch(ln)
	ln.dropQueuedFrom(l)
	l.detach(ln)
	l.handedOver(ln)
}

// handedOver tells whoever waits for the lane's release.
func (l *Link) handedOver(ln *lane) {
	for _, fn := range ln.released {
		fn()
	}
	ln.released = nil
}

// dropQueuedFrom forgets what was fetched but not sent, in the appender's count too.
func (ln *lane) dropQueuedFrom(l *Link) {
	before := ln.queued
	ln.dropQueued()
	if ln.appender != nil {
		ln.appender.queued -= before - ln.queued
		l.resume(ln.appender)
	}
}

// place finds out where a waiting lane lies and has it opened, or says what it
// waits for. It is called again whenever something it may wait for has changed.
func (l *Link) place(ln *lane) {
	if ln.state != LaneWaiting || ln.goal == goalRelease || l.stopping || ln.queuedOpen || ln.opening {
		return
	}
	if l.closed() {
		l.closeLane(ln)
		return
	}
	if why := l.barred(); why != "" {
		ln.reason = why
		return
	}
	t := l.topo
	if t == nil {
		return
	}
	src, why := t.sourcePartition(ln.key)
	if why != "" {
		ln.reason = why
		return
	}
	dst, why := t.targetPartition(ln.key)
	if why != "" {
		ln.reason = why
		return
	}
	ln.targetTopic, ln.targetID, ln.maxBytes = dst.topic, dst.id, dst.maxBytes
	ln.sourceID, ln.sourceBroker, ln.sourceEpoch = src.id, src.leader, src.leaderEpoch
	ln.targetBroker = dst.leader
	if dst.leader < 0 {
		ln.reason = "target partition has no leader"
		return
	}
	l.attach(ln, dst.leader)
	if ln.appender.conn == nil {
		if ln.reason == "" || ln.attempts == 0 {
			ln.reason = fmt.Sprintf("no connection to target broker %d yet", dst.leader)
		}
		return
	}
	if time.Now().Before(ln.notBefore) {
		if ln.placeAt != ln.notBefore { // once, however often it is asked
			ln.placeAt = ln.notBefore
			l.later(ln.notBefore, func() { l.place(ln) })
		}
		return
	}
	ln.queuedOpen = true
	l.toOpen = append(l.toOpen, ln)
}

const (
	openBatch     = 500 // lanes an opener takes at once
	openersAtOnce = 2
)

// startOpenings hands lanes that want to open to openers, in batches, so that a
// broker that comes back is not stormed by all its lanes at once.
func (l *Link) startOpenings() {
	for len(l.toOpen) > 0 && l.openers < openersAtOnce && !l.stopping {
		n := min(len(l.toOpen), openBatch)
		batch := make([]*opening, 0, n)
		for _, ln := range l.toOpen[:n] {
			ln.queuedOpen = false
			if ln.state != LaneWaiting || l.lanes[ln.key] != ln || ln.appender == nil || ln.appender.conn == nil {
				continue
			}
			ln.state = LaneOpening
			if ln.openings == 0 { // later the reason says why it is opened again
				ln.reason = ""
			}
			ln.opening = true
			ln.attempts++
			ln.generation++
			ln.openings++
			l.openings++
			batch = append(batch, &opening{
				lane: ln, key: ln.key, targetTopic: ln.targetTopic, targetID: ln.targetID, sourceID: ln.sourceID,
				targetBroker: ln.appender.broker, serial: ln.appender.serial, barrierID: ln.barrierID, barrierAt: ln.barrierAt,
				later:   int(ln.key.Partition) >= l.partsThen[ln.key.Topic],
				restart: l.opts.OnRecreate == Continue, follow: ln.follow,
			})
		}
		l.toOpen = append(l.toOpen[:0], l.toOpen[n:]...)
		if len(batch) > 0 {
			l.openers++
			l.startOpener(batch)
		}
	}
}

// openingDone takes the results of an opener.
func (l *Link) openingDone(batch []*opening) {
	failed := map[string]*failedOpenings{}
	began := 0
	defer func() {
		if began > 0 {
			l.log.Info("lanes opened", zap.Int("lanes", began), zap.Stringer("first", batch[0].key))
		}
		for cause, f := range failed {
			l.log.Warn("lanes not opened, trying again", zap.Int("lanes", f.n), zap.Stringer("first", f.first), zap.String("cause", cause))
		}
	}()
	for _, o := range batch {
		ln := o.lane
		ln.opening = false
		if l.lanes[o.key] != ln {
			continue
		}
		if ln.state == LaneDraining {
			ln.clean = false
			l.drained(ln)
			continue
		}
		if o.err != nil {
			l.openingFailed(ln, o, failed)
			continue
		}
		for _, e := range o.events {
			l.event(e.Kind, ln, e.Detail)
		}
		r := o.recovered
		ln.writer, ln.idGeneration = o.writer, o.idGeneration
		ln.epochAt, ln.barrierID = o.epochAt, -1
		ln.quietAt = o.fencedAt.t.Add(leaseWait)
		if o.quiet {
			ln.quietAt = o.fencedAt.t
		}
		ln.position, ln.posEpoch, ln.ordinal = r.source, r.sourceEpoch, r.ordinal
		ln.predicted, ln.targetEnd = o.target, o.target
		ln.fetched, ln.fetchEpoch = r.source, r.sourceEpoch
		ln.mapOrdinal, ln.mapSource = r.ordinal, r.source
		ln.sequence, ln.acked = 0, false
		ln.spanSent, ln.spanAcked = 0, 0
		ln.validated = false
		ln.state, ln.reason = LaneCopying, ""
		ln.goal = goalCopy
		ln.check = o.check
		ln.verify, ln.verifyEpoch = r.verify, r.verifyEpoch
		ln.follow = -1 // the epoch record says it now
		ln.fetchHeld = false
		// Offsets alone are ambiguous where a log lost its tail: the connection the
		// lane will append on must be the one that stood before the log was read.
		if a := ln.appender; a == nil || a.conn == nil || a.broker != o.targetBroker || a.serial != o.serial {
			l.doubt(ln, "connection", errors.New("connection lost while opening"), 0)
			continue
		}
		began++
		ln.generation++ // an answer asked for before the epoch record was written does not count
		l.askValidation(ln)
	}
}

// failedOpenings are lanes that failed to open for the same cause: one line in
// the log, however many they are.
type failedOpenings struct {
	n     int
	first offsets.Lane
}

func (l *Link) openingFailed(ln *lane, o *opening, failed map[string]*failedOpenings) {
	var second *secondBarrierError
	var halt *haltError
	switch {
	case errors.As(o.err, new(*closedError)):
		// What an opener was told may be old by now: the loop closes the link when
		// keepAuthority says so too.
		ln.state, ln.reason = LaneWaiting, o.err.Error()
		ln.notBefore = time.Now().Add(time.Second)
		l.authoritySoon()
		l.place(ln)
		return
	case errors.As(o.err, new(*unpreparedError)):
		ln.state, ln.reason = LaneWaiting, o.err.Error()
		// Soon at first: the journal's reader may only not have come to what was prepared.
		ln.notBefore = time.Now().Add(backoff(ln.attempts, 500*time.Millisecond, unpreparedWait))
		l.place(ln)
		return
	case errors.As(o.err, &second):
		ln.barrierID, ln.barrierAt = second.producerID, second.at
		ln.notBefore = second.at.t.Add(leaseWait)
		ln.state, ln.reason = LaneWaiting, o.err.Error()
		l.place(ln)
		return
	case errors.As(o.err, &halt):
		ln.state = LaneOpening
		l.halt(ln, o.err.Error())
		return
	}
	l.errors["open"]++
	cause := o.err.Error()
	if failed[cause] == nil {
		failed[cause] = &failedOpenings{first: ln.key}
	}
	failed[cause].n++
	ln.notBefore = time.Now().Add(backoff(ln.attempts, 50*time.Millisecond, 5*time.Second))
	ln.state, ln.reason = LaneWaiting, o.err.Error()
	l.refreshSoon()
	l.place(ln)
}

// opened begins to copy: the opening counts.
func (l *Link) opened(ln *lane) {
	ln.validated = true
	ln.reason = ""
	// Not all of a day's openings again in the same moment.
	ln.reopenAfter = l.opts.ReopenInterval - time.Duration(jitter(int64(l.opts.ReopenInterval/10)))
	l.startFetch(ln)
}

// startFetch fetches from ln.fetched on.
func (l *Link) startFetch(ln *lane) {
	if !ln.open() || !ln.validated || ln.sourceBroker < 0 || ln.fetcher != nil || ln.fetchHeld {
		return
	}
	broker := ln.sourceBroker
	if ln.nearBroker >= 0 {
		broker = ln.nearBroker
	}
	f := l.fetcherOf(broker)
	ln.fetcher = f
	f.lanes[ln] = struct{}{}
	ln.paused = false
	ln.fetchGeneration++
	f.send(fetchCommand{
		kind: fetchAdd, lane: ln, topic: ln.key.Topic, topicID: ln.sourceID, partition: ln.key.Partition,
		generation: ln.fetchGeneration, position: ln.fetchPosition(), from: ln.fetched, maxBytes: ln.maxBytes, splitBelow: ln.splitBelow, check: ln.check,
	})
}

func (l *Link) stopFetch(ln *lane) {
	f := ln.fetcher
	if f == nil {
		return
	}
	f.send(fetchCommand{kind: fetchRemove, lane: ln, topic: ln.key.Topic, partition: ln.key.Partition, generation: ln.fetchGeneration})
	ln.fetchGeneration++
	l.forgetFetch(ln)
}

// forgetFetch notes that no fetcher has the lane any more.
func (l *Link) forgetFetch(ln *lane) {
	if ln.fetcher != nil {
		delete(ln.fetcher.lanes, ln)
		ln.fetcher = nil
	}
	ln.paused = false
	if ln.appender != nil {
		delete(ln.appender.paused, ln)
	}
}

// onFetched takes what a fetcher read: items to the chains, their spans to the
// journal, errors to their meaning.
func (l *Link) onFetched(f *fetched) {
	var entries []offsets.Entry
	var mapped []mappedLane
	l.largest = max(l.largest, int(f.asked))
	for i := range f.lanes {
		fl := &f.lanes[i]
		ln := fl.lane
		items := f.items[fl.firstItem:fl.lastItem]
		if ln.fetchGeneration != fl.generation || !ln.open() {
			releaseItems(items)
			continue
		}
		if fl.errorCode != 0 || fl.diverging || fl.preferred >= 0 && fl.preferred != f.fetcher.broker && fl.firstItem == fl.lastItem {
			l.forgetFetch(ln)
			l.fetchRefused(ln, fl)
			continue
		}
		ln.reason = ""
		if fl.from != ln.fetched { // the chain never breaks: begin again from what is known
			releaseItems(items)
			l.doubt(ln, "chain", fmt.Errorf("fetched from source offset %d, expected %d", fl.from, ln.fetched), 0)
			continue
		}
		l.noteEnds(ln, fl.end, fl.stable, fl.start, f.sent)
		if ln.verify >= 0 && (ln.check == nil || fl.read > ln.check.source) {
			ln.verify, ln.check = -1, nil // the source holds what was copied
		}
		if len(items) == 0 {
			continue
		}
		if l.waitsForQuiet(ln, items) {
			releaseItems(items)
			continue
		}
		from := ln.chain.len()
		for j := range items {
			ln.chain.push(items[j])
			ln.queued += len(items[j].data)
			if ln.appender != nil {
				ln.appender.queued += len(items[j].data)
			}
		}
		ln.fetched = fl.next
		if fl.epoch >= 0 {
			ln.fetchEpoch = fl.epoch
		}
		if items[len(items)-1].route == Refuse { // nothing behind it is of use
			l.stopFetch(ln)
			ln.fetchHeld = true
		}
		if spans := ln.mapItems(from); spans != nil {
			entries = append(entries, offsets.Spans{Lane: ln.key, Writer: ln.writer, Runs: spans})
			mapped = append(mapped, mappedLane{ln, ln.generation, ln.spanSent})
		}
		l.offer(ln)
		l.holdBack(ln)
	}
	l.recycle(f)
	if entries != nil {
		l.journal.Append(func(err error) { l.inbox.post(func() { l.spansJournalled(mapped, err) }) }, entries...)
	}
}

type mappedLane struct {
	lane       *lane
	generation uint32
	span       uint64
}

func (l *Link) spansJournalled(lanes []mappedLane, err error) {
	for _, m := range lanes {
		if m.lane.generation != m.generation || !m.lane.open() {
			continue
		}
		if err != nil {
			l.doubt(m.lane, "journal", err, 0)
			continue
		}
		m.lane.spanAcked = max(m.lane.spanAcked, m.span)
		l.offer(m.lane)
	}
}

func releaseItems(items []item) {
	for i := range items {
		if items[i].frame != nil {
			items[i].frame.Release()
		}
	}
}

// waitsForQuiet says that items hold old records and the lane has not waited out
// the lease of its predecessors: they are fetched again when it has, so that
// they do not hold memory until then.
func (l *Link) waitsForQuiet(ln *lane, items []item) bool {
	if !time.Now().Before(ln.quietAt) {
		return false
	}
	for i := range items {
		if items[i].data != nil && old(items[i].newest, l.now) {
			l.stopFetch(ln)
			ln.fetchHeld = true
			gen := ln.generation
			l.later(ln.quietAt, func() {
				if ln.generation == gen {
					ln.fetchHeld = false
					l.startFetch(ln)
				}
			})
			return true
		}
	}
	return false
}

// holdBack leaves the lane out of fetches while it or its target broker has
// enough to send, so that a slow one starves nobody, and while many small batches
// wait.
func (l *Link) holdBack(ln *lane) {
	if ln.paused || ln.fetcher == nil || ln.appender == nil {
		return
	}
	if ln.queued > l.laneShare() || ln.appender.queued > l.appenderShare(ln.appender) || ln.crowded() {
		ln.paused = true
		ln.appender.paused[ln] = struct{}{}
		ln.fetcher.send(fetchCommand{kind: fetchPause, lane: ln, topic: ln.key.Topic, partition: ln.key.Partition, generation: ln.fetchGeneration})
	}
}

// resume fetches lanes again that were left out for their appender's queue or
// their own.
func (l *Link) resume(a *appender) {
	share := l.appenderShare(a)
	if len(a.paused) == 0 || a.queued > share {
		return
	}
	for ln := range a.paused {
		if ln.queued > l.laneShare()/2 || ln.unsent() > window {
			continue
		}
		if a.queued > share/2 && ln.unsent() > 0 {
			continue // who has nothing to send does not wait for what others have under way
		}
		delete(a.paused, ln)
		ln.paused = false
		if ln.fetcher != nil {
			ln.fetcher.send(fetchCommand{kind: fetchResume, lane: ln, topic: ln.key.Topic, partition: ln.key.Partition, generation: ln.fetchGeneration})
		}
	}
}

func (l *Link) laneShare() int { return int(max(256<<10, l.pool.Limit()/8)) }

// appenderShare is how much may wait for one target broker: what its connection
// can have under way and an answer beside it, and less where there are many.
func (l *Link) appenderShare(a *appender) int {
	return min(max(a.window*maxRequestBytes+nearFetchBytes, 2*l.largest), int(l.pool.Limit()/2/int64(max(1, len(l.appenders)))))
}

// noteEnds takes in the source's ends as an answer says that was asked for at sent.
func (l *Link) noteEnds(ln *lane, end, stable, start int64, sent time.Time) {
	t := time.Now()
	if end >= 0 {
		ln.endAsOf = sent
		if stable > ln.sourceStable || stable >= end || ln.stuckSince.IsZero() {
			ln.stuckSince = t
		}
		ln.noteLag(end, t)
		ln.sourceEnd, ln.sourceStable = end, stable
		if l.opts.ReadUncommitted {
			ln.sourceStable = end
		}
	}
	if start >= 0 {
		ln.sourceStart = start
	}
}

// noteLag remembers since when the lane is behind. A source that is written to all
// the time is never seen without a lag: there the time counts at which an end was
// seen that the lane has come to.
func (ln *lane) noteLag(end int64, t time.Time) {
	ln.seenEnd = min(ln.seenEnd, end) // a source that was cut, or made again, begins lower
	switch {
	case end <= ln.position || ln.lagSince.IsZero():
		ln.lagSince = t
	case ln.position >= ln.seenEnd:
		ln.lagSince = ln.seenAt
	default:
		return
	}
	ln.seenEnd, ln.seenAt = end, t
}

// markDirty has the lane's position journalled at the next tick.
func (l *Link) markDirty(ln *lane) { l.dirty[ln] = struct{}{} }

// positionOf is where the lane is. Its time is that of the source's end it names: what
// the source may have taken since is what a failover might lose.
func (l *Link) positionOf(ln *lane) offsets.Position {
	asOf := ln.endAsOf
	if asOf.IsZero() {
		asOf = time.Now()
	}
	return offsets.Position{
		Lane: ln.key, Writer: ln.writer, Ordinal: ln.ordinal, Source: ln.position, Target: ln.targetEnd,
		SourceEnd: ln.sourceEnd, SourceLeaderEpoch: ln.posEpoch, NewestTimestamp: ln.newest, Time: asOf,
	}
}

// writePositions journals where lanes are. Positions only save the next opener
// work and tell the loss when the source is gone: nothing waits for them.
func (l *Link) writePositions(lanes map[*lane]struct{}) {
	if len(lanes) == 0 {
		return
	}
	var entries []offsets.Entry
	var out []*lane
	for ln := range lanes {
		if ln.positionOut {
			continue
		}
		delete(lanes, ln)
		if ln.writer.ProducerID < 0 || ln.position < 0 {
			continue
		}
		ln.positionOut = true
		entries = append(entries, l.positionOf(ln))
		out = append(out, ln)
	}
	if entries == nil {
		return
	}
	l.journal.Append(func(err error) {
		l.inbox.post(func() {
			l.journalProblem = ""
			if err != nil {
				l.journalProblem = err.Error()
				l.fail("journal", err)
			} else {
				l.journalled = time.Now()
			}
			for _, ln := range out {
				ln.positionOut = false
				if err != nil && l.lanes[ln.key] == ln {
					l.markDirty(ln)
				}
			}
		})
	}, entries...)
}

// keepAlive asks something small, so that the broker does not close an idle
// connection and with it put all lanes opened on it in doubt.
func (l *Link) keepAlive(a *appender) {
	a.asking = true
	a.lastUse = time.Now()
	a.conn.Go(kmsg.NewPtrApiVersionsRequest(), func(kmsg.Response, error) {
		l.inbox.post(func() { a.asking = false; l.touch(a) })
	})
}
