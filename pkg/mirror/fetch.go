package mirror

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"replicator/internal/pause"
	"replicator/pkg/wire"
)

const (
	fetchMaxWait      = 500 * time.Millisecond
	fetchMaxWaitShort = 10 * time.Millisecond // while lanes are paused: they want to come back soon
	// nearFetchBytes is the size of an answer where a round trip takes no time.
	// Small answers stay in the processor's caches from the socket they come from
	// to the one they go to; smaller ones would make more requests of the same bytes.
	nearFetchBytes = 1 << 20
	// farRate is how many bytes per second a broker's connection is to be able to
	// carry over a distance: the farther the broker, the larger its answers, of which
	// one comes a round trip, and the more produce requests are unanswered.
	farRate = 200 << 20
	// fetchBatches is how many batches to ask for of a lane that shares the answer
	// with others. A broker cuts a lane's part wherever the limit falls, so half a
	// batch is sent in vain; and the fewer lanes share an answer, the fewer can be
	// sent on in one request.
	fetchBatches      = 8
	minPartitionBytes = 64 << 10
	// unknownBatch is how large the batches of a lane are taken to be before any was
	// seen. Too small a part brings nothing: a broker sends a batch that does not fit
	// only when it is the first of an answer.
	unknownBatch = 128 << 10
)

// fetchSize is how many bytes to ask a broker for at once that is a round trip
// away. Four answers, which have some more than the records asked for, have to fit
// the budget: one being read, one waiting, one being routed, one being sent.
func fetchSize(roundTrip time.Duration, budget int64) int32 {
	want := nearFetchBytes + farRate*roundTrip.Seconds()
	return int32(min(want, float64(max(64<<10, budget/4-budget/64)), math.MaxInt32))
}

// partitionSize is how many bytes of an answer to ask for one lane, whose batches
// are up to so large (0: unknown), when lanes are fetched.
func partitionSize(all int32, lanes, batch int) int32 {
	if batch == 0 {
		batch = unknownBatch
	}
	return min(all, max(all/int32(max(1, lanes)), int32(min(int64(batch)*fetchBatches, int64(all))), minPartitionBytes))
}

// fetcher reads from one source broker the lanes it leads. Its goroutine owns the
// connection, the fetch session and where each lane's fetch stands; the loop
// tells it what to fetch through commands. A second goroutine routes what was
// read while the next request is under way, so at most two answers are held.
type fetcher struct {
	link   *Link
	broker int32
	lanes  map[*lane]struct{} // the loop's: which lanes it has

	fetchBytes int32 // asked for at once, see fetchSize
	fetched    int   // lanes of the table

	mu       sync.Mutex
	commands []fetchCommand
	wake     chan struct{} // capacity 1
}

type fetchKind uint8

const (
	fetchAdd    fetchKind = iota // from the position in the command
	fetchRemove                  // forget it
	fetchPause                   // leave it out, remember where it stands
	fetchResume                  // take it in again there
	fetchTune                    // new limits
)

type fetchCommand struct {
	kind       fetchKind
	lane       *lane
	topic      string
	topicID    [16]byte
	partition  int32
	generation uint32
	position   wire.FetchPosition
	from       int64 // records below are not wanted (position may lie before it)
	maxBytes   int
	splitBelow int64
	check      *recordCheck // compared once, when its record is read; nil: nothing to compare
}

// fetching is where the fetch of one lane stands; the fetcher's goroutine owns it.
type fetching struct {
	fetchCommand
	paused bool
	batch  int // bytes of its largest batch of late, 0 unknown
}

// fetched is what one answer brought, routed.
type fetched struct {
	fetcher *fetcher
	asked   int32     // how many bytes the answer was to have
	sent    time.Time // see scannedAnswer
	lanes   []fetchedLane
	items   []item
}

type fetchedLane struct {
	lane                *lane
	generation          uint32
	errorCode           int16
	diverging           bool
	divergingEnd        int64
	divergingEpoch      int32
	end, stable, start  int64
	preferred           int32
	from, next          int64 // source offsets covered: [from, next)
	read                int64 // next source offset behind what was read, wanted or not; -1 nothing
	epoch               int32 // leader epoch of the last record, -1 unknown
	firstItem, lastItem int   // its items: fetched.items[firstItem:lastItem]
}

// scanned is one partition of an answer on its way to the router.
type scanned struct {
	part       wire.FetchedPartition // a copy: the session reuses its own
	lane       *lane
	generation uint32
	from       int64
	maxBytes   int
	splitBelow int64
	check      *recordCheck
	epoch      int32
	read       int64
}

// scannedAnswer is an answer whose frame is held until it has been routed. The fetcher's
// goroutine fills it and hands it to the router, which gives it back.
type scannedAnswer struct {
	frame   *wire.Frame
	asked   int32     // bytes
	sent    time.Time // when it was asked for: what it says of ends is not older
	parts   []scanned
	aborted []wire.AbortedTxn // of all parts
}

func (f *fetcher) send(c fetchCommand) {
	f.mu.Lock()
	f.commands = append(f.commands, c)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (l *Link) fetcherOf(broker int32) *fetcher {
	f := l.fetchers[broker]
	if f == nil {
		f = &fetcher{link: l, broker: broker, lanes: map[*lane]struct{}{}, wake: make(chan struct{}, 1)}
		l.fetchers[broker] = f
		l.spawn(f.run)
	}
	return f
}

// run fetches until ctx ends, on one connection after another.
func (f *fetcher) run(ctx context.Context) {
	table := map[partitionKey]*fetching{}
	failures := 0
	for ctx.Err() == nil {
		if len(table) == 0 && !f.await(ctx, table) {
			return
		}
		conn, err := f.link.source.Connect(ctx, f.broker)
		if err == nil {
			var worked bool
			worked, err = f.serve(ctx, conn, table)
			conn.Close()
			if worked {
				failures = 0
			}
		}
		if ctx.Err() != nil {
			return
		}
		f.link.inbox.post(func() { f.link.fetcherFailed(f, err) })
		failures++
		if pause.For(ctx, backoff(failures, 50*time.Millisecond, 2*time.Second)) != nil {
			return
		}
		f.apply(table, nil)
	}
}

// await waits for commands until there is a lane to fetch.
func (f *fetcher) await(ctx context.Context, table map[partitionKey]*fetching) bool {
	for {
		f.apply(table, nil)
		if len(table) > 0 {
			return true
		}
		select {
		case <-f.wake:
		case <-ctx.Done():
			return false
		}
	}
}

type partitionKey struct {
	topic     string
	partition int32
}

// apply carries out the loop's commands on the table and, if there is one, the session.
func (f *fetcher) apply(table map[partitionKey]*fetching, s *wire.FetchSession) {
	f.mu.Lock()
	commands := f.commands
	f.commands = nil
	f.mu.Unlock()
	f.fetched = len(table) + len(commands) // about: nearly all commands of a crowd add lanes
	for _, c := range commands {
		key := partitionKey{c.topic, c.partition}
		old := table[key]
		switch c.kind {
		case fetchAdd:
			fl := &fetching{fetchCommand: c}
			table[key] = fl
			f.include(fl, s)
			continue
		case fetchRemove:
			if old != nil && old.lane == c.lane && old.generation <= c.generation {
				delete(table, key)
				old.leaveOut(s)
			}
			continue
		}
		if old == nil || old.lane != c.lane || old.generation != c.generation {
			continue
		}
		switch c.kind {
		case fetchPause:
			old.paused = true
			old.leaveOut(s)
		case fetchResume:
			old.paused = false
			f.include(old, s)
		case fetchTune:
			old.maxBytes = c.maxBytes
		}
	}
}

func (f *fetcher) include(fl *fetching, s *wire.FetchSession) {
	if s != nil && !fl.paused {
		fl.position.MaxBytes = partitionSize(f.fetchBytes, f.fetched, fl.batch)
		s.Set(fl.topic, fl.topicID, fl.partition, fl.position)
	}
}

func (fl *fetching) leaveOut(s *wire.FetchSession) {
	if s != nil {
		s.Forget(fl.topic, fl.partition)
	}
}

// serve fetches on one connection until it fails. worked says that it answered.
func (f *fetcher) serve(ctx context.Context, conn *wire.Conn, table map[partitionKey]*fetching) (worked bool, err error) {
	// What was scanned must reach the loop even when the connection fails: the
	// table has moved past it. Only the end of the link stops the router early.
	answers, free := make(chan *scannedAnswer), make(chan *scannedAnswer, 2)
	for range cap(free) { // one is being routed, so that one is always there
		free <- &scannedAnswer{}
	}
	routed := make(chan struct{})
	go func() {
		defer close(routed)
		f.route(ctx, answers, free)
	}()
	defer func() {
		close(answers)
		<-routed
	}()
	session := wire.NewFetchSession()
	f.fetchBytes, f.fetched = fetchSize(conn.RoundTrip(), f.link.pool.Limit()), len(table)
	for _, fl := range table {
		f.include(fl, session)
	}
	for {
		f.apply(table, session)
		f.fetched = len(table)
		if session.Len() == 0 {
			select { // nothing to fetch: commands only
			case <-f.wake:
				continue
			case <-ctx.Done():
				return worked, nil
			case <-conn.Done():
				return worked, conn.Err()
			}
		}
		o := wire.FetchOptions{MaxWait: fetchMaxWait, MinBytes: 1, MaxBytes: f.fetchBytes, ReadCommitted: !f.link.opts.ReadUncommitted, Rack: f.link.opts.Rack}
		if session.Len() < len(table) {
			o.MaxWait = fetchMaxWaitShort
		}
		sent := time.Now()
		resp, err := conn.Fetch(ctx, session, o)
		if err != nil {
			return worked, err
		}
		worked = true
		a := <-free
		a.sent = sent
		f.scan(a, resp, table, session)
		select {
		case answers <- a:
		case <-ctx.Done():
			resp.Frame.Release()
			return worked, nil
		}
	}
}

// scan reads only the headers of the answer's batches, so that the next request
// can go out before their contents are looked at.
func (f *fetcher) scan(a *scannedAnswer, resp *wire.FetchResponse, table map[partitionKey]*fetching, session *wire.FetchSession) {
	a.frame, a.asked, a.parts, a.aborted = resp.Frame, f.fetchBytes, a.parts[:0], a.aborted[:0]
	for i := range resp.Partitions {
		p := &resp.Partitions[i]
		key := partitionKey{p.Topic, p.Partition}
		fl := table[key]
		if fl == nil {
			continue
		}
		sc := scanned{part: *p, lane: fl.lane, generation: fl.generation, from: fl.from, maxBytes: fl.maxBytes, splitBelow: fl.splitBelow, check: fl.check, epoch: -1}
		from := len(a.aborted)
		a.aborted = append(a.aborted, p.Aborted...)
		sc.part.Aborted = a.aborted[from:]
		next, epoch, batch, bad := lastOffsets(p.Records)
		sc.read = next
		bad = bad || p.ErrorCode != 0 || p.Diverging || p.PreferredReplica >= 0 && len(p.Records) == 0 && p.PreferredReplica != f.broker
		if next > fl.position.Offset {
			fl.position.Offset, fl.position.LastEpoch = next, epoch
			fl.batch = max(batch, fl.batch*7/8)
			fl.from = max(fl.from, next)
			sc.epoch = epoch
			if fl.check != nil && next > fl.check.source {
				fl.check = nil
			}
		}
		if bad { // the loop decides what this means; until then the lane is left alone
			delete(table, key)
			fl.leaveOut(session)
		} else if next >= 0 {
			f.include(fl, session)
		}
		a.parts = append(a.parts, sc)
	}
}

// lastOffsets returns the next source offset behind the last whole entry, its
// leader epoch, and how many bytes the largest entry has; bad says that one is
// damaged.
func lastOffsets(records []byte) (next int64, epoch int32, largest int, bad bool) {
	next, epoch = -1, -1
	for len(records) > 0 {
		entry, rest, err := wire.Split(records)
		if err != nil {
			return next, epoch, largest, !errors.Is(err, wire.ErrPartial)
		}
		largest = max(largest, len(entry))
		epoch = -1
		switch wire.Magic(entry) {
		case 0, 1:
		case 2:
			epoch = wire.Batch(entry).LeaderEpoch()
		default:
			return next, epoch, largest, true
		}
		next = wire.NextOffset(entry)
		records = rest
	}
	return next, epoch, largest, false
}

// route checks and routes the batches of each answer, gives them to the loop, and the
// answer to free, which must have room.
func (f *fetcher) route(ctx context.Context, answers <-chan *scannedAnswer, free chan<- *scannedAnswer) {
	r := newRouter(f.link.pool, f.link.routing())
	for a := range answers {
		out := f.link.spareFetched()
		out.fetcher, out.asked, out.sent = f, a.asked, a.sent
		for i := range a.parts {
			sc := &a.parts[i]
			p := &sc.part
			fl := fetchedLane{
				lane: sc.lane, generation: sc.generation, errorCode: p.ErrorCode, diverging: p.Diverging,
				divergingEnd: p.DivergingEnd, divergingEpoch: p.DivergingEpoch, end: p.HighWatermark, stable: p.LastStable,
				start: p.LogStart, preferred: p.PreferredReplica, from: sc.from, next: sc.from, read: sc.read, epoch: sc.epoch, firstItem: len(out.items),
			}
			if len(p.Records) > 0 && p.ErrorCode == 0 && !p.Diverging {
				out.items, fl.next = r.route(out.items, a.frame, p.Records, p.Aborted, sc.from, sc.maxBytes, sc.splitBelow, sc.check)
			}
			fl.lastItem = len(out.items)
			out.lanes = append(out.lanes, fl)
		}
		a.frame.Release()
		a.frame = nil
		free <- a
		select {
		case f.link.fetchedc <- out:
		case <-ctx.Done():
			out.release()
		}
	}
}

// release gives back the frames of items nobody took.
func (f *fetched) release() {
	for i := range f.items {
		if fr := f.items[i].frame; fr != nil {
			fr.Release()
		}
	}
	f.reset()
}

func (f *fetched) reset() {
	clear(f.items)
	clear(f.lanes)
	f.items, f.lanes = f.items[:0], f.lanes[:0]
}
