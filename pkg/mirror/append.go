package mirror

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"replicator/internal/pause"
	"replicator/pkg/wire"
)

const (
	nearRequests    = 2       // unanswered produce requests where a round trip takes no time
	maxRequestBytes = 1 << 20 // a request takes batches up to this size, and always one
	maxRequestParts = 1000
	produceTimeout  = 10 * time.Second
	slowAnswer      = time.Second     // requests that take longer are as many as the way can carry
	keepAliveEvery  = 2 * time.Minute // below any broker's connections.max.idle.ms
	maxValidate     = 2000            // lanes one validation asks for
)

// appender is one target broker and the connection on which the lanes it leads
// are opened, validated and appended to. The loop owns it.
type appender struct {
	link   *Link
	broker int32
	conn   *wire.Conn // nil: not connected
	// serial counts connections: what was begun on an earlier one is ignored.
	serial     uint32
	connecting bool
	failures   int
	lastUse    time.Time

	lanes    map[*lane]struct{} // attached
	ready    queue[readyLane]   // with something to send
	validate []*lane            // that have to ask for their end before they send
	asking   bool
	quiet    time.Time // when what was throttled is looked at again
	free     []*produce
	requests int                // unanswered
	window   int                // how many may be now
	widest   int                // how many may be at most, see requestWindow
	queued   int                // bytes of attached lanes' chains
	paused   map[*lane]struct{} // attached lanes left out of fetches
}

// requestWindow is how many requests may be unanswered on a connection: one that
// the broker works on and one that lies before it, and what is on its way over a
// distance. More would wait in the broker's queue, and batches of other lanes that
// come in the meantime could not go with them.
//
// A connection begins with nearRequests and comes to its window answer by answer,
// as long as answers come within slowAnswer: over a distance with little bandwidth,
// or under a quota, more requests would only wait, and with them the leases of
// their lanes would run out.
func requestWindow(roundTrip time.Duration) int {
	return nearRequests + int(math.Ceil(min(farRate*roundTrip.Seconds()/maxRequestBytes, maxRequestParts)))
}

// readyLane is a place in a ready queue. It counts only under the opening it was
// taken in: a lane that was in doubt since then stands elsewhere, or not yet.
type readyLane struct {
	lane       *lane
	generation uint32
}

// produce is one produce request and the lanes of its parts.
type produce struct {
	wire.ProduceRequest
	lanes    []*lane
	parts    []part
	appender *appender
	sendBy   instant   // the earliest lastAnswered of its lanes
	handed   time.Time // to the connection
}

type part struct {
	lane *lane
	item *item
}

type answer struct {
	request *produce
	err     error
}

func (l *Link) appenderOf(broker int32) *appender {
	a := l.appenders[broker]
	if a == nil {
		a = &appender{link: l, broker: broker, lanes: map[*lane]struct{}{}, paused: map[*lane]struct{}{}}
		l.appenders[broker] = a
	}
	if a.conn == nil && !a.connecting {
		l.connectAppender(a)
	}
	return a
}

// connectAppender dials in the background and reports to the loop.
func (l *Link) connectAppender(a *appender) {
	a.connecting = true
	wait := backoff(a.failures, 50*time.Millisecond, 2*time.Second)
	l.spawn(func(ctx context.Context) {
		if a.failures > 0 && pause.For(ctx, wait) != nil {
			return
		}
		conn, err := l.target.Connect(ctx, a.broker)
		if err == nil {
			l.spawn(func(ctx context.Context) {
				select {
				case <-conn.Done():
				case <-ctx.Done():
				}
				conn.Close()
				l.inbox.post(func() { l.appenderLost(a, conn, conn.Err()) })
			})
		}
		l.inbox.post(func() { l.appenderConnected(a, conn, err) })
	})
}

func (l *Link) appenderConnected(a *appender, conn *wire.Conn, err error) {
	a.connecting = false
	if err != nil {
		a.failures++
		l.fail("connect", err)
		l.refreshSoon()
		for ln := range a.lanes {
			ln.reason = "no connection to target broker: " + err.Error()
		}
		if len(a.lanes) > 0 && !l.stopping {
			l.connectAppender(a)
		}
		return
	}
	a.failures = 0
	a.conn = conn
	a.serial++
	a.window, a.widest = nearRequests, requestWindow(conn.RoundTrip())
	a.lastUse = time.Now()
	if conn.Err() != nil {
		l.appenderLost(a, conn, conn.Err())
		return
	}
	for ln := range a.lanes {
		if ln.state == LaneWaiting {
			l.place(ln)
		}
	}
}

// appenderLost ends a connection: every lane opened on it is in doubt. Their
// unanswered requests have been or will be answered with the connection's error.
func (l *Link) appenderLost(a *appender, conn *wire.Conn, err error) {
	if a.conn != conn {
		return
	}
	a.conn = nil
	a.ready = queue[readyLane]{}
	a.validate = a.validate[:0]
	a.asking = false
	if err == nil {
		err = errors.New("connection closed")
	}
	for ln := range a.lanes {
		if ln.open() {
			l.doubt(ln, "connection", err, 0)
		}
	}
	l.refreshSoon()
	if len(a.lanes) > 0 && !a.connecting && !l.stopping {
		l.connectAppender(a)
	}
}

// attach makes a the appender of the lane.
func (l *Link) attach(ln *lane, broker int32) {
	if ln.appender != nil && ln.appender.broker == broker {
		return
	}
	l.detach(ln)
	a := l.appenderOf(broker)
	ln.appender = a
	a.lanes[ln] = struct{}{}
	a.queued += ln.queued
}

func (l *Link) detach(ln *lane) {
	if a := ln.appender; a != nil {
		delete(a.lanes, ln)
		delete(a.paused, ln)
		a.queued -= ln.queued
		ln.appender = nil
	}
}

// offer puts the lane into its appender's ready queue if it has something it may
// send now, or begins what has to come before.
func (l *Link) offer(ln *lane) {
	for ln.open() && ln.validated && !ln.ready {
		it := ln.head()
		if it == nil {
			return
		}
		if it.route == Refuse {
			if ln.sent == 0 {
				l.refused(ln, it)
			}
			return
		}
		if it.data == nil { // a pass: it follows the batch before it
			if ln.sent > 0 {
				ln.sent++
			} else {
				l.finish(ln, ln.chain.pop())
			}
			continue
		}
		a := ln.appender
		switch {
		case !ln.sendable(it, l.now):
			// The answer of its journal entry or of the batch before it offers again;
			// only the end of a wait does not come by itself.
			if l.now.Before(ln.quietAt) && old(it.newest, l.now) && ln.wakeAt != ln.quietAt {
				ln.wakeAt = ln.quietAt
				gen := ln.generation
				l.later(ln.quietAt, func() {
					if ln.generation == gen {
						l.offer(ln)
					}
				})
			}
		case int64(ln.sequence)+int64(it.records) > math.MaxInt32:
			// Not every broker takes a batch across the wrap of sequence numbers.
			l.doubt(ln, "reopen", errSequence, 0)
		case !ln.lease():
			switch {
			case ln.sent > 0 || ln.validating: // their answers offer again
			case ln.epochAt.since() > l.opts.ReopenInterval:
				l.doubt(ln, "reopen", errEpochAge, 0)
			default:
				l.askValidation(ln)
			}
		default:
			ln.ready = true
			a.ready.push(readyLane{ln, ln.generation})
			l.touch(a)
		}
		return
	}
}

// sendable says whether the lane's next batch may be sent, but for the lease: its
// spans are journalled, the window has room, and no request of an earlier holder
// can be alive any more that a broker might take once it has seen old records.
func (ln *lane) sendable(it *item, now time.Time) bool {
	return it.span <= ln.spanAcked && ln.windowOpen(now) && !(old(it.newest, now) && now.Before(ln.quietAt))
}

// throttled says that the target broker wants quiet, and has the appender looked at
// again when that is over. Requests that wait in the connection until then would
// outlive the leases of their lanes, and end it.
func (l *Link) throttled(a *appender) bool {
	until := a.conn.QuietUntil()
	if !time.Now().Before(until) {
		return false
	}
	if !a.quiet.Equal(until) {
		a.quiet = until
		l.later(until, func() { l.touch(a) })
	}
	return true
}

// pump sends what is ready, one batch of each lane in a request.
func (l *Link) pump(a *appender) {
	if a.conn == nil || l.throttled(a) {
		return
	}
	for a.conn != nil && a.requests < a.window && a.ready.len() > 0 {
		p := a.request()
		size := 0
		for n := a.ready.len(); n > 0 && len(p.parts) < maxRequestParts; n-- {
			at := *a.ready.at(0)
			ln := at.lane
			if at.generation != ln.generation || !ln.ready {
				a.ready.pop() // from before a doubt
				continue
			}
			it := ln.head()
			if it != nil && len(p.parts) > 0 && size+len(it.data) > maxRequestBytes {
				break
			}
			a.ready.pop()
			ln.ready = false
			if !ln.open() || !ln.validated || ln.appender != a || it == nil || it.data == nil || !ln.sendable(it, l.now) {
				continue
			}
			if !ln.lease() {
				l.offer(ln)
				continue
			}
			p.parts = append(p.parts, part{ln, it})
			size += len(it.data)
			l.stamp(ln, it)
			if len(p.parts) == 1 || ln.lastAnswered.t.Before(p.sendBy.t) {
				p.sendBy = ln.lastAnswered
			}
		}
		if len(p.parts) == 0 {
			a.free = append(a.free, p)
			return
		}
		l.sendProduce(a, p)
	}
}

// stamp makes the lane's next batch its own and counts it as sent.
func (l *Link) stamp(ln *lane, it *item) {
	wire.Batch(it.data).Stamp(ln.writer.ProducerID, ln.writer.Epoch, ln.sequence)
	ln.sequence += it.records
	ln.sent++
	ln.inflight += len(it.data)
	l.inFlight += int64(len(it.data))
	// The ring may move its items when it grows: the request keeps the bytes.
}

func (l *Link) sendProduce(a *appender, p *produce) {
	slices.SortStableFunc(p.parts, func(x, y part) int { return strings.Compare(x.lane.targetTopic, y.lane.targetTopic) })
	p.Parts = p.Parts[:0]
	p.lanes = p.lanes[:0]
	for _, pt := range p.parts {
		p.lanes = append(p.lanes, pt.lane)
		p.Parts = append(p.Parts, wire.ProducePart{
			Topic: pt.lane.targetTopic, TopicID: pt.lane.targetID, Partition: pt.lane.key.Partition, Records: pt.item.data,
		})
	}
	p.parts = p.parts[:0]
	a.requests++
	a.lastUse = time.Now()
	p.handed = a.lastUse
	a.conn.Produce(&p.ProduceRequest)
	for _, ln := range p.lanes {
		l.offer(ln)
	}
}

func (a *appender) request() *produce {
	if n := len(a.free); n > 0 {
		p := a.free[n-1]
		a.free = a.free[:n-1]
		return p
	}
	p := &produce{appender: a}
	p.TimeoutMillis = int32(produceTimeout.Milliseconds())
	p.SendBy = func() bool { return p.sendBy.since() < leaseTime }
	l := a.link
	p.Done = func(_ *wire.ProduceRequest, err error) {
		select {
		case l.answers <- answer{p, err}:
		case <-l.dead:
		}
	}
	return p
}

// answered takes the answer of one request: each part's lane advances, or is in doubt.
func (l *Link) answered(p *produce, err error) {
	a := p.appender
	a.requests--
	if err == nil {
		a.tookTime(time.Since(p.handed))
	}
	nowMs := time.Now().UnixMilli()
	for i, ln := range p.lanes {
		part := &p.Parts[i]
		it := ln.chain.pop()
		ln.sent--
		ln.queued -= len(it.data)
		ln.inflight -= len(it.data)
		l.inFlight -= int64(len(it.data))
		a.queued -= len(it.data)
		if it.frame != nil {
			it.frame.Release()
		}
		switch {
		case err != nil:
			l.doubt(ln, "connection", err, 0)
		case part.ErrorCode != 0:
			l.appendRefused(ln, &it, part.ErrorCode, part.Message)
		case ln.state == LaneDraining && ln.goal == goalCopy:
			// In doubt already: this batch lies in the target's log all the same, and
			// the next opening will find it there.
		case part.BaseOffset != ln.predicted:
			l.doubt(ln, "base_offset", &baseOffsetError{ln.predicted, part.BaseOffset}, 0)
		default:
			ln.predicted += int64(it.records)
			ln.targetEnd = ln.predicted
			ln.lastAnswered = instant{p.Sent}
			ln.acked, ln.ackedNewest = true, it.newest
			ln.attempts = 0
			ln.ordinal += int64(it.records)
			ln.newest = max(ln.newest, it.newest)
			ln.records += int64(it.records)
			ln.bytes += int64(len(it.data))
			if it.newest > 0 {
				l.latency.Observe(float64(max(0, nowMs-it.newest)) / 1000)
			}
			l.finish(ln, it)
		}
		for ln.sent > 0 && ln.chain.at(0).data == nil {
			ln.sent--
			pass := ln.chain.pop()
			if ln.open() || ln.goal == goalRelease {
				l.finish(ln, pass)
			}
		}
		l.offer(ln)
		l.drained(ln)
	}
	clear(p.lanes)
	for i := range p.Parts {
		p.Parts[i].Records = nil
	}
	a.free = append(a.free, p)
	l.resume(a)
	l.touch(a)
}

// tookTime widens or narrows the window by how long a request took, from handing
// it to the connection to its answer.
func (a *appender) tookTime(took time.Duration) {
	if took < slowAnswer {
		a.window = min(a.window+1, a.widest)
	} else {
		a.window = max(a.window/2, nearRequests)
	}
}

// finish moves the position over an item whose turn it is.
func (l *Link) finish(ln *lane, it item) {
	ln.position = it.next
	if it.leaderEpoch >= 0 {
		ln.posEpoch = it.leaderEpoch
	}
	l.count(&it)
	l.markDirty(ln)
}

// appendRefused decides what an error code in a produce answer means.
func (l *Link) appendRefused(ln *lane, it *item, code int16, message string) {
	err := kerr.ErrorForCode(code)
	if message != "" {
		err = &brokerError{err, message}
	}
	switch {
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge), errors.Is(err, kerr.InvalidTimestamp), errors.Is(err, kerr.InvalidRecord):
		// The first time the batch is split into single records, so that the one at
		// fault is alone; if that one is refused too, the lane cannot pass it.
		if it.first < ln.splitBelow {
			reason := Rejected
			if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) {
				reason = TooLarge
			}
			r := &refusal{Offset: it.first, Reason: reason, Err: err}
			l.refused(ln, &item{
				err: r, route: Refuse, reason: reason, codec: it.codec, batches: 1, count: it.records, bytes: int32(len(it.data)), newest: it.newest,
			})
			return
		}
		ln.splitBelow = it.next
		l.doubt(ln, "refused", err, 0)
	case errors.Is(err, kerr.InvalidProducerEpoch), errors.Is(err, kerr.ProducerFenced):
		l.event(EventFenced, ln, "another holder took the lane")
		// Longer each time nothing was appended in between: holders that take a lane
		// from each other would else restart each other's wait for old records for ever.
		l.doubt(ln, "fenced", err, backoff(ln.attempts, time.Second, time.Minute))
	case notAuthorized(err):
		l.doubt(ln, "authorization", l.targetRight(err, "WRITE", ln.targetTopic), 5*time.Second)
	default:
		l.refreshSoon()
		l.doubt(ln, "append", err, 0)
	}
}

// refusedHint says which setting to raise for a record that cannot be copied.
func (l *Link) refusedHint(ln *lane, it *item, err error) string {
	onTarget := func(setting string) string {
		return "; raise " + setting + " of topic " + ln.targetTopic + " on " + l.opts.To
	}
	switch {
	case it.reason == TooLarge:
		return onTarget("max.message.bytes")
	case it.reason == Bomb:
		return "; raise limits.decoded_batch if the batch is what it should be"
	case errors.Is(err, kerr.InvalidTimestamp) && it.newest > time.Now().UnixMilli():
		return onTarget("message.timestamp.after.max.ms")
	case errors.Is(err, kerr.InvalidTimestamp):
		return onTarget("message.timestamp.before.max.ms") + ", or set the clocks of its brokers right if they are behind"
	}
	return ""
}

// askValidation queues the lane for the next ListOffsets of its appender.
func (l *Link) askValidation(ln *lane) {
	ln.validating = true
	ln.appender.validate = append(ln.appender.validate, ln)
	l.touch(ln.appender)
}

// endsRequest asks the leader of partitions where they end.
type endsRequest struct {
	*kmsg.ListOffsetsRequest
	topics map[string]int // places in Topics
}

func newEndsRequest() endsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	return endsRequest{req, map[string]int{}}
}

func (r endsRequest) add(topic string, partition int32) {
	at, ok := r.topics[topic]
	if !ok {
		at = len(r.Topics)
		r.topics[topic] = at
		t := kmsg.NewListOffsetsRequestTopic()
		t.Topic = topic
		r.Topics = append(r.Topics, t)
	}
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.CurrentLeaderEpoch, p.Timestamp = partition, -1, -1
	r.Topics[at].Partitions = append(r.Topics[at].Partitions, p)
}

// validateNow asks the leader, on the connection the lanes will append on,
// whether the partition still ends where they left it.
func (l *Link) validateNow(a *appender) {
	if a.asking || a.conn == nil || len(a.validate) == 0 || l.throttled(a) {
		return
	}
	// Who was in doubt since he asked does not ask any more.
	a.validate = slices.DeleteFunc(a.validate, func(ln *lane) bool { return !ln.validating || ln.appender != a || !ln.open() })
	n := min(len(a.validate), maxValidate)
	if n == 0 {
		return
	}
	lanes := slices.Clone(a.validate[:n])
	a.validate = slices.Delete(a.validate, 0, n)
	gens := make([]uint32, n)
	req := newEndsRequest()
	for i, ln := range lanes {
		gens[i] = ln.generation
		req.add(ln.targetTopic, ln.key.Partition)
	}
	a.asking = true
	a.lastUse = time.Now()
	sent := now()
	a.conn.Go(req.ListOffsetsRequest, func(resp kmsg.Response, err error) {
		l.inbox.post(func() {
			a.asking = false
			l.validatedLanes(lanes, gens, sent, resp, err)
			l.touch(a)
		})
	})
}

func (l *Link) validatedLanes(lanes []*lane, gens []uint32, sent instant, resp kmsg.Response, err error) {
	type end struct {
		offset int64
		err    error
	}
	ends := map[string]map[int32]end{}
	if r, ok := resp.(*kmsg.ListOffsetsResponse); err == nil && ok {
		for _, t := range r.Topics {
			m := map[int32]end{}
			for _, p := range t.Partitions {
				m[p.Partition] = end{p.Offset, kerr.ErrorForCode(p.ErrorCode)}
			}
			ends[t.Topic] = m
		}
	}
	for i, ln := range lanes {
		if ln.generation != gens[i] || !ln.open() {
			continue
		}
		ln.validating = false
		e, ok := ends[ln.targetTopic][ln.key.Partition]
		switch {
		case err != nil:
			l.doubt(ln, "validate", err, 0)
		case !ok:
			l.doubt(ln, "validate", errors.New("validate end of target: partition missing in the answer"), 0)
		case e.err != nil:
			l.refreshSoon()
			l.doubt(ln, "validate", l.targetRight(e.err, "READ", ln.targetTopic), 0)
		case e.offset != ln.predicted:
			l.doubt(ln, "validate", &baseOffsetError{ln.predicted, e.offset}, 0)
		default:
			ln.lastAnswered = sent
			if !ln.validated {
				l.opened(ln)
			}
			l.offer(ln)
		}
	}
}
